//! The body of an upstream's response. When it was read to its end, its connection returns to the pool. A server that is silent for too
//! long in the middle of the body causes an error.

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connector::Io;
use super::content_type::StreamKind;
use super::http1;
use super::limits::Buffer;
use super::pool::ActiveRequest;
use super::read_ahead::ReadAhead;
use crate::framing::hop_by_hop;
use crate::runtime::DeadlineTimer;

/// The body of a response. At its end, the connection returns to the pool; if it is dropped earlier, the connection is closed.
#[derive(Debug)]
pub struct UpstreamBody {
    mode: BodyMode,
    /// The buffer for reading ahead; `None`: the body is not read ahead, or reading ahead has begun.
    read_ahead: Option<Rc<Buffer>>,
    kind: Option<StreamKind>,
}

/// Why the body of a response did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// An error over HTTP/1.1.
    #[error(transparent)]
    Http1(http1::BodyError),
    /// An error over HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
    /// The HTTP/2 stream was reset before its end. hyper reports a reset without an error as the end.
    #[error("the stream was reset in the middle of a body")]
    Reset,
    /// The server sent nothing for longer than the limit.
    #[error("the server sent no data of a body for too long")]
    Timeout,
}

#[expect(
    clippy::large_enum_variant,
    reason = "most go straight, and a box would be one more allocation for each of them"
)]
#[derive(Debug)]
enum BodyMode {
    Direct(PooledBody),
    ReadAhead(ReadAhead<PooledBody>),
    Ended,
}

/// Where the body comes from.
#[derive(Debug)]
pub(super) enum ProtocolBody {
    Http1(http1::Body<Io>),
    Http2(Incoming),
}

impl UpstreamBody {
    /// `read_timeout`: the longest time without data from the server; `read_ahead`: the buffer for reading ahead of the client;
    /// `kind`: what its media type says.
    pub(super) fn new(
        source: ProtocolBody,
        active: ActiveRequest,
        read_timeout: Option<Duration>,
        read_ahead: Option<Rc<Buffer>>,
        kind: Option<StreamKind>,
    ) -> Self {
        let mut body = PooledBody {
            source: Some(source),
            active: Some(active),
            read_timeout: ReadTimeout::new(read_timeout),
        };
        if body.is_end_stream() {
            body.finish();
        }
        let mode = BodyMode::Direct(body);
        Self { mode, read_ahead, kind }
    }

    /// The kind of the live stream that follows. `None`: the body has a known length, or is none that may never end.
    pub fn stream_kind(&self) -> Option<StreamKind> {
        self.kind.filter(|_| self.size_hint().exact().is_none())
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let frame = match &mut self.mode {
            BodyMode::Direct(body) => ready!(Pin::new(body).poll_frame(cx)),
            BodyMode::ReadAhead(body) => return Pin::new(body).poll_frame(cx),
            BodyMode::Ended => return Poll::Ready(None),
        };
        // Most responses are one frame: reading ahead begins only if there are more.
        if self.read_ahead.is_some()
            && matches!(frame, Some(Ok(_)))
            && !self.is_end_stream()
            && let Some(buffer) = self.read_ahead.take()
        {
            self.mode = match mem::replace(&mut self.mode, BodyMode::Ended) {
                BodyMode::Direct(body) => BodyMode::ReadAhead(ReadAhead::new(body, buffer)),
                other => other,
            };
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.mode {
            BodyMode::Direct(body) => body.is_end_stream(),
            BodyMode::ReadAhead(body) => body.is_end_stream(),
            BodyMode::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.mode {
            BodyMode::Direct(body) => body.size_hint(),
            BodyMode::ReadAhead(body) => body.size_hint(),
            BodyMode::Ended => SizeHint::with_exact(0),
        }
    }
}

/// A body, and the place of its request in the pool.
#[derive(Debug)]
struct PooledBody {
    /// `None` after the end of the body.
    source: Option<ProtocolBody>,
    active: Option<ActiveRequest>,
    read_timeout: ReadTimeout,
}

/// How long the server has sent nothing.
#[derive(Debug)]
struct ReadTimeout {
    limit: Option<Duration>,
    since: Option<Instant>,
    timer: DeadlineTimer,
}

impl ReadTimeout {
    fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            since: None,
            timer: DeadlineTimer::default(),
        }
    }

    /// Ready when the server has sent nothing for too long. Wake-up: the timer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        self.timer.poll_until(since + limit, cx)
    }
}

impl PooledBody {
    fn finish(&mut self) {
        let source = self.source.take();
        if let Some(active) = self.active.take() {
            active.finish(match source {
                Some(ProtocolBody::Http1(body)) => body.into_connection(),
                Some(ProtocolBody::Http2(_)) | None => None,
            });
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let polled = match &mut self.source {
            Some(ProtocolBody::Http1(body)) => Pin::new(body).poll_frame(cx).map_err(ResponseBodyError::Http1),
            Some(ProtocolBody::Http2(body)) => match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(None) if !body.is_end_stream() => Poll::Ready(Some(Err(ResponseBodyError::Reset))),
                polled => polled.map_err(ResponseBodyError::Http2),
            },
            None => return Poll::Ready(None),
        };
        let Poll::Ready(mut frame) = polled else {
            // A server that has only a part of the request may not be able to answer yet.
            if matches!(&self.source, Some(ProtocolBody::Http1(body)) if body.is_uploading()) {
                self.read_timeout.since = None;
            }
            return self
                .read_timeout
                .poll(cx)
                .map(|()| Some(Err(ResponseBodyError::Timeout)));
        };
        self.read_timeout.since = None;
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            hop_by_hop::strip_trailers(trailers);
        }
        if frame.is_none() || self.is_end_stream() {
            self.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Some(ProtocolBody::Http1(body)) => body.is_end_stream(),
            Some(ProtocolBody::Http2(body)) => body.is_end_stream(),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Some(ProtocolBody::Http1(body)) => body.size_hint(),
            Some(ProtocolBody::Http2(body)) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

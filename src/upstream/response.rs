//! The body of an upstream's response. When it was read to its end, its connection returns to the pool. A server that is silent for too
//! long in the middle of the body causes an error.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connector::Io;
use super::http1;
use super::pool::Lease;
use super::read_ahead::ReadAhead;
use crate::outbound::hop;
use crate::runtime::DeadlineTimer;

/// The body of a response. At its end, the connection returns to the pool; if it is dropped earlier, the connection is closed.
#[derive(Debug)]
pub struct UpstreamBody {
    way: Way,
    /// Whether the body may be read ahead of its client.
    may_hold: bool,
}

/// Why the body of a response did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum ResponseFault {
    /// An error over HTTP/1.1.
    #[error(transparent)]
    Http1(http1::Cut),
    /// An error over HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
    /// The HTTP/2 stream was reset before its end. hyper reports a reset without an error as the end.
    #[error("the stream was reset in the middle of a body")]
    Reset,
    /// The server sent nothing for longer than the limit.
    #[error("the server was silent in the middle of a body")]
    Silent,
}

impl ResponseFault {
    /// A label for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Http1(_) | Self::Http2(_) | Self::Reset => "upstream_cut",
            Self::Silent => "upstream_silent",
        }
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "most go straight, and a box would be one more allocation for each of them"
)]
#[derive(Debug)]
enum Way {
    Straight(Leased),
    ReadAhead(ReadAhead<Leased>),
    Ended,
}

/// Where the body comes from.
#[derive(Debug)]
pub(super) enum Source {
    Http1(http1::Body<Io>),
    Http2(Incoming),
}

impl UpstreamBody {
    /// `silence`: the longest time without data from the server; `may_hold`: whether the body may be read ahead of its client.
    pub(super) fn new(source: Source, lease: Lease, silence: Option<Duration>, may_hold: bool) -> Self {
        let mut body = Leased {
            source: Some(source),
            lease: Some(lease),
            silence: Silence::new(silence),
        };
        if body.is_end_stream() {
            body.give_back();
        }
        let way = Way::Straight(body);
        Self { way, may_hold }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        let frame = match &mut self.way {
            Way::Straight(body) => ready!(Pin::new(body).poll_frame(cx)),
            Way::ReadAhead(body) => return Pin::new(body).poll_frame(cx),
            Way::Ended => return Poll::Ready(None),
        };
        // Most responses are one frame: reading ahead begins only if there are more.
        if self.may_hold && matches!(frame, Some(Ok(_))) && !self.is_end_stream() {
            self.may_hold = false;
            self.way = match mem::replace(&mut self.way, Way::Ended) {
                Way::Straight(body) => body.read_ahead(),
                other => other,
            };
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.way {
            Way::Straight(body) => body.is_end_stream(),
            Way::ReadAhead(body) => body.is_end_stream(),
            Way::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.way {
            Way::Straight(body) => body.size_hint(),
            Way::ReadAhead(body) => body.size_hint(),
            Way::Ended => SizeHint::with_exact(0),
        }
    }
}

/// A body, and the place of its request in the pool.
#[derive(Debug)]
struct Leased {
    /// `None` after the end of the body.
    source: Option<Source>,
    lease: Option<Lease>,
    silence: Silence,
}

/// How long the server has sent nothing.
#[derive(Debug)]
struct Silence {
    most: Option<Duration>,
    since: Option<Instant>,
    timer: DeadlineTimer,
}

impl Silence {
    fn new(most: Option<Duration>) -> Self {
        Self {
            most,
            since: None,
            timer: DeadlineTimer::default(),
        }
    }

    /// Ready when the silence has lasted for too long. Wake-up: the timer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(most) = self.most else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        self.timer.poll_until(since + most, cx)
    }
}

impl Leased {
    fn read_ahead(self) -> Way {
        match self.lease.as_ref().and_then(|lease| lease.pool.buffer.clone()) {
            Some(buffer) => Way::ReadAhead(ReadAhead::new(self, buffer)),
            None => Way::Straight(self),
        }
    }

    fn give_back(&mut self) {
        let source = self.source.take();
        if let Some(lease) = self.lease.take() {
            lease.give_back(match source {
                Some(Source::Http1(body)) => body.into_connection(),
                Some(Source::Http2(_)) | None => None,
            });
        }
    }
}

impl Body for Leased {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        let polled = match &mut self.source {
            Some(Source::Http1(body)) => Pin::new(body).poll_frame(cx).map_err(ResponseFault::Http1),
            Some(Source::Http2(body)) => match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(None) if !body.is_end_stream() => Poll::Ready(Some(Err(ResponseFault::Reset))),
                polled => polled.map_err(ResponseFault::Http2),
            },
            None => return Poll::Ready(None),
        };
        let Poll::Ready(mut frame) = polled else {
            // A server that has only a part of the request may not be able to answer yet.
            if matches!(&self.source, Some(Source::Http1(body)) if body.is_sending()) {
                self.silence.since = None;
            }
            return self.silence.poll(cx).map(|()| Some(Err(ResponseFault::Silent)));
        };
        self.silence.since = None;
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            hop::strip_trailers(trailers);
        }
        if frame.is_none() || self.is_end_stream() {
            self.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Some(Source::Http1(body)) => body.is_end_stream(),
            Some(Source::Http2(body)) => body.is_end_stream(),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Some(Source::Http1(body)) => body.size_hint(),
            Some(Source::Http2(body)) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

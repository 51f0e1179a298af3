//! The body of a response to a client: an upstream's body, or a short body of the gateway itself. It carries the
//! request's [`Outcome`], so that the outcome is recorded when the last byte was sent.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use authgate_core::label_value::LabelValue;
use authgate_http::upstream::StreamKind;
use authgate_http::upstream::response::{ResponseBodyError, UpstreamBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::outcome::Outcome;
use super::refusal;
use super::streams::Stream;
use crate::telemetry::labels;

/// The body of every response. It is boxed once, because it is large and is moved many times before it is sent.
pub struct ResponseBody(Box<Inner>);

struct Inner {
    source: Source,
    outcome: Outcome,
    /// The upstream's body has failed.
    failed: bool,
}

#[expect(clippy::large_enum_variant, reason = "it is on the heap already")]
enum Source {
    Upstream(UpstreamBody),
    /// A stream of this kind, which has the upstream's body.
    Stream(Stream, StreamKind),
    Own(Bytes),
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl ResponseBody {
    pub(super) fn upstream(body: UpstreamBody, outcome: Outcome) -> Self {
        Self::new(Source::Upstream(body), outcome)
    }

    pub(super) fn stream(stream: Stream, kind: StreamKind, outcome: Outcome) -> Self {
        Self::new(Source::Stream(stream, kind), outcome)
    }

    pub(super) fn own(body: Bytes, outcome: Outcome) -> Self {
        Self::new(Source::Own(body), outcome)
    }

    fn new(source: Source, outcome: Outcome) -> Self {
        let mut inner = Box::new(Inner {
            source,
            outcome,
            failed: false,
        });
        // An empty body is never polled.
        if inner.at_end() {
            inner.outcome.completed();
        }
        Self(inner)
    }
}

impl Inner {
    fn at_end(&self) -> bool {
        match &self.source {
            Source::Upstream(body) => body.is_end_stream(),
            Source::Stream(stream, _) => stream.is_body_at_end(),
            Source::Own(body) => body.is_empty(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let inner = &mut *self.0;
        let frame = match &mut inner.source {
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)).transpose(),
            Source::Stream(stream, kind) => match ready!(stream.poll_frame(cx)) {
                Ok(frame) => frame.transpose(),
                Err(end) => {
                    let trailers = match kind {
                        StreamKind::Events => None,
                        StreamKind::Grpc => Some(Frame::trailers(refusal::grpc_trailers(end))),
                    };
                    inner.outcome.stream_ended(end);
                    inner.source = Source::Own(Bytes::new());
                    return Poll::Ready(trailers.map(Ok));
                }
            },
            Source::Own(body) if body.is_empty() => Ok(None),
            Source::Own(body) => Ok(Some(Frame::data(std::mem::take(body)))),
        };
        match frame {
            Ok(frame) => {
                let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                inner.outcome.sent(bytes);
                if frame.is_none() || inner.at_end() {
                    inner.outcome.completed();
                }
                Poll::Ready(frame.map(Ok))
            }
            Err(fault) => {
                inner.outcome.body_failed(label_value(&fault), fault.to_string());
                inner.failed = true;
                // Drop the upstream's body, so that its place at the upstream is free for another request.
                inner.source = Source::Own(Bytes::new());
                Poll::Ready(Some(Err(fault)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.0.failed && self.0.at_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0.source {
            _ if self.0.failed => SizeHint::new(),
            Source::Upstream(body) => body.size_hint(),
            Source::Stream(..) => SizeHint::new(),
            Source::Own(body) => SizeHint::with_exact(body.len() as u64),
        }
    }
}

/// The outcome of a request whose response could not be completed.
fn label_value(fault: &ResponseBodyError) -> &'static LabelValue {
    match fault {
        ResponseBodyError::Http1(_) | ResponseBodyError::Http2(_) | ResponseBodyError::Reset => &labels::UPSTREAM_CUT,
        ResponseBodyError::Timeout => &labels::UPSTREAM_SILENT,
    }
}

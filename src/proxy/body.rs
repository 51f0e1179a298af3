//! The body of a response to a client: an upstream's body, or a short body of the gateway itself. It carries the
//! request's [`Outcome`], so that the outcome is recorded when the last byte was sent.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::outcome::Outcome;
use crate::upstream::response::{ResponseBodyError, UpstreamBody};

/// The body of every response. `G` is a guard of the caller that lives as long as the response. The guard's future is
/// ready once all data that was handed over is written.
///
/// It is boxed once, because it is large and is moved many times before it is sent.
pub struct ResponseBody<G>(Box<Inner<G>>);

struct Inner<G> {
    source: Source,
    /// `None` after a protocol switch: [`Switched`](super::websocket::Switched) then owns the outcome.
    outcome: Option<Outcome>,
    guard: Option<G>,
    /// The fault that cut off the body. It is reported after the data before it is written: on an error, the connection
    /// drops its unwritten data.
    cut: Option<ResponseBodyError>,
}

#[expect(clippy::large_enum_variant, reason = "it is on the heap already")]
enum Source {
    Upstream(UpstreamBody),
    Own(Bytes),
}

impl<G> fmt::Debug for ResponseBody<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl<G> ResponseBody<G> {
    pub(super) fn upstream(body: UpstreamBody, outcome: Outcome, guard: G) -> Self {
        Self::new(Source::Upstream(body), Some(outcome), Some(guard))
    }

    pub(super) fn own(body: Bytes, outcome: Outcome, guard: G) -> Self {
        Self::new(Source::Own(body), Some(outcome), Some(guard))
    }

    /// The empty body of a response that switches protocols.
    pub(super) fn switched() -> Self {
        Self::new(Source::Own(Bytes::new()), None, None)
    }

    fn new(source: Source, outcome: Option<Outcome>, guard: Option<G>) -> Self {
        let mut inner = Box::new(Inner {
            source,
            outcome,
            guard,
            cut: None,
        });
        // An empty body is never polled.
        if inner.at_end() {
            inner.completed();
        }
        Self(inner)
    }
}

impl<G> Inner<G> {
    fn completed(&mut self) {
        if let Some(outcome) = &mut self.outcome {
            outcome.completed();
        }
    }

    fn at_end(&self) -> bool {
        match &self.source {
            Source::Upstream(body) => body.is_end_stream(),
            Source::Own(body) => body.is_empty(),
        }
    }
}

impl<G: Future<Output = ()> + Unpin> Body for ResponseBody<G> {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let inner = &mut *self.0;
        if inner.cut.is_some()
            && let Some(guard) = &mut inner.guard
        {
            ready!(Pin::new(guard).poll(cx));
        }
        if let Some(cut) = inner.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let frame = match &mut inner.source {
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)).transpose(),
            Source::Own(body) if body.is_empty() => Ok(None),
            Source::Own(body) => Ok(Some(Frame::data(std::mem::take(body)))),
        };
        match frame {
            Ok(frame) => {
                let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                if let Some(outcome) = &mut inner.outcome {
                    outcome.sent(bytes);
                }
                if frame.is_none() || inner.at_end() {
                    inner.completed();
                }
                Poll::Ready(frame.map(Ok))
            }
            Err(fault) => {
                if let Some(outcome) = &mut inner.outcome {
                    outcome.cut(fault.label(), fault.to_string());
                }
                inner.cut = Some(fault);
                // Drop the upstream's body, so that its place at the upstream is free for another request.
                inner.source = Source::Own(Bytes::new());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.cut.is_none() && self.0.at_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0.source {
            _ if self.0.cut.is_some() => SizeHint::new(),
            Source::Upstream(body) => body.size_hint(),
            Source::Own(body) => SizeHint::with_exact(body.len() as u64),
        }
    }
}

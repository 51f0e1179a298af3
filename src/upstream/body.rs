//! The body of a request on its way: bounded in size and silence, and gathered where its client may be slow.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::Buffer;
use crate::slots::Slot;
use crate::transfer::inbound::{Broken, Inbound};

/// What a client sends, as far as it may: bounded in bytes and in silence, and without trailers.
#[derive(Debug)]
pub struct RequestBody {
    /// What was gathered already.
    gathered: Option<Gathered>,
    /// What is still to come.
    incoming: Inbound,
    bounds: BodyBounds,
    taken: u64,
    /// Armed only while the client is silent.
    silence: Option<Pin<Box<Sleep>>>,
    progress: Progress,
}

/// A body, or its beginning, and its place among those that are held.
#[derive(Debug)]
struct Gathered {
    bytes: Bytes,
    _held: Option<Slot>,
}

/// Bounds on a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyBounds {
    /// Most bytes; `None`: no bound.
    pub bytes: Option<u64>,
    /// The longest silence.
    pub silence: Duration,
}

/// Why a request's body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Longer than it may be.
    #[error("the request's body is longer than it may be")]
    TooLarge,
    /// Silent for longer than it may be.
    #[error("the client was silent in the middle of its request's body")]
    TooSlow,
    /// The client went away, or broke the framing.
    #[error("the request's body broke off")]
    Broken,
}

/// When the last bytes of a request's body passed: its response cannot be late before they have.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    began: Instant,
    /// Only where there is a body.
    last: Option<Rc<Cell<Instant>>>,
}

impl Progress {
    pub(super) fn last(&self) -> Instant {
        self.last.as_ref().map_or(self.began, |last| last.get())
    }

    fn note(&self) {
        if let Some(last) = &self.last {
            last.set(Instant::now());
        }
    }
}

impl RequestBody {
    /// The body of a request that is let in now.
    ///
    /// # Errors
    /// Its announced length is beyond the bound.
    pub fn new(incoming: Inbound, bounds: BodyBounds, now: Instant) -> Result<Self, BodyFault> {
        if bounds.bytes.is_some_and(|most| incoming.size_hint().lower() > most) {
            return Err(BodyFault::TooLarge);
        }
        let last = (!incoming.is_end_stream()).then(|| Rc::new(Cell::new(now)));
        let progress = Progress { began: now, last };
        Ok(Self {
            gathered: None,
            incoming,
            bounds,
            taken: 0,
            silence: None,
            progress,
        })
    }

    /// No body.
    pub(crate) fn none() -> Self {
        Self {
            gathered: None,
            incoming: Inbound::Nothing,
            bounds: BodyBounds {
                bytes: Some(0),
                silence: Duration::ZERO,
            },
            taken: 0,
            silence: None,
            progress: Progress {
                began: Instant::now(),
                last: None,
            },
        }
    }

    /// Takes a body in, if it has room; what is longer is left to stream behind what was taken.
    ///
    /// # Errors
    /// It does not come to its end, or is longer than it may be at all.
    pub(super) async fn gather(&mut self, buffer: &Buffer) -> Result<(), BodyFault> {
        let most = buffer.bytes as u64;
        if self.size_hint().lower() > most {
            return Ok(());
        }
        let Some(held) = buffer.messages.take() else {
            return Ok(());
        };
        let (mut whole, mut taken) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = poll_fn(|cx| self.poll_incoming(cx)).await {
            let data = frame?.into_data().unwrap_or_default();
            if whole.is_empty() && taken.is_empty() {
                whole = data;
            } else {
                taken.extend_from_slice(&mem::take(&mut whole));
                taken.extend_from_slice(&data);
            }
            if self.taken > most || self.incoming.is_end_stream() {
                break;
            }
        }
        if self.taken <= most {
            self.incoming = Inbound::Nothing;
        }
        let bytes = if taken.is_empty() { whole } else { taken.freeze() };
        self.gathered = (!bytes.is_empty()).then_some(Gathered {
            bytes,
            _held: Some(held),
        });
        Ok(())
    }

    /// Puts what was taken from its beginning back.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.gathered = Some(Gathered { bytes, _held: None });
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            return self.poll_silence(cx);
        };
        self.silence = None;
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(Broken)) => return Poll::Ready(Some(Err(BodyFault::Broken))),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else {
            return Poll::Ready(None);
        };
        self.progress.note();
        self.taken = self.taken.saturating_add(data.len() as u64);
        if self.bounds.bytes.is_some_and(|most| self.taken > most) {
            return Poll::Ready(Some(Err(BodyFault::TooLarge)));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let bound = self.bounds.silence;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(bound)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyFault::TooSlow)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.gathered.take() {
            Some(gathered) => Poll::Ready(Some(Ok(Frame::data(gathered.bytes)))),
            None => self.poll_incoming(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gathered.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let gathered = self.gathered.as_ref().map_or(0, |gathered| gathered.bytes.len());
        behind(gathered, &self.incoming.size_hint())
    }
}

/// The size of a body that has so much in front of the rest.
pub(super) fn behind(held: usize, rest: &SizeHint) -> SizeHint {
    let held = held as u64;
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(held));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(held));
    }
    hint
}

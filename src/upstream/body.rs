//! The body of a request: limited in size and in silence, and buffered before it is forwarded if the configuration says so.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::Buffer;
use super::spool::{Spool, Spooled, Unsized};
use crate::concurrency::ConcurrencyPermit;
use crate::transfer::incoming::{IncomingBody, IncompleteBody};

/// How many bytes of a spooled body are collected before one write to disk.
const SMALLEST_PIECE: usize = 8 * 1024;
const LARGEST_PIECE: usize = 256 * 1024;

/// The client's request body, within the limits of bytes and silence, and without trailers.
#[derive(Debug)]
pub struct RequestBody {
    /// The part that was buffered; it is sent before `rest`.
    gathered: Option<Gathered>,
    /// The source of the remaining part.
    rest: Rest,
    bounds: BodyBounds,
    /// Bytes that came from the client.
    taken: u64,
    /// Armed only while the client is silent.
    silence: Option<Pin<Box<Sleep>>>,
    progress: Progress,
}

/// The source of the remaining part.
#[derive(Debug)]
enum Rest {
    Client(IncomingBody),
    /// The whole body was received and is stored on disk.
    Spooled(Box<Spooled>),
}

/// The buffered body or its beginning, and the permit to buffer it.
#[derive(Debug)]
struct Gathered {
    bytes: Bytes,
    held: Option<ConcurrencyPermit>,
}

/// Limits of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyBounds {
    /// The limit of bytes; `None`: no limit.
    pub bytes: Option<u64>,
    /// The longest time without data.
    pub silence: Duration,
}

/// Why a request body did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// It exceeds its limit of bytes.
    #[error("the request's body is longer than it may be")]
    TooLarge,
    /// The client was silent for longer than the limit.
    #[error("the client was silent in the middle of its request's body")]
    TooSlow,
    /// The client closed the connection, or sent invalid framing.
    #[error("the request's body broke off")]
    Broken,
    /// It has no length, and its upstream accepts no such body beyond `buffer.request`.
    #[error("the request's body has no length")]
    NoLength,
    /// It has no length, and the space for such bodies is used up.
    #[error("no room is left for request bodies without a length")]
    NoRoom,
    /// It has no length, and could not be stored on disk until the length is known.
    #[error("the request's body could not be kept on disk: {0}")]
    Spool(io::ErrorKind),
}

/// When the last bytes of the request body passed. The response timeout counts from there.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    began: Instant,
    /// `None` if the request has no body.
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
    /// The body of a request that was admitted at `now`.
    ///
    /// # Errors
    /// Its announced length exceeds the limit.
    pub fn new(incoming: IncomingBody, bounds: BodyBounds, now: Instant) -> Result<Self, BodyFault> {
        if bounds.bytes.is_some_and(|most| incoming.size_hint().lower() > most) {
            return Err(BodyFault::TooLarge);
        }
        let last = (!incoming.is_end_stream()).then(|| Rc::new(Cell::new(now)));
        let progress = Progress { began: now, last };
        Ok(Self {
            gathered: None,
            rest: Rest::Client(incoming),
            bounds,
            taken: 0,
            silence: None,
            progress,
        })
    }

    /// An empty body.
    pub(crate) fn none() -> Self {
        Self {
            gathered: None,
            rest: Rest::Client(IncomingBody::Empty),
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

    /// Whether the body has a remaining part of unknown length.
    pub(super) fn is_unsized(&self) -> bool {
        !self.is_end_stream() && self.size_hint().exact().is_none()
    }

    /// Buffers the body if it has room in `buffer`. If it is longer and has a length, the remaining part streams behind the buffered part.
    /// If it has no length, `beyond` decides.
    ///
    /// # Errors
    /// The body does not reach its end, exceeds its limit, or there is no room for it.
    pub(super) async fn gather(&mut self, buffer: Option<&Buffer>, beyond: &Unsized) -> Result<(), BodyFault> {
        let most = buffer.map_or(0, |buffer| buffer.bytes);
        if !self.is_unsized() && self.size_hint().lower() > most as u64 {
            return Ok(());
        }
        let held = buffer.and_then(|buffer| buffer.messages.try_acquire());
        let lacks_room = held.is_none() && most > 0;
        match (held, beyond) {
            (Some(held), _) => self.take_in(most, Some(held)).await?,
            (None, Unsized::Stream) => return Ok(()),
            (None, Unsized::Spool(_) | Unsized::Refuse) if !self.is_unsized() => return Ok(()),
            // Only the first frame shows whether there is any data.
            (None, Unsized::Spool(_) | Unsized::Refuse) => self.take_in(0, None).await?,
        }
        match beyond {
            _ if !self.is_unsized() => Ok(()),
            Unsized::Stream => Ok(()),
            Unsized::Refuse if lacks_room => Err(BodyFault::NoRoom),
            Unsized::Refuse => Err(BodyFault::NoLength),
            Unsized::Spool(spool) => self.spool(spool, most).await,
        }
    }

    /// Buffers data until it exceeds `most`, or the body has ended.
    async fn take_in(&mut self, most: usize, held: Option<ConcurrencyPermit>) -> Result<(), BodyFault> {
        let (mut whole, mut taken) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = poll_fn(|cx| self.poll_client(cx)).await {
            let data = frame?.into_data().unwrap_or_default();
            if whole.is_empty() && taken.is_empty() {
                whole = data;
            } else {
                taken.extend_from_slice(&mem::take(&mut whole));
                taken.extend_from_slice(&data);
            }
            if self.taken > most as u64 || self.client_has_ended() {
                break;
            }
        }
        if self.taken <= most as u64 || self.client_has_ended() {
            self.rest = Rest::Client(IncomingBody::Empty);
        }
        let bytes = if taken.is_empty() { whole } else { taken.freeze() };
        self.gathered = (!bytes.is_empty()).then_some(Gathered { bytes, held });
        Ok(())
    }

    /// Writes the whole body to disk, so that its length is known. Each write collects `most` bytes, clamped to [`SMALLEST_PIECE`] and
    /// [`LARGEST_PIECE`].
    ///
    /// # Errors
    /// The body does not reach its end, exceeds its limit, or there is no room for it.
    pub(super) async fn spool(&mut self, spool: &Spool, most: usize) -> Result<(), BodyFault> {
        let (first, held) = match self.gathered.take() {
            Some(Gathered { bytes, held }) => (bytes, held),
            None => (Bytes::new(), None),
        };
        let piece = match &held {
            Some(_) => most.clamp(SMALLEST_PIECE, LARGEST_PIECE),
            None => SMALLEST_PIECE,
        };
        let mut writer = spool.writer();
        writer.write(first).await?;
        let mut waiting = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| self.poll_client(cx)).await {
            let data = frame?.into_data().unwrap_or_default();
            if waiting.is_empty() && data.len() >= piece {
                writer.write(data).await?;
                continue;
            }
            waiting.extend_from_slice(&data);
            if waiting.len() >= piece {
                writer.write(waiting.split().freeze()).await?;
            }
        }
        writer.write(waiting.freeze()).await?;
        self.rest = Rest::Spooled(Box::new(writer.finish()));
        Ok(())
    }

    fn client_has_ended(&self) -> bool {
        match &self.rest {
            Rest::Client(incoming) => incoming.is_end_stream(),
            Rest::Spooled(_) => true,
        }
    }

    /// Puts the beginning that was taken from the body back.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.gathered = Some(Gathered { bytes, held: None });
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Rest::Spooled(spooled) = &mut self.rest else {
            return self.poll_client(cx);
        };
        let piece = ready!(spooled.poll_piece(cx));
        self.progress.note();
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Rest::Client(incoming) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            return self.poll_silence(cx);
        };
        self.silence = None;
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(IncompleteBody)) => return Poll::Ready(Some(Err(BodyFault::Broken))),
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
            None => self.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gathered.is_none()
            && match &self.rest {
                Rest::Client(incoming) => incoming.is_end_stream(),
                Rest::Spooled(spooled) => spooled.left() == 0,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let gathered = self.gathered.as_ref().map_or(0, |gathered| gathered.bytes.len());
        match &self.rest {
            Rest::Client(incoming) => behind(gathered, &incoming.size_hint()),
            Rest::Spooled(spooled) => behind(gathered, &SizeHint::with_exact(spooled.left())),
        }
    }
}

/// The size of a body with `held` bytes in front of the rest.
pub(super) fn behind(held: usize, rest: &SizeHint) -> SizeHint {
    let held = held as u64;
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(held));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(held));
    }
    hint
}

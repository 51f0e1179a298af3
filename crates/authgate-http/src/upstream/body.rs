//! The body of a request: limited in size and in the time without data, and buffered before it is forwarded if the configuration says so.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

pub use super::body_error::RequestBodyError;
use super::limits::Buffer;
use super::settings::UnsizedBodies;
use super::spool::{Spool, SpoolUsage, SpooledBody};
use crate::concurrency::ConcurrencyPermit;
use crate::transfer::incoming::{IncomingBody, IncompleteBody};

/// How many bytes of a spooled body are collected before one write to disk.
const MIN_WRITE: usize = 8 * 1024;
const MAX_WRITE: usize = 256 * 1024;

/// The client's request body, within its limits, and without trailers.
#[derive(Debug)]
pub struct RequestBody {
    /// The part that was buffered; it is sent before `source`.
    buffered: Option<Buffered>,
    /// The source of the remaining part.
    source: BodySource,
    limits: BodyLimits,
    /// Bytes that came from the client.
    received: u64,
    /// Armed only while the client is silent.
    read_timeout: Option<Pin<Box<Sleep>>>,
    progress: BodyProgress,
}

/// The source of the remaining part.
#[derive(Debug)]
enum BodySource {
    Client(IncomingBody),
    /// The whole body was received and is stored on disk.
    Spooled(Box<SpooledBody>),
}

/// The buffered body or its beginning, and the permit to buffer it.
#[derive(Debug)]
struct Buffered {
    bytes: Bytes,
    permit: Option<ConcurrencyPermit>,
}

/// Limits of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// The limit of bytes; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// The longest time without data.
    pub read_timeout: Duration,
}

/// When the last bytes of the request body passed. The response timeout counts from there.
#[derive(Debug, Clone)]
pub(super) struct BodyProgress {
    started: Instant,
    /// `None` if the request has no body.
    shared: Option<Rc<SharedProgress>>,
}

#[derive(Debug)]
struct SharedProgress {
    last_activity: Cell<Instant>,
    is_cancelled: Cell<bool>,
    /// The task that waits for the body. It is woken when the body is cancelled.
    waker: RefCell<Option<Waker>>,
}

/// Cancels a request body, wherever it is at that time.
#[derive(Debug)]
pub struct BodyCanceller(Rc<SharedProgress>);

impl BodyCanceller {
    /// From now on the body is incomplete: no more data of it is sent, and its server sees that.
    pub fn cancel(&self) {
        self.0.is_cancelled.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl BodyProgress {
    pub(super) fn last_activity(&self) -> Instant {
        self.shared
            .as_ref()
            .map_or(self.started, |shared| shared.last_activity.get())
    }

    fn record(&self) {
        if let Some(shared) = &self.shared {
            shared.last_activity.set(Instant::now());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.is_cancelled.get())
    }

    /// Remembers the task that waits for the body.
    fn wait(&self, cx: &Context<'_>) {
        if let Some(shared) = &self.shared {
            let mut waker = shared.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
    }
}

impl RequestBody {
    /// The body of a request that was admitted at `now`.
    ///
    /// # Errors
    /// Its announced length exceeds the limit.
    pub fn new(incoming: IncomingBody, limits: BodyLimits, now: Instant) -> Result<Self, RequestBodyError> {
        if limits
            .max_bytes
            .is_some_and(|max_bytes| incoming.size_hint().lower() > max_bytes)
        {
            return Err(RequestBodyError::TooLarge);
        }
        let shared = || SharedProgress {
            last_activity: Cell::new(now),
            is_cancelled: Cell::new(false),
            waker: RefCell::new(None),
        };
        let progress = BodyProgress {
            started: now,
            shared: (!incoming.is_end_stream()).then(|| Rc::new(shared())),
        };
        Ok(Self {
            buffered: None,
            source: BodySource::Client(incoming),
            limits,
            received: 0,
            read_timeout: None,
            progress,
        })
    }

    /// An empty body.
    pub(crate) fn empty() -> Self {
        Self {
            buffered: None,
            source: BodySource::Client(IncomingBody::Empty),
            limits: BodyLimits {
                max_bytes: Some(0),
                read_timeout: Duration::ZERO,
            },
            received: 0,
            read_timeout: None,
            progress: BodyProgress {
                started: Instant::now(),
                shared: None,
            },
        }
    }

    /// The whole body, if it is in memory. `None`: a part of it is still with the client, or it is on disk.
    pub fn whole(&self) -> Option<Bytes> {
        let BodySource::Client(incoming) = &self.source else {
            return None;
        };
        let buffered = || self.buffered.as_ref().map(|buffered| buffered.bytes.clone());
        incoming.is_end_stream().then(|| buffered().unwrap_or_default())
    }

    /// Whether the body has a remaining part of unknown length.
    pub(super) fn is_unsized(&self) -> bool {
        !self.is_end_stream() && self.size_hint().exact().is_none()
    }

    /// Buffers the body if it has room in `buffer`. If it is longer and has a length, the remaining part streams behind the buffered part.
    /// If it has no length, `unsized_bodies` decides.
    ///
    /// # Errors
    /// The body does not reach its end, exceeds its limit, or there is no room for it.
    pub(super) async fn buffer(
        &mut self,
        buffer: Option<&Buffer>,
        unsized_bodies: &UnsizedBodies,
        usage: &SpoolUsage,
    ) -> Result<(), RequestBodyError> {
        let max_bytes = buffer.map_or(0, |buffer| buffer.bytes);
        if !self.is_unsized() && self.size_hint().lower() > max_bytes as u64 {
            return Ok(());
        }
        let permit = buffer.and_then(|buffer| buffer.messages.try_acquire());
        let is_full = permit.is_none() && max_bytes > 0;
        match (permit, unsized_bodies) {
            (Some(permit), _) => self.buffer_up_to(max_bytes, Some(permit)).await?,
            (None, UnsizedBodies::Stream) => return Ok(()),
            (None, UnsizedBodies::Spool(_) | UnsizedBodies::Refuse) if !self.is_unsized() => return Ok(()),
            // Only the first frame shows whether there is any data.
            (None, UnsizedBodies::Spool(_) | UnsizedBodies::Refuse) => self.buffer_up_to(0, None).await?,
        }
        match unsized_bodies {
            _ if !self.is_unsized() => Ok(()),
            UnsizedBodies::Stream => Ok(()),
            UnsizedBodies::Refuse if is_full => Err(RequestBodyError::BufferFull),
            UnsizedBodies::Refuse => Err(RequestBodyError::LengthRequired),
            UnsizedBodies::Spool(settings) => self.spool(Spool { settings, usage }, max_bytes).await,
        }
    }

    /// Buffers data until it exceeds `max_bytes`, or the body has ended.
    async fn buffer_up_to(
        &mut self,
        max_bytes: usize,
        permit: Option<ConcurrencyPermit>,
    ) -> Result<(), RequestBodyError> {
        let (mut first, mut collected) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = poll_fn(|cx| self.poll_client(cx)).await {
            let data = frame?.into_data().unwrap_or_default();
            if first.is_empty() && collected.is_empty() {
                first = data;
            } else {
                collected.extend_from_slice(&mem::take(&mut first));
                collected.extend_from_slice(&data);
            }
            if self.received > max_bytes as u64 || self.client_has_ended() {
                break;
            }
        }
        if self.received <= max_bytes as u64 || self.client_has_ended() {
            self.source = BodySource::Client(IncomingBody::Empty);
        }
        let bytes = if collected.is_empty() {
            first
        } else {
            collected.freeze()
        };
        self.buffered = (!bytes.is_empty()).then_some(Buffered { bytes, permit });
        Ok(())
    }

    /// Writes the whole body to disk, so that its length is known. Each write collects `max_bytes` bytes, clamped to [`MIN_WRITE`] and
    /// [`MAX_WRITE`].
    ///
    /// # Errors
    /// The body does not reach its end, exceeds its limit, or there is no room for it.
    pub(super) async fn spool(&mut self, spool: Spool<'_>, max_bytes: usize) -> Result<(), RequestBodyError> {
        let (first, permit) = match self.buffered.take() {
            Some(Buffered { bytes, permit }) => (bytes, permit),
            None => (Bytes::new(), None),
        };
        let write_size = match &permit {
            Some(_) => max_bytes.clamp(MIN_WRITE, MAX_WRITE),
            None => MIN_WRITE,
        };
        let mut writer = spool.writer();
        writer.write(first).await?;
        let mut pending = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| self.poll_client(cx)).await {
            let data = frame?.into_data().unwrap_or_default();
            if pending.is_empty() && data.len() >= write_size {
                writer.write(data).await?;
                continue;
            }
            pending.extend_from_slice(&data);
            if pending.len() >= write_size {
                writer.write(pending.split().freeze()).await?;
            }
        }
        writer.write(pending.freeze()).await?;
        self.source = BodySource::Spooled(Box::new(writer.finish()));
        Ok(())
    }

    fn client_has_ended(&self) -> bool {
        match &self.source {
            BodySource::Client(incoming) => incoming.is_end_stream(),
            BodySource::Spooled(_) => true,
        }
    }

    /// Puts data that was taken from the body back.
    pub(super) fn restore(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.buffered = Some(Buffered { bytes, permit: None });
        }
    }

    /// Cancels the body later. `None`: the request has no body.
    pub fn canceller(&self) -> Option<BodyCanceller> {
        self.progress.shared.clone().map(BodyCanceller)
    }

    pub(super) fn progress(&self) -> BodyProgress {
        self.progress.clone()
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let BodySource::Spooled(spooled) = &mut self.source else {
            return self.poll_client(cx);
        };
        let data = ready!(spooled.poll_data(cx));
        self.progress.record();
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let BodySource::Client(incoming) = &mut self.source else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            return self.poll_read_timeout(cx);
        };
        self.read_timeout = None;
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(IncompleteBody)) => return Poll::Ready(Some(Err(RequestBodyError::Broken))),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else {
            return Poll::Ready(None);
        };
        self.progress.record();
        self.received = self.received.saturating_add(data.len() as u64);
        if self.limits.max_bytes.is_some_and(|max_bytes| self.received > max_bytes) {
            return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let limit = self.limits.read_timeout;
        let read_timeout = self.read_timeout.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(read_timeout.as_mut().poll(cx));
        Poll::Ready(Some(Err(RequestBodyError::Timeout)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.progress.is_cancelled() {
            return Poll::Ready(Some(Err(RequestBodyError::Broken)));
        }
        if let Some(buffered) = self.buffered.take() {
            return Poll::Ready(Some(Ok(Frame::data(buffered.bytes))));
        }
        let polled = self.poll_source(cx);
        if polled.is_pending() {
            self.progress.wait(cx);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.buffered.is_none()
            && match &self.source {
                BodySource::Client(incoming) => incoming.is_end_stream(),
                BodySource::Spooled(spooled) => spooled.remaining() == 0,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let buffered = self.buffered.as_ref().map_or(0, |buffered| buffered.bytes.len());
        match &self.source {
            BodySource::Client(incoming) => with_prefix(buffered, &incoming.size_hint()),
            BodySource::Spooled(spooled) => with_prefix(buffered, &SizeHint::with_exact(spooled.remaining())),
        }
    }
}

/// The size of a body with `prefix` bytes in front of the rest.
pub(super) fn with_prefix(prefix: usize, rest: &SizeHint) -> SizeHint {
    let prefix = prefix as u64;
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(prefix));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(prefix));
    }
    hint
}

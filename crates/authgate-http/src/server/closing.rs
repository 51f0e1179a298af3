//! Closes a connection in order: it was idle for too long, the client's certificate has expired, or the gateway drains.
//!
//! A client may send its next request at the moment when the gateway closes the connection. So an idle connection is closed only after its
//! socket was checked for data. A connection that was used shortly before has time for one more request, which is answered with
//! `Connection: close`. The close sends close_notify and FIN and then reads for a while: a reset would also delete responses that the
//! client has not read yet.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::select;
use pin_project_lite::pin_project;
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::context::WorkerContext;
use super::handler::Handler;
use super::socket::{Stream, Transport};
use super::stage::{DRAIN_GRACE, Stage};
use crate::runtime::DeadlineTimer;

/// The timeout for writing the last bytes to a client, and for each pause of the client after that.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the gateway reads the remaining body after the response, at most.
pub(super) const MAX_LINGER_TIME: Duration = Duration::from_secs(30);
/// The buffer for one read; a TLS record holds no more.
const READ_SIZE: usize = 16 * 1024;

/// When a connection takes no more requests, also without a drain: when the client's certificate expires.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionExpiry {
    at: Option<Instant>,
}

impl ConnectionExpiry {
    /// Expires at this time of the system clock.
    pub(super) fn until(until: Option<UnixTime>) -> Self {
        // A certificate is valid until the end of its last second.
        let end =
            |until: UnixTime| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(until.as_secs().checked_add(1)?));
        let remaining = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            at: until
                .and_then(end)
                .and_then(|end| Instant::now().checked_add(remaining(end))),
        }
    }
}

/// How long an idle connection is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    since: Instant,
    /// Set when the socket had unread bytes at the deadline: the connection waits for them until this time.
    extended_to: Option<Instant>,
}

impl Idle {
    /// Idle from now on.
    pub(super) fn now() -> Self {
        Self {
            since: Instant::now(),
            extended_to: None,
        }
    }

    /// When the connection became idle.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// When the connection is to be closed.
    pub(super) fn deadline<H: Handler>(&self, context: &WorkerContext<H>, is_draining: bool) -> Instant {
        let idle_timeout = context.handler().limits().idle_timeout;
        let kept = if is_draining {
            context.drain_grace().min(idle_timeout)
        } else {
            idle_timeout
        };
        self.extended_to.unwrap_or(self.since + kept)
    }

    /// Whether the connection may be closed after its `deadline`. It may not if the client has sent bytes that were not read yet.
    /// tokio reads a socket only after epoll has reported it. So a pending read does not mean that the socket is empty.
    pub(super) fn may_close(&mut self, socket: &Stream) -> bool {
        if self.extended_to.is_some() || !socket.has_unread() {
            return true;
        }
        self.extended_to = Some(Instant::now() + DRAIN_GRACE);
        false
    }
}

/// No request came before the deadline of the idle connection.
pub(super) struct IdleExpired;

/// Waits for the first bytes of a request, and meanwhile holds nothing but the connection. Empty: the client has closed the connection.
pub(super) async fn next_bytes<I: Transport, H: Handler>(
    io: &mut I,
    idle: &mut Idle,
    expiry: ConnectionExpiry,
    context: &WorkerContext<H>,
) -> Result<Bytes, IdleExpired> {
    let mut drain = pin!(Drain::new(context.stage(), expiry));
    let mut timer = DeadlineTimer::default();
    poll_fn(move |cx| {
        if let Poll::Ready(read) = poll_read(io, cx) {
            return Poll::Ready(Ok(read.unwrap_or_default()));
        }
        let is_draining = drain.as_mut().poll(cx).is_ready();
        loop {
            ready!(timer.poll_until(idle.deadline(context, is_draining), cx));
            if idle.may_close(io.socket()) {
                return Poll::Ready(Err(IdleExpired));
            }
        }
    })
    .await
}

fn poll_read<I: AsyncRead + Unpin>(io: &mut I, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut buffer = [const { MaybeUninit::uninit() }; READ_SIZE];
    let mut read = ReadBuf::uninit(&mut buffer);
    if let Err(problem) = ready!(Pin::new(io).poll_read(cx, &mut read)) {
        debug!(reason = %problem, "an idle connection failed");
        return Poll::Ready(Err(problem));
    }
    Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
}

/// Writes `last_bytes`, closes the sending direction, and then reads and discards for at most `linger`, so that the client can read them.
pub async fn close<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, last_bytes: Option<Bytes>, linger: Duration) {
    let send = async {
        if let Some(last_bytes) = last_bytes {
            io.write_all(&last_bytes).await?;
        }
        io.shutdown().await
    };
    match timeout(LINGER_TIMEOUT, send).await {
        Ok(Ok(())) => {
            let _ = timeout(linger, discard_input(&mut io)).await;
        }
        Ok(Err(problem)) => debug!(reason = %problem, "closing a connection failed"),
        Err(_) => {}
    }
}

/// Reads and discards while the client sends. A close with unread data would reset the connection, and the client might not see the
/// answer (RFC 9112, section 9.6).
async fn discard_input<I: AsyncRead + Unpin>(io: &mut I) {
    // On the heap, so that it does not enlarge the future of every connection.
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(Ok(1..)) = timeout(LINGER_TIMEOUT, io.read(&mut buffer)).await {}
}

/// Runs what comes before the first request, such as a TLS handshake. A drain gives it the grace time, because a request may follow.
pub(super) async fn unless_drained<T, H: Handler>(
    context: &WorkerContext<H>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let drained = async {
        wait_for_drain(context.stage(), ConnectionExpiry::default()).await;
        sleep(context.drain_grace()).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = drained => None,
    }
}

/// Ready when a connection may take no more requests. Wake-up: a change of the stage, or the expiry.
async fn wait_for_drain(mut stage: watch::Receiver<Stage>, expiry: ConnectionExpiry) {
    // The sender lives as long as the process. If it were dropped, the connection would drain too.
    let draining = async move {
        let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
    };
    match expiry.at {
        None => draining.await,
        // On the heap: few connections expire.
        Some(at) => {
            select(pin!(draining), Box::pin(sleep_until(at))).await;
        }
    }
}

/// How far a [`Drain`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DrainState {
    /// The inner future was not polled yet, so no waker is registered.
    Unpolled,
    /// The inner future was pending.
    Waiting,
    Draining,
}

pin_project! {
    /// [`wait_for_drain`] for a task that polls it often, also after it was ready. It polls the inner future once, and then only after the stage
    /// has changed or the connection has expired. The first poll registers the waker.
    pub(super) struct Drain<F> {
        stage: watch::Receiver<Stage>,
        expiry: ConnectionExpiry,
        state: DrainState,
        #[pin]
        inner: F,
    }
}

impl Drain<()> {
    pub(super) fn new(stage: watch::Receiver<Stage>, expiry: ConnectionExpiry) -> Drain<impl Future<Output = ()>> {
        Drain {
            state: DrainState::Unpolled,
            inner: wait_for_drain(stage.clone(), expiry),
            stage,
            expiry,
        }
    }
}

impl<F: Future<Output = ()>> Future for Drain<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.state {
            DrainState::Draining => return Poll::Ready(()),
            DrainState::Waiting => {
                let has_expired = this.expiry.at.is_some_and(|at| at <= Instant::now());
                if !has_expired && !this.stage.has_changed().unwrap_or(true) {
                    return Poll::Pending;
                }
            }
            DrainState::Unpolled => {}
        }
        *this.state = DrainState::Waiting;
        ready!(this.inner.poll(cx));
        *this.state = DrainState::Draining;
        Poll::Ready(())
    }
}

//! How a connection is closed that is in order: it was idle for too long, its client's certificate has ended, or the gateway drains.
//!
//! A client may send its next request at the moment when its connection is closed. So an idle connection is closed only after a last look at
//! its socket, and one that was in use a moment ago is given the time to send one more request, which is answered with `Connection: close`. What
//! is closed ends with close_notify and FIN, and is read for a while: a reset would also destroy what the client has not read yet.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::{self, MaybeUninit};
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

use super::socket::{Stream, Transport};
use super::worker::{Stage, Worker};
use crate::runtime::Alarm;

/// How long the last words to a client may take, and how long it may then be silent.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// What it still sends of a body that was answered may keep us for so long.
pub(super) const LONGEST_LINGER: Duration = Duration::from_secs(30);
/// A connection that was in use so recently is not closed by a drain: its next request may be on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// What is read at once; a TLS record holds no more.
const PIECE: usize = 16 * 1024;

/// Until when a connection takes requests, if no drain comes before: until the certificate ends that its client has shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lease {
    ends: Option<Instant>,
}

impl Lease {
    /// Until a moment of the system's clock.
    pub(super) fn until(until: Option<UnixTime>) -> Self {
        // A certificate is valid to the end of its last second.
        let end =
            |until: UnixTime| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(until.as_secs().checked_add(1)?));
        let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            ends: until
                .and_then(end)
                .and_then(|end| Instant::now().checked_add(left(end))),
        }
    }
}

/// How long an idle connection is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    since: Instant,
    /// Bytes were found in the socket when the time was over: they are waited for until then.
    extended: Option<Instant>,
}

impl Idle {
    /// Idle from now on.
    pub(super) fn now() -> Self {
        Self {
            since: Instant::now(),
            extended: None,
        }
    }

    /// When nothing was under way any more.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// When the connection is to be closed.
    pub(super) fn end(&self, worker: &Worker, draining: bool) -> Instant {
        let idle_timeout = worker.limits().idle_timeout;
        let kept = if draining {
            worker.grace().min(idle_timeout)
        } else {
            idle_timeout
        };
        self.extended.unwrap_or(self.since + kept)
    }

    /// Whether the connection may be closed, once its end has passed. Not if the client has sent something that was not read yet: tokio
    /// reads a socket only after epoll has reported it, so a pending read does not mean that the socket is empty.
    pub(super) fn may_close(&mut self, socket: &Stream) -> bool {
        if self.extended.is_some() || !socket.has_unread() {
            return true;
        }
        self.extended = Some(Instant::now() + GRACE);
        false
    }
}

/// No request came, and none is waited for any more.
pub(super) struct Expired;

/// Waits for the first bytes of a request and holds nothing but the connection meanwhile. No bytes: the client has closed the connection.
pub(super) async fn next_bytes<I: Transport>(
    io: &mut I,
    idle: &mut Idle,
    lease: Lease,
    worker: &Worker,
) -> Result<Bytes, Expired> {
    let mut drain = pin!(Drain::new(worker.stage(), lease));
    let (mut alarm, mut draining) = (Alarm::default(), false);
    poll_fn(move |cx| {
        if let Poll::Ready(read) = poll_read(io, cx) {
            return Poll::Ready(Ok(read.unwrap_or_default()));
        }
        draining = draining || drain.as_mut().poll(cx).is_ready();
        loop {
            ready!(alarm.poll_until(idle.end(worker, draining), cx));
            if idle.may_close(io.socket()) {
                return Poll::Ready(Err(Expired));
            }
        }
    })
    .await
}

fn poll_read<I: AsyncRead + Unpin>(io: &mut I, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut piece = [const { MaybeUninit::uninit() }; PIECE];
    let mut read = ReadBuf::uninit(&mut piece);
    if let Err(problem) = ready!(Pin::new(io).poll_read(cx, &mut read)) {
        debug!(reason = %problem, "a connection broke while it was idle");
        return Poll::Ready(Err(problem));
    }
    Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
}

/// Writes some last words, and ends the connection so that the client can read them: what it still sends is read for so long.
pub(crate) async fn end<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, words: Option<Bytes>, linger: Duration) {
    let say = async {
        if let Some(words) = words {
            io.write_all(&words).await?;
        }
        io.shutdown().await
    };
    match timeout(LAST_WORDS, say).await {
        Ok(Ok(())) => {
            let _ = timeout(linger, take_the_rest(&mut io)).await;
        }
        Ok(Err(problem)) => debug!(reason = %problem, "a connection did not end well"),
        Err(_) => {}
    }
}

/// Takes what a client still sends, as long as it does: closing before it is read would reset the connection, and the client might never
/// see the answer (RFC 9112, section 9.6).
async fn take_the_rest<I: AsyncRead + Unpin>(io: &mut I) {
    // Not part of every connection's future.
    let mut piece = vec![0; PIECE];
    while let Ok(Ok(1..)) = timeout(LAST_WORDS, io.read(&mut piece)).await {}
}

/// What comes before the first request of a connection, such as a TLS handshake. A drain leaves it some time: a request may follow.
pub(super) async fn unless_drained<T>(worker: &Worker, work: impl Future<Output = T>) -> Option<T> {
    let drained = async {
        no_more_requests(worker.stage(), Lease::default()).await;
        sleep(worker.grace()).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = drained => None,
    }
}

/// Ends when a connection is to take no more requests.
async fn no_more_requests(mut stage: watch::Receiver<Stage>, lease: Lease) {
    // The sender lives as long as the process; were it gone, nobody could ask for anything else.
    let draining = async move {
        let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
    };
    match lease.ends {
        None => draining.await,
        // On the heap: few connections have one.
        Some(ends) => {
            select(pin!(draining), Box::pin(sleep_until(ends))).await;
        }
    }
}

pin_project! {
    /// [`no_more_requests`] for a task that polls it at every turn: it is really asked once, and then only when something has changed.
    pub(super) struct Drain<F> {
        stage: watch::Receiver<Stage>,
        lease: Lease,
        asked: bool,
        #[pin]
        asking: F,
    }
}

impl Drain<()> {
    pub(super) fn new(stage: watch::Receiver<Stage>, lease: Lease) -> Drain<impl Future<Output = ()>> {
        Drain {
            asked: false,
            asking: no_more_requests(stage.clone(), lease),
            stage,
            lease,
        }
    }
}

impl<F: Future<Output = ()>> Future for Drain<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let has_changed =
            this.stage.has_changed().unwrap_or(true) || this.lease.ends.is_some_and(|ends| ends <= Instant::now());
        if mem::replace(this.asked, true) && !has_changed {
            return Poll::Pending;
        }
        this.asking.poll(cx)
    }
}

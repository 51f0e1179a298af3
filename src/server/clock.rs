//! What a connection is doing, and when it has done so for too long.
//!
//! hyper has one timer for a request's head and runs it on idle connections too; `[server.limits]` tells the two apart. So the
//! connection notes when bytes come and when requests begin and end, and one lazily armed timer looks at the notes. A busy
//! connection costs no timer operation at all.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Instant, Sleep, sleep_until};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing, since then.
    Idle(Instant),
    /// A request's head has begun, then.
    Head(Instant),
    /// Requests are under way.
    Busy,
}

/// The notes of one connection.
#[derive(Debug)]
pub(super) struct Clock {
    phase: Cell<Phase>,
    requests: Cell<usize>,
    /// HTTP/2 says other things than requests; only HTTP/1 bytes begin a head.
    heads: bool,
}

impl Clock {
    pub(super) fn for_http1() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Idle(Instant::now())),
            requests: Cell::new(0),
            heads: true,
        })
    }

    pub(super) fn for_http2() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Idle(Instant::now())),
            requests: Cell::new(0),
            heads: false,
        })
    }

    fn bytes_came(&self) {
        if self.heads && matches!(self.phase.get(), Phase::Idle(_)) {
            self.phase.set(Phase::Head(Instant::now()));
        }
    }

    /// A request has begun; it ends with the guard.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        self.phase.set(Phase::Busy);
        Busy(Rc::clone(self))
    }
}

/// Lives as long as a request and its response.
#[derive(Debug)]
pub(super) struct Busy(Rc<Clock>);

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.requests.get().saturating_sub(1);
        self.0.requests.set(left);
        if left == 0 {
            self.0.phase.set(Phase::Idle(Instant::now()));
        }
    }
}

/// Ends when the connection has been in one phase for too long. It must be polled with the connection, which it is told by no one.
#[derive(Debug)]
pub(super) struct Overdue {
    clock: Rc<Clock>,
    idle: Duration,
    head: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Overdue {
    pub(super) fn new(clock: Rc<Clock>, idle: Duration, head: Duration) -> Self {
        let sleep = Box::pin(sleep_until(Instant::now() + idle));
        Self {
            clock,
            idle,
            head,
            sleep,
        }
    }
}

impl Overdue {
    /// What the connection is doing.
    pub(super) fn phase(&self) -> Phase {
        self.clock.phase.get()
    }
}

impl Future for Overdue {
    type Output = Phase;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Phase> {
        loop {
            let phase = self.clock.phase.get();
            let end = match phase {
                Phase::Busy => return Poll::Pending,
                Phase::Idle(since) => since + self.idle,
                Phase::Head(since) => since + self.head,
            };
            // Moved only to come earlier. One that comes too early looks again; that is cheaper than moving it at each request.
            if end < self.sleep.deadline() {
                self.sleep.as_mut().reset(end);
            }
            ready!(self.sleep.as_mut().poll(cx));
            if end <= Instant::now() {
                return Poll::Ready(phase);
            }
            self.sleep.as_mut().reset(end);
        }
    }
}

/// An IO that notes when bytes come.
#[derive(Debug)]
pub(super) struct Noted<T> {
    io: T,
    clock: Rc<Clock>,
}

impl<T> Noted<T> {
    pub(super) fn new(io: T, clock: Rc<Clock>) -> Self {
        Self { io, clock }
    }

    pub(super) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: Read + Unpin> Read for Noted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.clock.bytes_came();
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Noted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

//! What a single-threaded runtime needs and libraries do not provide: an executor for hyper's tasks, an IO object that
//! replays bytes, and a cheap timer for deadlines that move with each request.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Runs the tasks of a connection on the worker that has it.
#[derive(Debug, Clone, Copy)]
pub struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A timer for deadlines that move with each request. The timer is reset only if the new deadline is earlier. If it
/// fires too early, it is set again; this is cheaper than a reset for each request.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when this much time has passed since the first poll.
    pub fn poll_for(&mut self, time: Duration, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx)
    }

    /// Ready once `end` has passed. It wakes the task that polled last.
    pub fn poll_until(&mut self, end: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            if end < sleep.deadline() {
                sleep.as_mut().reset(end);
            }
            ready!(sleep.as_mut().poll(cx));
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(end);
        }
    }
}

/// Returns bytes that were already read from `io`, and then reads from `io`.
pub struct Replay<I> {
    io: I,
    read: Bytes,
}

impl<I> fmt::Debug for Replay<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}

impl<I> Replay<I> {
    /// Creates an IO object that returns `read` before the bytes of `io`.
    pub fn new(io: I, read: Bytes) -> Self {
        Self { io, read }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Replay<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        if self.read.is_empty() {
            // Free the allocation too.
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Replay<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
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
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

//! Gathers what HTTP/2 writes: one TLS record and one system call for each turn of the connection, not for each frame.
//!
//! h2 writes and flushes every DATA frame of 256 bytes or more by itself. Here flushes are swallowed and writes are kept, up to one
//! TLS record; whoever drives the connection flushes once after each poll.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one TLS record holds (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// The connection's end of the IO.
#[derive(Debug)]
pub(super) struct Gather<T>(Rc<RefCell<Inner<T>>>);

/// The driver's end: it only flushes.
#[derive(Debug)]
pub(super) struct Flusher<T>(Rc<RefCell<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    io: T,
    gathered: Vec<u8>,
    written: usize,
    flushed: bool,
    /// What came last was not taken, and is to come again: maybe the rest of a frame.
    owed: bool,
    /// Something has left since that was asked.
    moved: bool,
}

/// Splits an IO in its two ends.
pub(super) fn gather<T>(io: T) -> (Gather<T>, Flusher<T>) {
    let inner = Rc::new(RefCell::new(Inner {
        io,
        gathered: Vec::new(),
        written: 0,
        flushed: true,
        owed: false,
        moved: false,
    }));
    (Gather(Rc::clone(&inner)), Flusher(inner))
}

impl<T> Flusher<T> {
    /// Looks at the IO.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow().io)
    }

    /// The IO, once the connection's end is dropped.
    pub(super) fn into_io(self) -> Option<T> {
        Rc::try_unwrap(self.0).ok().map(|inner| inner.into_inner().io)
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Whether something has left since this was asked before.
    pub(super) fn has_moved(&self) -> bool {
        mem::take(&mut self.0.borrow_mut().moved)
    }

    /// Sends some last bytes, unless they would come in the middle of a frame.
    pub(super) fn poll_last_words(&self, cx: &mut Context<'_>, words: &mut &[u8]) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.owed {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_flush(cx))?;
        while !words.is_empty() {
            let wrote = ready!(Pin::new(&mut inner.io).poll_write(cx, words))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *words = &words[wrote..];
        }
        ready!(Pin::new(&mut inner.io).poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }

    /// Sends what was gathered; ready if that is all.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        let flushes = !inner.flushed;
        ready!(inner.poll_flush(cx))?;
        // There is room now for what had none. Whoever has it may have thought better of it, so that this is said once.
        if flushes && inner.owed {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let wrote = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
            self.moved = true;
        }
        self.written = 0;
        self.gathered.clear();
        // An idle connection keeps no buffer.
        self.gathered.shrink_to(0);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.gathered.len() >= RECORD {
            inner.owed = true;
            ready!(inner.poll_drain(cx))?;
        }
        let take = buf.len().min(RECORD - inner.gathered.len());
        inner.gathered.extend_from_slice(&buf[..take]);
        (inner.flushed, inner.owed) = (false, false);
        Poll::Ready(Ok(take))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

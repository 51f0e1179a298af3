//! Batches what h2 writes: one TLS record and one system call for each poll of the connection, not for each frame.
//!
//! h2 writes and flushes every DATA frame of 256 bytes or more by itself. [`BufferedWriter`] ignores these flushes and buffers the writes, up to one
//! TLS record. The task that polls the connection calls [`Flusher::poll_flush`] once after each poll.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The limit of one TLS record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// The half for h2: it reads, and it writes to the buffer.
#[derive(Debug)]
pub(super) struct BufferedWriter<T>(Rc<RefCell<Inner<T>>>);

/// The half for the task that polls the connection: it writes the buffer to the IO.
#[derive(Debug)]
pub(super) struct Flusher<T>(Rc<RefCell<Inner<T>>>);

/// What both halves share.
#[derive(Debug)]
struct Inner<T> {
    io: T,
    // 0 <= written <= buffer.len() <= RECORD
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were written to the IO.
    written: usize,
    state: WriteState,
    /// Bytes were written to the IO since the last `take_progress`.
    made_progress: bool,
}

/// What remains to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    /// Nothing: `buffer` is empty, and the IO was flushed after the last write.
    Flushed,
    /// `buffer` holds bytes, or the IO needs a flush.
    Buffered,
    /// As `Buffered`, and h2 owes a write: `buffer` was full, and the last `poll_write` returned `Pending`. h2 will write these bytes again. They
    /// may be the middle of a frame, so nothing else may be written before them.
    WriteOwed,
    /// As `Flushed`, and h2 owes a write.
    FlushedWriteOwed,
}

impl WriteState {
    fn is_flushed(self) -> bool {
        matches!(self, Self::Flushed | Self::FlushedWriteOwed)
    }

    fn is_write_owed(self) -> bool {
        matches!(self, Self::WriteOwed | Self::FlushedWriteOwed)
    }
}

/// Splits an IO into its two halves.
pub(super) fn split<T>(io: T) -> (BufferedWriter<T>, Flusher<T>) {
    let inner = Rc::new(RefCell::new(Inner {
        io,
        buffer: Vec::new(),
        written: 0,
        state: WriteState::Flushed,
        made_progress: false,
    }));
    (BufferedWriter(Rc::clone(&inner)), Flusher(inner))
}

impl<T> Flusher<T> {
    /// Gives access to the IO.
    pub(super) fn with_io<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.borrow().io)
    }

    /// The IO, after the `BufferedWriter` half was dropped; `None` before.
    pub(super) fn into_io(self) -> Option<T> {
        Rc::try_unwrap(self.0).ok().map(|inner| inner.into_inner().io)
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Whether bytes were written to the IO since the last call.
    pub(super) fn take_progress(&self) -> bool {
        mem::take(&mut self.0.borrow_mut().made_progress)
    }

    /// Writes the buffer, then `last_frame`, and shuts the IO down. Writes nothing if h2 owes a write.
    pub(super) fn poll_close_with(&self, cx: &mut Context<'_>, last_frame: &mut &[u8]) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.state.is_write_owed() {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_flush(cx))?;
        while !last_frame.is_empty() {
            let wrote = ready!(Pin::new(&mut inner.io).poll_write(cx, last_frame))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *last_frame = &last_frame[wrote..];
        }
        ready!(Pin::new(&mut inner.io).poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }

    /// Writes the buffer to the IO. Ready if all was written, and the task was already woken for a write that h2 owes.
    /// Wake-up: the IO; or the task itself, once, if there is room again for the owed write.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        let was_flushed = inner.state.is_flushed();
        ready!(inner.poll_flush(cx))?;
        // There is room again for the write that h2 owes. h2 may have dropped it (a stream was reset), so the task is woken only once.
        if !was_flushed && inner.state == WriteState::FlushedWriteOwed {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_write_buffer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let wrote = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer[self.written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
            self.made_progress = true;
        }
        self.written = 0;
        self.buffer.clear();
        // An idle connection keeps no buffer.
        self.buffer.shrink_to(0);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match self.state {
            WriteState::Flushed | WriteState::FlushedWriteOwed => return Poll::Ready(Ok(())),
            WriteState::Buffered => WriteState::Flushed,
            WriteState::WriteOwed => WriteState::FlushedWriteOwed,
        };
        ready!(self.poll_write_buffer(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.state = flushed;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for BufferedWriter<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for BufferedWriter<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.buffer.len() >= RECORD {
            inner.state = WriteState::WriteOwed;
            ready!(inner.poll_write_buffer(cx))?;
        }
        let count = buf.len().min(RECORD - inner.buffer.len());
        inner.buffer.extend_from_slice(&buf[..count]);
        inner.state = WriteState::Buffered;
        Poll::Ready(Ok(count))
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

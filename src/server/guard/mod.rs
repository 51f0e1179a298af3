//! What stands between a client's HTTP/1 bytes and the parser: [`Guarded`] lets through what can be read in one way only, unchanged,
//! and nothing of what cannot ([`scan`]). It also notes where heads begin and end, which is what deadlines are about.
//!
//! Behind each message it waits for the answer: only then is it known whether what follows is another message, or the bytes of a
//! WebSocket. Until then it reads on, so that a client that is gone is noticed, and keeps what it reads.
//!
//! Once something was refused, the parser finds the end of the connection there. Its own last words are never needed, so that
//! every answer is one of ours.

pub(crate) mod head;
pub(crate) mod scan;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) use self::head::Bounds;
use self::scan::{Scanned, Scanner};
use super::clock::Clock;
pub(super) use crate::framing::grammar::Fault;

/// What is read at once: a TLS record holds no more.
const PIECE: usize = 16 * 1024;
/// What is kept of what comes behind a message that is not answered yet.
const MOST_HELD: usize = 16 * 1024;

/// A client's connection, guarded.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    io: T,
    clock: Rc<Clock>,
    scanner: Scanner,
    may_read: MayRead,
    /// What came behind a message that is not answered yet.
    held: Vec<u8>,
    /// The client will send nothing more.
    ended: bool,
}

/// Whether the parser may read more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayRead {
    Yes,
    /// Not until the message that has ended is answered. A parser that does not come back for more has said `Connection: close`, and
    /// nothing may follow that (RFC 9112, section 9.6).
    OnceAnswered,
    /// No: a head was refused.
    RefusedHead(Fault),
    /// No: the framing of a body broke, and whoever reads it will find out.
    BrokenBody,
}

impl<T> Guarded<T> {
    pub(super) fn new(io: T, clock: Rc<Clock>, bounds: Bounds) -> Self {
        Self {
            io,
            clock,
            scanner: Scanner::new(bounds),
            may_read: MayRead::Yes,
            held: Vec::new(),
            ended: false,
        }
    }

    /// The head that is to be answered with a refusal, if one is.
    pub(super) fn refused(&self) -> Option<Fault> {
        match self.may_read {
            MayRead::RefusedHead(fault) => Some(fault),
            MayRead::Yes | MayRead::OnceAnswered | MayRead::BrokenBody => None,
        }
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn may_send_more(&self) -> bool {
        !self.ended
    }

    /// The IO, and what was read of it behind the last message.
    pub(super) fn into_rest(self) -> (T, Vec<u8>) {
        (self.io, self.held)
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Reads into `buf`; an end is noted.
    fn poll_io(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ended = ready!(Pin::new(&mut self.io).poll_read(cx, buf)).map(|()| buf.filled().is_empty());
        self.ended = ended.as_ref().copied().unwrap_or(true);
        Poll::Ready(ended.map(drop))
    }

    /// Waits until the last message is answered; `false`: the client is gone. What it sends meanwhile is kept, within a bound.
    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.clock.poll_answered(cx).is_ready() {
            return Poll::Ready(Ok(true));
        }
        let mut piece = [const { MaybeUninit::uninit() }; 1024];
        while self.held.len() < MOST_HELD {
            let mut read = ReadBuf::uninit(&mut piece);
            ready!(self.poll_io(cx, &mut read))?;
            if self.ended {
                return Poll::Ready(Ok(false));
            }
            self.held.extend_from_slice(read.filled());
        }
        Poll::Pending
    }

    /// Passes on what may pass of `bytes`.
    fn pass(&mut self, bytes: &[u8], out: &mut ReadBufCursor<'_>) {
        let passed = match self.scanner.scan(bytes) {
            Scanned::All => bytes.len(),
            Scanned::UpTo(passed, fault) => {
                self.may_read = fault.map_or(MayRead::BrokenBody, MayRead::RefusedHead);
                passed
            }
            Scanned::Message(passed) => {
                self.may_read = MayRead::OnceAnswered;
                self.held.splice(..0, bytes[passed..].iter().copied());
                passed
            }
        };
        out.put_slice(&bytes[..passed]);
        if self.scanner.in_head() && self.may_read == MayRead::Yes {
            self.clock.head_began();
        } else if !bytes.is_empty() {
            self.clock.head_ended();
        }
    }
}

impl<T: AsyncRead + Unpin> Read for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.may_read {
            MayRead::Yes => {}
            MayRead::RefusedHead(_) | MayRead::BrokenBody => return Poll::Ready(Ok(())),
            MayRead::OnceAnswered => {
                if !ready!(this.poll_answered(cx))? {
                    return Poll::Ready(Ok(()));
                }
                this.may_read = MayRead::Yes;
            }
        }
        if this.held.is_empty() {
            let mut piece = [const { MaybeUninit::uninit() }; PIECE];
            let room = out.remaining().min(PIECE);
            let mut read = ReadBuf::uninit(&mut piece[..room]);
            ready!(this.poll_io(cx, &mut read))?;
            this.pass(read.filled(), &mut out);
        } else {
            let most = out.remaining().min(this.held.len());
            let bytes: Vec<u8> = this.held.drain(..most).collect();
            this.pass(&bytes, &mut out);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Write for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.clock.writes();
        this.clock.wrote(Pin::new(&mut this.io).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.clock.flushed(Pin::new(&mut this.io).poll_flush(cx))
    }

    /// The connection may have more to say than its parser: whoever holds it shuts it down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.clock.writes();
        this.clock.wrote(Pin::new(&mut this.io).poll_write_vectored(cx, slices))
    }
}

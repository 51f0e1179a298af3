//! What stands between a client's HTTP/1 bytes and the parser: [`Guarded`] lets through what can be read in one way only, unchanged,
//! and nothing of what cannot ([`scan`]). It also notes where heads begin and end, which is what deadlines are about.
//!
//! Once something was refused, the parser finds the end of the connection there. Its own last words are never needed, so that
//! every answer is one of ours.

mod chunked;
pub(crate) mod grammar;
pub(crate) mod head;
pub(crate) mod scan;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) use self::grammar::Fault;
pub(super) use self::head::Bounds;
use self::scan::{Scanned, Scanner};
use super::clock::Clock;

/// What is read at once: a TLS record holds no more.
const PIECE: usize = 16 * 1024;

/// A client's connection, guarded.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    io: T,
    clock: Rc<Clock>,
    scanner: Scanner,
    end: End,
    /// What came behind a request for another protocol, until it is known whose it is.
    held: Vec<u8>,
}

/// Whether more may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Yes.
    NotYet,
    /// No: a head was refused.
    Head(Fault),
    /// No: a head was refused, and the parser has come to where it would be. It is to be answered. A parser that does not come there
    /// has said `Connection: close` before, and nothing may follow that (RFC 9112, section 9.6).
    HeadAwaited(Fault),
    /// No: the framing of a body broke, and whoever reads it will find out.
    Body,
    /// Not until a request for another protocol is answered.
    Switching,
}

impl<T> Guarded<T> {
    pub(super) fn new(io: T, clock: Rc<Clock>, bounds: Bounds) -> Self {
        Self {
            io,
            clock,
            scanner: Scanner::new(bounds),
            end: End::NotYet,
            held: Vec::new(),
        }
    }

    /// The head that is to be answered with a refusal, if one is.
    pub(super) fn refused(&self) -> Option<Fault> {
        match self.end {
            End::HeadAwaited(fault) => Some(fault),
            End::NotYet | End::Head(_) | End::Body | End::Switching => None,
        }
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn is_mid_message(&self) -> bool {
        self.end != End::NotYet || self.scanner.in_body() || self.scanner.in_head()
    }

    pub(super) fn into_inner(self) -> T {
        self.io
    }

    /// The IO, and what was read of it beyond the request for another protocol.
    pub(super) fn into_rest(self) -> (T, Vec<u8>) {
        (self.io, self.held)
    }

    /// The end of what the parser may read; in the middle of another request it would look like a client that is gone.
    fn poll_awaited(&mut self, cx: &Context<'_>, fault: Fault) -> Poll<io::Result<()>> {
        ready!(self.clock.poll_done(cx));
        self.end = End::HeadAwaited(fault);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Waits for the answer to a request for another protocol. If the protocol is switched, nobody reads here again. Only a client
    /// that is gone is noticed; what it sends ahead is kept, within a bound.
    fn poll_switch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.clock.poll_done(cx).is_ready() {
            return Poll::Ready(Ok(true));
        }
        let mut piece = [const { MaybeUninit::uninit() }; 1024];
        while self.held.len() < PIECE {
            let mut read = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.held.extend_from_slice(read.filled());
        }
        Poll::Pending
    }

    /// Passes on what may pass of `bytes`; how much that was.
    fn pass(&mut self, bytes: &[u8], out: &mut ReadBufCursor<'_>) -> usize {
        let passed = match self.scanner.scan(bytes) {
            Scanned::All => bytes.len(),
            Scanned::UpTo(passed, fault) => {
                self.end = fault.map_or(End::Body, End::Head);
                passed
            }
            Scanned::Switch(passed) => {
                self.end = End::Switching;
                self.held.splice(..0, bytes[passed..].iter().copied());
                passed
            }
        };
        out.put_slice(&bytes[..passed]);
        if self.scanner.in_head() && self.end == End::NotYet {
            self.clock.head_began();
        } else if !bytes.is_empty() {
            self.clock.head_ended();
        }
        passed
    }
}

impl<T: AsyncRead + Unpin> Read for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.end {
            End::NotYet => {}
            End::Head(fault) => return this.poll_awaited(cx, fault),
            End::HeadAwaited(_) | End::Body => return Poll::Ready(Ok(())),
            End::Switching => {
                if !ready!(this.poll_switch(cx))? {
                    return Poll::Ready(Ok(()));
                }
                this.end = End::NotYet;
            }
        }
        let passed = if this.held.is_empty() {
            let mut piece = [const { MaybeUninit::uninit() }; PIECE];
            let room = out.remaining().min(PIECE);
            let mut read = ReadBuf::uninit(&mut piece[..room]);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            this.pass(read.filled(), &mut out)
        } else {
            let most = out.remaining().min(this.held.len());
            let bytes: Vec<u8> = this.held.drain(..most).collect();
            this.pass(&bytes, &mut out)
        };
        match this.end {
            End::Head(fault) if passed == 0 => this.poll_awaited(cx, fault),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.clock.wrote(Pin::new(&mut this.io).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.clock.wrote(Pin::new(&mut this.io).poll_flush(cx))
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
        this.clock.wrote(Pin::new(&mut this.io).poll_write_vectored(cx, slices))
    }
}

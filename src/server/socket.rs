//! What clients come over, TCP or a socket file: a listener, a connection, and both as they pass from one thread to another.

use std::io::{self, IoSlice};
use std::net;
use std::os::unix::net as unix;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tracing::debug;

use crate::outbound::forwarded::Node;
use crate::tcp;

/// So much may wait in the kernel beside what the client has room for; half of it is what lets us write again.
const MOST_NOT_SENT: u32 = 128 * 1024;

/// A listener that no runtime has yet.
#[derive(Debug)]
pub enum Bound {
    /// Of TCP.
    Tcp(net::TcpListener),
    /// On a socket file.
    Unix(unix::UnixListener),
}

/// A listener of the runtime that it was made on.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }

    /// Whether all workers wait on this one, and not each on its own.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

/// A connection that is on its way to another runtime.
#[derive(Debug)]
pub enum Parked {
    /// Of TCP.
    Tcp(net::TcpStream),
    /// Over a socket file.
    Unix(unix::UnixStream),
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Takes it up on this runtime.
    pub(super) fn new(parked: Parked) -> io::Result<Self> {
        Ok(match parked {
            Parked::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            Parked::Unix(stream) => Self::Unix(UnixStream::from_std(stream)?),
        })
    }

    /// Once dropped it is reset: what has not left is thrown away, and nobody can take its end for one that was meant.
    pub(super) fn reset_when_closed(&self) {
        let done = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            // A socket file's end is only an end.
            Self::Unix(_) => Ok(()),
        };
        if let Err(problem) = done {
            debug!(reason = %problem, "SO_LINGER");
        }
    }

    /// Takes it off this runtime.
    pub(super) fn park(self) -> io::Result<Parked> {
        Ok(match self {
            Self::Tcp(stream) => Parked::Tcp(stream.into_std()?),
            Self::Unix(stream) => Parked::Unix(stream.into_std()?),
        })
    }

    pub(super) fn peer(&self) -> io::Result<Node> {
        Ok(match self {
            Self::Tcp(stream) => stream.peer_addr()?.ip().into(),
            Self::Unix(_) => Node::Unix,
        })
    }

    /// Sets what TCP needs: over a socket file nothing is delayed, and nobody leaves unnoticed.
    pub(super) fn prepare(&self) {
        let Self::Tcp(stream) = self else { return };
        tcp::prepare(stream);
        // What is written is on its way, or soon will be: a client that takes little by little is seen to, and the kernel holds little.
        if let Err(problem) = SockRef::from(stream).set_tcp_notsent_lowat(MOST_NOT_SENT) {
            debug!(reason = %problem, "TCP_NOTSENT_LOWAT");
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}

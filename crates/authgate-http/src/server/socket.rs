//! The client side's sockets, TCP or Unix: listeners, connections, and both in the form that can move to another thread.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net;
use std::os::unix::net as unix;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::node::Node;
use crate::tcp;

/// The length of the kernel's queue of connections that were not accepted yet.
pub(super) const BACKLOG: i32 = 4096;
/// The limit of unsent bytes in the kernel, besides the client's receive window. The socket is writable again below half of it.
const MAX_UNSENT: u32 = 128 * 1024;

/// A listener that is not registered with a runtime yet.
#[derive(Debug)]
pub enum BoundListener {
    /// Over TCP.
    Tcp(net::TcpListener, AcceptQueue),
    /// On a socket file.
    Unix(unix::UnixListener),
}

/// Which workers accept from the kernel's queue of a TCP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptQueue {
    /// One: each worker has a queue of its own, and the kernel distributes the connections.
    OfOneWorker,
    /// Several. All of them wake up for a connection, and the fastest one gets it.
    Shared,
}

/// A listener that is registered with the current runtime.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener, AcceptQueue),
    /// On a socket file.
    Unix(UnixListener),
}

impl Listener {
    /// Registers the listener with the current runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(bound: BoundListener) -> io::Result<Self> {
        Ok(match bound {
            BoundListener::Tcp(listener, queue) => Self::Tcp(TcpListener::from_std(listener)?, queue),
            BoundListener::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// No connection can be accepted now, for example without free descriptors.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener, _) => Stream::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }

    /// Closes the listener, and returns the connections of its queue: these clients may have sent requests already.
    ///
    /// # Errors
    /// The listener cannot be removed from the runtime.
    pub fn close(self) -> io::Result<Vec<DetachedStream>> {
        let queued = match self {
            Self::Tcp(listener, _) => {
                let listener = listener.into_std()?;
                accept_queued(|| Ok(DetachedStream::Tcp(listener.accept()?.0)))
            }
            Self::Unix(listener) => {
                let listener = listener.into_std()?;
                accept_queued(|| Ok(DetachedStream::Unix(listener.accept()?.0)))
            }
        };
        Ok(queued)
    }

    /// Several workers accept from the queue of this listener.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Tcp(_, queue) => *queue == AcceptQueue::Shared,
            Self::Unix(_) => true,
        }
    }
}

/// Accepts until the queue is empty, and at most [`BACKLOG`] times: clients may continue to connect meanwhile.
fn accept_queued(mut accept: impl FnMut() -> io::Result<DetachedStream>) -> Vec<DetachedStream> {
    let mut queued = Vec::new();
    for _ in 0..BACKLOG {
        match accept() {
            Ok(stream) => queued.push(stream),
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => break,
            // This client has closed its connection while it was in the queue.
            Err(problem) if problem.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(problem) => {
                warn!(reason = %problem, "queued connections could not be accepted and are lost");
                break;
            }
        }
    }
    queued
}

/// A connection that moves to another runtime.
#[derive(Debug)]
pub enum DetachedStream {
    /// Over TCP.
    Tcp(net::TcpStream),
    /// Over a socket file.
    Unix(unix::UnixStream),
}

/// The transport of HTTP: a connection, or TLS on a connection.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    fn socket(&self) -> &Stream;
}

impl Transport for Stream {
    fn socket(&self) -> &Stream {
        self
    }
}

impl Transport for Box<TlsStream<Stream>> {
    fn socket(&self) -> &Stream {
        self.get_ref().0
    }
}

/// A connection that is registered with the current runtime.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a socket file.
    Unix(UnixStream),
}

impl Stream {
    /// Registers the connection with the current runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(detached: DetachedStream) -> io::Result<Self> {
        Ok(match detached {
            DetachedStream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Self::Tcp(TcpStream::from_std(stream)?)
            }
            DetachedStream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Self::Unix(UnixStream::from_std(stream)?)
            }
        })
    }

    /// Waits until the socket has bytes to read, has ended or has failed. The next read finds which of these.
    pub(super) async fn readable(&self) {
        // A new socket counts as readable until the kernel was asked, so waiting for readiness is not enough.
        fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
            socket.peek(&mut [MaybeUninit::uninit()])
        }
        let _ = match self {
            Self::Tcp(stream) => {
                stream
                    .async_io(Interest::READABLE, || peek(&SockRef::from(stream)))
                    .await
            }
            Self::Unix(stream) => {
                stream
                    .async_io(Interest::READABLE, || peek(&SockRef::from(stream)))
                    .await
            }
        };
    }

    /// Whether the socket has bytes to read or has ended. This asks the kernel, because epoll may not have reported them yet.
    pub(super) fn has_unread(&self) -> bool {
        let socket = match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        };
        socket.peek(&mut [MaybeUninit::uninit()]).is_ok()
    }

    /// Resets the connection when it is dropped: unsent bytes are discarded, and the client cannot mistake the close for the end of the body.
    pub(super) fn reset_when_closed(&self) {
        let done = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            // A Unix socket has no reset.
            Self::Unix(_) => Ok(()),
        };
        if let Err(problem) = done {
            debug!(reason = %problem, "SO_LINGER");
        }
    }

    /// Removes the connection from the current runtime.
    pub(super) fn detach(self) -> io::Result<DetachedStream> {
        Ok(match self {
            Self::Tcp(stream) => DetachedStream::Tcp(stream.into_std()?),
            Self::Unix(stream) => DetachedStream::Unix(stream.into_std()?),
        })
    }

    /// The other end of the connection.
    ///
    /// # Errors
    /// The connection has ended already.
    pub fn peer(&self) -> io::Result<Node> {
        Ok(match self {
            Self::Tcp(stream) => stream.peer_addr()?.ip().into(),
            Self::Unix(_) => Node::Unix,
        })
    }

    /// Sets the options of TCP. A Unix socket needs none: it has no delays, and a dead peer is always noticed.
    pub(super) fn set_options(&self) {
        let Self::Tcp(stream) = self else { return };
        tcp::set_options(stream);
        // The kernel holds few bytes that were not sent, so a write succeeds only when the client reads: slow clients are detected.
        if let Err(problem) = SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT) {
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

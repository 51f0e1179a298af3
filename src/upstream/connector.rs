//! From a server's address to a connection that speaks HTTP: name, TCP or socket file, TLS, protocol. Deadlines are the caller's.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::body::RequestBody;
use super::resolve::{Addresses, Peer, ResolveError, bare};
use super::{Server, Tls, Transport, http1};
use crate::runtime::{OnThisThread, Replay};
use crate::tcp;

/// Bytes of a response's fields over HTTP/2.
const MOST_HEADER_BYTES: u32 = 64 * 1024;
/// What a server that speaks HTTP/2 over TLS has chosen (ALPN; RFC 9113, section 3.1).
const H2: &[u8] = b"h2";
/// How much of a response an HTTP/2 server may send ahead: for each stream, and for the connection.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How long one address has for itself before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection whose protocol was switched, with what had been read of it before.
pub type Tunnel = Replay<Io>;

/// Bytes both ways, over whatever they come.
#[derive(Debug)]
pub enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A socket file.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Whether the other side has neither closed it nor said anything. The system is asked only where the runtime has heard something: whatever
    /// came before a request that was read has been heard of, since the runtime hears of all sockets at once.
    pub(super) fn is_open(&self) -> bool {
        let heard = match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(&SockRef::from(tcp))),
            Self::Unix(unix) => unix.try_io(Interest::READABLE, || peek(&SockRef::from(unix))),
            Self::Tls(tls) => {
                let tcp = tls.get_ref().0;
                tcp.try_io(Interest::READABLE, || peek(&SockRef::from(tcp)))
            }
        };
        heard.is_err_and(|nothing| nothing.kind() == io::ErrorKind::WouldBlock)
    }
}

fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

macro_rules! of_any {
    ($io:expr, $it:ident => $what:expr) => {
        match $io.get_mut() {
            Io::Tcp($it) => $what,
            Io::Unix($it) => $what,
            Io::Tls($it) => $what,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        of_any!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        of_any!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_any!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_any!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_any!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The host has no address that is known.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// The host cannot be a TLS server's name.
    #[error("{0} cannot be the name of a TLS server")]
    Name(String),
    /// TLS was asked for and there are no roots to trust.
    #[error("there are no root certificates to trust")]
    NoRoots,
    /// HTTP did not start.
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// Whether this process lacks what a connection needs, descriptors or memory. That says nothing of the server.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Io(error) => is_ours(error),
            Self::Resolve(error) => error.is_ours(),
            Self::Name(_) | Self::NoRoots | Self::Http(_) => false,
        }
    }
}

/// Whether the system has said that this process, or all of them, have too much already.
pub(super) fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    )
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) enum Link {
    /// For one request at a time.
    Http1(http1::Connection<Io>),
    /// For many; driven by a task of this worker until it ends.
    Http2(http2::SendRequest<RequestBody>),
}

/// Opens a connection. A look-up of the server's name is given up after `patience`.
pub(super) async fn connect(
    server: &Server,
    addresses: &Addresses,
    tls: Option<&Tls>,
    patience: Duration,
) -> Result<(Link, Peer), ConnectError> {
    let over_tcp = async || {
        let peers = addresses.find(patience).await?;
        reach(addresses, &peers, server.authority.port_u16().unwrap_or(80)).await
    };
    match &server.transport {
        Transport::Unix(path) => Ok((http1(Io::Unix(UnixStream::connect(path).await?)), Peer::default())),
        Transport::Http => over_tcp().await.map(|(tcp, peer)| (http1(Io::Tcp(tcp)), peer)),
        Transport::H2c => {
            let (tcp, peer) = over_tcp().await?;
            Ok((start_http2(tcp).await?, peer))
        }
        Transport::Https => {
            let tls = tls.ok_or(ConnectError::NoRoots)?;
            let host = bare(server.authority.host());
            let name = match &tls.server_name {
                Some(name) => name.clone(),
                None => ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Name(host.to_owned()))?,
            };
            let (tcp, peer) = over_tcp().await?;
            let connection = TlsConnector::from(tls.config.clone()).connect(name, tcp).await?;
            let link = if connection.get_ref().1.alpn_protocol() == Some(H2) {
                start_http2(connection).await?
            } else {
                http1(Io::Tls(Box::new(connection)))
            };
            Ok((link, peer))
        }
    }
}

/// Tries one address after the other, the next one where the last has failed or lets us wait; the first that answers has it.
async fn reach(addresses: &Addresses, peers: &[Peer], port: u16) -> Result<(TcpStream, Peer), ConnectError> {
    let mut trying = FuturesUnordered::new();
    let mut why = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut left = peers.iter().filter_map(|peer| Some((*peer, peer.address?))).peekable();
    while let Some((peer, address)) = left.next() {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        trying.push(async move { (peer, address, connecting.await) });
        loop {
            let ended = match left.peek() {
                Some(_) => timeout(HEAD_START, trying.next()).await,
                None => Ok(trying.next().await),
            };
            match ended {
                Ok(Some((peer, _, Ok(stream)))) => {
                    tcp::prepare(&stream);
                    return Ok((stream, peer));
                }
                Ok(Some((_, _, Err(problem)))) if is_ours(&problem) => return Err(problem.into()),
                Ok(Some((_, failed, Err(problem)))) => {
                    addresses.avoid(failed);
                    why = problem;
                }
                Err(_) => addresses.avoid(address),
                Ok(None) => break,
            }
            if left.peek().is_some() {
                break;
            }
        }
    }
    Err(why.into())
}

fn http1(io: Io) -> Link {
    Link::Http1(http1::Connection::new(io))
}

async fn start_http2<I>(io: I) -> Result<Link, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(OnThisThread)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(MOST_HEADER_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(problem) = connection.await {
            debug!(reason = %problem, "an HTTP/2 connection to an upstream ended");
        }
    });
    Ok(Link::Http2(sender))
}

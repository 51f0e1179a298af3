//! Opens connections to servers: name, TCP or socket file, TLS, protocol. The caller sets the timeouts.

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
use crate::runtime::{LocalExecutor, Rewind};
use crate::tcp;

/// The limit of a response's fields over HTTP/2, in bytes.
const MOST_HEADER_BYTES: u32 = 64 * 1024;
/// The ALPN name of HTTP/2 over TLS (RFC 9113, section 3.1).
const H2: &[u8] = b"h2";
/// How much of the responses an HTTP/2 server may send ahead, for each stream and for the connection.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How long the connection attempt to one address runs before the next address is tried in parallel (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection that has switched protocols, with the bytes that were read before the switch.
pub type Tunnel = Rewind<Io>;

/// The transport of a connection to a server.
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
    /// Whether the server has neither closed the connection nor sent anything. It asks the kernel only if the runtime has reported an event. That
    /// is enough: the runtime reports events of all sockets at once, so bytes that came before the current request are already reported.
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
    /// An error of TCP or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No address of the host is known.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// The host is not valid as the name of a TLS server.
    #[error("{0} cannot be the name of a TLS server")]
    Name(String),
    /// TLS is configured without root certificates.
    #[error("there are no root certificates to trust")]
    NoRoots,
    /// The HTTP/2 handshake failed.
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// Whether this process lacks descriptors or memory for a connection. That says nothing about the server.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Io(error) => is_ours(error),
            Self::Resolve(error) => error.is_ours(),
            Self::Name(_) | Self::NoRoots | Self::Http(_) => false,
        }
    }
}

/// Whether the system reports that this process, or all processes, use too many descriptors or too much memory.
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
    /// For many requests; a task of this worker drives it until it ends.
    Http2(http2::SendRequest<RequestBody>),
}

/// Opens a connection. The look-up of the server's name ends after `patience`.
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

/// Tries the addresses in order. The next one is tried when the last has failed or is slow; the first connection that opens is used.
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
                    tcp::set_options(&stream);
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
    let (sender, connection) = http2::Builder::new(LocalExecutor)
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

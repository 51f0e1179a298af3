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
use super::exhaustion::is_local_exhaustion;
use super::http1;
use super::resolve::{Addresses, PeerAddress, ResolveError, without_brackets};
use super::settings::{Endpoint, Tls, Transport};
use crate::alpn;
use crate::runtime::{LocalExecutor, Rewind};
use crate::tcp;

/// The limit of a response's fields over HTTP/2, in bytes.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// How much of the responses an HTTP/2 server may send ahead, for each stream and for the connection.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How long the connection attempt to one address runs before the next address is tried in parallel (RFC 8305, section 5).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

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
        let peeked = match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(&SockRef::from(tcp))),
            Self::Unix(unix) => unix.try_io(Interest::READABLE, || peek(&SockRef::from(unix))),
            Self::Tls(tls) => {
                let tcp = tls.get_ref().0;
                tcp.try_io(Interest::READABLE, || peek(&SockRef::from(tcp)))
            }
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

macro_rules! with_stream {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io.get_mut() {
            Io::Tcp($stream) => $call,
            Io::Unix($stream) => $call,
            Io::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_stream!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
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
    #[error("{0} is not valid as the name of a TLS server")]
    InvalidServerName(String),
    /// TLS is configured without root certificates.
    #[error("no root certificates are configured")]
    NoRootCertificates,
    /// The HTTP/2 handshake failed.
    #[error("{0}")]
    Http2Handshake(#[from] hyper::Error),
}

impl ConnectError {
    /// Whether this process lacks descriptors or memory for a connection. That says nothing about the server.
    pub(super) fn is_local_exhaustion(&self) -> bool {
        match self {
            Self::Io(error) => is_local_exhaustion(error),
            Self::Resolve(error) => error.is_local_exhaustion(),
            Self::InvalidServerName(_) | Self::NoRootCertificates | Self::Http2Handshake(_) => false,
        }
    }
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) enum HttpConnection {
    /// For one request at a time.
    Http1(http1::Connection<Io>),
    /// For many requests; a task of this worker drives it until it ends.
    Http2(http2::SendRequest<RequestBody>),
}

/// Opens a connection. The look-up of the server's name ends after `lookup_timeout`.
pub(super) async fn connect(
    server: &Endpoint,
    addresses: &Addresses,
    tls: Option<&Tls>,
    lookup_timeout: Duration,
) -> Result<(HttpConnection, PeerAddress), ConnectError> {
    let open_tcp = async || {
        let peers = addresses.resolve(lookup_timeout).await?;
        connect_tcp(addresses, &peers, server.authority.port_u16().unwrap_or(80)).await
    };
    match &server.transport {
        Transport::Unix(path) => Ok((
            new_http1(Io::Unix(UnixStream::connect(path).await?)),
            PeerAddress::default(),
        )),
        Transport::Http => open_tcp().await.map(|(tcp, peer)| (new_http1(Io::Tcp(tcp)), peer)),
        Transport::H2c => {
            let (tcp, peer) = open_tcp().await?;
            Ok((start_http2(tcp).await?, peer))
        }
        Transport::Https => {
            let tls = tls.ok_or(ConnectError::NoRootCertificates)?;
            let host = without_brackets(server.authority.host());
            let name = match &tls.server_name {
                Some(name) => name.clone(),
                None => ServerName::try_from(host.to_owned())
                    .map_err(|_| ConnectError::InvalidServerName(host.to_owned()))?,
            };
            let (tcp, peer) = open_tcp().await?;
            let connection = TlsConnector::from(tls.config.clone()).connect(name, tcp).await?;
            let connection = if connection.get_ref().1.alpn_protocol() == Some(alpn::H2) {
                start_http2(connection).await?
            } else {
                new_http1(Io::Tls(Box::new(connection)))
            };
            Ok((connection, peer))
        }
    }
}

/// Tries the addresses in order. The next one is tried when the last has failed or is slow; the first connection that opens is used.
async fn connect_tcp(
    addresses: &Addresses,
    peers: &[PeerAddress],
    port: u16,
) -> Result<(TcpStream, PeerAddress), ConnectError> {
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut remaining = peers.iter().filter_map(|peer| Some((*peer, peer.address?))).peekable();
    while let Some((peer, address)) = remaining.next() {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        attempts.push(async move { (peer, address, connecting.await) });
        loop {
            let attempt = match remaining.peek() {
                Some(_) => timeout(CONNECTION_ATTEMPT_DELAY, attempts.next()).await,
                None => Ok(attempts.next().await),
            };
            match attempt {
                Ok(Some((peer, _, Ok(stream)))) => {
                    tcp::set_options(&stream);
                    return Ok((stream, peer));
                }
                Ok(Some((_, _, Err(error)))) if is_local_exhaustion(&error) => return Err(error.into()),
                Ok(Some((_, failed, Err(error)))) => {
                    addresses.avoid(failed);
                    last_error = error;
                }
                Err(_) => addresses.avoid(address),
                Ok(None) => break,
            }
            if remaining.peek().is_some() {
                break;
            }
        }
    }
    Err(last_error.into())
}

fn new_http1(io: Io) -> HttpConnection {
    HttpConnection::Http1(http1::Connection::new(io))
}

async fn start_http2<I>(io: I) -> Result<HttpConnection, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            debug!(reason = %error, "an HTTP/2 connection to an upstream ended");
        }
    });
    Ok(HttpConnection::Http2(sender))
}

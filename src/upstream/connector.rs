//! From a server's address to a connection that speaks HTTP: name, TCP or socket file, TLS, protocol. Deadlines are the caller's.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::pool::{Http1, Sender};
use super::{Server, Tls, Transport};
use crate::runtime::{OnThisThread, Replay};

/// Most fields of a response's head. Applications set more than clients do: cookies, policies, tracing.
const MOST_HEADERS: usize = 256;
/// Bytes of a response's fields over HTTP/2.
const MOST_HEADER_BYTES: u32 = 64 * 1024;
/// What a server that speaks HTTP/2 over TLS has chosen (ALPN; RFC 9113, section 3.1).
const H2: &[u8] = b"h2";
/// How much of a response an HTTP/2 server may send ahead: for each stream, and for the connection.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A connection whose protocol was switched, with what had been read of it before.
pub type Tunnel = Replay<Box<dyn Io>>;

/// Bytes both ways, over whatever they come.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name, TCP or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
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

/// Opens a connection; it is driven by a task of this worker until it ends.
pub(super) async fn connect(server: &Server, tls: Option<&Tls>) -> Result<Sender, ConnectError> {
    let host = server.authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = async || -> io::Result<TcpStream> {
        let tcp = TcpStream::connect((address, server.authority.port_u16().unwrap_or(80))).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    };
    match &server.transport {
        Transport::Unix(path) => start_http1(UnixStream::connect(path).await?).await,
        Transport::Http => start_http1(tcp().await?).await,
        Transport::H2c => start_http2(tcp().await?).await,
        Transport::Https => {
            let tls = tls.ok_or(ConnectError::NoRoots)?;
            let name = match &tls.server_name {
                Some(name) => name.clone(),
                None => ServerName::try_from(address.to_owned()).map_err(|_| ConnectError::Name(address.to_owned()))?,
            };
            let connection = TlsConnector::from(tls.config.clone())
                .connect(name, tcp().await?)
                .await?;
            if connection.get_ref().1.alpn_protocol() == Some(H2) {
                start_http2(connection).await
            } else {
                start_http1(connection).await
            }
        }
    }
}

async fn start_http1<I>(io: I) -> Result<Sender, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, mut connection) = http1::Builder::new()
        .max_headers(MOST_HEADERS)
        .handshake(TokioIo::new(io))
        .await?;
    let (hand_over, tunnel) = oneshot::channel();
    let switches = Rc::new(Cell::new(false));
    let switched = Rc::clone(&switches);
    tokio::task::spawn_local(async move {
        // Not consumed: after a 101, the bytes behind it are somebody else's.
        match poll_fn(|cx| Pin::new(&mut connection).poll(cx)).await {
            Err(problem) => debug!(%problem, "a connection to an upstream ended"),
            Ok(()) if !switched.get() => {}
            Ok(()) => {
                let parts = connection.into_parts();
                let io: Box<dyn Io> = Box::new(parts.io.into_inner());
                let _ = hand_over.send(Replay::new(io, parts.read_buf));
            }
        }
    });
    Ok(Sender::Http1(Http1 {
        sender,
        tunnel,
        switches,
    }))
}

async fn start_http2<I>(io: I) -> Result<Sender, ConnectError>
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
            debug!(%problem, "an HTTP/2 connection to an upstream ended");
        }
    });
    Ok(Sender::Http2(sender))
}

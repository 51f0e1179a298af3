//! From a server's address to an HTTP/1.1 connection: name, TCP, TLS. Deadlines are the caller's.

use std::io;
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::body::RequestBody;
use super::{Server, Transport};

/// Most fields of a response's head. Applications set more than clients do: cookies, policies, tracing.
const MOST_HEADERS: usize = 256;

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
pub(super) async fn connect(
    server: &Server,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<SendRequest<RequestBody>, ConnectError> {
    let host = server.authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((address, server.authority.port_u16().unwrap_or(80))).await?;
    tcp.set_nodelay(true)?;
    match server.transport {
        Transport::Http => start(tcp).await,
        Transport::Https => {
            let name = ServerName::try_from(address.to_owned()).map_err(|_| ConnectError::Name(address.to_owned()))?;
            let connector = TlsConnector::from(Arc::clone(tls.ok_or(ConnectError::NoRoots)?));
            start(connector.connect(name, tcp).await?).await
        }
    }
}

async fn start<I>(io: I) -> Result<SendRequest<RequestBody>, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(MOST_HEADERS)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(problem) = connection.await {
            debug!(%problem, "a connection to an upstream ended");
        }
    });
    Ok(sender)
}

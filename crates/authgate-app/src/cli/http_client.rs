//! HTTP/1.1 for commands: a connection for each request.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use authgate_dataplane::tls;
use authgate_dataplane::tls::client::ClientTlsSettings;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Http(String),
    Https(String),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Reads the value of a flag.
    ///
    /// # Errors
    /// It is not an address.
    pub(super) fn parse(flag: &str, url: &str) -> Result<Self, Failure> {
        let help = || {
            Failure::Usage(format!(
                "{flag} {url}: write `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`"
            ))
        };
        if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let uri: Uri = url.parse().map_err(|_| help())?;
        let authority = uri.authority().ok_or_else(help)?;
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") || authority.as_str().contains('@') {
            return Err(help());
        }
        match uri.scheme_str() {
            Some("http") => Ok(Self::Http(authority.to_string())),
            Some("https") => Ok(Self::Https(authority.to_string())),
            Some(_) | None => Err(help()),
        }
    }
}

/// TLS to servers whose certificates these authorities have signed, or those of the system. ALPN offers HTTP/1.1 alone: commands speak no other.
///
/// # Errors
/// The authorities cannot be read.
pub(super) fn tls(ca: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    let ca = ca.map(tls::load_authorities).transpose().map_err(io::Error::other)?;
    let settings = ClientTlsSettings { ca, identity: None };
    let (client, _) = tls::client::config(&settings).map_err(io::Error::other)?;
    let mut client = Arc::unwrap_or_clone(client);
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(client))
}

/// Sends a request, and reads at most `max_body` bytes of the response. `Host` is that of the address, unless the request has one.
///
/// # Errors
/// There is no complete response.
pub(super) async fn send(
    address: &Address,
    request: Request<Bytes>,
    tls: Option<Arc<ClientConfig>>,
    max_body: usize,
) -> io::Result<Response<Bytes>> {
    match address {
        Address::Unix(path) => {
            let unix = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await??;
            exchange(unix, "localhost", request, max_body).await
        }
        Address::Http(authority) => {
            let tcp = timeout(CONNECT_TIMEOUT, connect(authority, 80)).await??;
            exchange(tcp, authority, request, max_body).await
        }
        Address::Https(authority) => {
            let tls = tls.ok_or_else(|| io::Error::other("TLS is not set up"))?;
            let uri: Uri = authority.parse().map_err(io::Error::other)?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let tcp = timeout(CONNECT_TIMEOUT, connect(authority, 443)).await??;
            let stream = timeout(CONNECT_TIMEOUT, TlsConnector::from(tls).connect(name, tcp)).await??;
            exchange(stream, authority, request, max_body).await
        }
    }
}

async fn connect(authority: &str, default_port: u16) -> io::Result<TcpStream> {
    let uri: Uri = authority.parse().map_err(io::Error::other)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(default_port);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

async fn exchange<I>(io: I, host: &str, request: Request<Bytes>, max_body: usize) -> io::Result<Response<Bytes>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = request.map(Full::new);
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(host).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max_body).collect().await.map_err(io::Error::other)?;
    connection.abort();
    Ok(Response::from_parts(head, body.to_bytes()))
}

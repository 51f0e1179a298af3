//! [`DirectoryClient`]: the HTTP client for the directory of an authority. A connection for each request, since there are few. All waiting
//! and all responses are bounded.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use authgate_dataplane::tls::Authorities;
use authgate_dataplane::tls::client::{self, ClientTlsSettings, RootsError};
use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The limit for connecting, sending and reading together.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest response. A certificate chain has a few KiB.
const MAX_BODY: usize = 1 << 20;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why there is no response. `instant_acme` passes it on as [`Error::Other`].
#[derive(Debug, thiserror::Error)]
#[error("{authority}: {problem}")]
pub(super) struct Unreachable {
    authority: String,
    problem: BoxError,
}

#[derive(Clone)]
pub(super) struct DirectoryClient {
    tls: Arc<ClientConfig>,
}

impl DirectoryClient {
    pub(super) fn new(ca: Option<&Authorities>) -> Result<Self, RootsError> {
        let settings = ClientTlsSettings {
            ca: ca.cloned(),
            identity: None,
        };
        let mut tls = (*client::config(&settings)?.0).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }

    async fn send(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, BoxError> {
        let uri = request.uri().clone();
        if uri.scheme_str() != Some("https") {
            return Err(format!("{uri} is not an https URL").into());
        }
        let authority = uri.authority().ok_or("the URL has no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let tls = TlsConnector::from(self.tls).connect(name, tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
        let path = uri.path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let exchange = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        tokio::pin!(exchange, connection);
        // Polled here, and not in a task of its own: so it ends with the request.
        tokio::select! {
            biased;
            response = &mut exchange => response,
            ended = &mut connection => {
                ended?;
                exchange.await
            }
        }
    }
}

impl HttpClient for DirectoryClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            let sent = match timeout(TIMEOUT, client.send(request)).await {
                Ok(sent) => sent,
                Err(_) => Err(format!("no response within {} s", TIMEOUT.as_secs()).into()),
            };
            match sent {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    Ok(BytesResponse {
                        parts,
                        body: Box::new(body),
                    })
                }
                Err(problem) => Err(Error::Other(Box::new(Unreachable { authority, problem }))),
            }
        })
    }
}

//! [`HttpClient`]: hyper's client, bounded.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::max_age::max_age;
use super::{FetchError, FetchTls, FetchUrl};

/// The longest body of a response.
pub const MAX_BODY: usize = 1 << 20;
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

type ToServer = HttpsConnector<HttpConnector>;
/// TLS to a server through a proxy, which may itself be reached over TLS.
type ThroughProxy = HttpsConnector<Tunnel<ToServer>>;

/// A response with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its body.
    pub body: Bytes,
    /// How much longer it is fresh, if it says so.
    pub max_age: Option<Duration>,
}

/// The proxies that the environment names: `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, also in lower case, with the meaning that curl gives
/// them.
#[derive(Debug)]
pub struct Proxies(Matcher);

impl Proxies {
    /// Reads the environment.
    pub fn of_environment() -> Self {
        Self(Matcher::from_env())
    }

    /// This proxy, and the hosts that are reached without it, in the format of `NO_PROXY`.
    pub fn new(https_proxy: &str, no_proxy: &str) -> Self {
        Self(Matcher::builder().https(https_proxy).no(no_proxy).build())
    }

    /// The proxy for a URL. Loopback addresses have none.
    fn find(&self, url: &FetchUrl) -> Option<Intercept> {
        match url.is_loopback() {
            true => None,
            false => self.0.intercept(url.uri()),
        }
    }
}

/// A client for the servers of one identity provider.
///
/// Its requests run on one runtime, whichever runtime waits for them. Dropping the future of a request cancels the request. Dropping the
/// client closes its connections.
pub struct HttpClient {
    to_server: Client<ToServer, Full<Bytes>>,
    through_proxy: OnceLock<Client<ThroughProxy, Full<Bytes>>>,
    connectors: ToServer,
    tls: Arc<rustls::ClientConfig>,
    idle_connections: usize,
    proxies: Proxies,
    runtime: OnceLock<Handle>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("idle_connections", &self.idle_connections)
            .finish_non_exhaustive()
    }
}

/// A request that runs on another runtime. Dropping it cancels the request.
struct Running<T>(JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl HttpClient {
    /// Makes a client. It keeps at most `idle_connections` to each server; 0: each request has a connection of its own.
    pub fn new(tls: &FetchTls, idle_connections: usize, proxies: Proxies) -> Arc<Self> {
        let mut tls = (*tls.config).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = Arc::new(tls);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connectors = HttpsConnector::from((tcp, Arc::clone(&tls)));
        Arc::new(Self {
            to_server: client(connectors.clone(), idle_connections),
            through_proxy: OnceLock::new(),
            connectors,
            tls,
            idle_connections,
            proxies,
            runtime: OnceLock::new(),
        })
    }

    /// Runs its requests on the current runtime from now on. Only the first call has an effect.
    pub fn start(&self) {
        self.runtime.get_or_init(Handle::current);
    }

    /// Runs a task where its requests run, if they can. Nothing waits for its end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime.get() {
            runtime.spawn(task);
        }
    }

    /// Gets a document.
    ///
    /// # Errors
    /// There is no response with status 200 and a body of at most [`MAX_BODY`] until the deadline.
    pub async fn get(self: &Arc<Self>, url: &FetchUrl, deadline: Instant) -> Result<Document, FetchError> {
        let request = request(Method::GET, url, Bytes::new());
        self.run(url, request, deadline).await
    }

    /// Posts a form, in the format `application/x-www-form-urlencoded`. The request must not change the state of the server: where idle
    /// connections are kept, it is sent a second time if the connection is lost.
    ///
    /// # Errors
    /// As for [`HttpClient::get`].
    pub async fn post_form(
        self: &Arc<Self>,
        url: &FetchUrl,
        authorization: Option<HeaderValue>,
        form: Bytes,
        deadline: Instant,
    ) -> Result<Document, FetchError> {
        let mut request = request(Method::POST, url, form);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        if let Some(mut authorization) = authorization {
            authorization.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        self.run(url, request, deadline).await
    }

    async fn run(
        self: &Arc<Self>,
        url: &FetchUrl,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Document, FetchError> {
        let runtime = self.runtime.get().ok_or(FetchError::ShutDown)?;
        let (client, url) = (Arc::clone(self), url.clone());
        let mut running = Running(runtime.spawn(async move {
            match timeout_at(deadline, client.fetch(&url, request)).await {
                Ok(fetched) => fetched,
                Err(_) => Err(FetchError::Timeout),
            }
        }));
        // A task that is not done was cancelled by the end of its runtime.
        (&mut running.0).await.unwrap_or(Err(FetchError::ShutDown))
    }

    async fn fetch(&self, url: &FetchUrl, request: Request<Full<Bytes>>) -> Result<Document, FetchError> {
        let proxy = self.proxies.find(url);
        match self.send(request.clone(), proxy.as_ref()).await {
            // The server may have closed an idle connection just before it was used. No idle connections: it was a new one.
            Err(error) if error.is_lost_connection() && self.idle_connections > 0 => {
                self.send(request, proxy.as_ref()).await
            }
            sent => sent,
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>, proxy: Option<&Intercept>) -> Result<Document, FetchError> {
        let response = match proxy {
            None => self.to_server.request(request),
            Some(proxy) => self.request_through(proxy, request)?,
        };
        let proxy = || proxy.map(|proxy| proxy.uri().to_string());
        let response = response
            .await
            .map_err(|error| FetchError::of_request(&error, proxy()))?;
        let (head, body) = response.into_parts();
        if let Some(error) = FetchError::of_head(head.status, &head.headers) {
            return Err(error);
        }
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(FetchError::TooLarge);
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        Ok(Document {
            body: body.map_err(|error| FetchError::of_body(&*error))?.to_bytes(),
            max_age: max_age(&head.headers),
        })
    }

    /// `Matcher` knows one proxy for https, so there is one client.
    fn request_through(&self, proxy: &Intercept, request: Request<Full<Bytes>>) -> Result<ResponseFuture, FetchError> {
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Err(FetchError::Proxy {
                proxy: proxy.uri().to_string(),
                cause: "only http:// and https:// proxies are supported".to_owned(),
            });
        }
        let client = self.through_proxy.get_or_init(|| {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), self.connectors.clone());
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            client(
                HttpsConnector::from((tunnel, Arc::clone(&self.tls))),
                self.idle_connections,
            )
        });
        Ok(client.request(request))
    }
}

fn client<C>(connector: C, idle_connections: usize) -> Client<C, Full<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle_connections)
        .build(connector)
}

fn request(method: Method, url: &FetchUrl, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.uri().clone();
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    const AGENT: HeaderValue = HeaderValue::from_static(concat!("authgate/", env!("CARGO_PKG_VERSION")));
    headers.insert(USER_AGENT, AGENT);
    request
}

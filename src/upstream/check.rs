//! Active health checks: each worker sends a request to each server, on a separate connection.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::body::RequestBody;
use super::client::no_response;
use super::connector::{self, ConnectError, Link};
use super::http1::{Exchanged, Failure};
use super::pool::Pool;
use super::{ClientSide, Settings, Tls, UpstreamError, http2};
use crate::framing::header_case::{ConfiguredNames, HeaderCase};

/// How servers are checked: `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The path of the request; a status from 200 to 399 passes.
    pub path: PathAndQuery,
    /// How often each worker checks. It is also the timeout of a check.
    pub interval: Duration,
    /// `Host` of the request; `None`: the address of each server.
    pub host: Option<HeaderValue>,
}

/// Why a server has failed a check.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("no connection: {0}")]
    Connect(ConnectError),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    NoResponse(UpstreamError),
    #[error("it switched protocols")]
    Switched,
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
}

/// The result of a check.
enum Found {
    Healthy,
    Unhealthy(Unhealthy),
    /// This process lacks descriptors or memory for a connection: the result says nothing about the server.
    Unknown,
}

impl From<ConnectError> for Found {
    fn from(error: ConnectError) -> Self {
        match error.is_ours() {
            true => Self::Unknown,
            false => Self::Unhealthy(Unhealthy::Connect(error)),
        }
    }
}

impl From<Failure> for Found {
    fn from(failure: Failure) -> Self {
        Self::Unhealthy(Unhealthy::NoResponse(no_response(failure)))
    }
}

impl From<StatusCode> for Found {
    fn from(status: StatusCode) -> Self {
        match status.is_success() || status.is_redirection() {
            true => Self::Healthy,
            false => Self::Unhealthy(Unhealthy::Status(status)),
        }
    }
}

/// What one worker needs to check one server.
struct Checker {
    upstream: Arc<str>,
    check: Check,
    connect_timeout: Duration,
    tls: Option<Tls>,
    secret: Option<(HeaderName, HeaderValue)>,
    names: Arc<ConfiguredNames>,
}

/// Checks a server until its pool is dropped.
pub(super) fn watch(pool: &Rc<Pool>, settings: &Settings, names: &Arc<ConfiguredNames>, check: &Check) {
    let checker = Checker {
        upstream: settings.name.clone(),
        check: check.clone(),
        connect_timeout: settings.connect_timeout,
        tls: settings.tls.clone(),
        secret: settings.secret_header.clone(),
        names: Arc::clone(names),
    };
    let pool: Weak<Pool> = Rc::downgrade(pool);
    tokio::task::spawn_local(async move {
        loop {
            // The random factor keeps workers from checking at the same time.
            sleep(checker.check.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            let Some(pool) = pool.upgrade() else { return };
            checker.check(&pool).await;
        }
    });
}

impl Checker {
    async fn check(&self, pool: &Pool) {
        let interval = self.check.interval;
        let found = timeout(interval, self.ask(pool)).await;
        let failed = match found.unwrap_or(Found::Unhealthy(Unhealthy::Late(interval))) {
            Found::Healthy => None,
            Found::Unhealthy(reason) => Some(reason),
            Found::Unknown => return,
        };
        if pool.health.checked(failed.is_none()).is_none() {
            return;
        }
        let (upstream, server) = (&self.upstream, pool.name());
        let (path, host) = (
            self.check.path.as_str(),
            String::from_utf8_lossy(self.host(pool).as_bytes()),
        );
        match failed {
            None => info!(upstream = %upstream, server, "a server is up again"),
            Some(reason) => {
                warn!(upstream = %upstream, server, path, %host, %reason, "a server is down: its checks fail");
            }
        }
    }

    fn host<'p>(&'p self, pool: &'p Pool) -> &'p HeaderValue {
        self.check.host.as_ref().unwrap_or(&pool.host)
    }

    /// On a separate connection: an open connection of the pool does not show whether the server accepts new ones.
    async fn ask(&self, pool: &Pool) -> Found {
        let connecting = connector::connect(&pool.server, &pool.addresses, self.tls.as_ref(), self.connect_timeout);
        let link = match connecting.await {
            Ok((link, _)) => link,
            Err(error) => return error.into(),
        };
        let mut request = Request::new(RequestBody::none());
        *request.uri_mut() = Uri::from(self.check.path.clone());
        request.headers_mut().insert(HOST, self.host(pool).clone());
        if let Some((name, value)) = &self.secret {
            request.headers_mut().insert(name, value.clone());
        }
        let (head, body) = request.into_parts();
        // The caller's deadline is shorter.
        let late = self.check.interval.saturating_mul(2);
        match link {
            Link::Http1(connection) => {
                let header_case = HeaderCase::default();
                let client = ClientSide::unread(&header_case);
                match connection.exchange(&head, &self.names, body, late, &client).await {
                    Ok(Exchanged::Response(response)) => response.status().into(),
                    Ok(Exchanged::Switched(..)) => Found::Unhealthy(Unhealthy::Switched),
                    Err(failure) => failure.into(),
                }
            }
            Link::Http2(sender) => {
                let request = http2::translated(&head, body, &pool.server.transport);
                match http2::send(sender, request, late).await {
                    Ok(response) => response.status().into(),
                    Err(failure) => failure.into(),
                }
            }
        }
    }
}

//! Active health checks: each worker sends a request to each server, on a separate connection.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::Uri;
use http::{HeaderValue, Request, StatusCode};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::body::RequestBody;
use super::client_side::ClientSide;
use super::connector::{self, ConnectError, HttpConnection};
use super::error::UpstreamError;
use super::http1::{ExchangeError, ResponseOrUpgrade};
use super::http2;
use super::pool::Pool;
use super::settings::{HealthCheck, UpstreamSettings};
use crate::framing::header_case::{ConfiguredNames, HeaderCase};

/// Why a server has failed a check.
#[derive(Debug, thiserror::Error)]
enum CheckFailure {
    #[error("no connection: {0}")]
    Connect(ConnectError),
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    NoResponse(UpstreamError),
    #[error("it switched protocols")]
    Upgraded,
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
}

/// The result of a check.
enum CheckResult {
    Healthy,
    Unhealthy(CheckFailure),
    /// This process lacks descriptors or memory for a connection: the result says nothing about the server.
    Unknown,
}

impl From<ConnectError> for CheckResult {
    fn from(error: ConnectError) -> Self {
        match error.is_local_exhaustion() {
            true => Self::Unknown,
            false => Self::Unhealthy(CheckFailure::Connect(error)),
        }
    }
}

impl From<ExchangeError> for CheckResult {
    fn from(failure: ExchangeError) -> Self {
        Self::Unhealthy(CheckFailure::NoResponse(failure.into()))
    }
}

impl From<StatusCode> for CheckResult {
    fn from(status: StatusCode) -> Self {
        match status.is_success() || status.is_redirection() {
            true => Self::Healthy,
            false => Self::Unhealthy(CheckFailure::Status(status)),
        }
    }
}

/// What one worker needs to check the servers of an upstream.
struct HealthChecker {
    settings: Arc<UpstreamSettings>,
    check: HealthCheck,
    own_names: Arc<ConfiguredNames>,
}

/// Checks a server until this future is dropped.
pub(super) async fn run(
    pool: Rc<Pool>,
    settings: Arc<UpstreamSettings>,
    own_names: Arc<ConfiguredNames>,
    check: HealthCheck,
) {
    let checker = HealthChecker {
        settings,
        check,
        own_names,
    };
    loop {
        // The random factor keeps workers from checking at the same time.
        sleep(checker.check.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        checker.check(&pool).await;
    }
}

impl HealthChecker {
    async fn check(&self, pool: &Pool) {
        let interval = self.check.interval;
        let result = timeout(interval, self.send_check(pool)).await;
        let failed = match result.unwrap_or(CheckResult::Unhealthy(CheckFailure::Timeout(interval))) {
            CheckResult::Healthy => None,
            CheckResult::Unhealthy(reason) => Some(reason),
            CheckResult::Unknown => return,
        };
        let reason = failed.as_ref().map(|reason| reason as &dyn fmt::Display);
        if pool.health.record_check(reason).is_none() {
            return;
        }
        let (upstream, server) = (&self.settings.name, pool.server_name());
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
    async fn send_check(&self, pool: &Pool) -> CheckResult {
        let connecting = connector::connect(
            &pool.server,
            &pool.addresses,
            self.settings.tls.as_ref(),
            self.settings.connect_timeout,
        );
        let connection = match connecting.await {
            Ok((connection, _)) => connection,
            Err(error) => return error.into(),
        };
        let mut request = Request::new(RequestBody::empty());
        *request.uri_mut() = Uri::from(self.check.path.clone());
        request.headers_mut().insert(HOST, self.host(pool).clone());
        if let Some((name, value)) = &self.settings.secret_header {
            request.headers_mut().insert(name, value.clone());
        }
        let (head, body) = request.into_parts();
        // The caller's deadline is shorter.
        let response_timeout = self.check.interval.saturating_mul(2);
        match connection {
            HttpConnection::Http1(connection) => {
                let header_case = HeaderCase::default();
                let client = ClientSide::without_client(&header_case);
                match connection
                    .exchange(&head, &self.own_names, body, response_timeout, &client)
                    .await
                {
                    Ok(ResponseOrUpgrade::Response(response)) => response.status().into(),
                    Ok(ResponseOrUpgrade::Upgraded(..)) => CheckResult::Unhealthy(CheckFailure::Upgraded),
                    Err(failure) => failure.into(),
                }
            }
            HttpConnection::Http2(sender) => {
                let request = http2::to_http2(&head, body, &pool.server.transport);
                match http2::send(sender, request, response_timeout).await {
                    Ok(response) => response.status().into(),
                    Err(failure) => failure.into(),
                }
            }
        }
    }
}

//! The operator's listener: `/livez`, `/readyz`, `/metrics`; and the first two alone, for whoever watches this process.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, VARY};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::text;
use crate::auth::store;
use crate::server::worker::Stage;
use crate::telemetry::exposition::Format;
use crate::telemetry::metrics::Metrics;

/// Connections at once: scrapers and probes, not clients.
pub const CONNECTIONS: usize = 64;

/// What the listener tells of.
#[derive(Debug)]
pub struct Admin {
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// Each must have been reached once before this gateway is ready.
    pub stores: Vec<Arc<store::Shared>>,
    /// Names that operators ask by, in lower case, besides localhost and IP addresses.
    pub hosts: Vec<String>,
    /// How far a shutdown has come.
    pub stage: watch::Receiver<Stage>,
}

/// Answers operators until the process ends.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    super::serve(listener, CONNECTIONS, None, move |request| admin.answer(request)).await;
}

/// Answers `/livez` and `/readyz` alone, to anybody.
pub async fn serve_probes(listener: TcpListener, admin: Arc<Admin>) {
    super::serve(listener, CONNECTIONS, None, move |request| admin.probe(request)).await;
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        // A page of another site must not read this through a name that it makes resolve to here (DNS rebinding).
        if !self.is_for_us(request.headers().get(HOST)) {
            return text(
                StatusCode::FORBIDDEN,
                "This listener answers to localhost, IP addresses and the `hosts` of [admin] only.\n",
            );
        }
        if let Some(refused) = other_method(request) {
            return refused;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(request.headers()),
            _ => text(StatusCode::NOT_FOUND, "Here are /livez, /readyz and /metrics.\n"),
        }
    }

    fn is_for_us(&self, host: Option<&HeaderValue>) -> bool {
        host.and_then(host_name)
            .is_some_and(|name| name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name))
    }

    /// For kubelets and balancers, which ask by whatever name they know.
    fn probe<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Some(refused) = other_method(request) {
            return refused;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            _ => text(StatusCode::NOT_FOUND, "Here are /livez and /readyz.\n"),
        }
    }

    /// 200 once every store was reached; a later outage shows in the metrics and not here.
    fn ready(&self) -> Response<Full<Bytes>> {
        if *self.stage.borrow() != Stage::Serving {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let missing: Vec<&str> = self
            .stores
            .iter()
            .filter(|store| !store.was_reached())
            .map(|store| store.name())
            .collect();
        if missing.is_empty() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not reached yet: {}\n", missing.join(", ")),
            )
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept: Vec<&str> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let format = Format::accepted(&accept.join(","));
        match self.metrics.render(format) {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let kind = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
                response
            }
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The metrics cannot be written as text.\n",
            ),
        }
    }
}

fn other_method<B>(request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET is answered here.\n");
    let allowed = HeaderValue::from_static("GET, HEAD");
    refused.headers_mut().insert(ALLOW, allowed);
    Some(refused)
}

/// The name that a `Host` is for, without port and trailing dot.
fn host_name(host: &HeaderValue) -> Option<String> {
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    // A login before the host is no part of `Host`, and names are compared whole.
    if authority.as_str().contains('@') {
        return None;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_localhost_and_listed_names_are_answered() {
        let admin = Admin {
            metrics: Arc::default(),
            stores: Vec::new(),
            hosts: vec!["authgate.internal".to_owned()],
            stage: watch::channel(Stage::Serving).1,
        };
        for (host, expected) in [
            ("localhost:9901", true),
            ("127.0.0.1:9901", true),
            ("[::1]:9901", true),
            ("10.1.2.3", true),
            ("authgate.internal", true),
            ("Authgate.Internal.:9901", true),
            ("x.authgate.internal", false),
            ("authgate.internal.evil.example", false),
            ("authgate.internal@evil.example", false),
            ("evil.example@authgate.internal", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let answered = admin.is_for_us(Some(&HeaderValue::from_static(host)));
            assert_eq!(answered, expected, "{host}");
        }
        assert!(!admin.is_for_us(None));
    }
}

//! The admin listener: `/livez`, `/readyz`, `/metrics`; and the probe listener: the first two only.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use authgate_auth::store::SharedStore;
use authgate_http::server::stage::Stage;
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, VARY};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::text;
use crate::telemetry::exposition::ExpositionFormat;
use crate::telemetry::metrics::Metrics;

/// Maximum number of connections; for scrapers and probes, not for clients.
pub const CONNECTIONS: usize = 64;

/// State that the listener reports.
#[derive(Debug)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What belongs to the configuration in force.
    pub view: ArcSwap<AdminView>,
    /// The stage of a shutdown.
    pub stage: watch::Receiver<Stage>,
}

/// The part of the state that belongs to a configuration.
#[derive(Debug, Default)]
pub struct AdminView {
    /// The gateway is ready when each store was reached once.
    pub stores: Vec<Arc<SharedStore>>,
    /// Accepted host names, in lower case, besides localhost and IP addresses.
    pub hosts: Vec<String>,
}

/// Serves operators until the process ends.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    super::serve(listener, CONNECTIONS, None, move |request| admin.answer(request)).await;
}

/// Serves `/livez` and `/readyz` only, for any `Host`.
pub async fn serve_probes(listener: TcpListener, admin: Arc<Admin>) {
    super::serve(listener, CONNECTIONS, None, move |request| admin.probe(request)).await;
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        // A page of another site must not read this by a name that resolves to this address (DNS rebinding).
        if !self.is_for_us(request.headers().get(HOST)) {
            return text(
                StatusCode::FORBIDDEN,
                "Host not allowed. Use localhost, an IP address or one of the `hosts` of [admin].\n",
            );
        }
        if let Some(refused) = other_method(request) {
            return refused;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(request.headers()),
            _ => text(
                StatusCode::NOT_FOUND,
                "Not found. Available: /livez, /readyz and /metrics.\n",
            ),
        }
    }

    fn is_for_us(&self, host: Option<&HeaderValue>) -> bool {
        host.and_then(host_name).is_some_and(|name| {
            name == "localhost" || name.parse::<IpAddr>().is_ok() || self.view.load().hosts.contains(&name)
        })
    }

    /// For kubelets and load balancers, which use any `Host`.
    fn probe<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Some(refused) = other_method(request) {
            return refused;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            _ => text(StatusCode::NOT_FOUND, "Not found. Available: /livez and /readyz.\n"),
        }
    }

    /// 200 once every store was reached. A later outage changes the metrics, but not this response.
    fn ready(&self) -> Response<Full<Bytes>> {
        if *self.stage.borrow() != Stage::Serving {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let view = self.view.load();
        let missing: Vec<&str> = view
            .stores
            .iter()
            .filter(|store| !store.was_reached())
            .map(|store| &**store.name())
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
        let format = ExpositionFormat::accepted(&accept.join(","));
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
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed. Use GET.\n");
    let allowed = HeaderValue::from_static("GET, HEAD");
    refused.headers_mut().insert(ALLOW, allowed);
    Some(refused)
}

/// The host name in a `Host` header, without port and trailing dot.
fn host_name(host: &HeaderValue) -> Option<String> {
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    // `Host` has no user information, and names are compared as a whole.
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
    fn only_ip_addresses_localhost_and_listed_hosts_are_answered() {
        let admin = Admin {
            metrics: Arc::default(),
            view: ArcSwap::from_pointee(AdminView {
                stores: Vec::new(),
                hosts: vec!["authgate.internal".to_owned()],
            }),
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

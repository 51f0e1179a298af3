//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/status`, `/status.json`, `/config`, `/jwks.json`, `/reload`, `/revoke`; and the probe listener: the first two only.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use authgate_auth::SharedAuthenticator;
use authgate_auth::introspection::SharedEndpoint;
use authgate_auth::jwt::keys::remote::SharedKeySource;
use authgate_auth::store::SharedStore;
use authgate_dataplane::proxy::key_set;
use authgate_dataplane::proxy::route_groups::RouteList;
use authgate_dataplane::telemetry::exposition::ExpositionFormat;
use authgate_dataplane::telemetry::metrics::Metrics;
use authgate_dataplane::tls::control::ControlTls;
use authgate_http::log_throttle::LogThrottle;
use authgate_http::server::socket::Listener;
use authgate_http::server::stage::Stage;
use authgate_http::upstream::{UpstreamLimits, UpstreamSettings};
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER,
    VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::watch;
use tracing::warn;

use super::access::{AdminAccess, Denied, Purpose};
use super::reload::ReloadHook;
use super::revoke::{Problem, RevocationTurns, Revoker};
use super::status::document::Status;
use super::status::{
    CertificateStatus, ConfigurationStatus, EventStream, ListenerStatus, Marked, POLICY, ProcessFacts, Recent, Report,
    Viewers, event, every_interval, page,
};
use super::token::CHALLENGES;
use super::{Peer, Service, response, text};
use crate::acme::Acme;

/// Maximum number of connections of a listener; for scrapers and probes, not for clients.
pub const CONNECTIONS: usize = 64;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// State that the listener reports.
#[derive(Debug)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What belongs to the configuration in force.
    pub view: ArcSwap<AdminView>,
    /// The stage of a shutdown.
    pub stage: watch::Receiver<Stage>,
    /// The traffic of the last 15 minutes.
    pub recent: Recent,
    /// The pages that follow the status.
    pub viewers: Viewers,
    /// Facts of the process.
    pub process: ProcessFacts,
    /// Which configuration is in force.
    pub configuration: ConfigurationStatus,
    /// The open listeners.
    pub listeners: ArcSwap<Vec<ListenerStatus>>,
    /// Reads the configuration again.
    pub reload: ReloadHook,
    /// The turns of requests that revoke.
    pub revocation_turns: RevocationTurns,
    /// The log of refused requests.
    pub refused: Mutex<LogThrottle>,
}

/// The part of the state that belongs to a configuration.
#[derive(Debug, Default)]
pub struct AdminView {
    /// The names of its routes.
    pub routes: Arc<RouteList>,
    /// Its upstreams.
    pub upstreams: Vec<(Arc<UpstreamSettings>, UpstreamLimits)>,
    /// Its authenticators.
    pub authenticators: Vec<Arc<SharedAuthenticator>>,
    /// The gateway is ready when each store was reached once.
    pub stores: Vec<Arc<SharedStore>>,
    /// Its certificates.
    pub certificates: Arc<[CertificateStatus]>,
    /// The certificates that it obtains.
    pub acme: Option<Arc<Acme>>,
    /// The endpoints at which its authenticators introspect tokens.
    pub endpoints: Vec<Arc<SharedEndpoint>>,
    /// The sources of the keys that identity providers publish.
    pub key_sources: Vec<Arc<SharedKeySource>>,
    /// The keys with which applications verify signed identities. `None`: there are none.
    pub key_set: Option<Bytes>,
    /// What can be revoked.
    pub revoker: Arc<Revoker>,
    /// The text of its file, without comments and possible secrets.
    pub redacted: Arc<str>,
    /// Who may ask.
    pub access: AdminAccess,
}

/// Serves operators. Ends when `stage` is `Draining`.
pub async fn serve(listener: Listener, stage: watch::Receiver<Stage>, admin: Arc<Admin>) {
    super::serve(listener, stage, Operators(admin)).await;
}

/// Serves `/livez` and `/readyz` only, for any `Host`: kubelets and load balancers use any. Ends when `stage` is
/// `Draining`.
pub async fn serve_probes(listener: Listener, stage: watch::Receiver<Stage>, admin: Arc<Admin>) {
    super::serve(listener, stage, Probes(admin)).await;
}

/// The body of a response to an operator.
type OperatorBody = Either<Full<Bytes>, EventStream>;

struct Operators(Arc<Admin>);

impl Service for Operators {
    type Body = OperatorBody;

    const CONNECTIONS: usize = CONNECTIONS;

    fn tls(&self) -> Option<ControlTls> {
        self.0.view.load().access.tls.clone()
    }

    async fn answer(&self, head: Parts, body: Incoming, peer: Peer) -> Response<OperatorBody> {
        let mut response = match self.0.follow(&head, &peer) {
            Some(events) => events,
            None => self.0.answer(&head, body, &peer).await.map(Either::Left),
        };
        // Pages of other sites cannot embed it, and browsers do not guess its type.
        let headers = response.headers_mut();
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        response
    }
}

struct Probes(Arc<Admin>);

impl Service for Probes {
    type Body = Full<Bytes>;

    const CONNECTIONS: usize = CONNECTIONS;

    async fn answer(&self, head: Parts, body: Incoming, peer: Peer) -> Response<Full<Bytes>> {
        match Endpoint::find(head.uri.path()) {
            Some(endpoint @ (Endpoint::Livez | Endpoint::Readyz)) => self.0.respond(endpoint, &head, body, &peer).await,
            Some(_) | None if reads(&head.method) => {
                text(StatusCode::NOT_FOUND, "Not found. Available: /livez and /readyz.\n")
            }
            Some(_) | None => not_allowed("GET, HEAD"),
        }
    }
}

/// A path of the admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Livez,
    Readyz,
    Metrics,
    StatusPage,
    StatusEvents,
    Status,
    Config,
    KeySet,
    Reload,
    Revoke,
}

impl Endpoint {
    fn find(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Livez),
            "/readyz" => Some(Self::Readyz),
            "/metrics" => Some(Self::Metrics),
            "/status" => Some(Self::StatusPage),
            "/status/events" => Some(Self::StatusEvents),
            "/status.json" => Some(Self::Status),
            "/config" => Some(Self::Config),
            "/jwks.json" => Some(Self::KeySet),
            "/reload" => Some(Self::Reload),
            "/revoke" => Some(Self::Revoke),
            _ => None,
        }
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Livez | Self::Readyz | Self::KeySet => Purpose::Public,
            Self::Metrics | Self::StatusPage | Self::StatusEvents | Self::Status | Self::Config => Purpose::Read,
            Self::Reload => Purpose::Command("reload"),
            Self::Revoke => Purpose::Revoke,
        }
    }

    /// The methods that it takes, if `method` is not one of them.
    fn other_methods(self, method: &Method) -> Option<&'static str> {
        match self.purpose() {
            Purpose::Public | Purpose::Read => (!reads(method)).then_some("GET, HEAD"),
            Purpose::Command(_) | Purpose::Revoke => (method != Method::POST).then_some("POST"),
        }
    }
}

impl Admin {
    async fn answer(&self, head: &Parts, body: Incoming, peer: &Peer) -> Response<Full<Bytes>> {
        let endpoint = Endpoint::find(head.uri.path());
        match (self.admit(head, peer, endpoint), endpoint) {
            (Err(denied), endpoint) => self.refuse(denied, endpoint, peer),
            (Ok(()), Some(endpoint)) => self.respond(endpoint, head, body, peer).await,
            (Ok(()), None) => text(
                StatusCode::NOT_FOUND,
                "Not found. Available: /livez, /readyz, /metrics, /status, /status.json, /config, /jwks.json, POST /reload and POST /revoke.\n",
            ),
        }
    }

    fn admit(&self, head: &Parts, peer: &Peer, endpoint: Option<Endpoint>) -> Result<(), Denied> {
        let purpose = endpoint.map_or(Purpose::Read, Endpoint::purpose);
        let view = self.view.load();
        view.access.check_source(head, peer)?;
        view.access.authorize(&head.headers, peer, purpose)
    }

    /// Responds with events to a viewer of the page. Each event needs what the request needed, so that a stream ends with the token that it was
    /// opened with. `None`: the request asks for something else, or is refused.
    fn follow(self: &Arc<Self>, head: &Parts, peer: &Peer) -> Option<Response<OperatorBody>> {
        const EVENTS: Option<Endpoint> = Some(Endpoint::StatusEvents);
        if Endpoint::find(head.uri.path()) != EVENTS || head.method != Method::GET {
            return None;
        }
        self.admit(head, peer, EVENTS).ok()?;
        let (admin, viewer, peer) = (Arc::clone(self), head.clone(), peer.clone());
        let may_follow = move || admin.admit(&viewer, &peer, EVENTS).is_ok();
        let events = self
            .viewers
            .add(event(&self.status()).ok()?, self.stage.clone(), may_follow)?;
        let mut response = Response::new(Either::Right(events));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, EVENT_STREAM);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }

    async fn respond(&self, endpoint: Endpoint, head: &Parts, body: Incoming, peer: &Peer) -> Response<Full<Bytes>> {
        if let Some(allowed) = endpoint.other_methods(&head.method) {
            return not_allowed(allowed);
        }
        match endpoint {
            Endpoint::Livez => text(StatusCode::OK, "ok\n"),
            Endpoint::Readyz => self.ready(),
            Endpoint::Metrics => self.metrics(&head.headers),
            Endpoint::StatusPage => self.status_page(),
            Endpoint::StatusEvents => self.no_events(&head.method),
            Endpoint::Status => self.status_json(),
            Endpoint::Config => text(StatusCode::OK, self.view.load().redacted.as_bytes().to_vec()),
            Endpoint::KeySet => self.key_set(),
            Endpoint::Reload => self.reload.answer().await,
            Endpoint::Revoke => {
                let revoker = Arc::clone(&self.view.load().revoker);
                let (turns, metrics) = (self.revocation_turns.clone(), Arc::clone(&self.metrics));
                revoker.answer(head, body, peer.node, turns, metrics).await
            }
        }
    }

    fn refuse(&self, denied: Denied, endpoint: Option<Endpoint>, peer: &Peer) -> Response<Full<Bytes>> {
        self.metrics.count_refused_admin_request(denied.label_value());
        let times = self.refused.lock().unwrap_or_else(PoisonError::into_inner).note();
        if let Some(times) = times {
            warn!(
                client.ip = %peer.node,
                reason = denied.label(),
                times,
                "a request to the admin listener was refused"
            );
        }
        let mut response = match endpoint {
            Some(Endpoint::Revoke) => Problem::from(denied).response(),
            Some(_) | None => text(denied.status(), denied.text()),
        };
        let headers = response.headers_mut();
        match denied {
            Denied::NoToken => {
                for challenge in CHALLENGES {
                    headers.append(WWW_AUTHENTICATE, challenge);
                }
            }
            Denied::Security => {
                headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            }
            Denied::Host
            | Denied::Origin
            | Denied::OtherSite
            | Denied::CommandWithoutToken
            | Denied::CommandWithoutField
            | Denied::NoTokenConfigured => {}
        }
        response
    }

    /// 200 once every store was reached. A later outage changes the metrics, but not this response.
    fn ready(&self) -> Response<Full<Bytes>> {
        if *self.stage.borrow() != Stage::Serving {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let view = self.view.load();
        let missing: Vec<&str> = view.missing().collect();
        if missing.is_empty() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not reached yet: {}\n", missing.join(", ")),
            )
        }
    }

    fn status_json(&self) -> Response<Full<Bytes>> {
        match serde_json::to_vec(&self.status()) {
            Ok(mut json) => {
                json.push(b'\n');
                response(StatusCode::OK, "application/json", json)
            }
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The status cannot be written as JSON.\n",
            ),
        }
    }

    fn status_page(&self) -> Response<Full<Bytes>> {
        let Ok(page) = page(&self.status()) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be written.\n");
        };
        let mut response = response(StatusCode::OK, "text/html; charset=utf-8", page);
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }

    /// A HEAD request for events, or one viewer too many.
    fn no_events(&self, method: &Method) -> Response<Full<Bytes>> {
        if method == Method::HEAD {
            let mut response = text(StatusCode::OK, Bytes::new());
            response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
            return response;
        }
        let mut response = text(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many pages follow the status. Close one of them, or load /status again from time to time.\n",
        );
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("10"));
        response
    }

    fn status(&self) -> Status {
        let (view, stage) = (self.view.load(), *self.stage.borrow());
        let report = Report {
            metrics: &self.metrics,
            recent: &self.recent,
            routes: &view.routes,
            upstreams: &view.upstreams,
            authenticators: &view.authenticators,
            process: &self.process,
            stage,
            ready: stage == Stage::Serving && view.missing().next().is_none(),
            configuration: &self.configuration,
            listeners: &self.listeners.load(),
            stores: &view.stores,
            certificates: &view.certificates,
            acme: view.acme.as_ref().map_or_else(Vec::new, |acme| acme.status()),
            introspection: view.endpoints.iter().map(|endpoint| endpoint.status()).collect(),
            key_sources: view.key_sources.iter().map(|source| source.status()).collect(),
        };
        report.gather()
    }

    /// Samples the traffic and updates the pages that follow the status, until it is dropped.
    pub async fn sample(&self) -> Infallible {
        let sample = || {
            self.recent.sample(&self.metrics, &self.view.load().marked());
            if self.viewers.are_there()
                && let Ok(event) = event(&self.status())
            {
                self.viewers.send(event);
            }
        };
        every_interval(sample).await
    }

    /// It is public, so a cache may keep it.
    fn key_set(&self) -> Response<Full<Bytes>> {
        let Some(key_set) = self.view.load().key_set.clone() else {
            return text(
                StatusCode::NOT_FOUND,
                "Not found. There are no keys: no [identity] table has `signed`.\n",
            );
        };
        let mut response = response(StatusCode::OK, key_set::MEDIA_TYPE, key_set);
        let cacheable = HeaderValue::from_static(key_set::CACHEABLE);
        response.headers_mut().insert(CACHE_CONTROL, cacheable);
        response
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

impl AdminView {
    fn marked(&self) -> Marked<'_> {
        let authenticators = self.authenticators.iter();
        Marked {
            caches: authenticators
                .map(|shared| (&shared.settings().name, shared.metrics()))
                .collect(),
            upstreams: self.upstreams.iter().map(|(settings, _)| &settings.name).collect(),
        }
    }

    /// Begins to sample the traffic.
    pub fn recent(&self, metrics: &Metrics) -> Recent {
        Recent::new(metrics, &self.marked())
    }

    /// The stores and sources of keys that were not reached yet.
    fn missing(&self) -> impl Iterator<Item = &str> {
        let stores = self.stores.iter().filter(|store| !store.was_reached());
        let sources = self.key_sources.iter().filter(|source| !source.was_reached());
        let stores = stores.map(|store| &**store.name());
        stores.chain(sources.map(|source| &**source.location()))
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("Method not allowed. Use {allowed}.\n"),
    );
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

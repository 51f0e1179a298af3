//! The path of a request through the gateway, in one file.

pub mod answers;
pub mod body;
pub mod cors;
pub mod explain;
pub mod host;
pub mod outcome;
pub mod rejection;
pub mod reply;
pub mod routes;
pub mod websocket;
pub mod websocket_credential;

use std::cell::RefCell;
use std::collections::HashSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use percent_encoding::{AsciiSet, CONTROLS};
use tokio::time::Instant;
use tracing::warn;

use self::answers::Answers;
use self::body::ResponseBody;
use self::cors::Cors;
use self::host::{Host, HostCache};
use self::outcome::{AccessLog, Outcome};
use self::rejection::Rejection;
use self::routes::{Destination, Disagreement, FindError, Found, RouteId, RouteTable};
use self::websocket::{Asks, Switched};
use self::websocket_credential::WebSocketCredential;
use crate::auth::{Chain, Now, Refused, Unavailable, Verdict};
use crate::concurrency::ConcurrencyLimit;
use crate::framing::grammar::is_method;
use crate::framing::header_case::HeaderCase;
use crate::framing::target;
use crate::identity::Identity;
use crate::outbound::forwarded::{ForwardedField, ForwardedInfo, Peer};
use crate::outbound::{Outbound, OutboundRules, RequestContext, hop};
use crate::path::RequestPath;
use crate::policy::{Denied, Permit, Policy};
use crate::server::handler::{Exchange, HeadFault, Reply};
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::{AuthenticationLabels, Metrics};
use crate::telemetry::worker_metrics::WorkerMetrics;
use crate::tls::server::ServedCertificate;
use crate::transfer::incoming::IncomingBody;
use crate::upstream::body::{BodyLimits, RequestBody, RequestBodyError};
use crate::upstream::response::UpstreamBody;
use crate::upstream::{ClientSide, Forwarded, Tunnel, TunnelGuard, Upstream, UpstreamError, is_grpc};

/// Everything that a worker needs to answer requests.
#[derive(Debug)]
pub struct Proxy {
    routes: Vec<Route>,
    table: Arc<RouteTable>,
    /// The answers for requests that match no route: problem details if all routes use them, or else DRF's format.
    nowhere: Answers,
    no_route: Arc<str>,
    hosts: HostCache,
    worker_metrics: Rc<WorkerMetrics>,
    log: AccessLog,
    bounds: Bounds,
    /// For each field of trusted proxies: limits how often the log reports that it is unusable.
    invalid_fields: [RefCell<LogThrottle>; ForwardedField::ALL.len()],
}

/// The client of a connection.
#[derive(Debug)]
pub struct Client {
    /// The client's peer data.
    pub peer: Peer,
    /// The certificate that the client received. `None` without TLS.
    pub served: Option<ServedCertificate>,
}

/// Limits for all requests of a worker.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The maximum number of bytes of a head.
    pub header_bytes: usize,
    /// The maximum number of fields of a head.
    pub headers: usize,
    /// The limit of concurrent requests, shared by all workers.
    pub in_flight: ConcurrencyLimit,
}

/// One route, with the handles of one worker.
#[derive(Debug)]
pub struct Route {
    /// The name in metrics and logs: its host and path, as the configuration writes them.
    pub label: Arc<str>,
    /// The policy that decides access.
    pub policy: Policy,
    /// The authenticators. `None` on a public route.
    pub chain: Option<Chain>,
    /// The format of its refusals.
    pub answers: Answers,
    /// The browser applications that may read its refusals.
    pub cors: Option<Cors>,
    /// The WebSocket credentials that web pages may send.
    pub websocket: Option<WebSocketCredential>,
    /// The settings for its outbound requests.
    pub rules: OutboundRules,
    /// The upstream that receives its requests.
    pub upstream: Upstream,
    /// The limits for the bodies of its requests.
    pub body: BodyLimits,
    /// The route's own response timeout, if it has one.
    pub response_timeout: Option<Duration>,
}

impl Route {
    fn is_preflight<B>(&self, request: &Request<B>) -> bool {
        self.cors.as_ref().is_some_and(|cors| cors.is_preflight(request))
    }

    fn permit(&self, identity: Option<Arc<Identity>>) -> Result<Permit, Rejection> {
        self.policy.permit(identity).map_err(|denied| match denied {
            Denied::Unauthenticated => Rejection::Unauthenticated,
            Denied::NotAllowed(unmet) => Rejection::NotAllowed(unmet),
        })
    }
}

impl Proxy {
    /// Creates a proxy for these routes. `table` was built from the same routes in the same order.
    pub fn new(
        routes: Vec<Route>,
        table: Arc<RouteTable>,
        metrics: &Arc<Metrics>,
        log: AccessLog,
        bounds: Bounds,
    ) -> Self {
        let problems = routes
            .iter()
            .all(|route| matches!(route.answers, Answers::Problem { .. }));
        let nowhere = if problems { Answers::PROBLEM } else { Answers::DRF };
        Self {
            routes,
            table,
            nowhere,
            no_route: Arc::from("none"),
            hosts: HostCache::default(),
            worker_metrics: Rc::new(WorkerMetrics::new(metrics)),
            log,
            bounds,
            invalid_fields: Default::default(),
        }
    }

    /// Logs which fields of a trusted proxy could not be used. The log does not contain the values, because they may
    /// come from a client.
    fn report_invalid_fields(&self, peer: &Peer, forwarded: &ForwardedInfo) {
        for field in forwarded.invalid_fields.fields() {
            let times = self.invalid_fields[field as usize].borrow_mut().note();
            if let Some(times) = times {
                warn!(
                    peer = %peer.node(),
                    field = field.name(),
                    times,
                    "a field of a trusted proxy is ignored: its last value must be {}",
                    field.expected()
                );
            }
        }
    }

    /// Starts the background health checks of the upstreams. Call it once, on the worker that owns this proxy.
    pub fn watch(&self) {
        let mut watched: HashSet<&str> = HashSet::new();
        for upstream in self.routes.iter().map(|route| &route.upstream) {
            if watched.insert(upstream.name()) {
                upstream.start_health_checks();
            }
        }
    }

    /// Answers a request. It cannot fail: every error becomes a response too.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` holds what it was given a second time"
    )]
    pub fn handle(
        self: Rc<Self>,
        request: Request<IncomingBody>,
        exchange: Exchange<'_>,
        client: &Client,
    ) -> impl Future<Output = Reply<ResponseBody, Switched>> {
        async move {
            let method = request.method().clone();
            let seen = Some((method.clone(), request.uri().clone()));
            let peer = &client.peer;
            let forwarded = ForwardedInfo::from_headers(peer, request.headers());
            if !forwarded.invalid_fields.is_empty() {
                self.report_invalid_fields(peer, &forwarded);
            }
            let mut outcome = Outcome::open(&self.worker_metrics, self.log, forwarded, seen, &self.no_route);
            let grpc = is_grpc(request.version(), request.headers());
            let found = self.look_at(&request).and_then(|()| self.find(&request, peer));
            let mut readable = None;
            // How the upstream wrote the field names of its response.
            let header_case = RefCell::default();
            let side = ClientSide {
                request_header_case: exchange.header_case,
                early_hints: Some(exchange.hints),
                response_header_case: Some(&header_case),
            };
            let (rejection, answers) = match found {
                Err(rejection) => (rejection, &self.nowhere),
                Ok((route, host)) => {
                    outcome.on_route(&route.label);
                    let cors = route.cors.as_ref();
                    readable = cors.and_then(|cors| Some((cors, cors.origin(request.headers())?.clone())));
                    match self.pass(route, &host, request, side, client, &mut outcome).await {
                        Ok(Passed::Response(response)) => {
                            return Reply::Response {
                                response: response.map(|body| ResponseBody::upstream(body, outcome)),
                                header_case: header_case.take(),
                            };
                        }
                        Ok(Passed::Switched(head, tunnel, held)) => {
                            return Reply::Switch {
                                response: head,
                                header_case: header_case.take(),
                                tunnel: Box::new(Switched { tunnel, held, outcome }),
                            };
                        }
                        Err(rejection) => (rejection, &route.answers),
                    }
                }
            };
            outcome.rejected(rejection.status(answers), rejection.label(), reason(&rejection));
            let mut response = if grpc {
                reply::grpc(&rejection, answers, outcome.id())
            } else {
                reply::reply(&rejection, answers, outcome.id())
            };
            if let Some((cors, origin)) = readable {
                cors.mark(&origin, response.headers_mut());
            }
            if method == Method::HEAD {
                // Keep the length that GET would have, and drop the content (RFC 9110, section 9.3.2).
                let length = HeaderValue::from(response.body().len());
                response.headers_mut().insert(CONTENT_LENGTH, length);
                *response.body_mut() = Bytes::new();
            }
            Reply::Response {
                response: response.map(|body| ResponseBody::own(body, outcome)),
                header_case: HeaderCase::default(),
            }
        }
    }

    /// The response to a head that could not be read: [`handle`](Self::handle) needs a parsed request.
    pub fn refuse_head(&self, peer: &Peer, fault: HeadFault) -> Response<Bytes> {
        let rejection = &Rejection::from(fault);
        let mut outcome = Outcome::open(
            &self.worker_metrics,
            self.log,
            ForwardedInfo::from_peer(peer),
            None,
            &self.no_route,
        );
        outcome.rejected(rejection.status(&self.nowhere), rejection.label(), reason(rejection));
        reply::reply(rejection, &self.nowhere, outcome.id())
    }

    /// Checks that the HTTP/1 reader has already made, for an HTTP/2 request. h2 makes only a part of them: it answers
    /// some oversized heads itself, and does not count fields.
    fn look_at<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        if request.version() != Version::HTTP_2 {
            return Ok(());
        }
        let headers = request.headers();
        // Count as RFC 9113, section 6.5.2, does: 32 extra bytes for each field.
        let fields = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32);
        if headers.len() > self.bounds.headers || fields.sum::<usize>() > self.bounds.header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        if target.len() > self.bounds.header_bytes {
            return Err(Rejection::TargetTooLong);
        }
        // RFC 9113, section 8.3.1. Bytes above 0x7F are refused over HTTP/1 too.
        if !target.starts_with('/') || !target.is_ascii() {
            return Err(Rejection::Malformed("its path"));
        }
        Ok(())
    }

    /// Finds the route and the host of a request.
    fn find<B>(&self, request: &Request<B>, peer: &Peer) -> Result<(&Route, Host), Rejection> {
        if !request.method().as_str().bytes().all(is_method) {
            return Err(Rejection::Malformed("a lowercase letter in its method"));
        }
        // A gateway serves no other schemes (RFC 9110, section 4.2). The outbound request has no scheme.
        let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
        if !request.uri().scheme_str().is_none_or(is_http) {
            return Err(Rejection::Malformed("its scheme"));
        }
        // For a WebSocket over HTTP/2, use the method that it would have over HTTP/1.1.
        let method = match *request.method() {
            Method::CONNECT if websocket::is_extended_connect(request) => &Method::GET,
            Method::CONNECT | Method::TRACE => return Err(Rejection::NotImplemented),
            ref method => method,
        };
        let host = self
            .hosts
            .read(request.uri(), request.headers(), peer.scheme().default_port());
        let host = host.map_err(|_| Rejection::Malformed("its host"))?;
        match self.look_up(request, &host, method)? {
            Found::Route(id) => self
                .routes
                .get(id.0)
                .map(|route| (route, host))
                .ok_or(Rejection::NoRoute),
            Found::OtherMethods(allowed) => match self.preflight(request, &host)? {
                Some(route) => Ok((route, host)),
                None => Err(Rejection::MethodNotAllowed {
                    sent: method.clone(),
                    allowed: allowed.to_vec(),
                }),
            },
            Found::NoRoute => Err(Rejection::NoRoute),
        }
    }

    /// Looks up the path of a request in the route table.
    fn look_up<B>(&self, request: &Request<B>, host: &Host, method: &Method) -> Result<Found<'_>, Rejection> {
        let path = RequestPath::parse(target::path(request)).map_err(FindError::from);
        path.and_then(|path| self.table.find(&host.name, path, method))
            .map_err(|error| Rejection::AmbiguousPath(self.explain(&error, method)))
    }

    /// Explains for the log why the look-up of a path failed. Bytes from the client are escaped to visible ASCII, and
    /// their length is limited.
    #[cold]
    fn explain(&self, error: &FindError, method: &Method) -> String {
        let disagreement = match error {
            FindError::Path(error) => return format!("its path: {error}"),
            FindError::Disagreement(disagreement) => disagreement,
        };
        let destination = |destination| match destination {
            Destination::Route(RouteId(at)) => match self.routes.get(at) {
                Some(route) => format!("route {}", route.label),
                None => "no route".to_owned(),
            },
            Destination::OtherMethods => format!("a route that does not take {method}"),
            Destination::NoRoute => "no route".to_owned(),
        };
        let Disagreement { sent, reading, other } = &**disagreement;
        let shown = &reading[..reading.len().min(LONGEST_READING)];
        let more = if shown.len() < reading.len() { "…" } else { "" };
        format!(
            "its path: as sent it is for {}, read as {}{more} for {}",
            destination(*sent),
            percent_encoding::percent_encode(shown, NOT_VISIBLE),
            destination(*other)
        )
    }

    /// If no route lists OPTIONS, a preflight belongs to the route of the method that it asks about.
    fn preflight<B>(&self, request: &Request<B>, host: &Host) -> Result<Option<&Route>, Rejection> {
        let Some(method) = cors::requested_method(request) else {
            return Ok(None);
        };
        let route = match self.look_up(request, host, &method)? {
            Found::Route(id) => self.routes.get(id.0),
            Found::OtherMethods(_) | Found::NoRoute => None,
        };
        Ok(route.filter(|route| route.is_preflight(request)))
    }

    /// Authenticates and authorizes a request, forwards it, and returns the upstream's response.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` holds what it was given a second time"
    )]
    fn pass(
        &self,
        route: &Route,
        host: &Host,
        mut request: Request<IncomingBody>,
        side: ClientSide<'_>,
        client: &Client,
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<Passed, Rejection>> {
        async move {
            if client
                .served
                .as_ref()
                .is_some_and(|served| served.is_misdirected(&host.name))
            {
                return Err(Rejection::Misdirected);
            }
            outcome.holds(self.bounds.in_flight.try_acquire().ok_or(Rejection::Overloaded)?);
            let asks = websocket::asks(&request);
            let selects_ours = match (&route.websocket, &asks) {
                (None, _) => false,
                (Some(credential), Some(_)) => {
                    credential.take(request.headers_mut(), &route.rules.credential_headers)?
                }
                (Some(credential), None) => {
                    credential.discard(request.headers_mut());
                    false
                }
            };
            let mut permit = self.judge(route, &request, outcome).await?;
            let key = match &asks {
                Some(Asks::Http2) => Some(websocket::as_http1(&mut request)),
                Some(Asks::Http1) | None => None,
            };
            // HTTP/1.0 has no interim responses (RFC 9110, section 15.2).
            let may_hint = asks.is_none() && request.version() != Version::HTTP_10;
            let side = ClientSide {
                early_hints: side.early_hints.filter(|_| may_hint),
                response_header_case: side
                    .response_header_case
                    .filter(|_| request.version() != Version::HTTP_2),
                ..side
            };
            let (head, incoming) = request.into_parts();
            let mut sent = Instant::now();
            let mut request = Request::from_parts(head, RequestBody::new(incoming, route.body, sent)?);
            if asks.is_none() && !request.body().is_end_stream() {
                route.upstream.buffer_body(&mut request).await?;
                let waited = sent.elapsed();
                sent += waited;
                if waited > FRESH {
                    permit = Box::pin(self.judge(route, &request, outcome)).await?;
                }
            }
            let context = RequestContext {
                peer: &client.peer,
                host: &host.sent,
                forwarded: outcome.forwarded(),
                is_upgrade: asks.is_some(),
            };
            let outbound = Outbound::new(request, permit, context, &route.rules);
            let answer = route.upstream.forward(outbound, route.response_timeout, &side).await?;
            let took = sent.elapsed();
            self.worker_metrics
                .record_upstream_duration(route.upstream.name(), took);
            match answer {
                Forwarded::Response(mut response) => {
                    // Any 2xx would open a WebSocket over HTTP/2 (RFC 8441, section 4).
                    if key.is_some() && response.status().is_success() {
                        return Err(Rejection::Upstream(UpstreamError::UpgradeIgnored));
                    }
                    // The body of an HTTP/1.0 upstream may end when the connection closes. The gateway frames it again,
                    // so that a truncated body never looks complete.
                    *response.version_mut() = Version::HTTP_11;
                    hop::strip_response(response.headers_mut());
                    outcome.answered(response.status(), took);
                    Ok(Passed::Response(response))
                }
                Forwarded::Upgraded(mut head, tunnel, held) => {
                    hop::strip_response(head.headers_mut());
                    if let Some(key) = &key
                        && !websocket::is_confirmed(&head, key)
                    {
                        return Err(Rejection::Upstream(UpstreamError::UnexpectedUpgrade));
                    }
                    if selects_ours {
                        websocket_credential::select(head.headers_mut());
                    }
                    outcome.answered(head.status(), took);
                    match key {
                        None => websocket::switch_http1(&mut head),
                        Some(_) => websocket::switch_http2(&mut head),
                    }
                    Ok(Passed::Switched(head, tunnel, held))
                }
            }
        }
    }

    /// Authenticates and authorizes a request.
    async fn judge<B>(&self, route: &Route, request: &Request<B>, outcome: &mut Outcome) -> Result<Permit, Rejection> {
        if route.is_preflight(request) {
            return Ok(route.policy.permit_preflight());
        }
        let identity = self.identify(route, request).await?;
        if let Some(identity) = &identity {
            outcome.by(identity);
        }
        route.permit(identity)
    }

    /// Authenticates a request. `Ok(None)` means that it has no credential; a failed look-up is an error.
    async fn identify<B>(&self, route: &Route, request: &Request<B>) -> Result<Option<Arc<Identity>>, Rejection> {
        let Some(chain) = route.chain.as_ref().filter(|_| route.policy.needs_identity()) else {
            return Ok(None);
        };
        // DRF refuses the joined text of several credential lines, so the chain does the same there.
        let plain = matches!(route.answers, Answers::Problem { .. });
        if plain && chain.saw_repeated_credential(request.headers()) {
            return Err(Rejection::RepeatedCredential);
        }
        let verdict = chain.authenticate(request.headers(), Now::read()).await;
        let count = |authenticator: &Arc<str>, outcome| {
            self.worker_metrics
                .metrics()
                .count_authentication(&AuthenticationLabels {
                    authenticator: Arc::clone(authenticator),
                    outcome,
                });
        };
        match verdict {
            Ok(Verdict::Accept(identity)) => {
                count(&identity.user_info().authenticator, "accepted");
                Ok(Some(identity))
            }
            Ok(Verdict::Refuse(refused)) => {
                if let Some(authenticator) = chain.authenticators().nth(refused.by) {
                    count(authenticator.name(), refused.refusal.label());
                }
                Err(Rejection::Refused(refused))
            }
            // Several lines of a credential's header are never treated as anonymous, not even on an optional route.
            Ok(Verdict::Pass) if chain.saw_repeated_credential(request.headers()) => Err(Rejection::Unauthenticated),
            Ok(Verdict::Pass) => Ok(None),
            Err(unavailable) => {
                count(&unavailable.authenticator, unavailable.source.label());
                Err(unavailable.into())
            }
        }
    }
}

/// The maximum number of bytes of a path reading in the log.
const LONGEST_READING: usize = 256;
/// All bytes except visible ASCII.
const NOT_VISIBLE: &AsciiSet = &CONTROLS.add(b' ');

/// If the authentication is older than this, repeat it before the request is sent: the credential may have expired or
/// been revoked.
const FRESH: Duration = Duration::from_secs(1);

/// The upstream's answer to a permitted request.
enum Passed {
    Response(Response<UpstreamBody>),
    /// A WebSocket.
    Switched(Response<()>, Tunnel, TunnelGuard),
}

/// The reason in the log beside the label: which component failed, and why. It is not sent to clients.
fn reason(rejection: &Rejection) -> Option<String> {
    match rejection {
        Rejection::Unavailable(Unavailable { authenticator, source }) => {
            Some(format!("authenticator {authenticator}: {source}"))
        }
        Rejection::Upstream(
            error @ (UpstreamError::Connect { .. }
            | UpstreamError::ConnectTimeout { .. }
            | UpstreamError::InFlightLimit),
        ) => Some(error.to_string()),
        Rejection::Upstream(error @ (UpstreamError::NoResponse(_) | UpstreamError::ResponseTimeout)) => {
            Some(error.to_string())
        }
        Rejection::Body(fault @ (RequestBodyError::BufferFull | RequestBodyError::Spool(_)))
        | Rejection::Upstream(UpstreamError::RequestBody(
            fault @ (RequestBodyError::BufferFull | RequestBodyError::Spool(_)),
        )) => Some(fault.to_string()),
        Rejection::Malformed(what) => Some((*what).to_owned()),
        Rejection::AmbiguousPath(why) => Some(why.clone()),
        Rejection::NotAllowed(unmet) => Some(unmet.to_string()),
        // The response does not say which check failed.
        Rejection::Refused(Refused { refusal, .. }) => refusal.detail().map(str::to_owned),
        _ => None,
    }
}

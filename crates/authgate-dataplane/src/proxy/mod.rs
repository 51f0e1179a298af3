//! A request on its way through the gateway: [`Proxy::handle`] routes it, admits it, and forwards it or refuses it.

pub mod access_event;
mod admission;
mod authorization;
pub mod body;
pub mod cors;
pub mod explain;
mod forward;
pub mod host;
pub mod key_set;
mod observe;
pub mod outcome;
mod readmission;
pub mod refusal;
pub mod rejection;
pub mod route_groups;
pub mod routes;
mod stream_checks;
pub mod stream_end;
mod stream_facts;
pub mod streams;
pub mod websocket;
pub mod websocket_credential;
mod websocket_frames;
pub mod websocket_tunnel;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::identity_signer::IdentitySigner;
use authgate_auth::{Authenticator, Chain, RequestFacts, Thumbprint};
use authgate_core::outbound::OutboundRules;
use authgate_core::outbound::forwarded::{ForwardedField, ForwardedInfo};
use authgate_core::outbound::peer::Peer;
use authgate_core::outbound::request_id::RequestId;
use authgate_core::policy::Policy;
use authgate_core::policy::rollout::Rollout;
use authgate_http::concurrency::ConcurrencyLimit;
use authgate_http::framing::header_case::HeaderCase;
use authgate_http::log_throttle::LogThrottle;
use authgate_http::server::handler::{Exchange, HeadFault, Reply};
use authgate_http::transfer::incoming::IncomingBody;
use authgate_http::upstream::body::BodyLimits;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use tracing::warn;

use self::admission::Routed;
use self::body::ResponseBody;
use self::cors::Cors;
use self::forward::forward;
use self::host::{Host, HostCache};
use self::observe::Observer;
use self::outcome::{AccessLog, Outcome};
use self::refusal::RefusalContext;
use self::refusal::format::RefusalFormat;
use self::rejection::Rejection;
use self::route_groups::Routes;
use self::routes::RouteTable;
use self::stream_end::StreamRule;
use self::streams::Streams;
use self::websocket_credential::WebSocketCredential;
use self::websocket_tunnel::WebSocket;
use crate::recording::Recorder;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::route_metrics::RouteMetrics;
use crate::tls::certificate_names::ServedCertificate;
use crate::upstream::Upstream;

/// Everything that a worker needs to answer requests.
#[derive(Debug)]
pub struct Proxy {
    routes: Routes,
    table: Arc<RouteTable>,
    /// All authenticators, also those of no route.
    authenticators: Rc<Authenticators>,
    /// The streams of this worker, whichever configuration they began with.
    streams: Streams,
    /// The format of refusals without a route: problem details if all routes use them, or else DRF's format.
    default_refusal_format: RefusalFormat,
    /// The metrics of requests without a route.
    no_route: Rc<RouteMetrics>,
    hosts: HostCache,
    log: AccessLog,
    bounds: Bounds,
    observer: Rc<Observer>,
    recorder: Option<Arc<Recorder>>,
    /// For each field of trusted proxies: limits how often the log reports that it is unusable.
    invalid_fields: [RefCell<LogThrottle>; ForwardedField::ALL.len()],
}

/// One worker's authenticators, by name.
pub type Authenticators = BTreeMap<Arc<str>, Rc<Authenticator>>;

/// The client of a request.
#[derive(Debug)]
pub struct Client {
    /// The client's peer data.
    pub peer: Peer,
    /// The certificate that the client received. `None` without TLS.
    pub served: Option<ServedCertificate>,
    /// SHA-256 of the certificate that the client has shown, also for a resumed session. `None`: it has shown none.
    pub certificate: Option<Thumbprint>,
    /// Its connection was made under another `client_auth`, below the present `min_version`, or before TLS was switched on.
    pub is_outdated: bool,
}

impl Client {
    /// What the authentication of a request depends on.
    fn request_facts<'r>(&'r self, head: &'r Parts, host: &'r Host) -> RequestFacts<'r> {
        RequestFacts {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            extensions: &head.extensions,
            host: &host.sent,
            peer: &self.peer,
            certificate: self.certificate.as_ref(),
            is_repeated: false,
        }
    }
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
#[derive(Debug, Clone)]
pub struct Route {
    /// Its settings.
    pub settings: Arc<RouteSettings>,
    /// Its metrics.
    pub metrics: Rc<RouteMetrics>,
    /// The authenticators. `None` on a public route.
    pub chain: Option<Chain>,
    /// What answers its requests.
    pub target: Target,
}

/// What answers the requests of a route that are permitted.
#[derive(Debug, Clone)]
pub enum Target {
    /// This upstream.
    Upstream(Upstream),
    /// The gateway, with this JWK Set.
    KeySet(Bytes),
}

/// The settings that routes may have in common. All workers share them.
#[derive(Debug)]
pub struct RouteSettings {
    /// The policy that decides access.
    pub policy: Policy,
    /// The users for whom the policy is enforced. `None`: all requests.
    pub rollout: Option<Rollout>,
    /// The format of its refusals.
    pub refusal_format: RefusalFormat,
    /// The browser applications that may read its refusals.
    pub cors: Option<Cors>,
    /// The WebSocket credentials that web pages may send.
    pub websocket: Option<WebSocketCredential>,
    /// The settings for its outbound requests.
    pub rules: OutboundRules,
    /// Makes the signed identities for the upstream. `None`: it receives none.
    pub signer: Option<Arc<IdentitySigner>>,
    /// The limits for the bodies of its requests.
    pub body: BodyLimits,
    /// The route's own response timeout, if it has one.
    pub response_timeout: Option<Duration>,
    /// What happens to its streams when their credential or the route is not valid any more.
    pub streams: StreamRule,
}

impl Proxy {
    /// Creates a proxy for these routes. `table` was built from the same routes in the same order.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        routes: Routes,
        table: Arc<RouteTable>,
        authenticators: Rc<Authenticators>,
        streams: Streams,
        metrics: &Arc<Metrics>,
        log: AccessLog,
        bounds: Bounds,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let problems = routes
            .groups()
            .iter()
            .all(|group| matches!(group.settings.refusal_format, RefusalFormat::Problem { .. }));
        let default_refusal_format = if problems {
            RefusalFormat::PROBLEM
        } else {
            RefusalFormat::DRF
        };
        Self {
            routes,
            table,
            authenticators,
            streams,
            default_refusal_format,
            no_route: Rc::new(RouteMetrics::new(metrics, "none".into(), None)),
            hosts: HostCache::default(),
            log,
            bounds,
            observer: Rc::default(),
            recorder,
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

    /// Answers a request. It cannot fail: every error becomes a response too.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` holds what it was given a second time"
    )]
    pub fn handle(
        self: Rc<Self>,
        request: Request<IncomingBody>,
        exchange: Exchange<'_>,
        client: Rc<Client>,
    ) -> impl Future<Output = Reply<ResponseBody, WebSocket>> {
        async move {
            let client = &*client;
            let (mut head, body) = request.into_parts();
            let mut outcome = self.open_outcome(&head, &client.peer);
            let routed = self.route(&head, &client.peer);
            let route = routed.as_ref().ok().map(Routed::route);
            let context = RefusalContext::of(&head, route);
            let rejection = match routed {
                Ok(routed) => {
                    outcome.set_route(&routed.route().metrics);
                    if let Some(recorder) = &self.recorder {
                        outcome.record(routed.begin_recording(recorder, &head, &body, &client.peer));
                    }
                    let mut admission = self.admit(&routed, &mut head, client).await;
                    outcome.hold(admission.in_flight.take());
                    outcome.set_user(admission.user.take());
                    let observation = admission.observation.take();
                    let comparison = observation.map(|one| one.start(&self.observer, &head, outcome.id()));
                    match admission.into_permitted() {
                        Ok(permitted) => match &permitted.route.target {
                            Target::Upstream(upstream) => {
                                let is_grpc = context.is_grpc;
                                match forward(
                                    &self,
                                    permitted,
                                    upstream,
                                    head,
                                    body,
                                    exchange,
                                    client,
                                    is_grpc,
                                    &mut outcome,
                                )
                                .await
                                {
                                    Ok(answer) => {
                                        if let Some(comparison) = comparison {
                                            comparison.answered(&answer.forwarded);
                                        }
                                        return answer.into_reply(&self, &routed, outcome);
                                    }
                                    Err(rejection) => rejection,
                                }
                            }
                            Target::KeySet(key_set) => {
                                match key_set::response(key_set, &permitted, &head, &mut outcome) {
                                    Ok(response) => {
                                        return Reply::Response {
                                            response: response.map(|body| ResponseBody::own(body, outcome)),
                                            header_case: HeaderCase::default(),
                                        };
                                    }
                                    Err(rejection) => rejection,
                                }
                            }
                        },
                        Err(rejection) => rejection,
                    }
                }
                Err(rejection) => rejection,
            };
            let response = self.refuse(&rejection, route, &context, outcome.id());
            outcome.rejected(rejection.status(self.refusal_format(route)), &rejection);
            Reply::Response {
                response: response.map(|body| ResponseBody::own(body, outcome)),
                header_case: HeaderCase::default(),
            }
        }
    }

    /// The response to a head that could not be read: [`handle`](Self::handle) needs a parsed request.
    pub fn refuse_head(&self, peer: &Peer, fault: HeadFault) -> Response<Bytes> {
        let rejection = &Rejection::from(fault);
        let mut outcome = Outcome::open(&self.no_route, self.log, ForwardedInfo::from_peer(peer), None);
        outcome.rejected(rejection.status(&self.default_refusal_format), rejection);
        refusal::response(rejection, &self.default_refusal_format, outcome.id())
    }

    /// The response to a rejected request. `route` is `None` if no route was found.
    fn refuse(
        &self,
        rejection: &Rejection,
        route: Option<&Route>,
        context: &RefusalContext,
        id: &RequestId,
    ) -> Response<Bytes> {
        let mut response = context.response(rejection, self.refusal_format(route), id);
        if let (Some(cors), Some(origin)) = (route.and_then(|route| route.settings.cors.as_ref()), &context.origin) {
            cors.add_fields(origin, response.headers_mut());
        }
        response
    }

    fn refusal_format<'r>(&'r self, route: Option<&'r Route>) -> &'r RefusalFormat {
        route.map_or(&self.default_refusal_format, |route| &route.settings.refusal_format)
    }

    #[inline]
    fn open_outcome(&self, head: &Parts, peer: &Peer) -> Outcome {
        let forwarded = ForwardedInfo::from_headers(peer, &head.headers);
        if !forwarded.invalid_fields.is_empty() {
            self.report_invalid_fields(peer, &forwarded);
        }
        let request = (head.method.clone(), head.uri.clone());
        Outcome::open(&self.no_route, self.log, forwarded, Some(request))
    }
}

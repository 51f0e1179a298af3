//! The parts that all workers share. Each worker builds its own proxy from them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use authgate_http::concurrency::ConcurrencyLimit;
use authgate_http::framing::header_case::ConfiguredNames;
use authgate_http::server;
use authgate_http::upstream::body::BodyLimits;
use authgate_http::upstream::{HostMode, Resolver, UpstreamLimits, UpstreamSettings};

use crate::auth::dependencies::ChangeCounters;
use crate::auth::store::SharedStore;
use crate::auth::{Authenticator, Chain, IdentityRules, SharedAuthenticator, WorkerResources};
use crate::config::{self, Config};
use crate::gateway::{Gateway, RequestLimits, ServerSettings};
use crate::outbound::OutboundRules;
use crate::outbound::forwarded::OptionalFields;
use crate::outbound::identity::{CredentialMode, IdentityTable, ReservedNames};
use crate::policy::Policy;
use crate::proxy::cors::Cors;
use crate::proxy::outcome::AccessLog;
use crate::proxy::refusal::format::RefusalFormat;
use crate::proxy::routes::{RouteId, RouteMatch, RouteTable};
use crate::proxy::websocket_credential::WebSocketCredential;
use crate::proxy::{Bounds, Proxy, Route};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::route_metrics::RouteMetrics;
use crate::tls::server::Acceptor;
use crate::tls::validity::Validity;
use crate::upstream::Upstream;

/// The parts that all workers share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) stores: Vec<Arc<SharedStore>>,
    authenticators: BTreeMap<Arc<str>, Arc<SharedAuthenticator>>,
    routes: Vec<config::Route>,
    upstreams: BTreeMap<Arc<str>, (Arc<UpstreamSettings>, UpstreamLimits)>,
    identities: Arc<IdentityRules>,
    reserved: Arc<ReservedNames>,
    forwarded: OptionalFields,
    names: Arc<ConfiguredNames>,
    table: Arc<RouteTable>,
    pub(super) metrics: Arc<Metrics>,
    log: AccessLog,
    limits: server::Limits,
    requests: RequestLimits,
    in_flight: ConcurrencyLimit,
}

/// One worker's authenticators, by name.
pub(super) type Authenticators<'p> = BTreeMap<&'p str, Rc<Authenticator>>;

impl Parts {
    pub(super) fn new(config: Config) -> Self {
        let (limits, requests) = (config.server.limits, config.server.requests);
        let identities = Arc::new(config.identities);
        let names: Vec<&str> = identities
            .tables
            .iter()
            .flat_map(IdentityTable::names)
            .map(http::HeaderName::as_str)
            .chain(config.strip.iter().map(String::as_str))
            .chain(
                config
                    .upstreams
                    .values()
                    .filter_map(|upstream| Some(upstream.secret_header.as_ref()?.0.as_str())),
            )
            .collect();
        let reserved = Arc::new(ReservedNames::new(names));
        let matches: Vec<RouteMatch> = config.routes.iter().map(|route| route.matches.clone()).collect();
        let table = Arc::new(RouteTable::new(&matches, |RouteId(at)| {
            RequestSettings::new(&config.routes[at])
        }));
        let counters = Arc::new(ChangeCounters::default());
        let authenticators: BTreeMap<_, _> = config
            .authenticators
            .into_iter()
            .map(|(name, settings)| (name, SharedAuthenticator::new(settings, &identities, &counters)))
            .collect();
        let stores: Vec<_> = config
            .stores
            .into_iter()
            .map(|settings| SharedStore::new(settings, Arc::clone(&counters)))
            .collect();
        // For each of the gateway's certificate files: the earliest expiry in its chain.
        let certificates = config.tls.iter().flat_map(|tls| &tls.certificates);
        let expiries: Vec<(String, i64)> = certificates
            .filter_map(|certificate| {
                let end = Validity::earliest_expiry(certificate.chain())?;
                let file = certificate.file().display().to_string();
                Some((file, i64::try_from(end.as_secs()).unwrap_or(i64::MAX)))
            })
            .collect();
        let mut metrics = Metrics::default();
        metrics.register_store_probes(
            stores
                .iter()
                .map(|store| {
                    let probed = Arc::clone(store);
                    (Arc::clone(store.name()), Box::new(move || probed.is_usable()) as _)
                })
                .collect(),
        );
        metrics.register_certificates(expiries);
        metrics.register_auth(
            authenticators
                .iter()
                .map(|(name, shared)| (Arc::clone(name), shared.metrics().clone()))
                .collect(),
            stores
                .iter()
                .map(|store| (Arc::clone(store.name()), store.metrics().clone()))
                .collect(),
        );
        Self {
            stores,
            authenticators,
            routes: config.routes,
            upstreams: config
                .upstreams
                .into_iter()
                .map(|(name, settings)| {
                    let limits = UpstreamLimits::new(&settings);
                    (name, (Arc::new(settings), limits))
                })
                .collect(),
            identities,
            reserved,
            forwarded: config.forwarded,
            names: Arc::new(config.names),
            table,
            metrics: Arc::new(metrics),
            log: AccessLog {
                on: config.log.access,
                query: config.log.query,
            },
            limits,
            requests,
            in_flight: ConcurrencyLimit::new(requests.in_flight),
        }
    }

    /// Builds the authenticators of one worker, with their own connections to stores.
    pub(super) fn authenticators(&self) -> Authenticators<'_> {
        let worker = WorkerResources::open(&self.stores);
        self.authenticators
            .iter()
            .map(|(name, shared)| (&**name, Rc::new(Authenticator::new(shared, &worker))))
            .collect()
    }

    /// Builds the gateway of one worker.
    pub(super) fn gateway(&self, server: &ServerSettings, tls: Option<Acceptor>) -> Gateway {
        Gateway {
            proxy: Rc::new(self.proxy(&self.authenticators())),
            tls,
            limits: server.limits,
            trusted_proxies: Arc::clone(&server.trusted_proxies),
            proxy_protocol: server.proxy_protocol,
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Builds the proxy of one worker, with its own connections to upstreams and its own resolver.
    pub(super) fn proxy(&self, authenticators: &Authenticators<'_>) -> Proxy {
        let resolver = Resolver::of_system();
        let upstreams: BTreeMap<&str, Upstream> = self
            .upstreams
            .iter()
            .map(|(name, (settings, limits))| {
                let (settings, names) = (Arc::clone(settings), Arc::clone(&self.names));
                (&**name, Upstream::new(settings, limits.clone(), names, &resolver))
            })
            .collect();
        let routes = self
            .routes
            .iter()
            .map(|route| self.route(route, authenticators, &upstreams))
            .collect();
        let bounds = Bounds {
            header_bytes: self.limits.header_bytes,
            headers: self.limits.headers,
            in_flight: self.in_flight.clone(),
        };
        Proxy::new(routes, Arc::clone(&self.table), &self.metrics, self.log, bounds)
    }

    fn route(
        &self,
        route: &config::Route,
        authenticators: &Authenticators<'_>,
        upstreams: &BTreeMap<&str, Upstream>,
    ) -> Route {
        let named: Vec<Rc<Authenticator>> = route
            .authenticate
            .iter()
            .map(|name| Rc::clone(&authenticators[&**name]))
            .collect();
        let host = match &self.upstreams[&route.upstream].0.host {
            HostMode::Name(name) => Some(name.clone()),
            HostMode::Preserve | HostMode::Server => None,
        };
        Route {
            metrics: Rc::new(RouteMetrics::new(
                &self.metrics,
                route.matches.to_string().into(),
                Some(&route.upstream),
            )),
            policy: route.policy.clone(),
            refusal_format: route.refusal_format.clone(),
            cors: route.cors.clone(),
            websocket: route.websocket.clone(),
            rules: OutboundRules {
                identity: Arc::clone(&self.identities.tables[route.identity]),
                reserved: Arc::clone(&self.reserved),
                credential_headers: named
                    .iter()
                    .map(|authenticator| authenticator.header().clone())
                    .collect(),
                credential: route.credential,
                host,
                forwarded: self.forwarded,
                secret: self.upstreams[&route.upstream].0.secret_header.clone(),
            },
            chain: route.policy.needs_identity().then(|| Chain::new(named)),
            upstream: upstreams[&*route.upstream].clone(),
            body: BodyLimits {
                max_bytes: route.body_bytes.unwrap_or(self.requests.body_bytes),
                read_timeout: self.limits.body_read_timeout,
            },
            response_timeout: route.response_timeout,
        }
    }
}

/// The settings of a route that decide how a request is authenticated, authorized and forwarded. Routes with equal settings handle a
/// request in the same way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RequestSettings<'r> {
    policy: &'r Policy,
    authenticate: &'r [Arc<str>],
    upstream: &'r str,
    credential: CredentialMode,
    refusal_format: &'r RefusalFormat,
    cors: Option<&'r Cors>,
    websocket: Option<&'r WebSocketCredential>,
    body_bytes: Option<Option<u64>>,
}

impl<'r> RequestSettings<'r> {
    fn new(route: &'r config::Route) -> Self {
        Self {
            policy: &route.policy,
            authenticate: &route.authenticate,
            upstream: &route.upstream,
            credential: route.credential,
            refusal_format: &route.refusal_format,
            cors: route.cors.as_ref(),
            websocket: route.websocket.as_ref(),
            body_bytes: route.body_bytes,
        }
    }
}

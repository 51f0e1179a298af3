//! [`WorkerParts`]: what one worker makes from a snapshot: connections to stores and upstreams, and the proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use authgate_auth::{Authenticator, Chain, SharedAuthenticator, WorkerResources};
use authgate_core::outbound::OutboundRules;
use authgate_http::upstream::body::BodyLimits;
use authgate_http::upstream::{HostMode, Resolver};
use tokio::sync::watch;

use super::process::Process;
use super::snapshot::Snapshot;
use crate::config;
use crate::gateway::{Gateway, Serving};
use crate::proxy::{Bounds, Proxy, Route};
use crate::telemetry::route_metrics::RouteMetrics;
use crate::upstream::Upstream;

/// One worker's authenticators, by name.
pub(super) type Authenticators = BTreeMap<Arc<str>, Rc<Authenticator>>;

/// What one worker has made from a snapshot. The next snapshot takes over what it can.
#[derive(Debug)]
pub(super) struct WorkerParts {
    process: Arc<Process>,
    snapshot: Arc<Snapshot>,
    resolver: Resolver,
    resources: WorkerResources,
    authenticators: Authenticators,
    upstreams: BTreeMap<Arc<str>, Upstream>,
}

impl WorkerParts {
    /// Makes the parts of a worker that begins, without connections.
    pub(super) fn new(process: &Arc<Process>, snapshot: Arc<Snapshot>) -> Self {
        let resources = WorkerResources::open(&snapshot.stores);
        let resolver = Resolver::of_system();
        let upstreams = snapshot.upstreams.iter().map(|(name, (settings, limits))| {
            let (settings, names) = (Arc::clone(settings), Arc::clone(&snapshot.names));
            let upstream = Upstream::new(settings, limits.clone(), names, &resolver);
            (Arc::clone(name), upstream)
        });
        Self {
            authenticators: authenticators(&snapshot, &resources, &Authenticators::new()),
            upstreams: upstreams.collect(),
            process: Arc::clone(process),
            resolver,
            resources,
            snapshot,
        }
    }

    /// Makes the parts for the next snapshot. Connections to the same stores and servers, and the health of servers, are taken over.
    pub(super) fn next(&self, snapshot: Arc<Snapshot>) -> Self {
        let resources = self.resources.next(&snapshot.stores);
        let upstreams = snapshot.upstreams.iter().map(|(name, (settings, limits))| {
            let (settings, limits) = (Arc::clone(settings), limits.clone());
            let names = Arc::clone(&snapshot.names);
            let upstream = match self.upstreams.get(name) {
                Some(upstream) => upstream.with_settings(settings, limits, names, &self.resolver),
                None => Upstream::new(settings, limits, names, &self.resolver),
            };
            (Arc::clone(name), upstream)
        });
        Self {
            authenticators: authenticators(&snapshot, &resources, &self.authenticators),
            upstreams: upstreams.collect(),
            process: Arc::clone(&self.process),
            resolver: self.resolver.clone(),
            resources,
            snapshot,
        }
    }

    /// The authenticators of this worker.
    pub(super) fn authenticators(&self) -> &Authenticators {
        &self.authenticators
    }

    /// What the gateway serves from now on. Starts the health checks of its upstreams.
    pub(super) fn serving(&self) -> Serving {
        let snapshot = &self.snapshot;
        let used: BTreeSet<&Arc<str>> = snapshot.routes.iter().map(|route| &route.upstream).collect();
        Serving {
            proxy: Rc::new(self.proxy()),
            health_checks: used
                .into_iter()
                .map(|name| self.upstreams[name].start_health_checks())
                .collect(),
            tls: snapshot.tls.as_ref().map(|(_, acceptor)| acceptor.clone()),
            limits: snapshot.limits,
            proxies: Arc::clone(&snapshot.proxies),
        }
    }

    /// Makes the proxy.
    pub(super) fn proxy(&self) -> Proxy {
        let snapshot = &self.snapshot;
        let routes = snapshot.routes.iter().map(|route| self.route(route)).collect();
        let bounds = Bounds {
            header_bytes: snapshot.limits.header_bytes,
            headers: snapshot.limits.headers,
            in_flight: snapshot.in_flight.clone(),
        };
        let table = Arc::clone(&snapshot.table);
        Proxy::new(routes, table, &self.process.metrics, snapshot.log, bounds)
    }

    fn route(&self, route: &config::Route) -> Route {
        let snapshot = &self.snapshot;
        let settings = &snapshot.upstreams[&route.upstream].0;
        let named: Vec<Rc<Authenticator>> = route
            .authenticate
            .iter()
            .map(|name| Rc::clone(&self.authenticators[name]))
            .collect();
        let host = match &settings.host {
            HostMode::Name(name) => Some(name.clone()),
            HostMode::Preserve | HostMode::Server => None,
        };
        Route {
            metrics: Rc::new(RouteMetrics::new(
                &self.process.metrics,
                route.matches.to_string().into(),
                Some(&route.upstream),
            )),
            policy: route.policy.clone(),
            refusal_format: route.refusal_format.clone(),
            cors: route.cors.clone(),
            websocket: route.websocket.clone(),
            rules: OutboundRules {
                identity: Arc::clone(&snapshot.identities.tables[route.identity]),
                reserved: Arc::clone(&snapshot.reserved),
                credential_headers: named
                    .iter()
                    .map(|authenticator| authenticator.header().clone())
                    .collect(),
                credential: route.credential,
                host,
                forwarded: snapshot.forwarded,
                secret: settings.secret_header.clone(),
            },
            chain: route.policy.needs_identity().then(|| Chain::new(named)),
            upstream: self.upstreams[&route.upstream].clone(),
            body: BodyLimits {
                max_bytes: route.body_bytes.unwrap_or(snapshot.requests.body_bytes),
                read_timeout: snapshot.limits.body_read_timeout,
            },
            response_timeout: route.response_timeout,
        }
    }
}

/// The authenticators of a snapshot. `previous`: those of the one before it.
fn authenticators(snapshot: &Snapshot, resources: &WorkerResources, previous: &Authenticators) -> Authenticators {
    let authenticator = |(name, shared): (&Arc<str>, &Arc<SharedAuthenticator>)| {
        let authenticator = match previous.get(name) {
            Some(kept) if kept.is_of(shared) => Rc::clone(kept),
            Some(_) | None => Rc::new(Authenticator::new(shared, resources)),
        };
        (Arc::clone(name), authenticator)
    };
    snapshot.authenticators.iter().map(authenticator).collect()
}

/// Gives the gateway of a worker each new snapshot, and reports that the worker serves it. A worker that was busy gets only the latest one.
///
/// It must not be a separate task: a panic in it ends the worker. Otherwise the worker would keep an old configuration.
pub(super) async fn follow(
    mut parts: WorkerParts,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    gateway: Gateway,
    report: impl Fn(&Snapshot),
) -> Infallible {
    loop {
        report(&parts.snapshot);
        if snapshots.changed().await.is_err() {
            // Without a `Reloader` there are no further snapshots.
            return std::future::pending().await;
        }
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        parts = parts.next(snapshot);
        gateway.serve(parts.serving());
    }
}

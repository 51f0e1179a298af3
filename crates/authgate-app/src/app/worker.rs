//! [`WorkerParts`]: what one worker makes from a snapshot: connections to stores and upstreams, and the proxy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use authgate_auth::{Authenticator, Chain, SharedAuthenticator, WorkerResources};
use authgate_dataplane::gateway::{Gateway, Serving};
use authgate_dataplane::proxy::route_groups::{RouteGroup, Routes};
use authgate_dataplane::proxy::streams::Streams;
use authgate_dataplane::proxy::{Authenticators, Bounds, Proxy, Target};
use authgate_dataplane::upstream::Upstream;
use authgate_http::upstream::Resolver;
use tokio::sync::watch;

use super::process::Process;
use super::snapshot::Snapshot;
use crate::config::RouteTarget;

/// What one worker has made from a snapshot. The next snapshot takes over what it can.
#[derive(Debug)]
pub(super) struct WorkerParts {
    process: Arc<Process>,
    snapshot: Arc<Snapshot>,
    resolver: Resolver,
    resources: WorkerResources,
    authenticators: Rc<Authenticators>,
    upstreams: BTreeMap<Arc<str>, Upstream>,
    streams: Streams,
}

impl WorkerParts {
    /// Makes the parts of a worker that begins, without connections.
    pub(super) fn new(process: &Arc<Process>, snapshot: Arc<Snapshot>) -> Self {
        let resources = WorkerResources::open(&snapshot.stores, &process.replays);
        let resolver = Resolver::of_system();
        let upstreams = snapshot.upstreams.iter().map(|(name, (settings, limits))| {
            let (settings, names) = (Arc::clone(settings), Arc::clone(&snapshot.names));
            let upstream = Upstream::new(settings, limits.clone(), names, &resolver);
            (Arc::clone(name), upstream)
        });
        Self {
            authenticators: Rc::new(authenticators(&snapshot, &resources, &Authenticators::new())),
            streams: Streams::new(&process.metrics),
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
            authenticators: Rc::new(authenticators(&snapshot, &resources, &self.authenticators)),
            streams: self.streams.clone(),
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

    /// The streams of this worker.
    pub(super) fn streams(&self) -> Streams {
        self.streams.clone()
    }

    /// What the gateway serves from now on. Starts the health checks of its upstreams.
    pub(super) fn serving(&self) -> Serving {
        let snapshot = &self.snapshot;
        let used: BTreeSet<&Arc<str>> = snapshot
            .groups
            .iter()
            .filter_map(|group| group.target.upstream())
            .collect();
        Serving {
            proxy: Rc::new(self.proxy()),
            health_checks: used
                .into_iter()
                .map(|name| self.upstreams[name].start_health_checks())
                .collect(),
            tls: snapshot.tls.as_ref().map(|(_, acceptor)| acceptor.clone()),
            limits: snapshot.limits,
            proxies: Arc::clone(&snapshot.proxies),
            security: Arc::clone(&snapshot.security),
        }
    }

    /// Makes the proxy.
    pub(super) fn proxy(&self) -> Proxy {
        let snapshot = &self.snapshot;
        let routes = Routes::new(&snapshot.routes, self.groups(), &self.process.metrics);
        let bounds = Bounds {
            header_bytes: snapshot.limits.header_bytes,
            headers: snapshot.limits.headers,
            in_flight: snapshot.in_flight.clone(),
        };
        let table = Arc::clone(&snapshot.table);
        Proxy::new(
            routes,
            table,
            Rc::clone(&self.authenticators),
            self.streams.clone(),
            &self.process.metrics,
            snapshot.log,
            bounds,
            snapshot.recorder.clone(),
        )
    }

    /// The handles of this worker, beside the settings that it shares with the snapshot.
    fn groups(&self) -> Vec<RouteGroup> {
        let mut chains: HashMap<&[Arc<str>], Chain> = HashMap::new();
        let mut chain = |names| {
            let chain = chains.entry(names).or_insert_with_key(|names| {
                let named = names.iter().map(|name| Rc::clone(&self.authenticators[name]));
                Chain::new(named.collect())
            });
            chain.clone()
        };
        let groups = self.snapshot.groups.iter().map(|group| {
            let settings = Arc::clone(&group.settings);
            RouteGroup {
                chain: settings
                    .policy
                    .needs_identity()
                    .then(|| chain(group.authenticate.as_slice())),
                target: match &group.target {
                    RouteTarget::Upstream(name) => Target::Upstream(self.upstreams[name].clone()),
                    RouteTarget::KeySet => Target::KeySet(self.snapshot.key_set.clone().unwrap_or_default()),
                },
                settings,
            }
        });
        groups.collect()
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

/// Gives the gateway of a worker each new snapshot, ends the streams that it would not admit, and reports that the worker serves it. A worker that was busy gets only the latest one.
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
        let serving = parts.serving();
        let proxy = Rc::clone(&serving.proxy);
        gateway.serve(serving);
        proxy.take_over_streams().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use authgate_core::outbound::peer::{Peer, Scheme};
    use authgate_dataplane::proxy::Client;
    use authgate_http::framing::header_case::HeaderCase;
    use authgate_http::server::handler::{Exchange, Reply};
    use authgate_http::server::worker::run_on_this_thread;
    use authgate_http::transfer::early_hints::EarlyHints;
    use authgate_http::transfer::incoming::IncomingBody;
    use http::Request;

    use super::*;
    use crate::config;

    const HANDSHAKE: [(&str, &str); 4] = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    const CONFIG: &str = r#"[server]
listen = ["127.0.0.1:0"]
limits.in_flight = 1
[authenticators.jwt]
kind = "jwt"
users = "none"
keys = [{ algorithm = "HS256", secret = "a secret of a good many bytes, forty" }]
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[routes]]
path = "/ws"
authenticate = ["jwt"]
upstream = "app"
websocket = { origins = ["https://app.example"], subprotocol = true, cookie = "key", scheme = "Bearer" }
"#;

    #[test]
    fn a_refused_request_counts_against_in_flight_until_its_response_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        std::fs::write(&file, CONFIG).expect("written");
        let loaded = config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        let process = Arc::new(Process::default());
        run_on_this_thread(|| async {
            let snapshot = Arc::new(Snapshot::new(loaded.config, &process, None).expect("no TLS"));
            let proxy = Rc::new(WorkerParts::new(&process, Arc::clone(&snapshot)).proxy());
            let client = Rc::new(Client {
                peer: Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST).into(), Scheme::Http, &Arc::default()),
                served: None,
                certificate: None,
                is_outdated: false,
            });
            let (header_case, hints) = (HeaderCase::default(), EarlyHints::default());
            let exchange = Exchange {
                header_case: &header_case,
                hints: &hints,
            };
            let credential = ("sec-websocket-protocol", "authgate.bearer.x");
            for (fields, status) in [
                (vec![], 401),
                (
                    vec![credential, ("cookie", "key=x"), ("origin", "https://app.example")],
                    400,
                ),
                (vec![credential, ("origin", "https://evil.example")], 403),
            ] {
                let mut request = Request::get("/ws").header("host", "localhost");
                for (name, value) in HANDSHAKE.into_iter().chain(fields) {
                    request = request.header(name, value);
                }
                let request = request.body(IncomingBody::Empty).expect("a request");
                let Reply::Response { response, .. } =
                    Rc::clone(&proxy).handle(request, exchange, Rc::clone(&client)).await
                else {
                    panic!("it is not forwarded")
                };
                assert_eq!(response.status(), status);
                assert!(
                    snapshot.in_flight.try_acquire().is_none(),
                    "{status}: its response is not sent"
                );
                drop(response);
                assert!(snapshot.in_flight.try_acquire().is_some(), "{status}: it has ended");
            }
            Ok(())
        })
        .expect("a runtime");
    }
}

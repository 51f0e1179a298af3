//! [`Snapshot`]: everything that is made from one configuration and shared by all workers. It is immutable and replaced as a whole.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use authgate_auth::introspection::SharedEndpoint;
use authgate_auth::jwt::identity_key::IdentityKey;
use authgate_auth::jwt::keys::remote::SharedKeySource;
use authgate_auth::store::SharedStore;
use authgate_auth::{IdentityRules, KindSettings, PROOF_HEADER, SharedAuthenticator};
use authgate_core::outbound::OutboundRules;
use authgate_core::outbound::identity::{CredentialMode, IdentityTable};
use authgate_core::outbound::reserved::ReservedNames;
use authgate_core::policy::Policy;
use authgate_core::policy::rollout::Rollout;
use authgate_dataplane::gateway::{Drain, ProxyRules, ServerSettings};
use authgate_dataplane::proxy::RouteSettings;
use authgate_dataplane::proxy::cors::Cors;
use authgate_dataplane::proxy::outcome::AccessLog;
use authgate_dataplane::proxy::refusal::format::RefusalFormat;
use authgate_dataplane::proxy::route_groups::{GroupId, RouteList};
use authgate_dataplane::proxy::routes::RouteTable;
use authgate_dataplane::proxy::stream_end::StreamRule;
use authgate_dataplane::proxy::websocket_credential::WebSocketCredential;
use authgate_dataplane::recording::{Recorder, RecorderMetrics};
use authgate_dataplane::telemetry::labels;
use authgate_dataplane::telemetry::metrics::{Observed, StoreSample};
use authgate_dataplane::tls::certificate::Certificate;
use authgate_dataplane::tls::control::ControlTls;
use authgate_dataplane::tls::server::{Acceptor, ClientSecurity, ServerTlsSettings};
use authgate_dataplane::tls::validity::Validity;
use authgate_http::concurrency::ConcurrencyLimit;
use authgate_http::framing::header_case::ConfiguredNames;
use authgate_http::server::limits::Limits;
use authgate_http::upstream::body::BodyLimits;
use authgate_http::upstream::{HostMode, UpstreamLimits, UpstreamSettings};
use bytes::Bytes;
use http::HeaderName;
use rustls_pki_types::UnixTime;

use super::process::Process;
use crate::acme::Acme;
use crate::config::{Config, Route, RouteRules, RouteTarget};
use crate::control::access::AdminAccess;
use crate::control::status::CertificateStatus;

/// What all workers share of one configuration.
///
/// Taken from the previous snapshot, where the settings are the same: stores, authenticators with their caches, TLS with its tickets and
/// sessions, and the counters of limits. Nothing else of a snapshot has state. Requests that have begun with a snapshot keep it.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Each snapshot of a process has a higher number than the one before it.
    pub(super) number: u64,
    pub(super) stores: Vec<Arc<SharedStore>>,
    pub(super) authenticators: BTreeMap<Arc<str>, Arc<SharedAuthenticator>>,
    pub(super) routes: Arc<RouteList>,
    /// The groups of `routes`.
    pub(super) groups: Vec<SharedGroup>,
    pub(super) upstreams: BTreeMap<Arc<str>, (Arc<UpstreamSettings>, UpstreamLimits)>,
    pub(super) identities: Arc<IdentityRules>,
    pub(super) names: Arc<ConfiguredNames>,
    pub(super) table: Arc<RouteTable>,
    pub(super) log: AccessLog,
    /// Records requests, if that is configured.
    pub(super) recorder: Option<Arc<Recorder>>,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    /// Concurrent requests of all workers.
    pub(super) in_flight: ConcurrencyLimit,
    pub(super) tls: Option<(ServerTlsSettings, Acceptor)>,
    pub(super) acme: Option<Arc<Acme>>,
    pub(super) proxies: Arc<ProxyRules>,
    /// What clients must do before their requests are accepted. The same `Arc` as in the snapshot before, if it is equal.
    pub(super) security: Arc<ClientSecurity>,
    /// Who may ask the admin listener.
    pub(super) admin: AdminAccess,
    /// The name of the configuration file.
    pub(super) file: String,
    /// Its text, without comments and possible secrets.
    pub(super) redacted: Arc<str>,
    /// The hosts that clients are redirected to.
    pub(super) hosts: HashSet<String>,
    /// The headers that carry credentials.
    pub(super) credential_headers: Vec<HeaderName>,
    /// The public halves of the keys that sign identities: a JWK Set. `None`: there is no such key.
    pub(super) key_set: Option<Bytes>,
    /// The gateway's own certificates.
    pub(super) certificates: Arc<[CertificateStatus]>,
}

impl Snapshot {
    /// Makes the snapshot of a configuration. `previous`: the snapshot that it will replace.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(config: Config, process: &Process, previous: Option<&Self>) -> Result<Self, rustls::Error> {
        let (hosts, credential_headers) = (config.hosts(), config.credential_headers());
        let ServerSettings {
            limits,
            requests,
            proxies,
            drain,
            ..
        } = config.server;
        let read = Arc::new(config.identities);
        let identities = match previous {
            Some(previous) if previous.identities.is_equivalent(&read) => Arc::clone(&previous.identities),
            Some(_) | None => Arc::clone(&read),
        };
        let names: Vec<&str> = identities
            .tables
            .iter()
            .flat_map(IdentityTable::names)
            .map(HeaderName::as_str)
            .chain(config.strip.iter().map(String::as_str))
            .chain(config.signed_headers.iter().map(HeaderName::as_str))
            .chain(
                config
                    .upstreams
                    .values()
                    .filter_map(|upstream| Some(upstream.secret_header.as_ref()?.0.as_str())),
            )
            .collect();
        let reserved = Arc::new(ReservedNames::new(names));
        let (groups, routes) = grouped(&config.routes);
        let policies = first_with_same_policy(&groups);
        let matches = config.routes.iter().map(|route| &route.matches);
        let table = RouteTable::new(matches, |id| routes.group(id).map(|GroupId(group)| policies[group]));
        let stores = config.stores.into_iter().map(|settings| {
            let same = previous.and_then(|previous| {
                let mut stores = previous.stores.iter();
                stores.find(|store| *store.settings() == settings)
            });
            same.map_or_else(|| SharedStore::new(settings, &process.counters), Arc::clone)
        });
        let stores: Vec<Arc<SharedStore>> = stores.collect();
        let authenticators = config.authenticators.into_iter().map(|(name, settings)| {
            let before = previous.and_then(|previous| previous.authenticators.get(&name));
            let kept = previous.zip(before).and_then(|(previous, shared)| {
                let is_kept = |name: &Arc<str>| {
                    let store = stores.iter().find(|store| store.name() == name);
                    store.is_some_and(|store| previous.stores.iter().any(|kept| Arc::ptr_eq(kept, store)))
                };
                (shared.is_same(&settings, &identities) && shared.stores().into_iter().all(is_kept)).then_some(shared)
            });
            let shared = match (kept, before) {
                (Some(shared), _) => Arc::clone(shared),
                (None, Some(before)) => before.next(settings, &identities, &process.counters),
                (None, None) => SharedAuthenticator::new(settings, &identities, &process.counters),
            };
            (name, shared)
        });
        let authenticators: BTreeMap<Arc<str>, Arc<SharedAuthenticator>> = authenticators.collect();
        let upstreams = config.upstreams.into_iter().map(|(name, mut settings)| {
            let previous = previous.and_then(|previous| previous.upstreams.get(&name));
            let limits = match previous {
                Some((_, limits)) => limits.with_settings(&settings),
                None => UpstreamLimits::new(&settings),
            };
            if let (Some(tls), Some((previous, _))) = (&mut settings.tls, previous)
                && let Some(previous) = &previous.tls
            {
                tls.share_config(previous);
            }
            (name, (Arc::new(settings), limits))
        });
        let upstreams: BTreeMap<Arc<str>, (Arc<UpstreamSettings>, UpstreamLimits)> = upstreams.collect();
        let groups = groups.into_iter().map(|route: Arc<RouteRules>| {
            let upstream = route.target.upstream().map(|name| &*upstreams[name].0);
            let headers = route.authenticate.iter().flat_map(|name| {
                let settings = authenticators[name].settings();
                let proof = settings.kind.has_proofs().then_some(PROOF_HEADER);
                std::iter::once(settings.header.clone()).chain(proof)
            });
            let table = identities.tables.counterpart(&read.tables, route.identity);
            let outbound = OutboundRules {
                identity: Arc::clone(&identities.tables[table]),
                reserved: Arc::clone(&reserved),
                credential_headers: headers.collect(),
                credential: route.credential,
                host: upstream.and_then(|upstream| match &upstream.host {
                    HostMode::Name(name) => Some(name.clone()),
                    HostMode::Preserve | HostMode::Server => None,
                }),
                forwarded: config.forwarded,
                secret: upstream.and_then(|upstream| upstream.secret_header.clone()),
            };
            let body = BodyLimits {
                max_bytes: route.body_bytes.unwrap_or(requests.body_bytes),
                read_timeout: limits.body_read_timeout,
            };
            SharedGroup::new(&route, outbound, body)
        });
        let groups = groups.collect();
        let certificates = config.tls.iter().flat_map(|tls| &tls.certificates);
        let certificates = certificates.chain(config.admin.tls.iter().map(|tls| &tls.certificate));
        let certificates = certificates.map(certificate_status).collect();
        let previous_acme = previous.and_then(|previous| previous.acme.as_ref());
        let is_acme_kept = previous_acme.map(|acme| acme.settings()) == config.acme.as_ref();
        let acme = match previous_acme {
            Some(acme) if is_acme_kept => Some(Arc::clone(acme)),
            Some(_) | None => config.acme.map(|settings| Arc::new(Acme::new(settings))),
        };
        let recorder = config.record.map(|settings| {
            let kept = previous.and_then(|previous| previous.recorder.as_ref());
            Arc::new(match kept.filter(|kept| *kept.settings() == settings) {
                Some(kept) => kept.with_credentials(&credential_headers),
                None => {
                    let metrics = RecorderMetrics {
                        written: process.metrics.recorded_counter(&labels::RECORDED),
                        dropped: process.metrics.recorded_counter(&labels::DROPPED),
                    };
                    Recorder::start(settings, &credential_headers, metrics)
                }
            })
        });
        // With the same acceptor, clients can resume their sessions.
        let tls = match (config.tls, previous.and_then(|previous| previous.tls.as_ref())) {
            (Some(settings), Some(kept)) if kept.0 == settings && is_acme_kept => Some(kept.clone()),
            (Some(settings), _) => {
                let managed = acme.as_ref().map(|acme| Arc::clone(acme.certificates()));
                let acceptor = Acceptor::new(&settings, managed)?;
                Some((settings, acceptor))
            }
            (None, _) => None,
        };
        let security = match &tls {
            Some((_, acceptor)) => Arc::clone(&acceptor.security),
            None => Arc::new(ClientSecurity::Cleartext),
        };
        let security = match previous {
            Some(previous) if previous.security == security => Arc::clone(&previous.security),
            Some(_) | None => security,
        };
        let mut identity_keys = config.identity_keys.iter().map(|published| &*published.key).peekable();
        let key_set = identity_keys
            .peek()
            .is_some()
            .then(|| Bytes::from(IdentityKey::key_set(identity_keys)));
        Ok(Self {
            key_set,
            number: previous.map_or(0, |previous| previous.number + 1),
            certificates,
            authenticators,
            stores,
            upstreams,
            routes: Arc::new(routes),
            groups,
            identities,
            names: Arc::new(config.names),
            table: Arc::new(table),
            log: AccessLog {
                on: config.log.access,
                query: config.log.query,
            },
            recorder,
            limits,
            drain,
            security,
            in_flight: match previous {
                Some(previous) => previous.in_flight.with_max(requests.in_flight),
                None => ConcurrencyLimit::new(requests.in_flight),
            },
            tls,
            acme,
            proxies: match previous {
                Some(previous) if *previous.proxies == proxies => Arc::clone(&previous.proxies),
                Some(_) | None => Arc::new(proxies),
            },
            admin: AdminAccess {
                hosts: config.admin.hosts,
                token: config.admin.token,
                tls: config.admin.tls.as_ref().map(ControlTls::new).transpose()?,
            },
            file: config.file,
            redacted: config.redacted,
            hosts,
            credential_headers,
        })
    }

    /// Starts to obtain its certificates. It needs a runtime.
    pub(super) fn start_acme(&self) {
        if let Some(acme) = &self.acme {
            acme.start();
        }
    }

    /// Lets its stores have other layout records than before.
    pub(super) fn permit_other_layouts(&self) {
        for store in &self.stores {
            store.permit_other_layout();
        }
    }

    /// Starts the tasks that watch its stores, and lets authenticators ask over the network. It needs a runtime.
    pub(super) fn watch_stores(&self) {
        for authenticator in self.authenticators.values() {
            authenticator.start();
        }
        for store in &self.stores {
            store.watch();
        }
        let store = |name: &Arc<str>| self.stores.iter().find(|store| store.name() == name);
        for authenticator in self.authenticators.values() {
            if let KindSettings::Token(token) = &authenticator.settings().kind
                && let Some(source) = &token.source
                && let (Some(front), Some(source)) = (store(&token.store), store(&source.store))
            {
                front.follow(source);
            }
        }
    }

    /// The endpoints at which authenticators introspect tokens, by authenticator.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<SharedEndpoint>)> {
        let authenticators = self.authenticators.iter();
        authenticators.filter_map(|(name, shared)| Some((name, shared.endpoint()?)))
    }

    /// The sources of the keys that identity providers publish.
    pub(super) fn key_sources(&self) -> impl Iterator<Item = &Arc<SharedKeySource>> {
        self.authenticators.values().flat_map(|shared| shared.key_sources())
    }

    /// What the metrics read from this snapshot at each scrape.
    pub(super) fn observed(&self) -> Observed {
        let state = |store: &Arc<SharedStore>| {
            let probed = Arc::clone(store);
            let probe = move || StoreSample {
                usable: probed.is_usable(),
                outage: probed.outage().map(|outage| outage.lasting).unwrap_or_default(),
                revocation_lag: probed.revocation_lag(),
            };
            (Arc::clone(store.name()), Box::new(probe) as _)
        };
        Observed {
            stores: self.stores.iter().map(state).collect(),
            certificates: self
                .certificates
                .iter()
                .filter_map(|certificate| Some((certificate.file.clone(), certificate.expires?)))
                .collect(),
            acme: self.acme.clone().map(|acme| Box::new(move || acme.samples()) as _),
            cache_metrics: self
                .authenticators
                .iter()
                .map(|(name, shared)| (Arc::clone(name), shared.metrics().clone()))
                .collect(),
            introspection_metrics: self
                .endpoints()
                .map(|(name, endpoint)| (Arc::clone(name), endpoint.metrics().clone()))
                .collect(),
            key_sources: self.key_sources().cloned().collect(),
            store_metrics: self
                .stores
                .iter()
                .map(|store| (Arc::clone(store.name()), store.metrics().clone()))
                .collect(),
        }
    }
}

fn certificate_status(certificate: &Certificate) -> CertificateStatus {
    let expires = Validity::chain_expiry(certificate.chain());
    let starts = certificate
        .chain()
        .next()
        .and_then(Validity::of)
        .map(|validity| validity.not_before);
    let seconds = |at: UnixTime| i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    CertificateStatus {
        file: certificate.file().display().to_string(),
        names: certificate.names().to_vec(),
        expires: expires.map(seconds),
        starts: starts.map(seconds),
    }
}

/// Routes with equal settings: the settings, and the names of the parts to which each worker has handles of its own.
#[derive(Debug)]
pub(super) struct SharedGroup {
    pub(super) settings: Arc<RouteSettings>,
    pub(super) authenticate: Vec<Arc<str>>,
    pub(super) target: RouteTarget,
}

impl SharedGroup {
    fn new(route: &RouteRules, outbound: OutboundRules, body: BodyLimits) -> Self {
        Self {
            settings: Arc::new(RouteSettings {
                policy: route.policy.clone(),
                rollout: route.rollout,
                refusal_format: route.refusal_format.clone(),
                cors: route.cors.clone(),
                websocket: route.websocket.clone(),
                rules: outbound,
                signer: route.signer.clone(),
                body,
                response_timeout: route.response_timeout,
                streams: route.streams,
            }),
            authenticate: route.authenticate.clone(),
            target: route.target.clone(),
        }
    }
}

/// The groups of routes with equal rules, and for each route its group.
fn grouped(routes: &[Route]) -> (Vec<Arc<RouteRules>>, RouteList) {
    let (mut groups, mut list) = (Vec::new(), RouteList::default());
    let mut known: HashMap<&RouteRules, GroupId> = HashMap::new();
    for route in routes {
        let group = match known.entry(&route.rules) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => {
                groups.push(Arc::clone(&route.rules));
                *unknown.insert(GroupId(groups.len() - 1))
            }
        };
        list.push(&route.matches, group);
    }
    (groups, list)
}

/// For each group, the first one that accepts the same requests and forwards them in the same way.
fn first_with_same_policy(groups: &[Arc<RouteRules>]) -> Vec<usize> {
    let mut first = HashMap::new();
    let settings = groups.iter().map(|rules| RequestSettings::new(rules)).enumerate();
    settings
        .map(|(at, settings)| *first.entry(settings).or_insert(at))
        .collect()
}

/// The settings of a route that decide how a request is authenticated, authorized and forwarded. Routes with equal settings handle a
/// request in the same way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RequestSettings<'r> {
    policy: &'r Policy,
    rollout: Option<Rollout>,
    authenticate: &'r [Arc<str>],
    target: &'r RouteTarget,
    credential: CredentialMode,
    refusal_format: &'r RefusalFormat,
    cors: Option<&'r Cors>,
    websocket: Option<&'r WebSocketCredential>,
    body_bytes: Option<Option<u64>>,
    streams: StreamRule,
}

impl<'r> RequestSettings<'r> {
    fn new(route: &'r RouteRules) -> Self {
        Self {
            policy: &route.policy,
            rollout: route.rollout,
            authenticate: &route.authenticate,
            target: &route.target,
            credential: route.credential,
            refusal_format: &route.refusal_format,
            cors: route.cors.as_ref(),
            websocket: route.websocket.as_ref(),
            body_bytes: route.body_bytes,
            streams: route.streams,
        }
    }
}

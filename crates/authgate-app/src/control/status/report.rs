//! Gathers the [`Status`] of the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use authgate_auth::introspection::IntrospectionStatus;
use authgate_auth::jwt::keys::remote::KeySourceStatus;
use authgate_auth::store::{SharedStore, redis};
use authgate_auth::{OutageStatus, SharedAuthenticator};
use authgate_dataplane::proxy::route_groups::RouteList;
use authgate_dataplane::telemetry::histogram::HistogramValues;
use authgate_dataplane::telemetry::metrics::Metrics;
use authgate_dataplane::telemetry::{build, process};
use authgate_http::server::stage::Stage;
use authgate_http::upstream::{ServerStatus, UpstreamLimits, UpstreamSettings};
use jiff::Timestamp;

use super::document::{
    Acme, Authenticator, CachedDecisions, Certificate, CertificateState, ChangeReports, Health, Introspection, Key,
    KeySet, Listener, Outage, ProcessUsage, Route, Routes, Server, ServerState, Status, Store, Traffic, Upstream,
};
use super::history::{Mark, rounded};
use super::{CertificateStatus, ConfigurationStatus, ListenerStatus, ProcessFacts, Recent, health};
use crate::acme::AcmeStatus;

/// The most routes in a report.
const MAX_ROUTES: usize = 50;
const DAY: i64 = 24 * 60 * 60;
/// A certificate that ends sooner is worth a warning.
const ENDING: i64 = 14 * DAY;

/// The parts of a report.
pub(in crate::control) struct Report<'r> {
    pub(in crate::control) process: &'r ProcessFacts,
    pub(in crate::control) stage: Stage,
    pub(in crate::control) ready: bool,
    pub(in crate::control) metrics: &'r Metrics,
    pub(in crate::control) recent: &'r Recent,
    pub(in crate::control) configuration: &'r ConfigurationStatus,
    pub(in crate::control) listeners: &'r [ListenerStatus],
    pub(in crate::control) routes: &'r RouteList,
    pub(in crate::control) upstreams: &'r [(Arc<UpstreamSettings>, UpstreamLimits)],
    pub(in crate::control) authenticators: &'r [Arc<SharedAuthenticator>],
    pub(in crate::control) stores: &'r [Arc<SharedStore>],
    pub(in crate::control) certificates: &'r [CertificateStatus],
    pub(in crate::control) acme: Vec<AcmeStatus>,
    pub(in crate::control) introspection: Vec<IntrospectionStatus>,
    pub(in crate::control) key_sources: Vec<KeySourceStatus>,
}

impl Report<'_> {
    pub(in crate::control) fn gather(&self) -> Status {
        let (now, mark) = (Timestamp::now(), self.recent.minute_ago());
        let mut status = Status {
            version: build::VERSION.to_owned(),
            rustc: build::RUSTC.to_owned(),
            started: shown(self.process.started),
            uptime_seconds: self.process.since.elapsed().as_secs(),
            workers: self.process.workers,
            stage: stage_name(self.stage).to_owned(),
            ready: self.ready,
            health: Health::default(),
            process: process::usage().map(process_usage),
            traffic: self.traffic(&mark),
            configuration: self.configuration.report(),
            listeners: self.listeners.iter().map(listener).collect(),
            routes: self.routes(&mark),
            upstreams: self
                .upstreams
                .iter()
                .map(|upstream| self.upstream(upstream, &mark))
                .collect(),
            authenticators: self.authenticators(&mark),
            stores: self.stores.iter().map(|it| store(it)).collect(),
            certificates: self.certificates.iter().map(|it| certificate(it, now)).collect(),
            acme: self.acme.iter().map(|it| acme(it, now)).collect(),
            introspection: self.introspection.iter().map(introspection).collect(),
            key_sets: self.key_sources.iter().map(key_set).collect(),
        };
        status.health = health::assess(&status);
        status
    }

    fn traffic(&self, mark: &Mark) -> Traffic {
        let history = self.recent.history();
        let last = |rates: &[f64]| rates.last().copied().unwrap_or_default();
        let durations = HistogramValues::read(&self.metrics.request_duration);
        let quantile = |of: f64| durations.quantile_since(&mark.durations, of).map(rounded);
        let mut requests = 0;
        self.metrics.requests.for_each(|_, count| requests += count);
        Traffic {
            requests,
            requests_per_second: last(&history.requests_per_second),
            refused_per_second: last(&history.refused_per_second),
            failed_per_second: last(&history.failed_per_second),
            p50_seconds: quantile(0.5),
            p99_seconds: quantile(0.99),
            window_seconds: rounded(mark.age()),
            connections: whole(self.metrics.connections.get()),
            in_flight: whole(self.metrics.in_flight.get()),
            refusals: self.recent.refusals(),
            history,
        }
    }

    /// The busiest routes. Their order is that of the requests since the start, which changes rarely.
    fn routes(&self, mark: &Mark) -> Routes {
        struct Counted {
            requests: u64,
            recent: u64,
            series: Vec<usize>,
        }
        let series = self.metrics.requests.values();
        let mut routes: HashMap<&str, Counted> = HashMap::new();
        for (at, (labels, count)) in series.iter().enumerate() {
            let route = routes.entry(&*labels.route).or_insert(Counted {
                requests: 0,
                recent: 0,
                series: Vec::new(),
            });
            route.requests += count;
            route.recent += count.saturating_sub(mark.requests.get(at).copied().unwrap_or_default());
            route.series.push(at);
        }
        let used = routes.len();
        let mut busiest: Vec<(&str, Counted)> = routes.into_iter().collect();
        busiest.sort_by(|(a, one), (b, other)| {
            (other.recent, other.requests)
                .cmp(&(one.recent, one.requests))
                .then(a.cmp(b))
        });
        busiest.truncate(MAX_ROUTES);
        busiest.sort_by(|(a, one), (b, other)| other.requests.cmp(&one.requests).then(a.cmp(b)));
        let mut shown: Vec<Route> = busiest
            .into_iter()
            .map(|(route, counted)| {
                let (mut outcomes, mut statuses) = (BTreeMap::new(), BTreeMap::new());
                for (labels, count) in counted.series.iter().map(|at| &series[*at]) {
                    *outcomes.entry(labels.outcome.to_owned()).or_default() += count;
                    *statuses.entry(labels.status.to_owned()).or_default() += count;
                }
                Route {
                    route: route.to_owned(),
                    requests: counted.requests,
                    requests_per_second: rounded(counted.recent as f64 / mark.age()),
                    outcomes,
                    statuses,
                }
            })
            .collect();
        let mut seen: HashSet<&str> = series.iter().map(|(labels, _)| &*labels.route).collect();
        let unused = self.routes.labels().filter(|label| seen.insert(label));
        let unused = unused.take(MAX_ROUTES.saturating_sub(shown.len())).map(|label| Route {
            route: label.to_owned(),
            requests: 0,
            requests_per_second: 0.0,
            outcomes: BTreeMap::new(),
            statuses: BTreeMap::new(),
        });
        let unused: Vec<Route> = unused.collect();
        shown.extend(unused);
        Routes {
            configured: self.routes.labels().count(),
            used,
            busiest: shown,
        }
    }

    fn upstream(&self, (settings, limits): &(Arc<UpstreamSettings>, UpstreamLimits), mark: &Mark) -> Upstream {
        let (now, before) = (
            self.metrics.upstream_times(&settings.name),
            mark.upstream(&settings.name),
        );
        let responses = now.count.saturating_sub(before.count) as f64;
        let in_flight = limits.in_flight();
        Upstream {
            name: settings.name.to_string(),
            responses_per_second: rounded(responses / mark.age()),
            mean_seconds: (responses > 0.0).then(|| rounded((now.sum - before.sum).max(0.0) / responses)),
            p99_seconds: now.quantile_since(&before, 0.99).map(rounded),
            in_flight: in_flight.map(|(in_use, _)| in_use),
            max_in_flight: in_flight.map(|(_, max)| max),
            servers: limits.servers(settings).into_iter().map(server).collect(),
        }
    }

    fn authenticators(&self, mark: &Mark) -> Vec<Authenticator> {
        let authenticators = self.authenticators.iter().map(|shared| {
            let (settings, cache) = (shared.settings(), shared.metrics());
            let (hits, misses) = mark.cache_since(&settings.name, cache);
            Authenticator {
                name: settings.name.to_string(),
                kind: settings.kind.name().to_owned(),
                hits: cache.hits(),
                misses: cache.misses(),
                hit_rate: (hits + misses > 0).then(|| rounded(hits as f64 / (hits + misses) as f64)),
                stale: cache.stale(),
                accepted_per_second: 0.0,
                refused_per_second: 0.0,
                outcomes: BTreeMap::new(),
            }
        });
        let mut authenticators: Vec<Authenticator> = authenticators.collect();
        for (at, (labels, count)) in self.metrics.authentications.values().iter().enumerate() {
            let named = authenticators.iter_mut().find(|it| *it.name == *labels.authenticator);
            let Some(authenticator) = named else { continue };
            let recent = count.saturating_sub(mark.authentications.get(at).copied().unwrap_or_default());
            match labels.outcome {
                "accepted" => authenticator.accepted_per_second += recent as f64,
                _ => authenticator.refused_per_second += recent as f64,
            }
            *authenticator.outcomes.entry(labels.outcome.to_owned()).or_default() += count;
        }
        for authenticator in &mut authenticators {
            authenticator.accepted_per_second = rounded(authenticator.accepted_per_second / mark.age());
            authenticator.refused_per_second = rounded(authenticator.refused_per_second / mark.age());
        }
        authenticators
    }
}

fn process_usage(usage: process::Usage) -> ProcessUsage {
    ProcessUsage {
        resident_bytes: whole(usage.resident_bytes),
        cpu_seconds: usage.cpu_seconds,
        open_files: whole(usage.open_fds),
        max_open_files: usage.max_fds.map(whole),
    }
}

fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn listener(listener: &ListenerStatus) -> Listener {
    Listener {
        key: listener.purpose.key().to_owned(),
        address: listener.address.to_string(),
        tls: listener.tls,
    }
}

fn server(status: ServerStatus) -> Server {
    Server {
        server: status.server,
        state: match &status.fault {
            None => ServerState::Up,
            Some(fault) if fault.fails_checks => ServerState::Down,
            Some(_) => ServerState::Failing,
        },
        failing_workers: status.failing,
        workers: status.workers,
        since: status.fault.as_ref().and_then(|fault| at(fault.since)),
        reason: status.fault.map(|fault| fault.reason),
    }
}

fn store(store: &SharedStore) -> Store {
    Store {
        name: store.name().to_string(),
        mode: store.primaries().map(|(mode, _)| mode.to_owned()),
        primaries: store.primaries().map(|(_, addresses)| addresses),
        reached: store.was_reached(),
        usable: store.is_usable(),
        changes: store.change_reports().map(change_reports),
        outage: store.outage().map(outage),
        revocation_lag_seconds: store.revocation_lag().map(|lag| lag.as_secs_f64()),
    }
}

fn change_reports(reports: redis::ChangeReports) -> ChangeReports {
    match reports {
        redis::ChangeReports::Reported => ChangeReports::Reported,
        redis::ChangeReports::NotReported => ChangeReports::NotReported,
        redis::ChangeReports::Unsupported => ChangeReports::Unsupported,
        redis::ChangeReports::Off => ChangeReports::Off,
    }
}

fn outage(status: OutageStatus) -> Outage {
    let serving = status.serving.into_iter().map(|serving| CachedDecisions {
        authenticator: serving.authenticator.to_string(),
        since: at(serving.since),
    });
    Outage {
        since: at(status.since),
        cached_decisions: serving.collect(),
    }
}

fn certificate(certificate: &CertificateStatus, now: Timestamp) -> Certificate {
    let seconds_left = certificate.expires.map(|expires| expires - now.as_second());
    let lifetime = certificate.expires.zip(certificate.starts);
    let ending = lifetime.map_or(ENDING, |(expires, starts)| ENDING.min((expires - starts) / 3));
    Certificate {
        file: certificate.file.clone(),
        names: certificate.names.clone(),
        expires: certificate
            .expires
            .and_then(|at| Timestamp::from_second(at).ok())
            .map(shown),
        days_left: seconds_left.map(days),
        state: match seconds_left {
            None => CertificateState::Unknown,
            Some(..0) => CertificateState::Expired,
            Some(left) if left < ending => CertificateState::Ending,
            Some(_) => CertificateState::Valid,
        },
    }
}

fn acme(status: &AcmeStatus, now: Timestamp) -> Acme {
    let expires = status.expires.and_then(|at| i64::try_from(at.as_secs()).ok());
    Acme {
        domain: status.domain.clone(),
        file: status.file.display().to_string(),
        expires: expires.and_then(|at| Timestamp::from_second(at).ok()).map(shown),
        days_left: expires.map(|at| days(at - now.as_second())),
        next_order: at(status.due),
        failures: status.failures,
        error: status.last_error.clone(),
    }
}

fn introspection(status: &IntrospectionStatus) -> Introspection {
    Introspection {
        authenticator: status.authenticator.to_string(),
        last_success: status.last_success.and_then(at),
        failures: status.failures,
        error: status.error.clone(),
        outage: status.outage.clone().map(outage),
    }
}

fn key_set(status: &KeySourceStatus) -> KeySet {
    let key = |(kid, algorithm): &(String, &'static str)| Key {
        kid: kid.clone(),
        algorithm: (*algorithm).to_owned(),
    };
    let age = status.last_success.and_then(|at| at.elapsed().ok());
    KeySet {
        authenticator: status.authenticator.to_string(),
        source: status.location.clone(),
        keys: status.keys.iter().map(key).collect(),
        left_out: status.left_out.clone(),
        last_success: status.last_success.and_then(at),
        age_seconds: age.map(|age| age.as_secs()),
        next_fetch: status.next_fetch.and_then(at),
        failures: status.failures.into(),
        error: status.error.clone(),
    }
}

pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Serving => "serving",
        Stage::NotReady => "not_ready",
        Stage::Draining => "draining",
        Stage::Aborting => "aborting",
    }
}

/// Whole days, rounded down.
fn days(seconds: i64) -> i64 {
    seconds.div_euclid(DAY)
}

fn at(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(shown)
}

/// A time as RFC 3339 in UTC, in whole seconds.
pub(super) fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

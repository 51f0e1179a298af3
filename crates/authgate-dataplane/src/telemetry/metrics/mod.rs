//! Every metric of the process. `table.rs` describes them. Names start with `authgate_`, units are seconds and bytes; no label holds a user, a token
//! or a path: labels come from the configuration or from fixed lists.

pub mod table;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use authgate_auth::jwt::keys::remote::SharedKeySource;
use authgate_auth::metrics::description::MetricDescription;
use authgate_auth::metrics::{AuthMetrics, CacheMetrics, IntrospectionMetrics, StoreMetrics};
use authgate_core::label_value::LabelValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::telemetry::build;
use crate::telemetry::exposition::{self, ExpositionFormat};
use crate::telemetry::histogram::HistogramValues;
use crate::telemetry::labels;
use crate::telemetry::process::Process;
use crate::telemetry::series::CounterSeries;

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route, as in the configuration; `none` if no route matched.
    pub route: Arc<str>,
    /// `forwarded`, or the reason why it was not.
    pub outcome: &'static str,
    /// `2xx` and so on.
    pub status: &'static str,
}

/// The result of one authentication.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AuthenticationLabels {
    /// Its name in the configuration.
    pub authenticator: Arc<str>,
    /// `accepted`, or the reason for the refusal.
    pub outcome: &'static str,
}

/// One observed request: what the gateway would do, and what the application did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObservationLabels {
    /// The route, as in the configuration.
    pub route: Arc<str>,
    /// `accepted`, or the status of the refusal.
    pub ours: &'static str,
    /// The same of the application; `5xx` or `none` if it has failed.
    pub theirs: &'static str,
    /// `same`, or why the gateway decided as it did.
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DomainLabels {
    domain: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    store: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    rustc: &'static str,
}

/// Histogram buckets of durations, in seconds: from a cached refusal to a slow upload.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// The metrics of this process.
pub struct Metrics {
    observed: Arc<ArcSwap<Observed>>,
    /// All other metrics; their names have the prefix `authgate_`.
    registry: Registry,
    /// The metrics of the process, whose names have no prefix.
    process: Registry,
    /// Requests that have ended.
    pub requests: CounterSeries<RequestLabels>,
    /// Times from the head of a request to the end of its response.
    pub request_duration: Histogram,
    upstream_duration: Family<UpstreamLabels, Histogram>,
    /// Credentials that authenticators accepted or refused.
    pub authentications: CounterSeries<AuthenticationLabels>,
    observations: Family<ObservationLabels, Counter>,
    recorded: Family<OutcomeLabels, Counter>,
    handshakes: Family<OutcomeLabels, Counter>,
    floods: Counter,
    stream_ends: Family<ReasonLabels, Counter>,
    reloads: Family<OutcomeLabels, Counter>,
    /// Unix time.
    last_applied: Gauge,
    refused_admin_requests: Family<ReasonLabels, Counter>,
    revocations: Family<OutcomeLabels, Counter>,
    /// Open connections of clients.
    pub connections: Gauge,
    /// Requests that have begun and not ended.
    pub in_flight: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            observed: Arc::default(),
            registry: Registry::with_prefix("authgate"),
            process: Registry::default(),
            requests: CounterSeries::default(),
            request_duration: histogram(),
            upstream_duration: Family::new_with_constructor(histogram),
            authentications: CounterSeries::default(),
            observations: Family::default(),
            recorded: Family::default(),
            handshakes: Family::default(),
            floods: Counter::default(),
            stream_ends: Family::default(),
            reloads: Family::default(),
            last_applied: Gauge::default(),
            refused_admin_requests: Family::default(),
            revocations: Family::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
        };
        metrics.with_registered()
    }
}

impl Metrics {
    fn with_registered(mut self) -> Self {
        self.record_applied_at(SystemTime::now());
        self.create_series();
        let info = Family::<BuildLabels, Gauge>::default();
        info.get_or_create(&BuildLabels {
            version: build::VERSION,
            rustc: build::RUSTC,
        })
        .set(1);
        let to = &mut self.registry;
        register(to, &table::REQUESTS, self.requests.family().clone());
        register(to, &table::REQUEST_DURATION, self.request_duration.clone());
        register(to, &table::UPSTREAM_DURATION, self.upstream_duration.clone());
        register(to, &table::AUTHENTICATIONS, self.authentications.family().clone());
        register(to, &table::OBSERVED, self.observations.clone());
        register(to, &table::RECORDED_REQUESTS, self.recorded.clone());
        register(to, &table::TLS_HANDSHAKES, self.handshakes.clone());
        register(to, &table::H2_FLOODS, self.floods.clone());
        register(to, &table::STREAMS_ENDED, self.stream_ends.clone());
        register(to, &table::ADMIN_REQUESTS_REFUSED, self.refused_admin_requests.clone());
        register(to, &table::REVOCATIONS, self.revocations.clone());
        register(to, &table::RELOADS, self.reloads.clone());
        register(to, &table::RELOAD_LAST_APPLIED, self.last_applied.clone());
        register(to, &table::CONNECTIONS, self.connections.clone());
        register(to, &table::REQUESTS_IN_FLIGHT, self.in_flight.clone());
        register(to, &table::BUILD_INFO, info);
        self.registry
            .register_collector(Box::new(ObservedCollector(Arc::clone(&self.observed))));
        self.process.register_collector(Box::new(Process));
        self
    }

    /// Makes the series with few values before they are first counted: for Prometheus, a series that begins at 1 has not increased.
    fn create_series(&self) {
        for (family, table) in [
            (&self.handshakes, labels::HANDSHAKES),
            (&self.reloads, labels::RELOADS),
            (&self.revocations, labels::REVOCATIONS),
        ] {
            for value in table {
                let _ = family.get_or_create(&OutcomeLabels { outcome: value.text });
            }
        }
        for (family, table) in [
            (&self.stream_ends, labels::STREAM_ENDS),
            (&self.refused_admin_requests, labels::ADMIN_REFUSALS),
        ] {
            for value in table {
                let _ = family.get_or_create(&ReasonLabels { reason: value.text });
            }
        }
    }

    /// Replaces what is read at each scrape.
    pub fn observe(&self, observed: Observed) {
        self.observed.store(Arc::new(observed));
    }

    /// A reload was applied.
    pub fn record_applied_reload(&self, at: SystemTime) {
        count(&self.reloads, &labels::RELOAD_APPLIED);
        self.record_applied_at(at);
    }

    /// Counts a reload that was refused.
    pub fn count_refused_reload(&self) {
        count(&self.reloads, &labels::RELOAD_REFUSED);
    }

    fn record_applied_at(&self, at: SystemTime) {
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last_applied.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// The counter of requests with these labels.
    pub fn request_counter(&self, labels: &RequestLabels) -> Counter {
        self.requests.counter(labels)
    }

    /// Records the duration of a request.
    pub fn record_request_duration(&self, took: Duration) {
        self.request_duration.observe(took.as_secs_f64());
    }

    /// The histogram of the times until an upstream begins its responses.
    pub fn upstream_histogram(&self, upstream: &Arc<str>) -> Histogram {
        let labels = UpstreamLabels {
            upstream: Arc::clone(upstream),
        };
        self.upstream_duration.get_or_create(&labels).clone()
    }

    /// The times until an upstream has begun its responses.
    pub fn upstream_times(&self, upstream: &Arc<str>) -> HistogramValues {
        let labels = UpstreamLabels {
            upstream: Arc::clone(upstream),
        };
        let histogram = self.upstream_duration.get(&labels).map(|histogram| histogram.clone());
        histogram.map_or_else(HistogramValues::default, |histogram| HistogramValues::read(&histogram))
    }

    /// The counter of authentications with these labels.
    pub fn authentication_counter(&self, labels: &AuthenticationLabels) -> Counter {
        self.authentications.counter(labels)
    }

    /// The counter of observed requests with these labels.
    pub fn observation_counter(&self, labels: &ObservationLabels) -> Counter {
        self.observations.get_or_create(labels).clone()
    }

    /// The counter of recorded requests with this outcome.
    pub fn recorded_counter(&self, outcome: &'static LabelValue) -> Counter {
        let outcome = outcome.text;
        self.recorded.get_or_create(&OutcomeLabels { outcome }).clone()
    }

    /// Counts a TLS handshake.
    pub fn count_handshake(&self, outcome: &'static LabelValue) {
        count(&self.handshakes, outcome);
    }

    /// Counts an HTTP/2 connection that was closed because of too many frames without data.
    pub fn count_flood(&self) {
        self.floods.inc();
    }

    /// Counts a stream that the gateway ends for this reason.
    pub fn count_stream_end(&self, reason: &'static LabelValue) {
        let reason = reason.text;
        self.stream_ends.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a request that the admin listener has refused.
    pub fn count_refused_admin_request(&self, reason: &'static LabelValue) {
        let reason = reason.text;
        self.refused_admin_requests
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// Counts an answered request to revoke.
    pub fn count_revocation(&self, outcome: &'static LabelValue) {
        count(&self.revocations, outcome);
    }

    /// Renders all metrics in this format.
    ///
    /// # Errors
    /// A metric cannot be written as text.
    pub fn render(&self, format: ExpositionFormat) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &self.process)?;
        encode_eof(&mut text)?;
        Ok(match format {
            ExpositionFormat::OpenMetrics => text,
            ExpositionFormat::Text => exposition::to_text(&text),
        })
    }
}

/// Counts one of a family.
fn count(family: &Family<OutcomeLabels, Counter>, outcome: &'static LabelValue) {
    let outcome = outcome.text;
    family.get_or_create(&OutcomeLabels { outcome }).inc();
}

/// Registers a metric with its description.
fn register(registry: &mut Registry, description: &MetricDescription, metric: impl Metric) {
    // The registry ends the help text with a full stop.
    let (stem, help) = (description.stem(), description.help.trim_end_matches('.'));
    match description.unit() {
        Some(unit) => registry.register_with_unit(stem, help, unit.clone(), metric),
        None => registry.register(stem, help, metric),
    }
}

/// The certificate of one domain of `server.tls.acme`.
#[derive(Debug)]
pub struct AcmeSample {
    /// The domain.
    pub domain: String,
    /// The file of the certificate.
    pub certificate: String,
    /// When it expires, in Unix seconds; `None`: there is none yet.
    pub expiry: Option<i64>,
    /// Attempts to obtain one that have failed.
    pub failures: u64,
    /// Whether the last attempt has failed.
    pub is_failing: bool,
}

/// Returns the certificates of all domains of `server.tls.acme`.
pub type AcmeProbe = Box<dyn Fn() -> Vec<AcmeSample> + Send + Sync>;

/// The state of a store.
#[derive(Debug, Default)]
pub struct StoreSample {
    /// Whether it is usable.
    pub usable: bool,
    /// How long its present outage lasts by now.
    pub outage: Duration,
    /// The delay of its reports of changes, if it is measured.
    pub revocation_lag: Option<Duration>,
}

/// Returns the state of a store.
pub type StoreProbe = Box<dyn Fn() -> StoreSample + Send + Sync>;

/// The parts of the current configuration that are read at each scrape.
#[derive(Default)]
pub struct Observed {
    /// By store: its state.
    pub stores: Vec<(Arc<str>, StoreProbe)>,
    /// By certificate file: when the first of its certificates expires, in Unix seconds.
    pub certificates: Vec<(String, i64)>,
    /// The certificates that the gateway obtains.
    pub acme: Option<AcmeProbe>,
    /// By authenticator: the metrics of its cache.
    pub cache_metrics: Vec<(Arc<str>, CacheMetrics)>,
    /// By store: its metrics.
    pub store_metrics: Vec<(Arc<str>, StoreMetrics)>,
    /// By authenticator: the metrics of its introspection endpoint.
    pub introspection_metrics: Vec<(Arc<str>, IntrospectionMetrics)>,
    /// The sources of the keys that identity providers publish.
    pub key_sources: Vec<Arc<SharedKeySource>>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.stores.iter().map(|(name, _)| name))
            .finish()
    }
}

#[derive(Debug)]
struct ObservedCollector(Arc<ArcSwap<Observed>>);

impl Collector for ObservedCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let observed = self.0.load();
        encode_stores(&mut encoder, &observed.stores)?;
        let expiries = Family::<CertificateLabels, Gauge>::default();
        for (certificate, expiry) in &observed.certificates {
            let certificate = certificate.clone();
            expiries.get_or_create(&CertificateLabels { certificate }).set(*expiry);
        }
        let acme = observed.acme.as_ref().map_or_else(Vec::new, |probe| probe());
        for AcmeSample {
            certificate, expiry, ..
        } in &acme
        {
            if let Some(expiry) = expiry {
                let certificate = certificate.clone();
                expiries.get_or_create(&CertificateLabels { certificate }).set(*expiry);
            }
        }
        table::CERTIFICATE_EXPIRY.write(&mut encoder, &expiries)?;
        if !acme.is_empty() {
            encode_acme(&mut encoder, &acme)?;
        }
        let key_sources: Vec<_> = observed.key_sources.iter().map(|source| source.observed()).collect();
        let auth = AuthMetrics {
            caches: &observed.cache_metrics,
            stores: &observed.store_metrics,
            introspections: &observed.introspection_metrics,
            key_sources: &key_sources,
        };
        auth.encode(&mut encoder)
    }
}

fn encode_stores(encoder: &mut DescriptorEncoder<'_>, stores: &[(Arc<str>, StoreProbe)]) -> fmt::Result {
    let usable = Family::<StoreLabels, Gauge<i64, AtomicI64>>::default();
    let outage = Family::<StoreLabels, Gauge<f64, AtomicU64>>::default();
    let lag = Family::<StoreLabels, Gauge<f64, AtomicU64>>::default();
    let mut is_measured = false;
    for (store, probe) in stores {
        let (sample, store) = (probe(), Arc::clone(store));
        let labels = StoreLabels { store };
        usable.get_or_create(&labels).set(i64::from(sample.usable));
        outage.get_or_create(&labels).set(sample.outage.as_secs_f64());
        if let Some(by) = sample.revocation_lag {
            is_measured = true;
            lag.get_or_create(&labels).set(by.as_secs_f64());
        }
    }
    table::STORE_USABLE.write(encoder, &usable)?;
    table::STORE_OUTAGE.write(encoder, &outage)?;
    if is_measured {
        table::REVOCATION_LAG.write(encoder, &lag)?;
    }
    Ok(())
}

fn encode_acme(encoder: &mut DescriptorEncoder<'_>, samples: &[AcmeSample]) -> fmt::Result {
    let (present, failing) = (
        Family::<DomainLabels, Gauge>::default(),
        Family::<DomainLabels, Gauge>::default(),
    );
    let failures = Family::<DomainLabels, Counter>::default();
    for sample in samples {
        let domain = sample.domain.clone();
        let labels = DomainLabels { domain };
        present.get_or_create(&labels).set(i64::from(sample.expiry.is_some()));
        failing.get_or_create(&labels).set(i64::from(sample.is_failing));
        failures.get_or_create(&labels).inc_by(sample.failures);
    }
    table::ACME_CERTIFICATE_PRESENT.write(encoder, &present)?;
    table::ACME_FAILING.write(encoder, &failing)?;
    table::ACME_FAILURES.write(encoder, &failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_with_their_units_and_labels() {
        let metrics = Metrics::default();
        let (cache, store) = (CacheMetrics::default(), StoreMetrics::new("redis"));
        let introspection = IntrospectionMetrics::default();
        metrics.observe(Observed {
            stores: vec![
                (
                    "redis".into(),
                    Box::new(|| StoreSample {
                        usable: false,
                        outage: Duration::from_millis(1500),
                        revocation_lag: Some(Duration::from_millis(250)),
                    }),
                ),
                ("file".into(), Box::new(StoreSample::default)),
            ],
            certificates: vec![("chain.pem".into(), 1_800_000_000)],
            acme: Some(Box::new(|| {
                vec![AcmeSample {
                    domain: "api.example".to_owned(),
                    certificate: "acme/api.example.pem".to_owned(),
                    expiry: Some(1_900_000_000),
                    failures: 3,
                    is_failing: true,
                }]
            })),
            cache_metrics: vec![("token".into(), cache.clone())],
            store_metrics: vec![("redis".into(), store.clone())],
            introspection_metrics: vec![("idp".into(), introspection.clone())],
            key_sources: Vec::new(),
        });
        cache.record_lookup(true);
        cache.record_stale();
        store.record_lookup(Duration::from_micros(300));
        store.record_error(&authgate_auth::labels::STORE_TIMEOUT);
        store.record_lag(Duration::from_micros(300));
        store.record_invalidations(2);
        store.set_tracking(true);
        introspection.record(&authgate_auth::labels::ACTIVE, Duration::from_millis(3));
        let labels = RequestLabels {
            route: "/api/*".into(),
            outcome: "forwarded",
            status: "2xx",
        };
        metrics.request_counter(&labels).inc();
        metrics.record_request_duration(Duration::from_millis(3));
        metrics.upstream_histogram(&"app".into()).observe(0.002);
        let text = metrics.render(ExpositionFormat::OpenMetrics).expect("text");
        for line in [
            r#"authgate_requests_total{route="/api/*",outcome="forwarded",status="2xx"} 1"#,
            r#"authgate_request_duration_seconds_bucket{le="0.005"} 1"#,
            r#"authgate_upstream_duration_seconds_count{upstream="app"} 1"#,
            r#"authgate_store_usable{store="redis"} 0"#,
            r#"authgate_store_outage_seconds{store="redis"} 1.5"#,
            r#"authgate_store_outage_seconds{store="file"} 0.0"#,
            r#"authgate_revocation_lag_seconds{store="redis"} 0.25"#,
            r#"authgate_stale_decisions_total{authenticator="token"} 1"#,
            r#"authgate_certificate_expiry_seconds{certificate="chain.pem"} 1800000000"#,
            r#"authgate_certificate_expiry_seconds{certificate="acme/api.example.pem"} 1900000000"#,
            r#"authgate_acme_certificate_present{domain="api.example"} 1"#,
            r#"authgate_acme_failing{domain="api.example"} 1"#,
            r#"authgate_acme_failures_total{domain="api.example"} 3"#,
            r#"authgate_cache_hits_total{authenticator="token"} 1"#,
            r#"authgate_cache_misses_total{authenticator="token"} 0"#,
            r#"authgate_store_lookup_duration_seconds_bucket{le="0.0005",store="redis"} 1"#,
            r#"authgate_store_errors_total{store="redis",reason="store_timeout"} 1"#,
            r#"authgate_store_invalidation_lag_seconds_count{store="redis"} 1"#,
            r#"authgate_store_invalidations_total{store="redis"} 2"#,
            r#"authgate_store_info{store="redis",kind="redis"} 1"#,
            r#"authgate_store_tracking{store="redis"} 1"#,
            r#"authgate_introspection_requests_total{authenticator="idp",outcome="active"} 1"#,
            r#"authgate_introspection_duration_seconds_bucket{le="0.005",authenticator="idp"} 1"#,
            "authgate_connections 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

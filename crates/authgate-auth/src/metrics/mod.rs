//! Metrics of caches, stores and introspection endpoints. Each of them owns its counters. [`AuthMetrics`] gives them names and labels at a scrape.

pub mod description;
pub mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use authgate_core::label_value::LabelValue;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;

use self::description::MetricDescription;

/// Histogram buckets for lookups and for the delay of change notifications, in seconds.
const BUCKETS: [f64; 12] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Histogram buckets for introspections, in seconds.
const INTROSPECTION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counters of one cache; clones share them.
#[derive(Debug, Clone, Default)]
pub struct CacheMetrics {
    hits: Counter,
    misses: Counter,
    stale: Counter,
}

impl CacheMetrics {
    /// A credential was looked up.
    pub fn record_lookup(&self, found: bool) {
        if found { &self.hits } else { &self.misses }.inc();
    }

    /// How many credentials were found in the cache.
    pub fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// How many credentials were not found in the cache.
    pub fn misses(&self) -> u64 {
        self.misses.get()
    }

    /// How many decisions were used in an outage.
    pub fn stale(&self) -> u64 {
        self.stale.get()
    }

    /// A decision was used in an outage.
    pub fn record_stale(&self) {
        self.stale.inc();
    }
}

/// Counters of one store; clones share them.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// `kind` of the store in the configuration.
    kind: &'static str,
    lookups: Histogram,
    /// By reason, from a fixed list.
    errors: Arc<Mutex<BTreeMap<&'static str, Counter>>>,
    /// The delay of change notifications.
    lag: Histogram,
    invalidations: Counter,
    tracking: Gauge,
}

impl StoreMetrics {
    /// Those of a store of this kind.
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            lookups: Histogram::new(BUCKETS),
            errors: Arc::default(),
            lag: Histogram::new(BUCKETS),
            invalidations: Counter::default(),
            tracking: Gauge::default(),
        }
    }

    /// A lookup has ended.
    pub fn record_lookup(&self, took: Duration) {
        self.lookups.observe(took.as_secs_f64());
    }

    /// A lookup has failed, for this reason.
    pub fn record_error(&self, reason: &'static LabelValue) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.entry(reason.text).or_default().inc();
    }

    /// Records the measured delay of change notifications.
    pub fn record_lag(&self, by: Duration) {
        self.lag.observe(by.as_secs_f64());
    }

    /// Counts reported changes.
    pub fn record_invalidations(&self, keys: usize) {
        self.invalidations.inc_by(u64::try_from(keys).unwrap_or(u64::MAX));
    }

    /// Sets whether the gateway is subscribed to changes.
    pub fn set_tracking(&self, up: bool) {
        self.tracking.set(i64::from(up));
    }

    /// Whether the gateway is subscribed to changes.
    pub fn is_tracking(&self) -> bool {
        self.tracking.get() != 0
    }
}

/// Counters of one introspection endpoint; clones share them.
#[derive(Debug, Clone)]
pub struct IntrospectionMetrics {
    /// By outcome, from a fixed list.
    requests: Arc<Mutex<BTreeMap<&'static str, Counter>>>,
    duration: Histogram,
}

impl Default for IntrospectionMetrics {
    fn default() -> Self {
        Self {
            requests: Arc::default(),
            duration: Histogram::new(INTROSPECTION_BUCKETS),
        }
    }
}

impl IntrospectionMetrics {
    /// An introspection has ended.
    pub fn record(&self, outcome: &'static LabelValue, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.entry(outcome.text).or_default().inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// Counters of one source of keys; clones share them.
#[derive(Debug, Clone, Default)]
pub struct KeySourceMetrics {
    /// By outcome, from a fixed list.
    fetches: Arc<Mutex<BTreeMap<&'static str, Counter>>>,
}

impl KeySourceMetrics {
    /// A fetch has ended.
    pub fn record_fetch(&self, outcome: &'static LabelValue) {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.entry(outcome.text).or_default().inc();
    }
}

/// A source of keys, for a scrape.
#[derive(Debug)]
pub struct ObservedKeySource {
    /// The name of its authenticator.
    pub authenticator: Arc<str>,
    /// The URL in the configuration.
    pub location: Arc<str>,
    /// Its counters.
    pub metrics: KeySourceMetrics,
    /// How long ago a fetch has last succeeded.
    pub age: Option<Duration>,
    /// How many keys are in use.
    pub keys: usize,
}

/// All caches by authenticator, and all stores, for a scrape.
#[derive(Debug)]
pub struct AuthMetrics<'m> {
    /// By authenticator.
    pub caches: &'m [(Arc<str>, CacheMetrics)],
    /// By store.
    pub stores: &'m [(Arc<str>, StoreMetrics)],
    /// By authenticator.
    pub introspections: &'m [(Arc<str>, IntrospectionMetrics)],
    /// All sources of keys.
    pub key_sources: &'m [ObservedKeySource],
}

type Label<'l> = [(&'static str, &'l str); 1];

impl AuthMetrics<'_> {
    /// Writes all of them.
    ///
    /// # Errors
    /// A metric cannot be written as text.
    pub fn encode(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.of_caches(to, &table::CACHE_HITS, |cache| &cache.hits)?;
        self.of_caches(to, &table::CACHE_MISSES, |cache| &cache.misses)?;
        self.of_caches(to, &table::STALE_DECISIONS, |cache| &cache.stale)?;
        let mut info = table::STORE_INFO.encode(to)?;
        for (store, metrics) in self.stores {
            let labels = [("store", &**store), ("kind", metrics.kind)];
            ConstGauge::new(1).encode(info.encode_family(&labels)?)?;
        }
        self.of_stores(to, &table::STORE_LOOKUP_DURATION, |store| &store.lookups)?;
        let mut errors = table::STORE_ERRORS.encode(to)?;
        for (store, metrics) in self.stores {
            for (reason, counter) in &*metrics.errors.lock().unwrap_or_else(PoisonError::into_inner) {
                let labels = [("store", &**store), ("reason", *reason)];
                counter.encode(errors.encode_family(&labels)?)?;
            }
        }
        self.of_stores(to, &table::STORE_INVALIDATION_LAG, |store| &store.lag)?;
        self.of_stores(to, &table::STORE_INVALIDATIONS, |store| &store.invalidations)?;
        self.of_stores(to, &table::STORE_TRACKING, |store| &store.tracking)?;
        self.of_introspections(to)?;
        self.of_key_sources(to)
    }

    fn of_caches(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        description: &MetricDescription,
        counter: impl Fn(&CacheMetrics) -> &Counter,
    ) -> fmt::Result {
        let mut family = description.encode(encoder)?;
        for (authenticator, cache) in self.caches {
            let label: Label<'_> = [("authenticator", authenticator)];
            counter(cache).encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }

    fn of_stores<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        description: &MetricDescription,
        metric: impl Fn(&StoreMetrics) -> &M,
    ) -> fmt::Result {
        let mut family = description.encode(encoder)?;
        for (store, metrics) in self.stores {
            let label: Label<'_> = [("store", store)];
            metric(metrics).encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }

    /// Without sources of keys there are no such metrics.
    fn of_key_sources(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if self.key_sources.is_empty() {
            return Ok(());
        }
        let mut fetches = table::JWKS_FETCHES.encode(encoder)?;
        for source in self.key_sources {
            for (outcome, counter) in &*source.metrics.fetches.lock().unwrap_or_else(PoisonError::into_inner) {
                let labels = [
                    ("authenticator", &*source.authenticator),
                    ("source", &*source.location),
                    ("outcome", *outcome),
                ];
                counter.encode(fetches.encode_family(&labels)?)?;
            }
        }
        let labels = |source: &ObservedKeySource| {
            [
                ("authenticator", source.authenticator.to_string()),
                ("source", source.location.to_string()),
            ]
        };
        let mut ages = table::JWKS_AGE.encode(encoder)?;
        for source in self.key_sources {
            if let Some(age) = source.age {
                let gauge = ConstGauge::new(age.as_secs_f64());
                gauge.encode(ages.encode_family(&labels(source))?)?;
            }
        }
        let mut keys = table::JWKS_KEYS.encode(encoder)?;
        for source in self.key_sources {
            let gauge = ConstGauge::new(i64::try_from(source.keys).unwrap_or(i64::MAX));
            gauge.encode(keys.encode_family(&labels(source))?)?;
        }
        Ok(())
    }

    /// Without introspection there are no such metrics.
    fn of_introspections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if self.introspections.is_empty() {
            return Ok(());
        }
        let mut requests = table::INTROSPECTION_REQUESTS.encode(encoder)?;
        for (authenticator, metrics) in self.introspections {
            for (outcome, counter) in &*metrics.requests.lock().unwrap_or_else(PoisonError::into_inner) {
                let labels = [("authenticator", &**authenticator), ("outcome", *outcome)];
                counter.encode(requests.encode_family(&labels)?)?;
            }
        }
        let mut duration = table::INTROSPECTION_DURATION.encode(encoder)?;
        for (authenticator, metrics) in self.introspections {
            let label: Label<'_> = [("authenticator", authenticator)];
            metrics.duration.encode(duration.encode_family(&label)?)?;
        }
        Ok(())
    }
}

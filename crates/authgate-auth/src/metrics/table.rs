//! The descriptions of the metrics of caches, stores, introspection endpoints and key sets.

use super::description::LabelDescription as Label;
use super::description::MetricDescription;
use super::description::MetricKind::{Counter, Gauge, Histogram};
use crate::labels;

const AUTHENTICATOR: Label = Label::named("authenticator", "the name of an authenticator");
const STORE: Label = Label::named("store", "the name of a store");
const SOURCE: Label = Label::named("source", "the URL or the issuer that the configuration has");

authgate_core::table! {
    /// The metrics of caches.
    pub static CACHES: MetricDescription;

    CACHE_HITS = MetricDescription {
        name: "authgate_cache_hits_total",
        kind: Counter,
        labels: &[AUTHENTICATOR],
        help: "Credentials whose result was in the cache.",
        note: "Refusals are cached too.",
        since: "0.1.0",
    };
    CACHE_MISSES = MetricDescription {
        name: "authgate_cache_misses_total",
        kind: Counter,
        labels: &[AUTHENTICATOR],
        help: "Credentials that had to be verified or looked up.",
        note: "Many misses with few hits: `cache.entries` or `cache.ttl` is too small, or clients send credentials that are unknown.",
        since: "0.1.0",
    };
    STALE_DECISIONS = MetricDescription {
        name: "authgate_stale_decisions_total",
        kind: Counter,
        labels: &[AUTHENTICATOR],
        help: "Cached decisions that were used because a store or an endpoint could not answer.",
        note: "Only with `on_outage = \"serve-cached\"`. While it rises, revocations of these credentials have no effect.",
        since: "0.2.0",
    };
}

authgate_core::table! {
    /// The metrics of stores.
    pub static STORES: MetricDescription;

    STORE_INFO = MetricDescription {
        name: "authgate_store_info",
        kind: Gauge,
        labels: &[STORE, Label::named("kind", "`redis`, `embedded` or `django`, as in the configuration")],
        help: "Always 1. The label kind says what the store is.",
        note: "For rules about stores of one kind: `authgate_store_tracking == 1 and on (instance, store) authgate_store_info{kind=\"redis\"}`.",
        since: "0.2.0",
    };
    STORE_LOOKUP_DURATION = MetricDescription {
        name: "authgate_store_lookup_duration_seconds",
        kind: Histogram,
        labels: &[STORE],
        help: "Duration of look-ups in a store, including time in queues.",
        note: "",
        since: "0.1.0",
    };
    STORE_ERRORS = MetricDescription {
        name: "authgate_store_errors_total",
        kind: Counter,
        labels: &[STORE, Label::listed("reason", "[why the store could not answer](outcomes.md#stores)", &[labels::STORES])],
        help: "Look-ups that failed because the store could not answer.",
        note: "",
        since: "0.1.0",
    };
    STORE_INVALIDATION_LAG = MetricDescription {
        name: "authgate_store_invalidation_lag_seconds",
        kind: Histogram,
        labels: &[STORE],
        help: "The round trip on the connection that reports changes, measured four times a second.",
        note: "A ping measures it, or `SELECT 1` in PostgreSQL. A change is reported about this late at most.",
        since: "0.1.0",
    };
    STORE_INVALIDATIONS = MetricDescription {
        name: "authgate_store_invalidations_total",
        kind: Counter,
        labels: &[STORE],
        help: "Changes that a store reported.",
        note: "",
        since: "0.1.0",
    };
    STORE_TRACKING = MetricDescription {
        name: "authgate_store_tracking",
        kind: Gauge,
        labels: &[STORE],
        help: "1 while a store reports its changes, 0 while cached results end only after cache.ttl.",
        note: "Redis reports changes by itself, PostgreSQL by the triggers of `authgate django sql --triggers`. It is 0 for stores that cannot report them.",
        since: "0.1.0",
    };
}

authgate_core::table! {
    /// The metrics of introspection endpoints.
    pub static INTROSPECTIONS: MetricDescription;

    INTROSPECTION_REQUESTS = MetricDescription {
        name: "authgate_introspection_requests_total",
        kind: Counter,
        labels: &[AUTHENTICATOR, Label::fixed("outcome", &[labels::INTROSPECTED])],
        help: "Tokens that the gateway has introspected, by result.",
        note: "",
        since: "0.2.0",
    };
    INTROSPECTION_DURATION = MetricDescription {
        name: "authgate_introspection_duration_seconds",
        kind: Histogram,
        labels: &[AUTHENTICATOR],
        help: "Duration of introspections, including the wait for a free place.",
        note: "At most 64 tokens are introspected at once.",
        since: "0.2.0",
    };
}

authgate_core::table! {
    /// The metrics of the keys that identity providers publish.
    pub static KEY_SETS: MetricDescription;

    JWKS_FETCHES = MetricDescription {
        name: "authgate_jwks_fetches_total",
        kind: Counter,
        labels: &[AUTHENTICATOR, SOURCE, Label::fixed("outcome", &[labels::FETCHES])],
        help: "Fetches of keys, by result.",
        note: "",
        since: "0.2.0",
    };
    JWKS_AGE = MetricDescription {
        name: "authgate_jwks_age_seconds",
        kind: Gauge,
        labels: &[AUTHENTICATOR, SOURCE],
        help: "Time since keys were last fetched. Absent until the first fetch has succeeded.",
        note: "After `max_stale`, tokens of this source get 503.",
        since: "0.2.0",
    };
    JWKS_KEYS = MetricDescription {
        name: "authgate_jwks_keys",
        kind: Gauge,
        labels: &[AUTHENTICATOR, SOURCE],
        help: "Keys in use.",
        note: "Keys that are not used, and why, are in `/status.json`.",
        since: "0.2.0",
    };
}

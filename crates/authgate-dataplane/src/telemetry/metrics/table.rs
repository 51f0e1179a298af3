//! The descriptions of all metrics.

use authgate_auth::labels as auth;
use authgate_auth::metrics::description::LabelDescription as Label;
use authgate_auth::metrics::description::MetricDescription;
use authgate_auth::metrics::description::MetricKind::{Counter, Gauge, Histogram};
use authgate_auth::metrics::table::{CACHES, INTROSPECTIONS, KEY_SETS, STORES};
use authgate_core::credential::labels as credential;
use authgate_core::label_value::LabelValue;

use crate::telemetry::labels;

/// Every metric, in groups with a title.
pub static GROUPS: &[(&str, &[&[&MetricDescription]])] = &[
    ("Requests", &[TRAFFIC]),
    ("Authentication", &[AUTHENTICATION, CACHES, INTROSPECTIONS]),
    ("Stores", &[STORE_STATES, STORES]),
    ("Key sets of identity providers", &[KEY_SETS]),
    ("Certificates", &[CERTIFICATES]),
    ("The gateway", &[GATEWAY]),
    ("The process", &[PROCESS]),
];

/// What `outcome` of an authentication can be.
pub static AUTHENTICATION_OUTCOMES: &[&[&LabelValue]] = &[
    labels::ACCEPTANCE,
    credential::TOKENS,
    credential::JWTS,
    credential::INTROSPECTED,
    credential::BOUND,
    auth::STORES,
    auth::KEYS,
    auth::INTROSPECTION,
    auth::EVALUATION,
];

/// What `outcome` of a request can be.
pub static REQUEST_OUTCOMES: &[&[&LabelValue]] = &[
    labels::ENDINGS,
    labels::REQUESTS,
    labels::BODIES,
    labels::RULES,
    credential::TOKENS,
    credential::JWTS,
    credential::INTROSPECTED,
    credential::BOUND,
    auth::STORES,
    auth::KEYS,
    auth::INTROSPECTION,
    auth::EVALUATION,
    labels::UPSTREAMS,
];

const ROUTE: Label = Label::named(
    "route",
    "the path pattern of a route as in the configuration; `none` if no route matched",
);
const STORE: Label = Label::named("store", "the name of a store");
const DOMAIN: Label = Label::named("domain", "a domain of `server.tls.acme`");

authgate_core::table! {
    /// The metrics of requests, connections and streams.
    pub static TRAFFIC: MetricDescription;

    REQUESTS = MetricDescription {
        name: "authgate_requests_total",
        kind: Counter,
        labels: &[
            ROUTE,
            Label::listed("outcome", "[the outcome](outcomes.md#requests)", REQUEST_OUTCOMES),
            Label::fixed("status", &[labels::STATUS_CLASSES]),
        ],
        help: "Requests that have ended.",
        note: "",
        since: "0.1.0",
    };
    REQUEST_DURATION = MetricDescription {
        name: "authgate_request_duration_seconds",
        kind: Histogram,
        labels: &[],
        help: "Time from the head of a request to the end of its response.",
        note: "WebSockets and other streams count with their whole life.",
        since: "0.1.0",
    };
    UPSTREAM_DURATION = MetricDescription {
        name: "authgate_upstream_duration_seconds",
        kind: Histogram,
        labels: &[Label::named("upstream", "the name of an upstream")],
        help: "Time from sending a request to the head of the upstream's response.",
        note: "",
        since: "0.1.0",
    };
    REQUESTS_IN_FLIGHT = MetricDescription {
        name: "authgate_requests_in_flight",
        kind: Gauge,
        labels: &[],
        help: "Requests under way.",
        note: "`server.limits.in_flight` bounds them.",
        since: "0.1.0",
    };
    CONNECTIONS = MetricDescription {
        name: "authgate_connections",
        kind: Gauge,
        labels: &[],
        help: "Open connections of clients.",
        note: "`server.limits.connections` bounds them.",
        since: "0.1.0",
    };
    TLS_HANDSHAKES = MetricDescription {
        name: "authgate_tls_handshakes_total",
        kind: Counter,
        labels: &[Label::fixed("outcome", &[labels::HANDSHAKES])],
        help: "TLS handshakes that have ended.",
        note: "",
        since: "0.1.0",
    };
    H2_FLOODS = MetricDescription {
        name: "authgate_h2_floods_total",
        kind: Counter,
        labels: &[],
        help: "HTTP/2 connections closed because their client sent too many frames without data.",
        note: "",
        since: "0.1.0",
    };
    STREAMS_ENDED = MetricDescription {
        name: "authgate_streams_ended_total",
        kind: Counter,
        labels: &[Label::fixed("reason", &[labels::STREAM_ENDS])],
        help: "Streams that the gateway has ended.",
        note: "Streams are WebSockets, server-sent events and gRPC calls. Those that a client or an upstream has ended are not counted here.",
        since: "0.2.0",
    };
    OBSERVED = MetricDescription {
        name: "authgate_observed_total",
        kind: Counter,
        labels: &[
            ROUTE,
            Label::named("ours", "the decision of the gateway: `accepted`, or the status of the refusal"),
            Label::named("theirs", "the decision of the application: `accepted`, or the status of the refusal; `5xx` or `none` if it has failed"),
            Label::named("reason", "`same`; `challenge`: both refuse, with different challenges; `authenticated`, `anonymous`, `unknown`: as whom the gateway would accept the request; or [the outcome](outcomes.md#credentials) with which it would refuse it"),
        ],
        help: "Observed requests, by the decisions of the gateway and of the application.",
        note: "",
        since: "0.2.0",
    };
    RECORDED_REQUESTS = MetricDescription {
        name: "authgate_recorded_requests_total",
        kind: Counter,
        labels: &[Label::fixed("outcome", &[labels::RECORDINGS])],
        help: "Requests that were written to the file of log.record, or lost.",
        note: "",
        since: "0.2.0",
    };
}

authgate_core::table! {
    /// The metrics of authentications.
    pub static AUTHENTICATION: MetricDescription;

    AUTHENTICATIONS = MetricDescription {
        name: "authgate_authentications_total",
        kind: Counter,
        labels: &[
            Label::named("authenticator", "the name of an authenticator"),
            Label::listed("outcome", "`accepted`, or [why it was refused](outcomes.md#credentials) or [could not be evaluated](outcomes.md#stores)", AUTHENTICATION_OUTCOMES),
        ],
        help: "Credentials that authenticators accepted or refused.",
        note: "Requests without a credential are not in it: they are `no_credential` in `authgate_requests_total`.",
        since: "0.1.0",
    };
}

authgate_core::table! {
    /// The states of stores.
    pub static STORE_STATES: MetricDescription;

    STORE_USABLE = MetricDescription {
        name: "authgate_store_usable",
        kind: Gauge,
        labels: &[STORE],
        help: "1 while a store can be used, 0 while its routes answer 503.",
        note: "",
        since: "0.1.0",
    };
    STORE_OUTAGE = MetricDescription {
        name: "authgate_store_outage_seconds",
        kind: Gauge,
        labels: &[STORE],
        help: "How long the present outage of a store has lasted, 0 if there is none. In an outage, some or all look-ups fail.",
        note: "",
        since: "0.2.0",
    };
    REVOCATION_LAG = MetricDescription {
        name: "authgate_revocation_lag_seconds",
        kind: Gauge,
        labels: &[STORE],
        help: "How late the store reports a revocation to this gateway.",
        note: "The gateway writes a key of its own once a second. The value is the age of the last write that the store has reported, less this second. It rises while no write is reported. Absent while it is not measured: the user of Redis may not write the key, or `invalidation = \"off\"`.",
        since: "0.2.0",
    };
}

authgate_core::table! {
    /// The metrics of certificates.
    pub static CERTIFICATES: MetricDescription;

    CERTIFICATE_EXPIRY = MetricDescription {
        name: "authgate_certificate_expiry_seconds",
        kind: Gauge,
        labels: &[Label::named("certificate", "the file of a certificate chain")],
        help: "When a certificate expires, as Unix time.",
        note: "Of a chain, the certificate that expires first counts. The chains of `[server.tls]` and `[admin] tls`, and each certificate of `acme`, have a series.",
        since: "0.1.0",
    };
    ACME_CERTIFICATE_PRESENT = MetricDescription {
        name: "authgate_acme_certificate_present",
        kind: Gauge,
        labels: &[DOMAIN],
        help: "1 once a domain of `acme` has a certificate, 0 while its TLS handshakes fail.",
        note: "",
        since: "0.1.0",
    };
    ACME_FAILING = MetricDescription {
        name: "authgate_acme_failing",
        kind: Gauge,
        labels: &[DOMAIN],
        help: "1 while the last attempt to obtain or renew a certificate, or the task that renews, has failed.",
        note: "`/status.json` has the error.",
        since: "0.1.0",
    };
    ACME_FAILURES = MetricDescription {
        name: "authgate_acme_failures_total",
        kind: Counter,
        labels: &[DOMAIN],
        help: "Attempts to obtain or renew a certificate that have failed.",
        note: "",
        since: "0.1.0",
    };
}

authgate_core::table! {
    /// The metrics of reloads, the admin listener and the build.
    pub static GATEWAY: MetricDescription;

    RELOADS = MetricDescription {
        name: "authgate_reloads_total",
        kind: Counter,
        labels: &[Label::fixed("outcome", &[labels::RELOADS])],
        help: "How often the configuration was read again.",
        note: "",
        since: "0.1.0",
    };
    RELOAD_LAST_APPLIED = MetricDescription {
        name: "authgate_reload_last_applied_timestamp_seconds",
        kind: Gauge,
        labels: &[],
        help: "When the configuration in force was applied, as Unix time.",
        note: "",
        since: "0.1.0",
    };
    ADMIN_REQUESTS_REFUSED = MetricDescription {
        name: "authgate_admin_requests_refused_total",
        kind: Counter,
        labels: &[Label::fixed("reason", &[labels::ADMIN_REFUSALS])],
        help: "Requests that the admin listener has refused.",
        note: "",
        since: "0.1.0",
    };
    REVOCATIONS = MetricDescription {
        name: "authgate_revocations_total",
        kind: Counter,
        labels: &[Label::fixed("outcome", &[labels::REVOCATIONS])],
        help: "Requests to revoke that the admin listener has answered.",
        note: "Only requests with the token of `[admin]` count.",
        since: "0.2.0",
    };
    BUILD_INFO = MetricDescription {
        name: "authgate_build_info",
        kind: Gauge,
        labels: &[
            Label::named("version", "the version of authgate"),
            Label::named("rustc", "the version of the compiler"),
        ],
        help: "The version of authgate, and of the compiler that built it.",
        note: "Its value is always 1.",
        since: "0.1.0",
    };
}

authgate_core::table! {
    /// The metrics of the process, by the names that all client libraries of Prometheus use.
    pub static PROCESS: MetricDescription;

    PROCESS_CPU = MetricDescription {
        name: "process_cpu_seconds_total",
        kind: Counter,
        labels: &[],
        help: "User and system CPU time of the process.",
        note: "",
        since: "0.1.0",
    };
    PROCESS_START_TIME = MetricDescription {
        name: "process_start_time_seconds",
        kind: Gauge,
        labels: &[],
        help: "When the process started, in seconds since the Unix epoch.",
        note: "",
        since: "0.1.0",
    };
    PROCESS_RESIDENT_MEMORY = MetricDescription {
        name: "process_resident_memory_bytes",
        kind: Gauge,
        labels: &[],
        help: "Resident memory.",
        note: "",
        since: "0.1.0",
    };
    PROCESS_VIRTUAL_MEMORY = MetricDescription {
        name: "process_virtual_memory_bytes",
        kind: Gauge,
        labels: &[],
        help: "Virtual memory.",
        note: "",
        since: "0.1.0",
    };
    PROCESS_OPEN_FDS = MetricDescription {
        name: "process_open_fds",
        kind: Gauge,
        labels: &[],
        help: "Open file descriptors.",
        note: "",
        since: "0.1.0",
    };
    PROCESS_MAX_FDS = MetricDescription {
        name: "process_max_fds",
        kind: Gauge,
        labels: &[],
        help: "The soft limit of open file descriptors.",
        note: "Absent if there is none.",
        since: "0.1.0",
    };
}

//! [`Status`]: the members of `/status.json`. The comments of the fields are the reference: docs/reference/status.md is made from them.
//! Later versions add members, and remove none.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A time in UTC (RFC 3339), in whole seconds.
pub type Time = String;

/// The state of the process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The version of authgate.
    pub version: String,
    /// The compiler that built authgate.
    pub rustc: String,
    /// When the process started.
    pub started: Time,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
    /// The number of workers.
    pub workers: usize,
    /// `serving`; then, during a shutdown, `not_ready`, `draining`, `aborting`.
    pub stage: String,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Whether everything is well, and what is not.
    pub health: Health,
    /// What the process uses. Null where the kernel does not say it.
    pub process: Option<ProcessUsage>,
    /// Requests of clients, now and in the last 15 minutes.
    pub traffic: Traffic,
    /// The configuration in force.
    pub configuration: Configuration,
    /// The open listeners.
    pub listeners: Vec<Listener>,
    /// The routes with the most requests.
    pub routes: Routes,
    /// The upstreams of the configuration in force.
    pub upstreams: Vec<Upstream>,
    /// The authenticators of the configuration in force.
    pub authenticators: Vec<Authenticator>,
    /// The stores of the configuration in force.
    pub stores: Vec<Store>,
    /// The certificates of `[server.tls]` and `[admin] tls`.
    pub certificates: Vec<Certificate>,
    /// The certificates that the gateway obtains: one for each domain of `server.tls.acme`.
    pub acme: Vec<Acme>,
    /// The introspection endpoints: one for each authenticator of this kind.
    pub introspection: Vec<Introspection>,
    /// The sources of keys that identity providers publish.
    pub key_sets: Vec<KeySet>,
}

/// Whether everything is well.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether there is no problem.
    pub ok: bool,
    /// The problems, those with the severity `error` first.
    pub problems: Vec<Problem>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `error`: requests fail, or will fail soon. `warning`: they do not fail yet, or only some of them do.
    pub severity: Severity,
    /// The member of this document that has the details, such as `stores`.
    pub subject: Subject,
    /// What is wrong, and what it means.
    pub text: String,
}

/// How bad a problem is. The worst one is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Severity {
    /// Requests fail, or will fail soon.
    Error,
    /// Requests do not fail yet, or only some of them do.
    Warning,
}

/// The member that a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Subject {
    /// `stage`
    Stage,
    /// `stores`
    Stores,
    /// `upstreams`
    Upstreams,
    /// `key_sets`
    KeySets,
    /// `introspection`
    Introspection,
    /// `certificates`
    Certificates,
    /// `acme`
    Acme,
    /// `traffic`
    Traffic,
    /// `configuration`
    Configuration,
    /// `process`
    Process,
}

impl Subject {
    /// The name of the member.
    pub fn member(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Stores => "stores",
            Self::Upstreams => "upstreams",
            Self::KeySets => "key_sets",
            Self::Introspection => "introspection",
            Self::Certificates => "certificates",
            Self::Acme => "acme",
            Self::Traffic => "traffic",
            Self::Configuration => "configuration",
            Self::Process => "process",
        }
    }
}

/// What the process uses.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProcessUsage {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// CPU time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_files: u64,
    /// The limit of open file descriptors. Null: there is none.
    pub max_open_files: Option<u64>,
}

/// Requests of clients.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Requests that have ended since the start.
    pub requests: u64,
    /// Requests that have ended in the last sample, for each second.
    pub requests_per_second: f64,
    /// Requests that the gateway has refused in the last sample, for each second: `outcome` is not `forwarded`.
    pub refused_per_second: f64,
    /// Responses with a status from 500 in the last sample, for each second, of upstreams and of the gateway.
    pub failed_per_second: f64,
    /// The time from the head of a request to the end of its response: half of the requests in the last minute took less. Null without requests.
    pub p50_seconds: Option<f64>,
    /// The time that 99 of 100 requests in the last minute did not exceed. Null without requests.
    pub p99_seconds: Option<f64>,
    /// The length of "the last minute": it is shorter after the start, and never longer than 60 s.
    pub window_seconds: f64,
    /// Open connections of clients.
    pub connections: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// The reasons of refusals since the start, the most frequent in the last 15 minutes first.
    pub refusals: Vec<Refusal>,
    /// The last 15 minutes.
    pub history: History,
}

/// Requests that were refused for one reason.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The label of the reason, as `outcome` in the log.
    pub outcome: String,
    /// Since the start.
    pub requests: u64,
    /// In the last sample, for each second.
    pub requests_per_second: f64,
    /// Requests for each second, in each sample of the last 15 minutes; the newest is the last.
    pub history: Vec<f64>,
}

/// Samples, one each 5 s for 15 minutes. All lists have the same length, at most 180. The newest sample is the last.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// The time between two samples, in seconds.
    pub interval_seconds: u64,
    /// The greatest length of the lists.
    pub max_samples: usize,
    /// The number of the last sample since the start. It is higher when there is a new one.
    pub number: u64,
    /// Requests that have ended, for each second.
    pub requests_per_second: Vec<f64>,
    /// Requests that the gateway has refused, for each second.
    pub refused_per_second: Vec<f64>,
    /// Responses with a status from 500, for each second.
    pub failed_per_second: Vec<f64>,
    /// The median of the times of requests, in seconds. Null where no request has ended.
    pub p50_seconds: Vec<Option<f64>>,
    /// The 99th percentile of the times of requests, in seconds. Null where no request has ended.
    pub p99_seconds: Vec<Option<f64>>,
}

/// The configuration in force.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Its file.
    pub file: String,
    /// Since when it is in force.
    pub applied: Time,
    /// What the last reload has changed.
    pub changes: Vec<String>,
    /// The last reload that was refused since then. Null: there was none.
    pub refused: Option<RefusedReload>,
}

/// A reload that was refused.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RefusedReload {
    /// When.
    pub at: Time,
    /// Why, in the form of `authgate check --json`.
    pub problems: Vec<Value>,
}

/// An open listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// `server.listen`, `server.redirect_http`, `admin.listen` or `probes.listen`.
    pub key: String,
    /// The address, with the real port.
    pub address: String,
    /// Whether its connections use TLS.
    pub tls: bool,
}

/// The routes with the most requests.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// How many routes the configuration in force has.
    pub configured: usize,
    /// How many have had a request since the start, with those that a reload has removed.
    pub used: usize,
    /// The busiest routes of the last minute, at most 50, and the first ones of the file if fewer are in use. The route with the most requests since the start is the first.
    pub busiest: Vec<Route>,
}

/// One route.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// Its name in metrics and logs: host and path, as in the file. `none`: requests that no route has matched.
    pub route: String,
    /// Requests that have ended since the start.
    pub requests: u64,
    /// Requests that have ended in the last minute, for each second.
    pub requests_per_second: f64,
    /// Requests since the start, by `outcome`.
    pub outcomes: BTreeMap<String, u64>,
    /// Requests since the start, by the class of the status, such as `2xx`; `none` if there was no response.
    pub statuses: BTreeMap<String, u64>,
}

/// One upstream.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: String,
    /// Responses that it has begun in the last minute, for each second.
    pub responses_per_second: f64,
    /// The mean time from sending a request to the head of its response, in the last minute, in seconds. Null without responses.
    pub mean_seconds: Option<f64>,
    /// The time that 99 of 100 responses did not exceed, from sending the request to the head of the response, in seconds.
    pub p99_seconds: Option<f64>,
    /// Requests under way. Null without `in_flight` of the upstream.
    pub in_flight: Option<usize>,
    /// `in_flight` of the upstream. Null: there is no limit.
    pub max_in_flight: Option<usize>,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// One server of an upstream.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// Its address, or the path of its socket file.
    pub server: String,
    /// `up`; `failing`: the last requests to it have failed, and it is used again after a pause; `down`: it fails its health checks.
    pub state: ServerState,
    /// The workers for which it is not up. Each worker finds out for itself.
    pub failing_workers: usize,
    /// The workers that use it.
    pub workers: usize,
    /// Since when it is not up. Null while it is.
    pub since: Option<Time>,
    /// Why the last request or check has failed. Null while it is up.
    pub reason: Option<String>,
}

/// The state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ServerState {
    /// No worker has a problem with it.
    Up,
    /// The last requests to it have failed.
    Failing,
    /// It fails its health checks.
    Down,
}

/// One authenticator.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Authenticator {
    /// Its name in the configuration.
    pub name: String,
    /// `token`, `jwt` or `introspection`.
    pub kind: String,
    /// Credentials whose result was in the cache, since the cache was made. A reload that changes the authenticator makes another one.
    pub hits: u64,
    /// Credentials that had to be verified or looked up.
    pub misses: u64,
    /// The share of hits in the last minute, from 0 to 1. Null without credentials.
    pub hit_rate: Option<f64>,
    /// Cached decisions that were used because a store or an endpoint could not answer.
    pub stale: u64,
    /// Credentials that it has accepted in the last minute, for each second.
    pub accepted_per_second: f64,
    /// Credentials that it has refused in the last minute, for each second.
    pub refused_per_second: f64,
    /// Credentials since the start, by result: `accepted`, or the reason of the refusal.
    pub outcomes: BTreeMap<String, u64>,
}

/// One store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Store {
    /// Its name in the configuration.
    pub name: String,
    /// `single`, `sentinel` or `cluster`. Null for other kinds than Redis.
    pub mode: Option<String>,
    /// The addresses of the primaries in use. Null for other kinds than Redis.
    pub primaries: Option<Vec<String>>,
    /// Whether it could be used at least once.
    pub reached: bool,
    /// Whether it can be used now.
    pub usable: bool,
    /// Whether a Redis reports changes: `reported`; `not_reported`: the subscription is lost; `unsupported` by the server or the rights of its user; `off`. Null for other kinds.
    pub changes: Option<ChangeReports>,
    /// The present [outage](../operations/outages.md). Null: there is none.
    pub outage: Option<Outage>,
    /// [The delay of revocations](../operations/revocation.md#the-delay-of-revocations), in seconds. Null while it is not measured.
    pub revocation_lag_seconds: Option<f64>,
}

/// Whether a store reports changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ChangeReports {
    /// It reports every change.
    Reported,
    /// The subscription is lost.
    NotReported,
    /// The server, or the rights of its user, do not allow it.
    Unsupported,
    /// The configuration does not ask for it.
    Off,
}

/// An outage of a store or of an introspection endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Outage {
    /// Since when.
    pub since: Option<Time>,
    /// The authenticators that use cached decisions in it.
    pub cached_decisions: Vec<CachedDecisions>,
}

/// An authenticator that uses cached decisions in an outage.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CachedDecisions {
    /// Its name.
    pub authenticator: String,
    /// Since when.
    pub since: Option<Time>,
}

/// One certificate.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// The file of its chain.
    pub file: String,
    /// Its DNS names.
    pub names: Vec<String>,
    /// When the first certificate of the chain expires. Null if a certificate cannot be read.
    pub expires: Option<Time>,
    /// The whole days until the certificate expires; negative if it has expired.
    pub days_left: Option<i64>,
    /// `valid`; `ending`: it expires within 14 days, or within a third of its whole time if that is shorter; `expired`; `unknown`: it cannot be read.
    pub state: CertificateState,
}

/// Whether a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum CertificateState {
    /// It is valid for long enough.
    Valid,
    /// It expires soon.
    Ending,
    /// It has expired.
    Expired,
    /// It cannot be read.
    Unknown,
}

/// The certificate of one domain.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Acme {
    /// The domain.
    pub domain: String,
    /// The file of its certificate and key.
    pub file: String,
    /// When the certificate expires. Null until there is one.
    pub expires: Option<Time>,
    /// The whole days until the certificate expires; negative if it has expired.
    pub days_left: Option<i64>,
    /// When the gateway orders the next one.
    pub next_order: Option<Time>,
    /// Attempts that have failed.
    pub failures: u64,
    /// Why the last attempt, or the task that renews, has failed. Null if it has not.
    pub error: Option<String>,
}

/// One introspection endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Introspection {
    /// The authenticator.
    pub authenticator: String,
    /// When the endpoint last answered. Null until then.
    pub last_success: Option<Time>,
    /// How many introspections have failed.
    pub failures: u64,
    /// Why the last introspection has failed. Null if it has not.
    pub error: Option<String>,
    /// The present outage. Null: there is none.
    pub outage: Option<Outage>,
}

/// One source of keys.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct KeySet {
    /// The authenticator.
    pub authenticator: String,
    /// The URL or issuer in the file.
    pub source: String,
    /// The keys in use.
    pub keys: Vec<Key>,
    /// The keys that are not used, with the reason.
    pub left_out: Vec<String>,
    /// When a fetch has last succeeded. Null until then.
    pub last_success: Option<Time>,
    /// How long ago a fetch has last succeeded, in seconds.
    pub age_seconds: Option<u64>,
    /// When the next fetch begins.
    pub next_fetch: Option<Time>,
    /// How many fetches in a row have failed.
    pub failures: u64,
    /// Why the last fetch has failed. Null if it has not.
    pub error: Option<String>,
}

/// A key that verifies JWTs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// Its id.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
}

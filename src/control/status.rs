//! `/status.json`: the state of the process as data. Its members are part of the interface: later versions add members, and remove none.
//! It has names, files and times, and no secret: no login at a store, no key, no token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use authgate_auth::introspection::IntrospectionStatus;
use authgate_auth::jwt::keys::remote::KeySourceStatus;
use authgate_auth::store::SharedStore;
use authgate_auth::{OutageStatus, Serving};
use authgate_http::server::address::Address;
use authgate_http::server::stage::Stage;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::acme::AcmeStatus;

/// Facts of the process that do not change.
#[derive(Debug)]
pub struct ProcessFacts {
    started: Timestamp,
    since: Instant,
    workers: usize,
}

impl ProcessFacts {
    /// The process starts now, with this number of workers.
    pub fn now(workers: usize) -> Self {
        Self {
            started: Timestamp::now(),
            since: Instant::now(),
            workers,
        }
    }
}

/// Which configuration is in force, and why the last reload was refused.
#[derive(Debug)]
pub struct ConfigurationStatus(Mutex<Versions>);

#[derive(Debug)]
struct Versions {
    file: String,
    applied: Timestamp,
    /// Since the configuration was applied.
    refused: Option<(Timestamp, Vec<Value>)>,
    /// What the last reload that was applied has changed.
    changes: Vec<String>,
}

impl ConfigurationStatus {
    /// The configuration of this file is in force from now on.
    pub fn applied_now(file: String) -> Self {
        Self(Mutex::new(Versions {
            file,
            applied: Timestamp::now(),
            refused: None,
            changes: Vec::new(),
        }))
    }

    /// A reload with these changes was applied now.
    pub fn record_applied(&self, changes: Vec<String>) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (versions.applied, versions.refused, versions.changes) = (Timestamp::now(), None, changes);
    }

    /// A reload was refused now, because of these problems (in the form of `authgate check --json`).
    pub fn record_refused(&self, problems: Vec<Value>) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.refused = Some((Timestamp::now(), problems));
    }

    fn to_json(&self) -> Value {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = versions.refused.as_ref();
        json!({
            "file": versions.file,
            "applied": shown(versions.applied),
            "changes": versions.changes,
            "refused": refused.map(|(at, problems)| json!({ "at": shown(*at), "problems": problems })),
        })
    }
}

/// An open listener.
#[derive(Debug, Clone)]
pub struct ListenerStatus {
    /// What it is for.
    pub purpose: ListenerPurpose,
    /// Its address, with the real port.
    pub address: Address,
    /// Whether its connections use TLS.
    pub tls: bool,
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerPurpose {
    /// `server.listen`.
    Clients,
    /// `server.redirect_http`.
    Redirects,
    /// `admin.listen`.
    Admin,
    /// `probes.listen`.
    Probes,
}

impl ListenerPurpose {
    /// The key of its addresses in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Clients => "server.listen",
            Self::Redirects => "server.redirect_http",
            Self::Admin => "admin.listen",
            Self::Probes => "probes.listen",
        }
    }
}

/// A certificate of the configuration in force.
#[derive(Debug, Clone)]
pub struct CertificateStatus {
    /// The file of its chain.
    pub file: String,
    /// Its DNS names.
    pub names: Vec<String>,
    /// When the first certificate of its chain expires, in Unix seconds; `None` if a certificate cannot be read.
    pub expires: Option<i64>,
}

/// The parts of a report.
pub(super) struct Report<'r> {
    pub(super) process: &'r ProcessFacts,
    pub(super) stage: Stage,
    pub(super) ready: bool,
    pub(super) configuration: &'r ConfigurationStatus,
    pub(super) listeners: &'r [ListenerStatus],
    pub(super) stores: &'r [Arc<SharedStore>],
    pub(super) certificates: &'r [CertificateStatus],
    pub(super) acme: Vec<AcmeStatus>,
    pub(super) introspection: Vec<IntrospectionStatus>,
    pub(super) key_sources: Vec<KeySourceStatus>,
}

impl Report<'_> {
    pub(super) fn to_json(&self) -> Value {
        let listener = |listener: &ListenerStatus| {
            json!({
                "key": listener.purpose.key(),
                "address": listener.address.to_string(),
                "tls": listener.tls,
            })
        };
        let store = |store: &Arc<SharedStore>| {
            json!({
                "name": &**store.name(),
                "mode": store.primaries().map(|(mode, _)| mode),
                "primaries": store.primaries().map(|(_, addresses)| addresses),
                "reached": store.was_reached(),
                "usable": store.is_usable(),
                "changes": store.change_reports(),
                "outage": store.outage().as_ref().map(outage),
                "revocation_lag_seconds": store.revocation_lag().map(|lag| lag.as_secs_f64()),
            })
        };
        let certificate = |certificate: &CertificateStatus| {
            let expires = certificate.expires.and_then(|at| Timestamp::from_second(at).ok());
            json!({
                "file": certificate.file,
                "names": certificate.names,
                "expires": expires.map(shown),
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": shown(self.process.started),
            "uptime_seconds": self.process.since.elapsed().as_secs(),
            "workers": self.process.workers,
            "stage": stage_name(self.stage),
            "ready": self.ready,
            "configuration": self.configuration.to_json(),
            "listeners": self.listeners.iter().map(listener).collect::<Vec<_>>(),
            "stores": self.stores.iter().map(store).collect::<Vec<_>>(),
            "certificates": self.certificates.iter().map(certificate).collect::<Vec<_>>(),
            "acme": self.acme.iter().map(acme).collect::<Vec<_>>(),
            "introspection": self.introspection.iter().map(introspection).collect::<Vec<_>>(),
            "key_sets": self.key_sources.iter().map(key_set).collect::<Vec<_>>(),
        })
    }
}

/// `expires` is null until the first certificate is there; `error` is null unless the last attempt has failed.
fn acme(status: &AcmeStatus) -> Value {
    let expires = status
        .expires
        .and_then(|at| Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok());
    json!({
        "domain": status.domain,
        "file": status.file.display().to_string(),
        "expires": expires.map(shown),
        "next_order": Timestamp::try_from(status.due).ok().map(shown),
        "failures": status.failures,
        "error": status.last_error,
    })
}

/// `cached_decisions`: the authenticators that use cached decisions in the outage.
fn outage(status: &OutageStatus) -> Value {
    let at = |time: SystemTime| Timestamp::try_from(time).ok().map(shown);
    let serving = |serving: &Serving| json!({ "authenticator": &*serving.authenticator, "since": at(serving.since) });
    json!({
        "since": at(status.since),
        "cached_decisions": status.serving.iter().map(serving).collect::<Vec<_>>(),
    })
}

/// `last_success` is null until the endpoint has answered; `error` is null unless the last introspection has failed.
fn introspection(status: &IntrospectionStatus) -> Value {
    json!({
        "authenticator": &*status.authenticator,
        "last_success": status.last_success.and_then(|at| Timestamp::try_from(at).ok()).map(shown),
        "failures": status.failures,
        "error": status.error,
        "outage": status.outage.as_ref().map(outage),
    })
}

/// `last_success` is null until a fetch has succeeded; `error` is null unless the last one has failed.
fn key_set(status: &KeySourceStatus) -> Value {
    let at = |time: SystemTime| Timestamp::try_from(time).ok().map(shown);
    let key = |(kid, algorithm): &(String, &'static str)| json!({ "kid": kid, "algorithm": algorithm });
    json!({
        "authenticator": &*status.authenticator,
        "source": status.location,
        "keys": status.keys.iter().map(key).collect::<Vec<_>>(),
        "left_out": status.left_out,
        "last_success": status.last_success.and_then(at),
        "next_fetch": status.next_fetch.and_then(at),
        "failures": status.failures,
        "error": status.error,
    })
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Serving => "serving",
        Stage::NotReady => "not_ready",
        Stage::Draining => "draining",
        Stage::Aborting => "aborting",
    }
}

/// A time as RFC 3339 in UTC, in whole seconds.
fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reload_is_shown_until_one_is_applied() {
        let status = ConfigurationStatus::applied_now("gateway.toml".to_owned());
        assert_eq!(status.to_json()["refused"], Value::Null);
        status.record_refused(vec![json!({ "key": "server.listen" })]);
        let shown = status.to_json();
        assert_eq!(shown["file"], "gateway.toml");
        assert_eq!(shown["refused"]["problems"][0]["key"], "server.listen");
        let at = shown["refused"]["at"].as_str().expect("a time");
        assert!(
            at.len() == 20 && at.ends_with('Z') && at.parse::<Timestamp>().is_ok(),
            "{at}"
        );
        status.record_applied(vec!["log.level: added".to_owned()]);
        let shown = status.to_json();
        assert_eq!(
            (&shown["refused"], &shown["changes"][0]),
            (&Value::Null, &json!("log.level: added"))
        );
    }
}

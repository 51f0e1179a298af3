//! `/status.json`: the state of the process as data. Its members are part of the interface: later versions add members, and remove none.
//! It has names, files and times, and no secret: no login at a store, no key, no token.

pub mod document;
mod health;
mod history;
mod page;
mod report;
mod sparkline;
mod viewers;
mod words;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use authgate_http::server::address::Address;
use jiff::Timestamp;
use serde_json::Value;

use self::document::{Configuration, RefusedReload};
pub use self::history::Recent;
pub(super) use self::history::{Marked, every_interval};
pub(super) use self::page::{POLICY, event, page};
pub(super) use self::report::Report;
use self::report::shown;
pub(super) use self::viewers::EventStream;
pub use self::viewers::Viewers;

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

    fn report(&self) -> Configuration {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = versions.refused.as_ref();
        Configuration {
            file: versions.file.clone(),
            applied: shown(versions.applied),
            changes: versions.changes.clone(),
            refused: refused.map(|(at, problems)| RefusedReload {
                at: shown(*at),
                problems: problems.clone(),
            }),
        }
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
    /// When it becomes valid, in Unix seconds.
    pub starts: Option<i64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_reload_is_shown_until_one_is_applied() {
        let status = ConfigurationStatus::applied_now("gateway.toml".to_owned());
        assert!(status.report().refused.is_none());
        status.record_refused(vec![json!({ "key": "server.listen" })]);
        let shown = status.report();
        assert_eq!(shown.file, "gateway.toml");
        let refused = shown.refused.expect("a reload");
        assert_eq!(refused.problems[0]["key"], "server.listen");
        let at = refused.at;
        assert!(
            at.len() == 20 && at.ends_with('Z') && at.parse::<Timestamp>().is_ok(),
            "{at}"
        );
        status.record_applied(vec!["log.level: added".to_owned()]);
        let shown = status.report();
        assert!(shown.refused.is_none());
        assert_eq!(shown.changes, ["log.level: added"]);
    }
}

//! Stores, key sets, introspection endpoints and certificates: a state, a name, and lines that say more.

use super::super::document::{
    Acme, Certificate, CertificateState, ChangeReports, Introspection, KeySet, Outage, Store,
};
use super::super::words::{duration, milliseconds, plural, time};
use super::{BAD, GOOD, MAX_LINES, PLAIN, State, WARN};

/// Something with a state, a name, and lines that say more.
pub(super) struct Item {
    pub(super) state: State,
    pub(super) name: String,
    pub(super) details: Vec<String>,
}

fn item(class: &'static str, text: &str, name: &str, details: Vec<String>) -> Item {
    Item {
        state: State {
            class,
            text: text.to_owned(),
        },
        name: name.to_owned(),
        details,
    }
}

fn outage_line(outage: &Outage) -> String {
    let since = outage
        .since
        .as_deref()
        .map(|since| format!(" since {}", time(since)))
        .unwrap_or_default();
    let serving: Vec<&str> = outage
        .cached_decisions
        .iter()
        .map(|serving| &*serving.authenticator)
        .collect();
    match serving.as_slice() {
        [] => format!("An outage{since}. No authenticator uses cached decisions."),
        names => format!("An outage{since}. Cached decisions are used by {}.", names.join(", ")),
    }
}

pub(super) fn store(store: &Store) -> Item {
    let (class, text) = match (store.reached, store.usable, &store.outage) {
        (false, ..) => (BAD, "not reached"),
        (true, false, _) => (BAD, "unusable"),
        (true, true, Some(_)) => (WARN, "recovering"),
        (true, true, None) => (GOOD, "usable"),
    };
    let mut details: Vec<String> = store.outage.iter().map(outage_line).collect();
    if let Some(mode) = &store.mode {
        let primaries = store.primaries.as_deref().unwrap_or_default();
        details.push(match primaries {
            [] => format!("Redis, {mode}."),
            primaries => format!("Redis, {mode}: {}.", primaries.join(", ")),
        });
    }
    if let Some(changes) = store.changes {
        let line = match changes {
            ChangeReports::Reported => "Changes are reported.",
            ChangeReports::NotReported => "The subscription to changes is lost: they take effect after cache.ttl.",
            ChangeReports::Unsupported => "Changes are not reported by this server: they take effect after cache.ttl.",
            ChangeReports::Off => "Changes are not asked for: they take effect after cache.ttl.",
        };
        details.push(line.to_owned());
    }
    if let Some(lag) = store.revocation_lag_seconds.filter(|_| store.usable) {
        details.push(match lag {
            ..0.001 => "Revocations are reported at once.".to_owned(),
            _ => format!("Revocations are reported {} late.", milliseconds(Some(lag))),
        });
    }
    item(class, text, &store.name, details)
}

pub(super) fn key_set(set: &KeySet) -> Item {
    let (class, text) = match (&set.last_success, set.failures) {
        (None, _) => (BAD, "missing"),
        (Some(_), 0) => (GOOD, "fresh"),
        (Some(_), _) => (WARN, "old"),
    };
    let keys: Vec<String> = set
        .keys
        .iter()
        .map(|key| format!("{} ({})", key.kid, key.algorithm))
        .collect();
    let mut details = vec![format!("For {}.", set.authenticator)];
    if let Some(age) = set.age_seconds {
        let next = set
            .next_fetch
            .as_deref()
            .map(|next| format!(" The next fetch is at {}.", time(next)));
        details.push(format!("Fetched {} ago.{}", duration(age), next.unwrap_or_default()));
    }
    if let Some(error) = &set.error {
        let fetches = plural(set.failures, "fetch has", "fetches have");
        details.push(format!("{fetches} failed: {error}."));
    }
    details.push(match listed(&keys, "more keys") {
        keys if keys.is_empty() => "No key is in use.".to_owned(),
        keys => format!("In use: {keys}."),
    });
    if !set.left_out.is_empty() {
        details.push(format!("Not used: {}.", listed(&set.left_out, "more keys")));
    }
    item(class, text, &set.source, details)
}

/// The first of many.
fn listed(names: &[String], more: &str) -> String {
    match names.len().checked_sub(MAX_LINES) {
        None | Some(0) => names.join(", "),
        Some(others) => format!("{}, and {others} {more}", names[..MAX_LINES].join(", ")),
    }
}

pub(super) fn introspection(endpoint: &Introspection) -> Item {
    let (class, text) = match (&endpoint.outage, &endpoint.error, &endpoint.last_success) {
        (Some(_), ..) => (BAD, "outage"),
        (None, Some(_), _) => (WARN, "failing"),
        (None, None, Some(_)) => (GOOD, "answers"),
        (None, None, None) => (PLAIN, "not asked"),
    };
    let mut details: Vec<String> = endpoint.outage.iter().map(outage_line).collect();
    if let Some(at) = &endpoint.last_success {
        details.push(format!("It last answered at {}.", time(at)));
    }
    if let Some(error) = &endpoint.error {
        details.push(format!("The last introspection has failed: {error}."));
    }
    item(class, text, &endpoint.authenticator, details)
}

fn days(days: Option<i64>) -> String {
    match days {
        None => "unknown".to_owned(),
        Some(days @ ..0) => plural(days.unsigned_abs(), "day ago", "days ago"),
        Some(days) => plural(days.unsigned_abs(), "day", "days"),
    }
}

pub(super) fn certificate(certificate: &Certificate) -> Item {
    let class = match certificate.state {
        CertificateState::Valid => GOOD,
        CertificateState::Ending => WARN,
        CertificateState::Expired => BAD,
        CertificateState::Unknown => PLAIN,
    };
    let names = match certificate.names.as_slice() {
        [] => certificate.file.clone(),
        names => listed(names, "more names"),
    };
    let mut details = Vec::new();
    if let Some(expires) = &certificate.expires {
        details.push(expiry_line(certificate.days_left, expires));
    }
    details.push(certificate.file.clone());
    item(class, &days(certificate.days_left), &names, details)
}

fn expiry_line(days_left: Option<i64>, expires: &str) -> String {
    let verb = if days_left.is_some_and(|days| days < 0) {
        "Expired"
    } else {
        "Expires"
    };
    format!("{verb} at {}.", time(expires))
}

pub(super) fn acme(acme: &Acme) -> Item {
    let class = match (acme.days_left, &acme.error) {
        (None | Some(..0), _) => BAD,
        (Some(_), Some(_)) => WARN,
        (Some(_), None) => GOOD,
    };
    let mut details = Vec::new();
    if let Some(expires) = &acme.expires {
        details.push(expiry_line(acme.days_left, expires));
    }
    if let Some(next) = &acme.next_order {
        details.push(format!("From ACME. The next one is ordered at {}.", time(next)));
    }
    if let Some(error) = &acme.error {
        details.push(format!("The last attempt has failed: {error}."));
    }
    details.push(acme.file.clone());
    item(class, &days(acme.days_left), &acme.domain, details)
}

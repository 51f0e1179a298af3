//! Whether everything is well: the problems that a [`Status`] shows, in plain words.

use super::document::{
    Acme, Certificate, CertificateState, ChangeReports, Health, Introspection, KeySet, Problem, ServerState, Severity,
    Status, Store, Subject, Upstream,
};
use super::words::{plural, time};

/// Revocations that are reported later than this are a problem, in seconds.
const MAX_REVOCATION_LAG: f64 = 2.0;
/// The share of failed responses in the last minute that is a problem, and the number of requests from which a share says something.
const MAX_FAILED_SHARE: f64 = 0.05;
const MIN_REQUESTS: f64 = 20.0;
/// The share of open file descriptors that is a problem.
const MAX_OPEN_FILES: f64 = 0.9;

/// The health of this state.
pub(super) fn assess(status: &Status) -> Health {
    let mut found = Findings::default();
    found.process(status);
    status.stores.iter().for_each(|store| found.store(store));
    status.upstreams.iter().for_each(|upstream| found.upstream(upstream));
    status.key_sets.iter().for_each(|set| found.key_set(set));
    status
        .introspection
        .iter()
        .for_each(|endpoint| found.introspection(endpoint));
    status
        .certificates
        .iter()
        .for_each(|certificate| found.certificate(certificate));
    status.acme.iter().for_each(|domain| found.acme(domain));
    found.traffic(status);
    if let Some(refused) = &status.configuration.refused {
        let problems = plural(refused.problems.len() as u64, "problem", "problems");
        found.warning(
            Subject::Configuration,
            format!(
                "The reload of {} was refused because of {problems}. The configuration of {} is still in force.",
                time(&refused.at),
                time(&status.configuration.applied)
            ),
        );
    }
    let mut problems = found.0;
    if problems.is_empty() && status.stage == "serving" && !status.ready {
        problems.push(Problem {
            severity: Severity::Error,
            subject: Subject::Stage,
            text: "The gateway is not ready.".to_owned(),
        });
    }
    problems.sort_by_key(|problem| problem.severity); // The sort is stable.
    Health {
        ok: problems.is_empty(),
        problems,
    }
}

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn error(&mut self, subject: Subject, text: String) {
        self.add(Severity::Error, subject, text);
    }

    fn warning(&mut self, subject: Subject, text: String) {
        self.add(Severity::Warning, subject, text);
    }

    fn add(&mut self, severity: Severity, subject: Subject, text: String) {
        self.0.push(Problem {
            severity,
            subject,
            text,
        });
    }

    fn process(&mut self, status: &Status) {
        if status.stage != "serving" {
            self.warning(Subject::Stage, format!("The gateway shuts down: {}.", status.stage));
        }
        let Some(usage) = &status.process else { return };
        if let Some(max) = usage.max_open_files
            && usage.open_files as f64 > max as f64 * MAX_OPEN_FILES
        {
            self.warning(
                Subject::Process,
                format!(
                    "{} of {max} file descriptors are open. At the limit, connections wait. Raise LimitNOFILE.",
                    usage.open_files
                ),
            );
        }
    }

    fn store(&mut self, store: &Store) {
        let name = &store.name;
        let since = store.outage.as_ref().and_then(|outage| outage.since.as_deref());
        let since = since.map(|since| format!(" since {}", time(since))).unwrap_or_default();
        if !store.reached {
            self.error(
                Subject::Stores,
                format!("Store {name} was never reached. Requests that need it get 503."),
            );
        } else if !store.usable {
            let cached = store.outage.iter().flat_map(|outage| &outage.cached_decisions);
            let cached: Vec<&str> = cached.map(|cached| &*cached.authenticator).collect();
            let meaning = match cached.as_slice() {
                [] => "Requests that need it get 503.".to_owned(),
                names => format!(
                    "Cached decisions are used by {}; other requests get 503.",
                    names.join(", ")
                ),
            };
            self.error(
                Subject::Stores,
                format!("Store {name} cannot be used{since}. {meaning}"),
            );
        } else if store.outage.is_some() {
            self.warning(
                Subject::Stores,
                format!("Store {name} has not answered all look-ups{since}."),
            );
        }
        if store.usable && store.changes == Some(ChangeReports::NotReported) {
            self.warning(
                Subject::Stores,
                format!("Store {name} does not report changes: the subscription is lost. A revocation takes effect after cache.ttl."),
            );
        }
        if let Some(lag) = store
            .revocation_lag_seconds
            .filter(|lag| store.usable && *lag > MAX_REVOCATION_LAG)
        {
            self.warning(
                Subject::Stores,
                format!("Store {name} reports changes {lag:.0} s late. Until then, revoked credentials are accepted."),
            );
        }
    }

    fn upstream(&mut self, upstream: &Upstream) {
        let name = &upstream.name;
        let faulty = upstream.servers.iter().filter(|server| server.state != ServerState::Up);
        let names: Vec<String> = faulty
            .map(|server| match &server.reason {
                Some(reason) => format!("{} ({reason})", server.server),
                None => server.server.clone(),
            })
            .collect();
        let Some((first, others)) = names.split_first() else {
            return;
        };
        let named = match others.len() {
            0 => first.clone(),
            more => format!("{first} and {more} more"),
        };
        let all_fail = upstream
            .servers
            .iter()
            .all(|server| server.workers > 0 && server.failing_workers == server.workers);
        if all_fail {
            self.error(
                Subject::Upstreams,
                format!("Upstream {name} has no server that is up: {named}."),
            );
        } else {
            let verb = if names.len() == 1 { "fails" } else { "fail" };
            let count = format!("{} of {} servers {verb}", names.len(), upstream.servers.len());
            self.warning(Subject::Upstreams, format!("In upstream {name}, {count}: {named}."));
        }
    }

    fn key_set(&mut self, set: &KeySet) {
        let (source, error) = (&set.source, set.error.as_deref().unwrap_or("no fetch has ended yet"));
        if set.last_success.is_none() {
            self.error(
                Subject::KeySets,
                format!(
                    "The keys of {source} are missing: {error}. JWTs of {} get 503.",
                    set.authenticator
                ),
            );
        } else if set.failures > 0 {
            let fetches = plural(set.failures, "fetch", "fetches");
            self.warning(
                Subject::KeySets,
                format!("The keys of {source} are not refreshed: {fetches} failed, the last one because of: {error}."),
            );
        }
    }

    fn introspection(&mut self, endpoint: &Introspection) {
        let authenticator = &endpoint.authenticator;
        let error = endpoint.error.as_deref().unwrap_or("it does not answer");
        if let Some(outage) = &endpoint.outage {
            let since = outage.since.as_deref().map_or("a while ago".to_owned(), time);
            self.error(
                Subject::Introspection,
                format!("The introspection endpoint of {authenticator} has not answered since {since}: {error}."),
            );
        } else if endpoint.error.is_some() {
            self.warning(
                Subject::Introspection,
                format!("The last introspection of {authenticator} has failed: {error}."),
            );
        }
    }

    fn certificate(&mut self, certificate: &Certificate) {
        let (file, expires) = (
            &certificate.file,
            certificate.expires.as_deref().map(time).unwrap_or_default(),
        );
        match certificate.state {
            CertificateState::Valid | CertificateState::Unknown => {}
            CertificateState::Ending => self.warning(
                Subject::Certificates,
                format!("The certificate {file} expires at {expires}. Renew it."),
            ),
            CertificateState::Expired => self.error(
                Subject::Certificates,
                format!("The certificate {file} has expired at {expires}. Clients refuse it."),
            ),
        }
    }

    fn acme(&mut self, acme: &Acme) {
        let domain = &acme.domain;
        let error = acme.error.as_deref().unwrap_or("no order has ended yet");
        match (acme.days_left, &acme.error) {
            (None, _) => self.error(
                Subject::Acme,
                format!("There is no certificate for {domain}: {error}. TLS handshakes fail."),
            ),
            (Some(..0), _) => self.error(
                Subject::Acme,
                format!("The certificate for {domain} has expired: {error}. Clients refuse it."),
            ),
            (Some(days), Some(error)) => self.warning(
                Subject::Acme,
                format!("The certificate for {domain} is not renewed: {error}. It is valid for {days} more days."),
            ),
            (Some(_), None) => {}
        }
    }

    fn traffic(&mut self, status: &Status) {
        let history = &status.traffic.history;
        let last_minute = |rates: &[f64]| {
            let samples = usize::try_from(60 / history.interval_seconds.max(1)).unwrap_or(1);
            rates.iter().rev().take(samples).sum::<f64>() * history.interval_seconds as f64
        };
        let requests = last_minute(&history.requests_per_second);
        let failed = last_minute(&history.failed_per_second);
        if requests >= MIN_REQUESTS && failed >= requests * MAX_FAILED_SHARE {
            let percent = 100.0 * failed / requests;
            self.warning(
                Subject::Traffic,
                format!("{percent:.0} % of the responses of the last minute have a status from 500."),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(usable: bool, lag: f64) -> Store {
        Store {
            name: "redis".to_owned(),
            mode: None,
            primaries: None,
            reached: true,
            usable,
            changes: Some(ChangeReports::Reported),
            outage: None,
            revocation_lag_seconds: Some(lag),
        }
    }

    #[test]
    fn an_unusable_store_is_one_error_and_a_late_one_is_a_warning() {
        let found = |store: &Store| {
            let mut found = Findings::default();
            found.store(store);
            let severities = found.0.into_iter().map(|problem| problem.severity);
            severities.collect::<Vec<Severity>>()
        };
        assert_eq!(found(&store(true, 0.5)), []);
        assert_eq!(found(&store(true, 2.5)), [Severity::Warning]);
        assert_eq!(found(&store(false, 60.0)), [Severity::Error]);
    }
}

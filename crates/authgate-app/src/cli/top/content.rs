//! What is shown of a status: tables of text, for the terminal and for the snapshot.

use std::collections::BTreeMap;

use authgate_core::printable;

use super::units;
use crate::control::status::document::{
    CertificateState, ChangeReports, KeySet, Outage, Route, ServerState, Severity, Status, Store, Upstream,
};

/// The samples of a refusal that are shown, one for each 5 s.
const REFUSAL_BARS: usize = 30;

/// The position of the table of routes.
pub(super) const ROUTES: usize = 2;

/// One table.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// The title of its tab: all of them fit in 80 columns.
    pub(super) tab: &'static str,
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Vec<Cell>>,
    /// What is shown in place of an empty table.
    pub(super) empty: &'static str,
}

/// One value. Its text is escaped: it may come from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// How a value is meant. The text says it too: not every terminal has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warning,
    Error,
}

fn cell(text: impl AsRef<str>) -> Cell {
    toned(text, Tone::Plain)
}

fn toned(text: impl AsRef<str>, tone: Tone) -> Cell {
    Cell {
        text: printable::escape(text.as_ref(), |_| false).into_owned(),
        tone,
    }
}

/// The text, or a dash.
fn optional(text: Option<impl AsRef<str>>) -> Cell {
    text.map_or_else(|| cell("–"), cell)
}

/// The one line that says whether everything is well.
pub(super) fn headline(status: &Status) -> Cell {
    let problems = &status.health.problems;
    match (status.health.ok, &problems[..]) {
        (true, _) => toned("All is well.", Tone::Good),
        (false, []) => toned("Something is not well.", Tone::Warning),
        (false, [first, others @ ..]) => {
            let more = match others.len() {
                0 => String::new(),
                1 => " (and 1 more problem)".to_owned(),
                count => format!(" (and {count} more problems)"),
            };
            toned(format!("{}{more}", first.text), tone(first.severity))
        }
    }
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Error => Tone::Error,
        Severity::Warning => Tone::Warning,
    }
}

/// All tables, in the order of the tabs.
pub(super) fn sections(status: &Status) -> Vec<Section> {
    vec![
        problems(status),
        refusals(status),
        routes(status),
        upstreams(status),
        authenticators(status),
        stores(status),
        keys(status),
        certificates(status),
        process(status),
    ]
}

fn problems(status: &Status) -> Section {
    let problems = status.health.problems.iter().map(|problem| {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        vec![toned(severity, tone(problem.severity)), cell(&problem.text)]
    });
    Section {
        title: "Health",
        tab: "Health",
        columns: &["severity", "problem"],
        rows: problems.collect(),
        empty: "All is well.",
    }
}

fn refusals(status: &Status) -> Section {
    let refusals = status.traffic.refusals.iter().map(|refusal| {
        vec![
            cell(&refusal.outcome),
            cell(units::rate(refusal.requests_per_second)),
            cell(units::count(refusal.requests)),
            cell(units::bars(&refusal.history, REFUSAL_BARS)),
        ]
    });
    Section {
        title: "Refusals",
        tab: "Refusals",
        columns: &["reason", "/s", "since start", "last 150 s"],
        rows: refusals.collect(),
        empty: "The gateway has refused no request.",
    }
}

fn routes(status: &Status) -> Section {
    let row = |route: &Route| {
        let of = |class: &str| units::count(route.statuses.get(class).copied().unwrap_or_default());
        let failed = route.statuses.get("5xx").is_some_and(|count| *count > 0);
        vec![
            cell(&route.route),
            cell(units::rate(route.requests_per_second)),
            cell(units::count(route.requests)),
            cell(of("2xx")),
            cell(of("3xx")),
            cell(of("4xx")),
            toned(of("5xx"), if failed { Tone::Warning } else { Tone::Plain }),
            cell(most_frequent(&route.outcomes, "forwarded")),
        ]
    };
    Section {
        title: "Routes",
        tab: "Routes",
        columns: &[
            "route",
            "/s",
            "requests",
            "2xx",
            "3xx",
            "4xx",
            "5xx",
            "refused because of",
        ],
        rows: status.routes.busiest.iter().map(row).collect(),
        empty: "There are no routes.",
    }
}

/// The most frequent outcomes but this one.
fn most_frequent(outcomes: &BTreeMap<String, u64>, but: &str) -> String {
    let mut others: Vec<(&String, &u64)> = outcomes.iter().filter(|(outcome, _)| *outcome != but).collect();
    others.sort_by(|(_, one), (_, other)| other.cmp(one));
    let others = others.iter().take(3);
    let others: Vec<String> = others
        .map(|(outcome, count)| format!("{outcome} {}", units::count(**count)))
        .collect();
    others.join(", ")
}

fn upstreams(status: &Status) -> Section {
    let rows = status.upstreams.iter().flat_map(|upstream: &Upstream| {
        let in_flight = match (upstream.in_flight, upstream.max_in_flight) {
            (Some(now), Some(max)) => format!("{now}/{max}"),
            (Some(now), None) => now.to_string(),
            (None, _) => "–".to_owned(),
        };
        upstream.servers.iter().enumerate().map(move |(at, server)| {
            let (state, tone) = match server.state {
                ServerState::Up => ("up", Tone::Good),
                ServerState::Failing => ("failing", Tone::Warning),
                ServerState::Down => ("down", Tone::Error),
            };
            let first = |text: String| cell(if at == 0 { text } else { String::new() });
            let why = server.reason.as_ref().map(|reason| {
                let since = server.since.as_ref().map(|since| format!(" since {since}"));
                format!("{reason}{}", since.unwrap_or_default())
            });
            vec![
                first(upstream.name.clone()),
                cell(&server.server),
                toned(state, tone),
                first(units::rate(upstream.responses_per_second)),
                first(units::duration(upstream.mean_seconds)),
                first(units::duration(upstream.p99_seconds)),
                first(in_flight.clone()),
                cell(why.unwrap_or_default()),
            ]
        })
    });
    Section {
        title: "Upstreams",
        tab: "Upstreams",
        columns: &["upstream", "server", "state", "/s", "mean", "p99", "in flight", "why"],
        rows: rows.collect(),
        empty: "There are no upstreams.",
    }
}

fn authenticators(status: &Status) -> Section {
    let rows = status.authenticators.iter().map(|authenticator| {
        vec![
            cell(&authenticator.name),
            cell(&authenticator.kind),
            cell(units::rate(authenticator.accepted_per_second)),
            cell(units::rate(authenticator.refused_per_second)),
            cell(units::percent(authenticator.hit_rate)),
            cell(units::count(authenticator.stale)),
            cell(most_frequent(&authenticator.outcomes, "accepted")),
        ]
    });
    Section {
        title: "Authenticators",
        tab: "Auth",
        columns: &[
            "authenticator",
            "kind",
            "accepted/s",
            "refused/s",
            "cached",
            "stale",
            "refused because of",
        ],
        rows: rows.collect(),
        empty: "There are no authenticators.",
    }
}

fn stores(status: &Status) -> Section {
    let row = |store: &Store| {
        let (state, tone) = match (store.usable, store.reached, &store.outage) {
            (true, _, None) => ("usable", Tone::Good),
            (true, _, Some(_)) => ("failing", Tone::Warning),
            (false, true, _) => ("down", Tone::Error),
            (false, false, _) => ("not reached", Tone::Error),
        };
        let (changes, changes_tone) = match store.changes {
            None => ("–", Tone::Plain),
            Some(ChangeReports::Reported) => ("reported", Tone::Plain),
            Some(ChangeReports::NotReported) => ("not_reported", Tone::Warning),
            Some(ChangeReports::Unsupported) => ("unsupported", Tone::Plain),
            Some(ChangeReports::Off) => ("off", Tone::Plain),
        };
        vec![
            cell(&store.name),
            toned(state, tone),
            optional(store.mode.as_ref()),
            toned(changes, changes_tone),
            cell(units::duration(store.revocation_lag_seconds)),
            cell(store.primaries.as_ref().map(|all| all.join(", ")).unwrap_or_default()),
            cell(outage(store.outage.as_ref())),
        ]
    };
    Section {
        title: "Stores",
        tab: "Stores",
        columns: &["store", "state", "mode", "changes", "lag", "primaries", "outage"],
        rows: status.stores.iter().map(row).collect(),
        empty: "There are no stores.",
    }
}

fn outage(outage: Option<&Outage>) -> String {
    let Some(outage) = outage else { return String::new() };
    let cached: Vec<&str> = outage
        .cached_decisions
        .iter()
        .map(|cached| &*cached.authenticator)
        .collect();
    let cached = if cached.is_empty() {
        String::new()
    } else {
        format!("; cached decisions for {}", cached.join(", "))
    };
    format!("since {}{cached}", outage.since.as_deref().unwrap_or("a while ago"))
}

fn keys(status: &Status) -> Section {
    let set = |set: &KeySet| {
        let keys: Vec<String> = set
            .keys
            .iter()
            .map(|key| format!("{} {}", key.algorithm, key.kid))
            .collect();
        vec![
            cell(&set.authenticator),
            cell(&set.source),
            cell(set.age_seconds.map_or_else(|| "never".to_owned(), units::age)),
            cell(units::count(set.failures)),
            problem_or(set.error.as_deref(), &keys.join(", ")),
        ]
    };
    let endpoint = status.introspection.iter().map(|endpoint| {
        vec![
            cell(&endpoint.authenticator),
            cell("introspection"),
            cell(endpoint.last_success.as_deref().unwrap_or("never")),
            cell(units::count(endpoint.failures)),
            problem_or(endpoint.error.as_deref(), &outage(endpoint.outage.as_ref())),
        ]
    });
    Section {
        title: "Keys",
        tab: "Keys",
        columns: &["authenticator", "source", "last success", "failures", "keys or problem"],
        rows: status.key_sets.iter().map(set).chain(endpoint).collect(),
        empty: "No keys are fetched, and no tokens are introspected.",
    }
}

fn problem_or(problem: Option<&str>, text: &str) -> Cell {
    problem.map_or_else(|| cell(text), |problem| toned(problem, Tone::Warning))
}

fn certificates(status: &Status) -> Section {
    let days = |days: Option<i64>| days.map_or_else(|| "–".to_owned(), |days| days.to_string());
    let files = status.certificates.iter().map(|certificate| {
        let (state, tone) = match certificate.state {
            CertificateState::Valid => ("valid", Tone::Good),
            CertificateState::Ending => ("ending", Tone::Warning),
            CertificateState::Expired => ("expired", Tone::Error),
            CertificateState::Unknown => ("unknown", Tone::Warning),
        };
        vec![
            cell(certificate.names.join(", ")),
            toned(state, tone),
            cell(days(certificate.days_left)),
            optional(certificate.expires.as_ref()),
            cell(&certificate.file),
        ]
    });
    let acme = status.acme.iter().map(|acme| {
        let (state, tone) = match (&acme.expires, &acme.error) {
            (Some(_), None) => ("acme", Tone::Good),
            (Some(_), Some(_)) => ("acme, failing", Tone::Warning),
            (None, _) => ("acme, missing", Tone::Error),
        };
        vec![
            cell(&acme.domain),
            toned(state, tone),
            cell(days(acme.days_left)),
            optional(acme.expires.as_ref()),
            problem_or(acme.error.as_deref(), &acme.file),
        ]
    });
    Section {
        title: "Certificates",
        tab: "Certificates",
        columns: &["names", "state", "days left", "expires", "file or problem"],
        rows: files.chain(acme).collect(),
        empty: "There are no certificates.",
    }
}

fn process(status: &Status) -> Section {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: Cell| rows.push(vec![cell(name), value]);
    let configuration = &status.configuration;
    row("configuration", cell(&configuration.file));
    row("in force since", cell(&configuration.applied));
    for change in &configuration.changes {
        row("last reload", cell(change));
    }
    if let Some(refused) = &configuration.refused {
        row("refused reload", toned(&refused.at, Tone::Warning));
        for problem in &refused.problems {
            let text = |name: &str| problem[name].as_str().unwrap_or_default();
            let line = problem["line"].as_u64().map(|line| format!(" (line {line})"));
            let line = line.unwrap_or_default();
            let problem = format!("{}{line}: {}; {}", text("key"), text("message"), text("help"));
            row("", toned(problem, Tone::Warning));
        }
    }
    for listener in &status.listeners {
        let tls = if listener.tls { ", TLS" } else { "" };
        row("listens", cell(format!("{} ({}{tls})", listener.address, listener.key)));
    }
    row(
        "build",
        cell(format!("authgate {}, rustc {}", status.version, status.rustc)),
    );
    row("started", cell(&status.started));
    row("workers", cell(status.workers.to_string()));
    if let Some(usage) = &status.process {
        row("memory", cell(units::bytes(usage.resident_bytes)));
        row("CPU time", cell(units::age(usage.cpu_seconds as u64)));
        let max = usage.max_open_files.map(|max| format!(" of {max}")).unwrap_or_default();
        row("open files", cell(format!("{}{max}", usage.open_files)));
    }
    Section {
        title: "Process",
        tab: "Process",
        columns: &["", ""],
        rows,
        empty: "",
    }
}

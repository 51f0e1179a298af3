//! `GET /status`: the state of the process as a page. It needs nothing but itself: the style and the script are in it, and the policy permits
//! these two by their hashes. The template escapes every value.

mod items;
mod refused;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use askama::Template;
use authgate_http::server::stage::Stage;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use jiff::Timestamp;

use self::items::{Item, acme, certificate, introspection, key_set, store};
use self::refused::{RefusedRow, refused};
use super::document::{
    Authenticator, Problem, Route, Server, ServerState, Severity, Status, Subject, Traffic, Upstream,
};
use super::report::{shown, stage_name};
use super::sparkline::Sparkline;
use super::words::{bytes, count, duration, milliseconds, percent, plural, rate, time};

const STYLE: &str = include_str!("page/status.css");
const SCRIPT: &str = include_str!("page/status.js");

/// The most rows of each kind; the rest is in `/status.json`.
const MAX_PROBLEMS: usize = 8;
const MAX_REFUSALS: usize = 10;
/// Further routes are folded.
const MAX_ROUTES: usize = 12;
const MAX_CHIPS: usize = 6;
const MAX_UPSTREAMS: usize = 40;
const MAX_SERVERS: usize = 20;
const MAX_LINES: usize = 10;

/// The policy of the page: nothing from outside, no script and no style but those in it, no form, no frame.
pub(in crate::control) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types authgate",
        hash(SCRIPT),
        hash(STYLE)
    );
    HeaderValue::try_from(policy).expect("it is ASCII")
});

/// Identifies the style, the script and the version: a page of another build loads itself again.
static BUILD: LazyLock<String> = LazyLock::new(|| {
    let parts = [STYLE, SCRIPT, include_str!("page/live.html"), env!("CARGO_PKG_VERSION")].concat();
    hex::encode(&digest(&SHA256, parts.as_bytes()).as_ref()[..8])
});

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'p> {
    live: Live<'p>,
    style: &'static str,
    script: &'static str,
}

#[derive(Template)]
#[template(path = "event.html")]
struct Event<'e> {
    live: Live<'e>,
}

/// The whole page.
///
/// # Errors
/// The template cannot be rendered.
pub(in crate::control) fn page(status: &Status) -> Result<String, askama::Error> {
    let page = Page {
        live: Live::new(status),
        style: STYLE,
        script: SCRIPT,
    };
    page.render()
}

/// The part of the page that changes, as a server-sent event.
///
/// # Errors
/// The template cannot be rendered.
pub(in crate::control) fn event(status: &Status) -> Result<String, askama::Error> {
    let live = Live::new(status);
    let html = Event { live }.render()?;
    // Each of these characters ends a line of an event, so that a text with one must not begin another field.
    let lines = html.split(['\n', '\r']).map(|line| format!("data: {line}\n"));
    let lines: Vec<String> = lines.collect();
    Ok(format!("{}\n", lines.concat()))
}

/// A state by its colour; the text says the same.
struct State {
    class: &'static str,
    text: String,
}

const GOOD: &str = "good";
const WARN: &str = "warn";
const BAD: &str = "bad";
const PLAIN: &str = "plain";

struct Live<'s> {
    title: String,
    icon: String,
    build: &'static str,
    class: &'static str,
    mark: &'static str,
    problems: Vec<ProblemRow<'s>>,
    more_problems: usize,
    stage: &'static str,
    version: &'s str,
    now: String,
    clock: String,
    tiles: Vec<Tile>,
    links: Vec<Link>,
    traffic: [(&'static str, String); 3],
    refusals: Vec<RefusalRow<'s>>,
    more_refusals: usize,
    routes_note: String,
    routes: Vec<RouteRow<'s>>,
    /// Those that are folded.
    more_routes: Vec<RouteRow<'s>>,
    upstreams: Vec<UpstreamRow<'s>>,
    more_upstreams: usize,
    authenticators: Vec<AuthenticatorRow<'s>>,
    stores: Vec<Item>,
    key_sets: Vec<Item>,
    introspection: Vec<Item>,
    certificates: Vec<Item>,
    file: &'s str,
    applied: String,
    refused: Option<RefusedRow>,
    changes: Vec<&'s str>,
    more_changes: usize,
    facts: Vec<(&'static str, String)>,
}

struct ProblemRow<'s> {
    class: &'static str,
    severity: &'static str,
    section: &'static str,
    text: &'s str,
}

struct Tile {
    class: &'static str,
    label: &'static str,
    value: String,
    note: String,
    spark: Sparkline,
    spark_label: String,
}

struct Link {
    section: &'static str,
    text: &'static str,
    class: &'static str,
    /// How many problems the section has, in words.
    note: String,
}

struct RefusalRow<'s> {
    outcome: &'s str,
    rate: String,
    requests: String,
    spark: Sparkline,
    spark_label: String,
}

struct Chip {
    class: &'static str,
    text: String,
    count: String,
}

struct RouteRow<'s> {
    name: &'s str,
    outcomes: Vec<Chip>,
    rate: String,
    requests: String,
}

struct UpstreamRow<'s> {
    name: &'s str,
    figures: Vec<(&'static str, String)>,
    servers: Vec<ServerRow<'s>>,
    more_servers: usize,
}

struct ServerRow<'s> {
    state: State,
    name: &'s str,
    reason: String,
}

struct AuthenticatorRow<'s> {
    name: &'s str,
    kind: &'s str,
    hit_rate: String,
    accepted: String,
    refused: String,
    refusals: Vec<Chip>,
}

impl<'s> Live<'s> {
    fn new(status: &'s Status) -> Self {
        let now = shown(Timestamp::now());
        let problems = &status.health.problems;
        let (class, mark, title) = match problems.first().map(|problem| problem.severity) {
            None => (GOOD, "✓", "Well – authgate".to_owned()),
            Some(severity) => {
                let number = plural(problems.len() as u64, "problem", "problems");
                let (class, mark) = match severity {
                    Severity::Error => (BAD, "✕"),
                    Severity::Warning => (WARN, "!"),
                };
                (class, mark, format!("{number} – authgate"))
            }
        };
        let certificates = status.certificates.iter().map(certificate);
        Self {
            title,
            icon: icon(class),
            build: &BUILD,
            class,
            mark,
            problems: problems.iter().take(MAX_PROBLEMS).map(problem).collect(),
            more_problems: problems.len().saturating_sub(MAX_PROBLEMS),
            stage: match &*status.stage {
                stage if stage == stage_name(Stage::Serving) && status.ready => "Serving and ready.",
                stage if stage == stage_name(Stage::Serving) => "Serving, and not ready.",
                _ => "Shutting down.",
            },
            version: &status.version,
            clock: time(&now),
            now,
            tiles: tiles(&status.traffic),
            links: links(problems),
            traffic: [
                ("Requests since start", count(status.traffic.requests)),
                ("Open connections", count(status.traffic.connections)),
                ("Requests under way", count(status.traffic.in_flight)),
            ],
            refusals: status.traffic.refusals.iter().take(MAX_REFUSALS).map(refusal).collect(),
            more_refusals: status.traffic.refusals.len().saturating_sub(MAX_REFUSALS),
            routes_note: routes_note(status),
            routes: status.routes.busiest.iter().take(MAX_ROUTES).map(route).collect(),
            more_routes: status.routes.busiest.iter().skip(MAX_ROUTES).map(route).collect(),
            upstreams: status.upstreams.iter().take(MAX_UPSTREAMS).map(upstream).collect(),
            more_upstreams: status.upstreams.len().saturating_sub(MAX_UPSTREAMS),
            authenticators: status.authenticators.iter().map(authenticator).collect(),
            stores: status.stores.iter().map(store).collect(),
            key_sets: status.key_sets.iter().map(key_set).collect(),
            introspection: status.introspection.iter().map(introspection).collect(),
            certificates: certificates.chain(status.acme.iter().map(acme)).collect(),
            file: &status.configuration.file,
            applied: time(&status.configuration.applied),
            refused: status.configuration.refused.as_ref().map(refused),
            changes: status
                .configuration
                .changes
                .iter()
                .take(MAX_LINES)
                .map(|change| &**change)
                .collect(),
            more_changes: status.configuration.changes.len().saturating_sub(MAX_LINES),
            facts: facts(status),
        }
    }
}

/// A disc in the colour of the state, for the tab of the browser.
fn icon(class: &str) -> String {
    let colour = match class {
        GOOD => "2da44e",
        WARN => "d4a72c",
        _ => "cf222e",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

fn problem(problem: &Problem) -> ProblemRow<'_> {
    let (class, severity) = match problem.severity {
        Severity::Error => (BAD, "error"),
        Severity::Warning => (WARN, "warning"),
    };
    ProblemRow {
        class,
        severity,
        section: section(problem.subject),
        text: &problem.text,
    }
}

/// The section of the page that shows a member.
fn section(subject: Subject) -> &'static str {
    match subject {
        Subject::Stage | Subject::Process => "process",
        Subject::Acme => "certificates",
        Subject::Stores
        | Subject::Upstreams
        | Subject::KeySets
        | Subject::Introspection
        | Subject::Certificates
        | Subject::Traffic
        | Subject::Configuration => subject.member(),
    }
}

fn links(problems: &[Problem]) -> Vec<Link> {
    let sections = [
        ("traffic", "Traffic"),
        ("routes", "Routes"),
        ("upstreams", "Upstreams"),
        ("authenticators", "Authenticators"),
        ("stores", "Stores"),
        ("key_sets", "Keys"),
        ("certificates", "Certificates"),
        ("configuration", "Configuration"),
        ("process", "Process"),
    ];
    let link = |(name, text)| {
        let of_section = |problem: &&Problem| match section(problem.subject) {
            "introspection" => name == "key_sets",
            other => name == other,
        };
        let found: Vec<&Problem> = problems.iter().filter(of_section).collect();
        let class = match found.iter().map(|problem| problem.severity).min() {
            None => PLAIN,
            Some(Severity::Error) => BAD,
            Some(Severity::Warning) => WARN,
        };
        Link {
            section: name,
            text,
            class,
            note: match found.len() {
                0 => String::new(),
                number => plural(number as u64, "problem", "problems"),
            },
        }
    };
    sections.into_iter().map(link).collect()
}

fn tiles(traffic: &Traffic) -> Vec<Tile> {
    let history = &traffic.history;
    let rates = |label, rates: &[f64], now: f64, class| {
        let highest = rate(rates.iter().copied().fold(0.0, f64::max));
        let now = rate(now);
        Tile {
            class,
            label,
            note: format!("highest {highest}"),
            spark: Sparkline::new(rates.iter().copied().map(Some)),
            spark_label: format!("{label} in the last 15 minutes: now {now}, highest {highest}"),
            value: now,
        }
    };
    let times = |label, times: &[Option<f64>], now: Option<f64>| {
        let highest = times
            .iter()
            .flatten()
            .copied()
            .fold(None, |highest: Option<f64>, time| {
                Some(highest.map_or(time, |highest| highest.max(time)))
            });
        let (highest, now) = (milliseconds(highest), milliseconds(now));
        Tile {
            class: PLAIN,
            label,
            note: format!("highest {highest}"),
            spark: Sparkline::new(times.iter().copied()),
            spark_label: format!("{label} in the last 15 minutes: now {now}, highest {highest}"),
            value: now,
        }
    };
    let failing = if traffic.failed_per_second > 0.0 { BAD } else { PLAIN };
    vec![
        rates(
            "Requests per second",
            &history.requests_per_second,
            traffic.requests_per_second,
            PLAIN,
        ),
        times("Median time (p50)", &history.p50_seconds, traffic.p50_seconds),
        times("99 % within (p99)", &history.p99_seconds, traffic.p99_seconds),
        rates(
            "Refused per second",
            &history.refused_per_second,
            traffic.refused_per_second,
            PLAIN,
        ),
        rates(
            "Failed (5xx) per second",
            &history.failed_per_second,
            traffic.failed_per_second,
            failing,
        ),
    ]
}

fn refusal(refusal: &super::document::Refusal) -> RefusalRow<'_> {
    RefusalRow {
        outcome: &refusal.outcome,
        rate: rate(refusal.requests_per_second),
        requests: count(refusal.requests),
        spark: Sparkline::new(refusal.history.iter().copied().map(Some)),
        spark_label: format!("{} in the last 15 minutes", refusal.outcome),
    }
}

/// The most frequent ones of a map.
fn chips(counts: &BTreeMap<String, u64>, class: impl Fn(&str) -> &'static str) -> Vec<Chip> {
    let mut sorted: Vec<(&String, &u64)> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let more = sorted.len().saturating_sub(MAX_CHIPS);
    let chip = |(text, number): (&String, &u64)| Chip {
        class: class(text),
        text: text.clone(),
        count: count(*number),
    };
    let others: u64 = sorted.iter().skip(MAX_CHIPS).map(|(_, count)| **count).sum();
    let mut chips: Vec<Chip> = sorted.into_iter().take(MAX_CHIPS).map(chip).collect();
    if more > 0 {
        chips.push(Chip {
            class: PLAIN,
            text: plural(more as u64, "other", "others"),
            count: count(others),
        });
    }
    chips
}

fn routes_note(status: &Status) -> String {
    let routes = &status.routes;
    let configured = plural(routes.configured as u64, "route", "routes");
    if routes.busiest.len() < routes.configured.max(routes.used) {
        format!(
            "The {} busiest of {configured}. {} had a request since the start. The names of the others are in the file, and their numbers in the metrics.",
            routes.busiest.len(),
            count(routes.used as u64)
        )
    } else {
        format!("All of {configured}.")
    }
}

fn route(route: &Route) -> RouteRow<'_> {
    let mut outcomes = chips(&route.outcomes, |_| PLAIN);
    let failed = route.statuses.get("5xx").copied().unwrap_or_default();
    if failed > 0 {
        outcomes.push(Chip {
            class: BAD,
            text: "status 5xx".to_owned(),
            count: count(failed),
        });
    }
    RouteRow {
        name: match &*route.route {
            "none" => "no route matched",
            name => name,
        },
        outcomes,
        rate: rate(route.requests_per_second),
        requests: count(route.requests),
    }
}

fn upstream(upstream: &Upstream) -> UpstreamRow<'_> {
    let mut figures = vec![
        ("Responses/s", rate(upstream.responses_per_second)),
        ("Mean time", milliseconds(upstream.mean_seconds)),
        ("99 % within", milliseconds(upstream.p99_seconds)),
    ];
    if let (Some(in_flight), Some(max)) = (upstream.in_flight, upstream.max_in_flight) {
        let in_flight = count(in_flight as u64);
        figures.push(("Under way", format!("{in_flight} of {}", count(max as u64))));
    }
    UpstreamRow {
        name: &upstream.name,
        figures,
        servers: upstream.servers.iter().take(MAX_SERVERS).map(server).collect(),
        more_servers: upstream.servers.len().saturating_sub(MAX_SERVERS),
    }
}

fn server(server: &Server) -> ServerRow<'_> {
    let (class, text) = match server.state {
        ServerState::Up => (GOOD, "up"),
        ServerState::Failing => (BAD, "failing"),
        ServerState::Down => (BAD, "down"),
    };
    let mut reason = String::new();
    if let (Some(why), Some(since)) = (&server.reason, &server.since) {
        reason = match server.state {
            ServerState::Down => format!("Its health checks fail since {}: {why}.", time(since)),
            ServerState::Up | ServerState::Failing => {
                format!(
                    "Requests fail since {}: {why}. It is tried again after a pause.",
                    time(since)
                )
            }
        };
        if server.failing_workers < server.workers {
            reason.push_str(&format!(
                " So far {} of {} workers have noticed it.",
                server.failing_workers, server.workers
            ));
        }
    }
    ServerRow {
        state: State {
            class,
            text: text.to_owned(),
        },
        name: &server.server,
        reason,
    }
}

fn authenticator(authenticator: &Authenticator) -> AuthenticatorRow<'_> {
    let mut refusals = authenticator.outcomes.clone();
    refusals.remove("accepted");
    let mut refusals = chips(&refusals, |_| PLAIN);
    if authenticator.stale > 0 {
        refusals.push(Chip {
            class: WARN,
            text: "decided from the cache in an outage".to_owned(),
            count: count(authenticator.stale),
        });
    }
    AuthenticatorRow {
        name: &authenticator.name,
        kind: &authenticator.kind,
        hit_rate: percent(authenticator.hit_rate),
        accepted: rate(authenticator.accepted_per_second),
        refused: rate(authenticator.refused_per_second),
        refusals,
    }
}

fn facts(status: &Status) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Version", status.version.clone()),
        ("Compiler", status.rustc.clone()),
        ("Started", time(&status.started)),
        ("Up for", duration(status.uptime_seconds)),
        ("Workers", count(status.workers as u64)),
    ];
    if let Some(usage) = &status.process {
        facts.push(("Memory", bytes(usage.resident_bytes)));
        facts.push(("CPU time", duration(usage.cpu_seconds as u64)));
        let max = usage.max_open_files.map(|max| format!(" of {}", count(max)));
        facts.push((
            "Open files",
            format!("{}{}", count(usage.open_files), max.unwrap_or_default()),
        ));
    }
    for listener in &status.listeners {
        let name = match &*listener.key {
            "server.listen" => "Clients",
            "server.redirect_http" => "Redirects",
            "admin.listen" => "Operators",
            _ => "Probes",
        };
        let tls = if listener.tls { ", TLS" } else { "" };
        facts.push((name, format!("{}{tls}", listener.address)));
    }
    facts
}

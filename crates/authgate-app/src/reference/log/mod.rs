//! `log.md`: every event of the log at `info` and above, with its fields. `events.rs` has the events, and a test compares them with the sources.

mod events;

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use authgate_dataplane::proxy::access_event::AccessEvent;
use authgate_dataplane::telemetry::{LogFormat, example_line, labels};
use authgate_http::node::Node;
use http::StatusCode;

pub use self::events::{EVENTS, Event, Group};

use super::{GENERATED, cell};

/// A field of events. A name has one meaning in all of them.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type in JSON.
    pub kind: &'static str,
    /// When the event of a request has it; empty if that event never has it.
    pub in_request: &'static str,
    /// What it holds, as Markdown.
    pub meaning: &'static str,
}

const fn field(name: &'static str, kind: &'static str, meaning: &'static str) -> Field {
    let in_request = "";
    Field {
        name,
        kind,
        in_request,
        meaning,
    }
}

const fn of_request(name: &'static str, kind: &'static str, in_request: &'static str, meaning: &'static str) -> Field {
    Field {
        name,
        kind,
        in_request,
        meaning,
    }
}

/// Every field, those of requests first.
pub static FIELDS: &[Field] = &[
    of_request("http.method", "text", "its head could be read", "The method."),
    of_request(
        "http.target",
        "text",
        "its head could be read",
        "The path; with the query only if `log.query` is set.",
    ),
    of_request(
        "http.status",
        "number",
        "there was a response",
        "The status of the response.",
    ),
    of_request(
        "outcome",
        "text",
        "always",
        "How it ended: see [Outcomes](outcomes.md).",
    ),
    of_request(
        "reason",
        "text",
        "there are details beyond the outcome",
        "Why it happened: the failed check, or the error of what was asked. In the event of a request, clients do not receive it.",
    ),
    of_request(
        "route",
        "text",
        "always",
        "The path pattern of the route; `none` if no route matched.",
    ),
    of_request("user.id", "text", "a credential was accepted", "The id of the user."),
    of_request(
        "authenticator",
        "text",
        "a credential was accepted",
        "The name of an authenticator.",
    ),
    of_request(
        "client.ip",
        "text",
        "always",
        "The address of the client: with `trusted_proxies`, the one that they name. `unix:` for socket files.",
    ),
    of_request(
        "duration_ms",
        "number",
        "always",
        "Milliseconds from the head of the request to the end of the response.",
    ),
    of_request(
        "upstream_ms",
        "number",
        "the upstream has answered",
        "Milliseconds from sending the request to the head of the upstream's response.",
    ),
    of_request(
        "bytes",
        "number",
        "always",
        "Bytes of the response body that were sent.",
    ),
    of_request("complete", "boolean", "always", "Whether the whole response was sent."),
    of_request(
        "request.id",
        "text",
        "always",
        "The id of the request. The upstream receives it in `X-Request-Id`. So does the client, if the gateway answers itself.",
    ),
    field("acme.domain", "text", "A domain of `server.tls.acme`."),
    field("admin", "text", "The addresses of the admin listener."),
    field(
        "affordable",
        "number",
        "The connections that the limit of open files allows.",
    ),
    field(
        "authenticators",
        "text",
        "Names of authenticators, separated by commas.",
    ),
    field(
        "challenge",
        "text",
        "The challenge by which the authority has validated the domain.",
    ),
    field(
        "challenge.ours",
        "text",
        "The challenge that the gateway would have sent.",
    ),
    field(
        "challenge.theirs",
        "text",
        "The challenge that the application has sent.",
    ),
    field("changes", "text", "What has changed, separated by semicolons."),
    field("delay", "text", "`server.drain.delay`."),
    field("detail", "text", "More about `reason`."),
    field("directory", "text", "The URL of the directory of the authority."),
    field("endpoint", "text", "The addresses of a store."),
    field(
        "errors",
        "number",
        "How many errors the configuration has. An event for each comes before.",
    ),
    field("expires", "text", "When a certificate expires."),
    field("failed", "number", "Attempts in a row that have failed."),
    field("field", "text", "A header field."),
    field("file", "text", "A file."),
    field("help", "text", "What to write instead."),
    field("host", "text", "The `Host` of the check."),
    field("key", "text", "A key of the configuration."),
    field("keys", "text", "The URL or the issuer of a key set."),
    field("kids", "text", "The ids of the keys, with their algorithms."),
    field(
        "kind",
        "text",
        "What a revocation names: see [Outcomes](outcomes.md#kinds-of-revocations).",
    ),
    field("limit", "number or text", "The limit that is exceeded."),
    field("line", "number", "The line of the file."),
    field("listen", "text", "Addresses of a listener."),
    field("max_stale", "text", "`max_stale` of the key set."),
    field("name", "text", "The host name of a server."),
    field("open_files", "number", "The limit of open files."),
    field(
        "ours",
        "text",
        "What the gateway would have done: `accepted`, or a status.",
    ),
    field("path", "text", "The path of a check, or of a socket file."),
    field("peer", "text", "The address of a trusted proxy."),
    field("policy", "text", "`maxmemory-policy` of Redis."),
    field("primaries", "text", "The addresses of the primaries of a store."),
    field("proxy.ip", "text", "The address of a trusted proxy."),
    field("retry", "text", "When the next attempt is made."),
    field("seconds", "number", "How long it lasted."),
    field("server", "text", "The URL of a server of an upstream."),
    field(
        "sockets",
        "text",
        "The addresses of sockets that the service manager has passed.",
    ),
    field("stale_for", "text", "`stale_for` of the authenticator."),
    field("store", "text", "The name of a store."),
    field("tables", "text", "Tables of a database."),
    field(
        "theirs",
        "number",
        "The status with which the application has answered.",
    ),
    field("timeout", "text", "The time limit that the event is about."),
    field(
        "times",
        "number",
        "How often it has happened since the last event of this kind. It is logged at most every 10 seconds.",
    ),
    field("tls", "boolean", "Whether clients are served with TLS."),
    field("tokens", "number", "How many tokens a store has."),
    field(
        "trigger",
        "text",
        "What has caused a reload: see [Outcomes](outcomes.md#causes-of-reloads).",
    ),
    field("upstream", "text", "The name of an upstream."),
    field("users", "number", "How many users a store has."),
    field("wanted", "number", "`server.limits.connections`."),
    field(
        "workers",
        "number or text",
        "The number of workers, or the workers that hang.",
    ),
];

const INTRODUCTION: &str = "\
# Events of the log

The log goes to standard error, in one line for each event, as text or as JSON (`log.format`). Values from clients are escaped, so that a client cannot
forge a line. The text of an event and the names of its fields are the same in both formats. In JSON, the text is the member `message`, beside
`timestamp` (RFC 3339, UTC) and `level`. A field without a value is left out. No event has a credential, a body, or the query of a target (but for
`log.query`).

Later versions may add events and fields. The names of fields stay; the text of an event may change. So select events of requests by their field
`outcome`, and alert on [metrics](metrics.md), not on texts.

`log.level` chooses the events: `error` (requests fail, and the operator must act), `warn` (they may fail soon), `info` (the life of the gateway, and
requests). `debug` and `trace` have more about connections, for the search for a fault; they are not listed here, and change without notice.
";

/// The text of the page.
pub(super) fn page() -> String {
    let mut page = format!("{GENERATED}{INTRODUCTION}");
    page += "\n## Requests\n\nEach request is one event at `info`, when its response has ended. `log.access = false` switches these events off.\n\n";
    for format in [LogFormat::Text, LogFormat::Json] {
        let language = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let line = example_line(format, log_example_request);
        let _ = write!(page, "```{language}\n{}\n```\n\n", line.trim_end());
    }
    page += "| field | type | present if | meaning |\n| --- | --- | --- | --- |\n";
    for field in FIELDS.iter().filter(|field| !field.in_request.is_empty()) {
        let Field {
            name,
            kind,
            in_request,
            meaning,
        } = field;
        let _ = writeln!(page, "| `{name}` | {kind} | {in_request} | {} |", cell(meaning));
    }
    page += "\n## Other events\n";
    for group in Group::ALL {
        let _ = write!(
            page,
            "\n### {}\n\n| level | event | fields |\n| --- | --- | --- |\n",
            group.title()
        );
        for event in EVENTS.iter().filter(|event| event.group == group) {
            let fields: Vec<String> = event.fields.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(
                page,
                "| {} | {} | {} |",
                event.level,
                cell(&written(event.message)),
                fields.join(", ")
            );
        }
    }
    page += "\n## Fields of other events\n\n| field | type | meaning |\n| --- | --- | --- |\n";
    for Field {
        name,
        kind,
        in_request,
        meaning,
    } in FIELDS
    {
        if in_request.is_empty() {
            let _ = writeln!(page, "| `{name}` | {kind} | {} |", cell(meaning));
        }
    }
    page
}

/// A text with an ellipsis in place of each value.
fn written(message: &str) -> String {
    let mut text = String::new();
    for (index, part) in message.split('{').enumerate() {
        match part.split_once('}') {
            Some((_, after)) if index > 0 => {
                text.push('…');
                text.push_str(after);
            }
            _ => text.push_str(part),
        }
    }
    text
}

/// Logs a request, as the example of the page.
fn log_example_request() {
    let event = AccessEvent {
        method: Some("GET"),
        target: Some("/api/orders/17"),
        status: Some(StatusCode::OK),
        outcome: labels::FORWARDED.text,
        reason: None,
        route: "/api/*",
        user: Some("42"),
        authenticator: Some("token"),
        client: Node::from(IpAddr::from([203, 0, 113, 7])),
        took: Duration::from_micros(12_345),
        upstream: Some(Duration::from_micros(11_987)),
        sent: 512,
        complete: true,
        id: "0198b1c4a3f27e5d9c6b8a7f4e3d2c1b",
    };
    event.log();
}

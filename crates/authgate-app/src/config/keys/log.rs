//! `[log]`.

use authgate_dataplane::telemetry::{LogFormat, LogSettings};
use tracing::Level;

use super::NEW;
use crate::config::reader::types::{Flag, Location, SecretBytes, Words};
use crate::config::reader::{DefaultKey, Key, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "The log. It goes to standard error, and has no credentials.",
    &[&LEVEL, &FORMAT, &ACCESS, &QUERY, &RECORD],
);

pub(crate) static LEVEL: DefaultKey<Words<Level>> = Key::new(
    "level",
    Words(&[
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ]),
)
.or(Level::INFO)
.text("The lowest level that is logged. The event of each request is `info`.");

pub(crate) static FORMAT: DefaultKey<Words<LogFormat>> =
    Key::new("format", Words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
        .or(LogFormat::Text)
        .example(r#"format = "json""#)
        .text("`text`: one line for people. `json`: one JSON object a line.");

pub(crate) static ACCESS: DefaultKey<Flag> = Key::new("access", Flag)
    .or(true)
    .example("access = false")
    .text("Logs one event for each request, with its outcome.");

pub(crate) static QUERY: DefaultKey<Flag> = Key::new("query", Flag)
    .or(false)
    .example("query = true")
    .text("Logs the query of the request's target too. Queries may have secrets.");

pub(crate) static RECORD: Key<Sub> = Key::new("record", Sub(&record::TABLE))
    .since(NEW)
    .example(r#"record = { file = "requests.jsonl", seal = { file = "record.key" } }"#)
    .absent("requests are not recorded")
    .text("Writes requests to a file, for `authgate parity`, which compares the answers of the application with those through the gateway.");

pub(crate) mod record {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "Recorded requests: lines of JSON with method, target, fields and bodies of at most 64 KiB. Credentials are encrypted.",
        &[&FILE, &SEAL],
    );

    pub(crate) static FILE: Key<Location> = Key::new("file", Location)
        .required()
        .since(NEW)
        .example(r#"file = "requests.jsonl""#)
        .text("The file. Requests are added at its end.")
        .errors(&["The folder of the file does not exist."]);

    pub(crate) static SEAL: Key<SecretBytes> = Key::new("seal", SecretBytes)
        .required()
        .since(NEW)
        .example(r#"seal = { file = "record.key" }"#)
        .text("The key that encrypts credentials: 32 random bytes, as `head -c 32 /dev/urandom > record.key` writes.")
        .errors(&["The key has another length."]);
}

/// The settings without the table.
pub(crate) fn defaults() -> LogSettings {
    LogSettings {
        level: LEVEL.default(),
        format: FORMAT.default(),
        access: ACCESS.default(),
        query: QUERY.default(),
    }
}

//! What this process says of itself: the log, and [`metrics`].

pub mod auth;
pub mod exposition;
pub mod log_throttle;
pub mod metrics;
mod process;
pub mod worker_metrics;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::printable::LogWriter;

/// What the configuration says of `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The least level that is written.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
    /// One event a request.
    pub access: bool,
    /// With the query of its target.
    pub query: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            level: Level::INFO,
            format: Format::Text,
            access: true,
            query: false,
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Keeps the log's writer alive; lines that wait are written when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Log(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// Starts the log, on standard error. Lines are written by a thread of their own: a slow terminal or pipe never holds a request
/// up, and if it falls far behind, lines are lost rather than memory.
pub fn start(settings: Settings) -> Log {
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Lines are escaped by the thread that writes them.
    let (writer, guard): (NonBlocking, _) = tracing_appender::non_blocking(LogWriter {
        out: std::io::stderr(),
        colours,
    });
    let builder = tracing_subscriber::fmt()
        .with_max_level(settings.level)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(writer);
    // Only the first subscriber of a process counts; a second one is a test that shares its process.
    let _ = match settings.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Log(guard)
}

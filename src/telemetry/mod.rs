//! Telemetry: the log, and [`metrics`].

pub mod exposition;
pub mod histogram;
pub mod labels;
mod log_control;
pub mod metrics;
pub mod process;
pub mod route_metrics;
pub mod series;

use authgate_core::printable::LogWriter;
use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::log_control::LogControl;

/// The configuration of `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// The minimum level.
    pub level: Level,
    /// The format of a line.
    pub format: LogFormat,
    /// Whether each request is logged.
    pub access: bool,
    /// Whether request logs include the query.
    pub query: bool,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Keeps the log writer alive; queued lines are written when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    #[expect(dead_code, reason = "held for its drop")]
    writer: WorkerGuard,
    /// Changes the level and the format.
    pub control: LogControl,
}

/// Starts the log, on standard error. A separate thread writes the lines, so a slow terminal or pipe never delays a request. The queue is
/// bounded: if the writer falls far behind, lines are dropped.
pub fn start(settings: LogSettings) -> LogGuard {
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // The writer thread escapes the lines.
    let (writer, guard): (NonBlocking, _) = tracing_appender::non_blocking(LogWriter {
        out: std::io::stderr(),
        colours,
    });
    let control = LogControl::new(settings);
    let lines = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::NONE)
        .with_ansi(colours)
        .with_writer(writer)
        .event_format(control.format());
    // Only the first subscriber of a process takes effect; a second one occurs only in tests that share a process.
    let _ = tracing_subscriber::registry()
        .with(control.level())
        .with(lines)
        .try_init();
    LogGuard { writer: guard, control }
}

//! Telemetry: the log, and [`metrics`].

pub mod build;
pub mod exposition;
pub mod histogram;
pub mod labels;
mod log_control;
pub mod metrics;
pub mod process;
pub mod route_metrics;
pub mod series;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

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
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    // The writer thread escapes the lines.
    let (writer, guard): (NonBlocking, _) = tracing_appender::non_blocking(LogWriter {
        out: io::stderr(),
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

/// The line that the log has for an event, with a fixed time: an example for the reference.
pub fn example_line(format: LogFormat, log: impl FnOnce()) -> String {
    let line = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&line);
    let control = LogControl::new(LogSettings {
        level: Level::INFO,
        format,
        access: true,
        query: false,
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || LogWriter {
            out: Buffer(Arc::clone(&writer)),
            colours: false,
        })
        .event_format(control.format());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
    let line = line.lock().unwrap_or_else(PoisonError::into_inner);
    let line = String::from_utf8_lossy(&line);
    // The time is the first word of a text, and the first value of JSON.
    let (separator, at) = match format {
        LogFormat::Text => (' ', 0),
        LogFormat::Json => ('"', 3),
    };
    let time = line.split(separator).nth(at).unwrap_or_default();
    line.replacen(time, EXAMPLE_TIME, 1)
}

/// The time in examples.
const EXAMPLE_TIME: &str = "2026-11-28T11:26:54.123456Z";

/// Keeps what is written.
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

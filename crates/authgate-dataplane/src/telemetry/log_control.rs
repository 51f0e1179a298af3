//! [`LogControl`]: the level and the format of the log, which change while the gateway runs. Reading them takes no lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{LogFormat, LogSettings};

/// The levels, the most important first.
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// Changes the level and the format of the log; clones do the same.
#[derive(Debug, Clone)]
pub struct LogControl(Arc<State>);

#[derive(Debug)]
struct State {
    /// An index of [`LEVELS`].
    level: AtomicU8,
    is_json: AtomicBool,
}

impl LogControl {
    pub(super) fn new(settings: LogSettings) -> Self {
        let control = Self(Arc::new(State {
            level: AtomicU8::new(0),
            is_json: AtomicBool::new(false),
        }));
        control.store(settings);
        control
    }

    /// Writes the next lines with these settings.
    pub fn apply(&self, settings: LogSettings) {
        self.store(settings);
        // Each place that logs remembers whether its level is on.
        tracing_core::callsite::rebuild_interest_cache();
    }

    fn store(&self, settings: LogSettings) {
        let level = LEVELS.iter().position(|level| *level == settings.level);
        let level = level.and_then(|level| u8::try_from(level).ok()).unwrap_or(0);
        self.0.level.store(level, Ordering::Relaxed);
        self.0
            .is_json
            .store(settings.format == LogFormat::Json, Ordering::Relaxed);
    }

    /// The filter by level.
    pub(super) fn level(&self) -> CurrentLevel {
        CurrentLevel(self.clone())
    }

    /// The format of lines.
    pub(super) fn format(&self) -> CurrentFormat {
        CurrentFormat {
            control: self.clone(),
            text: Format::default().with_target(false),
            // The fields of spans are text, so they are not shown. Only dependencies have spans, below the level `info`.
            json: Format::default()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_target(false),
        }
    }

    fn current_level(&self) -> Level {
        LEVELS[usize::from(self.0.level.load(Ordering::Relaxed)).min(LEVELS.len() - 1)]
    }
}

/// Lets events of the current level pass.
pub(super) struct CurrentLevel(LogControl);

impl<S: Subscriber> Layer<S> for CurrentLevel {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() <= self.0.current_level() {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.0.current_level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.current_level().into())
    }
}

/// Writes a line in the current format.
pub(super) struct CurrentFormat {
    control: LogControl,
    text: Format<Full>,
    json: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for CurrentFormat
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.control.0.is_json.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

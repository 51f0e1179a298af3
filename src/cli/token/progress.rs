//! The progress of an import. Shown only if standard error is a terminal.

use std::io::Read;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar, or a hidden one.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            bar: ProgressBar::hidden(),
        }
    }
}

impl Progress {
    /// Shows the progress of reading; `bytes` is the total if known.
    pub(super) fn start_reading(&mut self, bytes: Option<u64>) {
        self.show(
            bytes,
            "reading {bar:30} {bytes}/{total_bytes}",
            "reading {spinner} {bytes}",
        );
    }

    /// Shows the progress of writing `count` records.
    pub(super) fn start_writing(&mut self, what: &str, count: usize) {
        let template = format!("{what:<7} {{bar:30}} {{pos}}/{{len}}  {{eta}}");
        self.show(u64::try_from(count).ok(), &template, &template);
    }

    fn show(&mut self, length: Option<u64>, with_length: &str, without: &str) {
        self.finish();
        let (bar, template) = match length {
            Some(length) => (ProgressBar::new(length), with_length),
            None => (ProgressBar::no_length(), without),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        self.bar = bar;
    }

    pub(super) fn advance(&self, by: usize) {
        self.bar.inc(u64::try_from(by).unwrap_or_default());
    }

    /// Counts the bytes that are read.
    pub(super) fn wrap<R: Read>(&self, read: R) -> impl Read + use<R> {
        self.bar.wrap_read(read)
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

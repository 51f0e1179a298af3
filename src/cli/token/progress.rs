//! How far an import is, on a terminal: nothing is shown where standard error is none.

use std::io::Read;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or none.
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
    /// Bytes are read, of so many where that is known.
    pub(super) fn reads(&mut self, bytes: Option<u64>) {
        self.show(
            bytes,
            "reading {bar:30} {bytes}/{total_bytes}",
            "reading {spinner} {bytes}",
        );
    }

    /// Records are written.
    pub(super) fn writes(&mut self, what: &str, count: usize) {
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

    /// What is read is counted.
    pub(super) fn wrap<R: Read>(&self, read: R) -> impl Read + use<R> {
        self.bar.wrap_read(read)
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! The progress of a command that reads or writes many records. Shown only if standard error is a terminal.

use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::provisioning::Step;

/// A progress bar, or a hidden one.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    is_visible: bool,
    /// The bar counts names, whose total is not known.
    is_counting: bool,
}

impl Progress {
    /// Of a command that prints its result at the end; not shown with `--json`.
    pub(super) fn new(json: bool) -> Self {
        Self {
            bar: ProgressBar::hidden(),
            is_visible: !json,
            is_counting: false,
        }
    }

    /// Of a command that prints records meanwhile: not shown if standard output is a terminal, because both would mix.
    pub(super) fn beside_output(json: bool) -> Self {
        Self::new(json || io::stdout().is_terminal())
    }

    /// Shows the progress of reading a file; `bytes` is the total if known.
    pub(super) fn start_reading(&mut self, bytes: Option<u64>) {
        self.show(
            bytes,
            "reading {bar:30} {bytes}/{total_bytes}",
            "reading {spinner} {bytes}",
        );
    }

    /// Shows a count, because the total is not known.
    pub(super) fn start_counting(&mut self, what: &str) {
        self.show(None, "", &format!("{what} {{spinner}} {{pos}}"));
        self.is_counting = true;
    }

    /// Shows the progress of reading or writing `count` records.
    pub(super) fn start_records(&mut self, what: &str, count: usize) {
        let template = format!("{what} {{bar:30}} {{pos}}/{{len}}  {{per_sec:0}}  {{eta}}");
        self.show(u64::try_from(count).ok(), &template, &template);
    }

    /// Shows an event of reading a store, and returns the record.
    pub(super) fn step<R>(&mut self, what: &str, step: Step<R>) -> Option<R> {
        match step {
            Step::Found(count) => {
                if !self.is_counting {
                    self.start_counting(&format!("finding {what}"));
                }
                self.advance(count);
                None
            }
            Step::Count(count) => {
                self.start_records(what, count);
                None
            }
            Step::Record(record) => {
                self.advance(1);
                Some(record)
            }
        }
    }

    fn show(&mut self, length: Option<u64>, with_length: &str, without: &str) {
        self.finish();
        self.is_counting = false;
        if !self.is_visible {
            return;
        }
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

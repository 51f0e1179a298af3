//! Problems of a configuration: where, what, and what to write instead, shown as rustc and cargo show theirs.
//!
//! Problems are collected: reading continues after the first one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use authgate_core::printable;
use serde_json::{Value, json};
use toml::de::DeTable;

use super::mask::{Shown, Syntax, mask};
use super::named_file::NamedFile;
use super::source::Source;

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it is an error or a warning.
    pub severity: Severity,
    /// The bytes of the file that it is about; `None` is the whole file.
    pub span: Option<Range<usize>>,
    /// The key path, such as `server.limits.header_timeout` or `routes[2].path`; empty if the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// Related positions, each with a label.
    pub related: Vec<(Range<usize>, String)>,
    /// What it is based on.
    pub basis: Basis,
}

/// Whether the file can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used.
    Warning,
}

/// What a problem is based on. After a syntax error, a key that seems to be missing may only be unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Text in the file.
    Written,
    /// A missing key or table.
    Absent,
    /// The state of this machine. It is reported only for a file without errors.
    Machine,
    /// The same, about a start by this user. A gateway that starts does not report it: it succeeds, or fails with an error of its own.
    Start,
}

impl Problem {
    /// Escapes control characters, because messages repeat texts of files and the environment.
    fn escape(&mut self) {
        let related = self.related.iter_mut().map(|(_, why)| why);
        for text in [&mut self.key, &mut self.message, &mut self.help]
            .into_iter()
            .chain(related)
        {
            if let Cow::Owned(escaped) = printable::escape(text, |_| false) {
                *text = escaped;
            }
        }
    }

    /// An error about the text in `span`.
    pub(super) fn error(span: Range<usize>, key: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span: Some(span),
            key: key.to_owned(),
            message: message.into(),
            help: help.into(),
            related: Vec::new(),
            basis: Basis::Written,
        }
    }

    /// The same, as a warning.
    pub(super) fn into_warning(self) -> Self {
        Self {
            severity: Severity::Warning,
            ..self
        }
    }

    /// The same, as something that is missing.
    pub(super) fn into_missing(self) -> Self {
        Self {
            basis: Basis::Absent,
            ..self
        }
    }

    /// The same, as something of this machine.
    pub(super) fn into_machine(self) -> Self {
        Self {
            basis: Basis::Machine,
            ..self
        }
    }

    /// The same, as something that a start by this user would meet.
    pub(super) fn into_start(self) -> Self {
        Self {
            basis: Basis::Start,
            ..self
        }
    }

    /// The same, pointing at another place too.
    pub(super) fn with_related(mut self, span: Range<usize>, why: &str) -> Self {
        self.related.push((span, why.to_owned()));
        self
    }
}

/// Collects problems, and which parts of the file their excerpts may show.
#[derive(Debug, Default)]
pub(super) struct Problems {
    collected: RefCell<Vec<Problem>>,
    shown: RefCell<Shown>,
}

impl Problems {
    pub(super) fn add(&self, problem: Problem) {
        self.collected.borrow_mut().push(problem);
    }

    /// The value at this position is not a secret.
    pub(super) fn show(&self, span: Range<usize>) {
        self.shown.borrow_mut().add(span);
    }

    /// The name is a known key, so it is not a secret.
    pub(super) fn add_known_key(&self, key: &'static str) {
        self.shown.borrow_mut().keys.insert(key);
    }

    /// Whether a message may repeat the text at this position.
    pub(super) fn may_show(&self, span: &Range<usize>) -> bool {
        self.shown.borrow().covers(span)
    }

    /// Whether there is an error.
    pub(super) fn has_errors(&self) -> bool {
        self.collected
            .borrow()
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Keeps only the problems that `keep` accepts.
    pub(super) fn retain(&self, keep: impl FnMut(&Problem) -> bool) {
        self.collected.borrow_mut().retain(keep);
    }

    /// The report on a file of that name and text, in the order of its lines, and the text without possible secrets.
    pub(super) fn into_report(self, file: &str, text: &str, table: &DeTable<'_>, syntax: Syntax) -> (Report, String) {
        let masked = mask(text, table, &self.shown.into_inner(), syntax);
        (Report::new(file, &masked, self.collected.into_inner()), masked)
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let ends = memchr::memchr_iter(b'\n', text.as_bytes());
    std::iter::once(0).chain(ends.map(|end| end + 1)).collect()
}

/// The problems of one file, and the masked text for their excerpts.
#[derive(Debug, Clone, Default)]
pub struct Report {
    file: String,
    /// The file's text, masked; as long as the file.
    text: String,
    /// Where its lines start.
    lines: Vec<usize>,
    problems: Vec<Problem>,
}

/// Positions that are further apart get separate excerpts. So the size of an excerpt does not grow with the file.
const MAX_EXCERPT_SPAN: usize = 16 * 1024;

fn one_line(text: &str) -> String {
    printable::escape(text, |_| false).into_owned()
}

/// The output style of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// Without colours.
    Plain,
    /// With colours.
    Coloured,
}

impl ReportFormat {
    /// Colours if standard error is a terminal and NO_COLOR is not set (<https://no-color.org>).
    pub fn for_stderr() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stderr().is_terminal() && !no_color {
            Self::Coloured
        } else {
            Self::Plain
        }
    }
}

impl Report {
    /// A report on a file of that name, in the order of its lines. `masked`: the text of the file without possible secrets.
    fn new(file: &str, masked: &str, mut problems: Vec<Problem>) -> Self {
        let file = one_line(file);
        if problems.is_empty() {
            return Self {
                file,
                ..Self::default()
            };
        }
        problems.iter_mut().for_each(Problem::escape);
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        problems.dedup();
        Self {
            file,
            lines: line_starts(masked),
            text: masked.to_owned(),
            problems,
        }
    }

    /// This report, and what was found elsewhere about a valid configuration.
    #[must_use]
    pub fn with(&self, source: &Source, findings: impl IntoIterator<Item = (Severity, Refusal)>) -> Self {
        let findings = findings.into_iter().map(|(severity, refusal)| Problem {
            severity,
            span: source.find_nearest(&refusal.key),
            ..Problem::error(0..0, &refusal.key, refusal.message, refusal.help)
        });
        let problems = self.problems.iter().cloned().chain(findings).collect();
        Self::new(&source.file, source.masked(), problems)
    }

    /// Whether it has an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// A report on a file that cannot be read as text.
    pub(super) fn unreadable(file: &str, message: String, help: &str) -> Self {
        let mut problem = Problem {
            span: None,
            ..Problem::error(0..0, "", message, help)
        };
        problem.escape();
        Self {
            file: one_line(file),
            text: String::new(),
            lines: line_starts(""),
            problems: vec![problem],
        }
    }

    /// What was found, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The same, for a gateway that starts or runs.
    #[must_use]
    pub fn without_start(mut self) -> Self {
        self.problems.retain(|problem| problem.basis != Basis::Start);
        self
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line that a problem starts on, counted from 1.
    pub fn line_of(&self, problem: &Problem) -> Option<usize> {
        let start = problem.span.as_ref()?.start;
        (start <= self.text.len()).then(|| self.line_at(start))
    }

    fn line_at(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// The whole lines of a position. The last line of a file may be empty, so it is shown with the one before.
    fn lines_around(&self, span: &Range<usize>) -> Range<usize> {
        let first = self.line_at(span.start) - 1;
        let first = if self.lines[first] == self.text.len() {
            first.saturating_sub(1)
        } else {
            first
        };
        let end = self.lines.get(self.line_at(span.end)).copied();
        self.lines[first]..end.unwrap_or(self.text.len())
    }

    fn snippet<'r>(
        &'r self,
        lines: &Range<usize>,
        places: impl IntoIterator<Item = (AnnotationKind, Range<usize>, Option<&'r str>)>,
    ) -> Snippet<'r, annotate_snippets::Annotation<'r>> {
        let annotations = places.into_iter().map(|(kind, span, label)| {
            let annotation = kind.span(span.start - lines.start..span.end - lines.start);
            match label {
                Some(label) => annotation.label(label),
                None => annotation,
            }
        });
        Snippet::source(&self.text[lines.clone()])
            .path(&self.file)
            .line_start(self.line_at(lines.start))
            .annotations(annotations)
    }

    /// The problems as data, in the order of the file. The format is part of the command line's interface: members are only added.
    pub fn to_json(&self) -> Value {
        json!({ "problems": self.problems_as_json() })
    }

    /// The objects of [`Report::to_json`].
    pub fn problems_as_json(&self) -> Vec<Value> {
        // The last position and its column, so that the characters of a long line are counted once.
        let mut last = (0, 0);
        let mut column_at = |at: usize| {
            let line_start = self.lines[self.line_at(at) - 1];
            let (from, before) = if (line_start..=at).contains(&last.0) {
                last
            } else {
                (line_start, 0)
            };
            let characters = self.text.get(from..at).map_or(at - from, |text| text.chars().count());
            last = (at, before + characters);
            last.1 + 1
        };
        self.problems
            .iter()
            .map(|problem| {
                let start = problem.span.as_ref().map(|span| span.start.min(self.text.len()));
                json!({
                    "severity": match problem.severity {
                        Severity::Error => "error",
                        Severity::Warning => "warning",
                    },
                    "key": problem.key,
                    "file": self.file,
                    "line": start.map(|at| self.line_at(at)),
                    "column": start.map(&mut column_at),
                    "message": problem.message,
                    "help": problem.help,
                })
            })
            .collect()
    }

    /// All problems as one text, separated by empty lines.
    pub fn render(&self, format: ReportFormat) -> String {
        let renderer = match format {
            ReportFormat::Plain => Renderer::plain(),
            ReportFormat::Coloured => Renderer::styled(),
        };
        let shown: Vec<String> = self
            .problems
            .iter()
            .map(|problem| renderer.render(&[self.group(problem)]))
            .collect();
        shown.join("\n\n")
    }

    fn group<'r>(&'r self, problem: &'r Problem) -> Group<'r> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut title = level.primary_title(&problem.message);
        if !problem.key.is_empty() {
            title = title.id(&problem.key);
        }
        let help = Level::HELP.message(&problem.help);
        let Some(span) = &problem.span else {
            return title.element(Origin::path(&self.file)).element(help);
        };
        let within = |span: &Range<usize>| span.start.min(self.text.len())..span.end.min(self.text.len());
        let span = within(span);
        let mut lines = self.lines_around(&span);
        let (mut near, mut far) = (vec![(AnnotationKind::Primary, span.clone(), None)], Vec::new());
        for (other, why) in &problem.related {
            let other = within(other);
            if other.end + MAX_EXCERPT_SPAN < span.start || span.end + MAX_EXCERPT_SPAN < other.start {
                far.push((other, why.as_str()));
                continue;
            }
            let more = self.lines_around(&other);
            lines = lines.start.min(more.start)..lines.end.max(more.end);
            near.push((AnnotationKind::Context, other, Some(why.as_str())));
        }
        let mut group = title.element(self.snippet(&lines, near));
        for (other, why) in far {
            let lines = self.lines_around(&other);
            group = group.element(self.snippet(&lines, [(AnnotationKind::Context, other, Some(why))]));
        }
        group.element(help)
    }
}

/// The errors and warnings of a configuration that cannot be used.
#[derive(Debug, Clone)]
pub struct ConfigError {
    report: Report,
    files: Vec<NamedFile>,
}

/// Why a configuration that is valid cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The key path of the value.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub help: String,
}

impl ConfigError {
    /// `files`: those that the text names, as far as it could be read.
    pub(super) fn new(report: Report, files: Vec<NamedFile>) -> Self {
        Self { report, files }
    }

    /// The files that the configuration names, as far as it could be read. A change of one of them may make it usable.
    pub fn files(&self) -> &[NamedFile] {
        &self.files
    }

    /// The errors of a configuration that is valid by itself, but cannot be used here.
    pub fn refused(source: &Source, warnings: &Report, refusals: impl IntoIterator<Item = Refusal>) -> Self {
        let refusals = refusals.into_iter().map(|refusal| (Severity::Error, refusal));
        Self::of_report(source, warnings.with(source, refusals))
    }

    /// The report has errors, on a configuration that is valid by itself.
    pub fn of_report(source: &Source, report: Report) -> Self {
        Self::new(report, source.files().to_vec())
    }

    /// What was found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// All problems as one text that ends with their number.
    pub fn render(&self, format: ReportFormat) -> String {
        let count = |severity, one: &str, many: &str| match self
            .report
            .problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
        {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let errors = count(Severity::Error, "error", "errors");
        let warnings = match count(Severity::Warning, "warning", "warnings") {
            none if none.starts_with("0 ") => String::new(),
            some => format!(", {some}"),
        };
        format!(
            "{}\n\n{} cannot be used: {errors}{warnings}",
            self.report.render(format),
            self.report.file
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(ReportFormat::Plain))
    }
}

impl std::error::Error for ConfigError {}

//! What is wrong with a configuration: where, what, and what to write instead; shown the way rustc and cargo show it.
//!
//! Problems are gathered, never thrown: whoever reads the file goes on after the first one.

use std::cell::RefCell;
use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// One thing that is wrong, or that somebody should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file can be used nevertheless.
    pub severity: Severity,
    /// The bytes of the file that are meant; `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// The key path, such as `server.limits.header_timeout` or `routes[2].path`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub instead: String,
    /// Other places that have to do with it, and why.
    pub also: Vec<(Range<usize>, String)>,
    /// What it rests on.
    pub basis: Basis,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used.
    Warning,
}

/// What a problem rests on: if the file breaks off, what is missing may only be out of sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Something that is written.
    Written,
    /// Something that is not there.
    Absent,
}

impl Problem {
    /// An error that rests on what is written in `span`.
    pub(super) fn error(span: Range<usize>, key: &str, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span: Some(span),
            key: key.to_owned(),
            what: what.into(),
            instead: instead.into(),
            also: Vec::new(),
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
    pub(super) fn into_absent(self) -> Self {
        Self {
            basis: Basis::Absent,
            ..self
        }
    }

    /// The same, pointing at another place too.
    pub(super) fn beside(mut self, span: Range<usize>, why: &str) -> Self {
        self.also.push((span, why.to_owned()));
        self
    }
}

/// Gathers problems, and what nobody may be shown.
#[derive(Debug, Default)]
pub(super) struct Problems {
    gathered: RefCell<Vec<Problem>>,
    hidden: RefCell<Vec<Range<usize>>>,
}

impl Problems {
    pub(super) fn add(&self, problem: Problem) {
        self.gathered.borrow_mut().push(problem);
    }

    /// Keeps a secret that stands in the file out of what is shown of its line.
    pub(super) fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// Takes out those that do not count after all.
    pub(super) fn retain(&self, keep: impl FnMut(&Problem) -> bool) {
        self.gathered.borrow_mut().retain(keep);
    }

    /// The report on a file of that name and text, in the order of its lines.
    pub(super) fn into_report(self, file: String, text: &str) -> Report {
        let mut bytes = text.as_bytes().to_vec();
        for span in self.hidden.into_inner() {
            if let Some(secret) = bytes.get_mut(span) {
                secret
                    .iter_mut()
                    .filter(|byte| **byte != b'\n')
                    .for_each(|byte| *byte = b'*');
            }
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        let mut problems = self.gathered.into_inner();
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        problems.dedup();
        Report { file, text, problems }
    }
}

/// The problems of one file, with all that it takes to show them.
#[derive(Debug, Clone, Default)]
pub struct Report {
    file: String,
    /// The file's text without its secrets.
    text: String,
    problems: Vec<Problem>,
}

/// How a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Text alone.
    Plain,
    /// With colours.
    Coloured,
}

impl Look {
    /// Colours where standard error is a terminal whose user does not mind (<https://no-color.org>).
    pub fn of_stderr() -> Self {
        let minds = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stderr().is_terminal() && !minds {
            Self::Coloured
        } else {
            Self::Plain
        }
    }
}

impl Report {
    /// A report on a file that is not even text.
    pub(super) fn unreadable(file: String, what: String, instead: &str) -> Self {
        let problem = Problem {
            span: None,
            ..Problem::error(0..0, "", what, instead)
        };
        Self {
            file,
            text: String::new(),
            problems: vec![problem],
        }
    }

    /// What was found, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The file's name, as it was asked for.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line that a problem starts on, counted from 1.
    pub fn line_of(&self, problem: &Problem) -> Option<usize> {
        let before = self.text.get(..problem.span.as_ref()?.start)?;
        Some(before.matches('\n').count() + 1)
    }

    /// Everything as one text, with an empty line between two problems and none at the end.
    pub fn render(&self, look: Look) -> String {
        let renderer = match look {
            Look::Plain => Renderer::plain(),
            Look::Coloured => Renderer::styled(),
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
        let mut title = level.primary_title(&problem.what);
        if !problem.key.is_empty() {
            title = title.id(&problem.key);
        }
        let help = Level::HELP.message(&problem.instead);
        let Some(span) = &problem.span else {
            return title.element(Origin::path(&self.file)).element(help);
        };
        let within = |span: &Range<usize>| span.start.min(self.text.len())..span.end.min(self.text.len());
        let others = problem
            .also
            .iter()
            .map(|(span, why)| AnnotationKind::Context.span(within(span)).label(why.as_str()));
        let snippet = Snippet::source(&self.text)
            .path(&self.file)
            .annotation(AnnotationKind::Primary.span(within(span)))
            .annotations(others);
        title.element(snippet).element(help)
    }
}

/// A configuration that cannot be used, with everything that was found in it, warnings too.
#[derive(Debug, Clone)]
pub struct ConfigError(Report);

impl ConfigError {
    pub(super) fn new(report: Report) -> Self {
        Self(report)
    }

    /// What was found.
    pub fn report(&self) -> &Report {
        &self.0
    }

    /// Everything as one text that ends in a count.
    pub fn render(&self, look: Look) -> String {
        let count = |severity, one: &str, many: &str| match self
            .0
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
            self.0.render(look),
            self.0.file
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl std::error::Error for ConfigError {}

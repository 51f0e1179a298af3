//! Text that is not valid TOML: explains the parser's errors, and decides which other problems are still reported.
//!
//! The parser continues after an error, so one report has all errors. After an error its tree may be wrong, and problems that follow only
//! from a wrong tree must not be reported.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::mask::Syntax;
use super::problem::{Basis, Problem, Problems};
use super::secrets;

/// Adds the parser's errors and removes the problems that may only follow from them. Returns up to where the tree is reliable.
pub(super) fn merge(problems: &Problems, text: &str, table: &Spanned<DeTable<'_>>, errors: &[Error]) -> Syntax {
    if errors.is_empty() {
        return Syntax::Valid;
    }
    let mut scalars = Vec::new();
    table
        .get_ref()
        .values()
        .for_each(|value| find_scalars(value, Container::Table, &mut scalars));
    // Scalars do not overlap, so only the last one that starts before a position can contain it.
    scalars.sort_by_key(|scalar| scalar.span.start);
    let within = |span: &Range<usize>| {
        // An empty span at the start of a scalar lies before it: the parser misses something there.
        let starts =
            |scalar: &Range<usize>| scalar.start < span.start || scalar.start == span.start && !span.is_empty();
        let before = scalars.partition_point(|scalar| starts(&scalar.span));
        let last = scalars.get(before.checked_sub(1)?)?;
        (span.end <= last.span.end).then_some(last)
    };
    let mut syntax_errors: Vec<SyntaxError<'_>> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            SyntaxError {
                value: within(&span),
                message: error.message(),
                span,
            }
        })
        .collect();
    syntax_errors.sort_by_key(|error| (error.span.start, error.value.is_some()));

    // After an error within a value, the rest of the tree is reliable. After any other error it is not.
    let first = syntax_errors
        .iter()
        .find(|error| error.value.is_none() && error.message != DUPLICATE);
    let unreliable_from = first.map(|error| line_start(text, error.span.start));
    let broken: BTreeMap<usize, usize> = syntax_errors
        .iter()
        .filter_map(|error| error.value.map(|value| (value.span.start, value.span.end)))
        .collect();
    problems.retain(|problem| match (&problem.span, unreliable_from) {
        (_, Some(_)) if problem.basis == Basis::Absent => false,
        (None, unreliable_from) => unreliable_from.is_none(),
        (Some(span), unreliable_from) => {
            let before = broken.range(..span.end).next_back();
            let follows = before.is_some_and(|(_, end)| span.start < *end);
            !follows && unreliable_from.is_none_or(|unreliable_from| span.end <= unreliable_from)
        }
    });

    let mut last_line = None;
    let mut in_list = false;
    for error in &syntax_errors {
        let line = line_start(text, error.span.start);
        let about_list =
            error.message.contains("array") || error.value.is_some_and(|value| value.container == Container::List);
        // The first error of a line causes the others. The same is true for a list that is never closed.
        if last_line == Some(line) || (in_list && about_list) {
            continue;
        }
        (last_line, in_list) = (Some(line), about_list && error.value.is_none());
        problems.add(explain(problems, text, error));
    }
    unreliable_from.map_or(Syntax::InvalidValue, Syntax::UnreliableFrom)
}

/// One error of the parser.
struct SyntaxError<'e> {
    span: Range<usize>,
    message: &'e str,
    /// The value that contains it.
    value: Option<&'e Scalar>,
}

/// A value that is neither a table nor a list.
struct Scalar {
    span: Range<usize>,
    container: Container,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Table,
    List,
}

const DUPLICATE: &str = "duplicate key";

fn explain(problems: &Problems, text: &str, error: &SyntaxError<'_>) -> Problem {
    let SyntaxError { span, message, value } = error;
    let problem = |span: &Range<usize>, message: String, help: String| Problem::error(span.clone(), "", message, help);
    let written = |span: &Range<usize>| text.get(span.clone()).unwrap_or_default();
    if *message == DUPLICATE {
        let message = format!("duplicate key `{}`", written(span));
        return problem(span, message, "remove one of them, or merge them".to_owned());
    }
    if let Some(value) = value.filter(|value| !written(&value.span).contains(['"', '\'', '\n'])) {
        // The value of an unknown key, or of a secret, is not repeated.
        let (message, help) = if problems.may_show(&value.span) {
            let written = secrets::redacted(written(&value.span));
            (
                format!("`{written}` is not a TOML value"),
                format!("put strings in quotes: {written:?}"),
            )
        } else {
            (
                "invalid TOML value".to_owned(),
                "put strings in quotes: \"…\"".to_owned(),
            )
        };
        return problem(&value.span, message, help);
    }
    let help = match *message {
        _ if message.contains("string") => "put strings in quotes, on one line: \"…\"",
        _ if message.contains("table") && !message.contains("inline") => {
            "write `[name]` to open a table, `[[name]]` to add an entry to a list of tables"
        }
        _ if message.contains("array") => "write lists as [\"one\", \"two\"]",
        _ => "write each line as `key = value`, `[table]`, `[[table]]` or a `# comment`",
    };
    problem(span, format!("invalid TOML: {message}"), help.to_owned())
}

fn find_scalars(value: &Spanned<DeValue<'_>>, container: Container, found: &mut Vec<Scalar>) {
    match value.get_ref() {
        DeValue::Table(table) => table
            .values()
            .for_each(|value| find_scalars(value, Container::Table, found)),
        DeValue::Array(elements) => elements
            .iter()
            .for_each(|value| find_scalars(value, Container::List, found)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            found.push(Scalar {
                span: value.span(),
                container,
            });
        }
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text.as_bytes()
        .get(..at)
        .and_then(|before| before.iter().rposition(|byte| *byte == b'\n'))
        .map_or(0, |newline| newline + 1)
}

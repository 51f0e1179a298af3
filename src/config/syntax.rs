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
        return Syntax::Good;
    }
    let mut scalars = Vec::new();
    table
        .get_ref()
        .values()
        .for_each(|value| find_scalars(value, Place::Table, &mut scalars));
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
    let mut faults: Vec<Fault<'_>> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            Fault {
                value: within(&span),
                message: error.message(),
                span,
            }
        })
        .collect();
    faults.sort_by_key(|fault| (fault.span.start, fault.value.is_some()));

    // After an error within a value, the rest of the tree is reliable. After any other error it is not.
    let first = faults
        .iter()
        .find(|fault| fault.value.is_none() && fault.message != DUPLICATE);
    let guess = first.map(|fault| line_start(text, fault.span.start));
    let broken: BTreeMap<usize, usize> = faults
        .iter()
        .filter_map(|fault| fault.value.map(|value| (value.span.start, value.span.end)))
        .collect();
    problems.retain(|problem| match (&problem.span, guess) {
        (_, Some(_)) if problem.basis == Basis::Absent => false,
        (None, guess) => guess.is_none(),
        (Some(span), guess) => {
            let before = broken.range(..span.end).next_back();
            let follows = before.is_some_and(|(_, end)| span.start < *end);
            !follows && guess.is_none_or(|guess| span.end <= guess)
        }
    });

    let mut last_line = None;
    let mut in_list = false;
    for fault in &faults {
        let line = line_start(text, fault.span.start);
        let about_list = fault.message.contains("array") || fault.value.is_some_and(|value| value.place == Place::List);
        // The first error of a line causes the others. The same is true for a list that is never closed.
        if last_line == Some(line) || (in_list && about_list) {
            continue;
        }
        (last_line, in_list) = (Some(line), about_list && fault.value.is_none());
        problems.add(explain(problems, text, fault));
    }
    guess.map_or(Syntax::BrokenValue, Syntax::GuessFrom)
}

/// One error of the parser.
struct Fault<'e> {
    span: Range<usize>,
    message: &'e str,
    /// The value that contains it.
    value: Option<&'e Scalar>,
}

/// A value that is neither a table nor a list.
struct Scalar {
    span: Range<usize>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Table,
    List,
}

const DUPLICATE: &str = "duplicate key";

fn explain(problems: &Problems, text: &str, fault: &Fault<'_>) -> Problem {
    let Fault { span, message, value } = fault;
    let problem = |span: &Range<usize>, what: String, instead: String| Problem::error(span.clone(), "", what, instead);
    let written = |span: &Range<usize>| text.get(span.clone()).unwrap_or_default();
    if *message == DUPLICATE {
        let what = format!("duplicate key `{}`", written(span));
        return problem(span, what, "remove one of them, or merge them".to_owned());
    }
    if let Some(value) = value.filter(|value| !written(&value.span).contains(['"', '\'', '\n'])) {
        // The value of an unknown key, or of a secret, is not repeated.
        let (what, instead) = if problems.shows(&value.span) {
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
        return problem(&value.span, what, instead);
    }
    let instead = match *message {
        _ if message.contains("string") => "put strings in quotes, on one line: \"…\"",
        _ if message.contains("table") && !message.contains("inline") => {
            "write `[name]` to open a table, `[[name]]` to add an entry to a list of tables"
        }
        _ if message.contains("array") => "write lists as [\"one\", \"two\"]",
        _ => "write each line as `key = value`, `[table]`, `[[table]]` or a `# comment`",
    };
    problem(span, format!("invalid TOML: {message}"), instead.to_owned())
}

fn find_scalars(value: &Spanned<DeValue<'_>>, place: Place, found: &mut Vec<Scalar>) {
    match value.get_ref() {
        DeValue::Table(table) => table
            .values()
            .for_each(|value| find_scalars(value, Place::Table, found)),
        DeValue::Array(elements) => elements
            .iter()
            .for_each(|value| find_scalars(value, Place::List, found)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            found.push(Scalar {
                span: value.span(),
                place,
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

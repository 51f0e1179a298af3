//! Masks excerpts of the file. The rule is an allow-list: keys, punctuation, and values that were read as not secret ([`Shown`]).
//! So a secret under a misspelled key, without quotes or in a comment stays hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use authgate_core::printable::is_printable;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::secrets;

/// The parts of the file that an excerpt may show.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The start and end of each value that is not a secret. They do not overlap.
    values: BTreeMap<usize, usize>,
    /// Known keys, whether the file has them or not.
    pub(super) keys: BTreeSet<&'static str>,
}

impl Shown {
    /// The value at this position is not a secret.
    pub(super) fn add(&mut self, value: Range<usize>) {
        let end = self.values.entry(value.start).or_default();
        *end = value.end.max(*end);
    }

    /// Whether all of this span may be shown.
    pub(super) fn covers(&self, span: &Range<usize>) -> bool {
        let before = self.values.range(..=span.start).next_back();
        before.is_some_and(|(_, end)| span.end <= *end)
    }
}

/// How much of the tree is reliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// All of it: the text is valid TOML.
    Valid,
    /// All but a value that is invalid.
    InvalidValue,
    /// Only the part before this byte.
    UnreliableFrom(usize),
}

/// The text, with its length in bytes unchanged: `*` in place of possible secrets, `?` in place of control characters.
pub(super) fn mask(text: &str, table: &DeTable<'_>, shown: &Shown, syntax: Syntax) -> String {
    let (mut keys, mut scalars) = (Vec::new(), Vec::new());
    collect_table_spans(table, &mut keys, &mut scalars);
    let unreliable_from = match syntax {
        Syntax::UnreliableFrom(at) => at,
        Syntax::Valid | Syntax::InvalidValue => text.len(),
    };
    // 0 <= start <= end <= text.len() for each span.
    let mut marks = Marks {
        visible: vec![false; text.len()],
        inside: vec![false; text.len()],
    };
    for span in &keys {
        marks.fill(span, span.end <= unreliable_from);
    }
    for span in &scalars {
        marks.fill(span, false);
    }
    marks.structure(text, syntax, &shown.keys);
    for span in &scalars {
        let Some(written) = text.get(span.clone()) else {
            continue;
        };
        let whole = syntax == Syntax::Valid || (span.end <= unreliable_from && !written.contains('\n'));
        if whole && shown.covers(span) {
            marks.fill(span, true);
            if let Some(login) = secrets::login(written) {
                marks.fill(&(span.start + login.start..span.start + login.end), false);
            }
        } else if written.len() > 1 && written.starts_with(['"', '\'']) {
            marks.visible[span.start] = true;
            marks.visible[span.end - 1] = written.ends_with(['"', '\'']);
        }
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            '\n' | '\r' | '\t' | ' ' => out.push(c),
            c if !marks.visible[at] => out.extend(std::iter::repeat_n('*', c.len_utf8())),
            c if is_printable(c) => out.push(c),
            c => out.extend(std::iter::repeat_n('?', c.len_utf8())),
        }
    }
    out
}

/// The masked text for readers: `***` in place of each possible secret, whatever its length, and without comments.
pub(super) fn redact(text: &str, masked: &str) -> String {
    let mut out = String::with_capacity(masked.len());
    for (line, written) in masked.lines().zip(text.lines()) {
        let comment = line
            .char_indices()
            .find(|(at, c)| *c == '#' && line[*at + 1..].chars().all(|c| matches!(c, '*' | '\t' | ' ')));
        let kept = comment.map_or(line, |(at, _)| line[..at].trim_end());
        if comment.is_some() && kept.is_empty() {
            continue;
        }
        let mut start = 0;
        while let Some(&byte) = kept.as_bytes().get(start) {
            let stars = kept[start..].bytes().take_while(|byte| *byte == b'*').count();
            let length = stars.max(kept[start..].chars().next().map_or(1, char::len_utf8));
            let run = start..start + length;
            // A `*` that the file has, as in "/api/*", is not a mask.
            if byte == b'*' && written.as_bytes().get(run.clone()) != Some(&kept.as_bytes()[run.clone()]) {
                out.push_str("***");
            } else {
                out.push_str(&kept[run.clone()]);
            }
            start = run.end;
        }
        out.push('\n');
    }
    out
}

struct Marks {
    visible: Vec<bool>,
    /// Within a key or a value of the tree.
    inside: Vec<bool>,
}

impl Marks {
    fn fill(&mut self, span: &Range<usize>, visible: bool) {
        for at in span.start..span.end.min(self.visible.len()) {
            (self.visible[at], self.inside[at]) = (visible, true);
        }
    }

    /// Text outside of values and comments: all of it if the text is valid TOML, else only punctuation and known keys.
    fn structure(&mut self, text: &str, syntax: Syntax, known: &BTreeSet<&'static str>) {
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let mut may_be_key = true;
            for (at, byte) in line.bytes().enumerate().map(|(at, byte)| (start + at, byte)) {
                if self.inside[at] {
                    continue;
                }
                if byte == b'#' {
                    self.visible[at] = true;
                    break;
                }
                self.visible[at] = syntax == Syntax::Valid || b"=[]{},.\"'".contains(&byte);
                may_be_key &= byte != b'=';
                let begins =
                    may_be_key && is_bare_key_byte(byte) && (at == start || !is_bare_key_byte(text.as_bytes()[at - 1]));
                if begins {
                    let word = text[at..].bytes().take_while(|byte| is_bare_key_byte(*byte)).count();
                    if known.contains(&text[at..at + word]) {
                        self.fill(&(at..at + word), true);
                    }
                }
            }
            start += line.len();
        }
    }
}

fn is_bare_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

fn collect_table_spans(table: &DeTable<'_>, keys: &mut Vec<Range<usize>>, scalars: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        keys.push(key.span());
        collect_value_spans(value, keys, scalars);
    }
}

fn collect_value_spans(value: &Spanned<DeValue<'_>>, keys: &mut Vec<Range<usize>>, scalars: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => collect_table_spans(table, keys, scalars),
        DeValue::Array(elements) => elements
            .iter()
            .for_each(|element| collect_value_spans(element, keys, scalars)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            scalars.push(value.span());
        }
    }
}

//! What an excerpt of the file may show. The rule is a positive list, so a secret under a misspelled key, without quotes or in a comment
//! stays hidden: keys, punctuation, and the values that the reader took as something that is no secret ([`Shown`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::secrets;
use crate::printable::is_printable;

/// What the reader knows to be harmless.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Where values stand that were read as no secret: starts and ends. No two of them overlap.
    values: BTreeMap<usize, usize>,
    /// Keys that it looked for, written or not.
    pub(super) keys: BTreeSet<&'static str>,
}

impl Shown {
    /// The value there is no secret.
    pub(super) fn add(&mut self, value: Range<usize>) {
        let end = self.values.entry(value.start).or_default();
        *end = value.end.max(*end);
    }

    /// Whether all of this place may be shown.
    pub(super) fn covers(&self, span: &Range<usize>) -> bool {
        let before = self.values.range(..=span.start).next_back();
        before.is_some_and(|(_, end)| span.end <= *end)
    }
}

/// How far the tree of a file can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// It is TOML.
    Good,
    /// A value is broken; the rest is as it is written.
    BrokenValue,
    /// From this byte on, the tree is a guess.
    GuessFrom(usize),
}

/// The text, byte for byte as long, with `*` for all that may be secret and `?` for what may drive a terminal.
pub(super) fn mask(text: &str, table: &DeTable<'_>, shown: &Shown, syntax: Syntax) -> String {
    let (mut keys, mut scalars) = (Vec::new(), Vec::new());
    find(table, &mut keys, &mut scalars);
    let guess = match syntax {
        Syntax::GuessFrom(at) => at,
        Syntax::Good | Syntax::BrokenValue => text.len(),
    };
    // 0 <= start <= end <= text.len() for each span.
    let mut marks = Marks {
        visible: vec![false; text.len()],
        inside: vec![false; text.len()],
    };
    for span in &keys {
        marks.fill(span, span.end <= guess);
    }
    for span in &scalars {
        marks.fill(span, false);
    }
    marks.structure(text, syntax, &shown.keys);
    for span in &scalars {
        let Some(written) = text.get(span.clone()) else {
            continue;
        };
        let whole = syntax == Syntax::Good || (span.end <= guess && !written.contains('\n'));
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

    /// What is outside of values and comments: all of it if the text is TOML; else punctuation, and keys that are known where a key can be.
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
                self.visible[at] = syntax == Syntax::Good || b"=[]{},.\"'".contains(&byte);
                may_be_key &= byte != b'=';
                let begins = may_be_key && is_bare(byte) && (at == start || !is_bare(text.as_bytes()[at - 1]));
                if begins {
                    let word = text[at..].bytes().take_while(|byte| is_bare(*byte)).count();
                    if known.contains(&text[at..at + word]) {
                        self.fill(&(at..at + word), true);
                    }
                }
            }
            start += line.len();
        }
    }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

fn find(table: &DeTable<'_>, keys: &mut Vec<Range<usize>>, scalars: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        keys.push(key.span());
        find_in(value, keys, scalars);
    }
}

fn find_in(value: &Spanned<DeValue<'_>>, keys: &mut Vec<Range<usize>>, scalars: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => find(table, keys, scalars),
        DeValue::Array(elements) => elements.iter().for_each(|element| find_in(element, keys, scalars)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            scalars.push(value.span());
        }
    }
}

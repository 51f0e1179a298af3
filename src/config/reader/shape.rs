//! What can be written as a value, for the manual and the JSON Schema.

use std::time::Duration;

use bytesize::ByteSize;

use super::key::{Table, listed};

/// What can be written as a value.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// `true` or `false`.
    Flag,
    /// `false` alone, in place of another value.
    False,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A duration with its unit.
    Duration { min: Duration, max: Duration },
    /// A size with its unit.
    Size { min: u64, max: u64 },
    /// One of some words.
    Words(Vec<&'static str>),
    /// A string of a certain form.
    Text(Form),
    /// A secret.
    Secret,
    /// A list.
    List { of: Box<Shape>, min: usize },
    /// One of several types.
    OneOf(Vec<Shape>),
    /// A table.
    Table(&'static Table),
    /// A table whose `kind` says which keys it has.
    Kinds(Vec<&'static Table>),
    /// A table whose names the operator chooses.
    Names {
        /// What a name stands for, such as `NAME`.
        name: &'static str,
        of: Box<Shape>,
    },
    /// A string, a whole number, `true` or `false`, or a table of them.
    Claim,
}

/// The form of a string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// What it is, as in `an address`.
    pub(crate) what: &'static str,
    /// A regular expression, if the form is simple.
    pub(crate) pattern: Option<&'static str>,
}

impl Form {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, pattern: None }
    }

    pub(crate) const fn matching(what: &'static str, pattern: &'static str) -> Self {
        Self {
            what,
            pattern: Some(pattern),
        }
    }
}

impl Shape {
    /// A string of a certain form.
    pub(crate) const fn text(what: &'static str) -> Self {
        Self::Text(Form::new(what))
    }

    /// A list that may be empty.
    pub(crate) fn list(self) -> Self {
        Self::List {
            of: Box::new(self),
            min: 0,
        }
    }

    /// A list with at least one element.
    pub(crate) fn non_empty_list(self) -> Self {
        Self::List {
            of: Box::new(self),
            min: 1,
        }
    }

    /// One value, or a list with at least one.
    pub(crate) fn one_or_more(self) -> Self {
        Self::OneOf(vec![self.clone(), self.non_empty_list()])
    }

    /// This, or another one.
    pub(crate) fn or(self, other: Self) -> Self {
        match self {
            Self::OneOf(mut all) => {
                all.push(other);
                Self::OneOf(all)
            }
            one => Self::OneOf(vec![one, other]),
        }
    }

    /// A table with a value of this shape under each name.
    pub(crate) fn names(self, name: &'static str) -> Self {
        Self::Names {
            name,
            of: Box::new(self),
        }
    }

    /// In words, as in `a duration above zero`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Flag => "`true` or `false`".to_owned(),
            Self::False => "`false`".to_owned(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Duration { min, max } => match (min.as_millis(), *max == super::types::MAX_DURATION) {
                (0, true) => "a duration".to_owned(),
                (1, true) => "a duration above zero".to_owned(),
                (_, true) => format!("a duration of at least {}", quote(&duration(*min))),
                (_, false) => format!(
                    "a duration from {} to {}",
                    quote(&duration(*min)),
                    quote(&duration(*max))
                ),
            },
            Self::Size { min, max } => {
                format!("a size from {} to {}", quote(&size(*min)), quote(&size(*max)))
            }
            Self::Words(words) => match words.as_slice() {
                [only] => format!("`{}`", quote(only)),
                _ => {
                    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", quote(word))).collect();
                    listed(&quoted, "or")
                }
            },
            Self::Text(form) => form.what.to_owned(),
            Self::Secret => "a secret".to_owned(),
            Self::List { of, min: 0 } => format!("a list; each element is {}", of.describe()),
            Self::List { of, .. } => format!("a list of at least one; each element is {}", of.describe()),
            Self::OneOf(all) => all.iter().map(Self::describe).collect::<Vec<_>>().join("; or "),
            Self::Table(_) => "a table".to_owned(),
            Self::Kinds(tables) => {
                let kinds: Vec<String> = tables
                    .iter()
                    .filter_map(|table| Some(format!("`{}`", quote(table.kind?))))
                    .collect();
                format!("a table; its `kind` is {}", listed(&kinds, "or"))
            }
            Self::Names { name, of } => format!("a table with names of your own; each `{name}` is {}", of.describe()),
            Self::Claim => "a string, a whole number, `true` or `false`".to_owned(),
        }
    }
}

/// A string of TOML.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A duration, as it is written.
pub(crate) fn duration(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.as_millis());
    // `24h` and `60s` are more usual than `1d` and `1m`.
    for (unit, each, least) in [("d", 86_400, 86_401), ("h", 3_600, 3_600), ("m", 60, 61)] {
        if seconds >= least && seconds.is_multiple_of(each) {
            return format!("{}{unit}", seconds / each);
        }
    }
    if milliseconds.is_multiple_of(1000) {
        format!("{seconds}s")
    } else {
        format!("{milliseconds}ms")
    }
}

/// A size, as it is written.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes)
        .display()
        .iec()
        .to_string()
        .replace(".0 ", "")
        .replace(' ', "")
}

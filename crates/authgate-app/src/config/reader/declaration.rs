//! What is declared about the keys of a table, for the reader, the manual and the JSON Schema: their names, their texts, and the [`Shape`] of
//! their values. A shape can have tables, so all of it is in one file.

use std::fmt;
use std::time::Duration;

use super::written::{duration, listed, quote, size};

/// The longest duration that is accepted. Sums of durations up to this one cannot overflow a clock.
pub(crate) const MAX_DURATION: Duration = Duration::from_hours(3650 * 24);

/// A table, and the keys that it can have.
pub(crate) struct Table {
    /// The value of `kind`, where that decides which keys there are.
    pub(crate) kind: Option<&'static str>,
    /// What it is for.
    pub(crate) text: &'static str,
    /// Every key, in the order of the manual.
    pub(crate) keys: &'static [&'static dyn Declared],
    /// Keys that belong elsewhere, and have messages of their own.
    pub(crate) misplaced: &'static [Misplaced],
}

/// A key that belongs elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Misplaced {
    /// The key.
    pub(crate) name: &'static str,
    /// What is wrong.
    pub(crate) message: &'static str,
    /// What to write instead.
    pub(crate) help: &'static str,
}

impl Table {
    /// A table with these keys.
    pub(crate) const fn new(text: &'static str, keys: &'static [&'static dyn Declared]) -> Self {
        Self {
            kind: None,
            text,
            keys,
            misplaced: &[],
        }
    }

    /// The same for one value of `kind`.
    pub(crate) const fn of_kind(self, kind: &'static str) -> Self {
        Self {
            kind: Some(kind),
            ..self
        }
    }

    /// The same, with keys that belong elsewhere.
    pub(crate) const fn misplaced(self, misplaced: &'static [Misplaced]) -> Self {
        Self { misplaced, ..self }
    }

    /// The names of its keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name())
    }

    /// Its key of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&'static dyn Declared> {
        self.keys.iter().copied().find(|key| key.name() == name)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A key of any type.
pub(crate) trait Declared: Sync {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// What can be written.
    fn shape(&self) -> Shape;

    /// The default as TOML, if it is a constant.
    fn default_toml(&self) -> Option<String>;

    /// What the manual says.
    fn about(&self) -> &About;

    /// TOML that has the key.
    fn example_toml(&self) -> String {
        match (self.about().example, self.default_toml(), self.shape()) {
            ("", Some(default), _) => format!("{} = {default}", self.name()),
            ("", None, Shape::Words(words)) => format!("{} = {}", self.name(), quote(words.first().unwrap_or(&""))),
            (example, ..) => example.to_owned(),
        }
    }

    /// What to write where the key is missing, as in ``write `workers = 4` ``.
    fn missing_help(&self) -> String {
        const MANY: usize = 5;
        let examples: Vec<String> = match self.shape() {
            Shape::Words(words) if words.len() < MANY && self.about().example.is_empty() => {
                let quoted = words.iter().map(|word| quote(word));
                quoted.map(|word| format!("`{} = {word}`", self.name())).collect()
            }
            _ => {
                let example = self.example_toml();
                let lines = example.lines().map(|line| format!("`{line}`"));
                return format!("write {}", listed(&lines.collect::<Vec<_>>(), "and"));
            }
        };
        format!("write {}", listed(&examples, "or"))
    }
}

/// What the manual says about a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// What it does.
    pub(crate) text: &'static str,
    /// TOML that has the key. Empty: the default is the example.
    pub(crate) example: &'static str,
    /// What holds without the key, if there is no constant default.
    pub(crate) absent: &'static str,
    /// What a number counts.
    pub(crate) unit: &'static str,
    /// The first version that has it.
    pub(crate) since: &'static str,
    /// Errors that do not follow from the type, and warnings, which begin with `Warning: `.
    pub(crate) errors: &'static [&'static str],
    /// Whether a table without it is an error.
    pub(crate) presence: Presence,
}

/// Whether a table without a key is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It may be absent.
    Optional,
    /// Always.
    Required,
    /// Sometimes; the text says when.
    RequiredIf(&'static str),
}

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

    /// The tables that can be in a value, each with its path below the value: `[]`, `.NAME`, or nothing.
    pub(crate) fn tables(&self) -> Vec<(String, &'static Table)> {
        let below = |step: String, of: &Self| -> Vec<_> {
            let tables = of.tables().into_iter();
            tables.map(|(path, table)| (format!("{step}{path}"), table)).collect()
        };
        match self {
            Self::Table(table) => vec![(String::new(), *table)],
            Self::Kinds(tables) => tables.iter().map(|table| (String::new(), *table)).collect(),
            Self::Names { name, of } => below(format!(".{name}"), of),
            Self::List { of, .. } => below("[]".to_owned(), of),
            Self::OneOf(all) => all.iter().flat_map(Self::tables).collect(),
            Self::Flag
            | Self::False
            | Self::Count { .. }
            | Self::Duration { .. }
            | Self::Size { .. }
            | Self::Words(_)
            | Self::Text(_)
            | Self::Secret
            | Self::Claim => Vec::new(),
        }
    }

    /// In words, as in `a duration above zero`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Flag => "`true` or `false`".to_owned(),
            Self::False => "`false`".to_owned(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Duration { min, max } => match (min.as_millis(), *max == MAX_DURATION) {
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

//! Declarations of keys. A [`Key`] is declared once, with its name, type, default and words. The reader takes a value by the declaration, so
//! that the manual, the JSON Schema and the messages, which are made from it, cannot differ from what is read.
//!
//! To add a key: declare it in `config/keys/`, list it in its [`Table`], and read it. A test fails if one of the three is missing.

use std::fmt;

use super::shape::{Shape, quote};
use super::{Item, Section};

/// What can be written as a value.
pub(crate) trait Shaped: Copy + Send + Sync + 'static {
    fn shape(&self) -> Shape;
}

/// A type of values: how one is read, and what the manual says of it.
pub(crate) trait Type: Shaped {
    /// The value that the settings have.
    type Value;
    /// A constant from which a default value is made.
    type Default: Copy + Send + Sync + 'static;

    /// Reads a value. What is not of this type is reported.
    fn read(&self, item: &Item<'_>) -> Option<Self::Value>;

    /// The value of a default.
    fn value(&self, default: Self::Default) -> Self::Value;

    /// The default, as TOML.
    fn written(&self, default: Self::Default) -> String;
}

/// The default of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<D>(D);

/// A key of a table. `D` is [`Given`] if it has a constant default, else `()`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<T, D = ()> {
    name: &'static str,
    of: T,
    default: D,
    about: About,
}

/// A key with a constant default.
pub(crate) type DefaultKey<T> = Key<T, Given<<T as Type>::Default>>;

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

impl<T: Copy> Key<T> {
    /// A key that may be absent.
    pub(crate) const fn new(name: &'static str, of: T) -> Self {
        let about = About {
            text: "",
            example: "",
            absent: "",
            unit: "",
            since: "0.1.0",
            errors: &[],
            presence: Presence::Optional,
        };
        Self {
            name,
            of,
            default: (),
            about,
        }
    }
}

impl<T: Type> Key<T> {
    /// The same key with a default.
    pub(crate) const fn or(self, default: T::Default) -> DefaultKey<T> {
        let Self { name, of, about, .. } = self;
        Key {
            name,
            of,
            default: Given(default),
            about,
        }
    }
}

impl<T: Copy, D: Copy> Key<T, D> {
    const fn about(self, about: About) -> Self {
        Self { about, ..self }
    }

    /// What it does, in whole sentences.
    pub(crate) const fn text(self, text: &'static str) -> Self {
        self.about(About { text, ..self.about })
    }

    /// TOML that has the key, such as `workers = 4`.
    pub(crate) const fn example(self, example: &'static str) -> Self {
        self.about(About { example, ..self.about })
    }

    /// What holds without the key.
    pub(crate) const fn absent(self, absent: &'static str) -> Self {
        self.about(About { absent, ..self.about })
    }

    /// What a number counts.
    pub(crate) const fn unit(self, unit: &'static str) -> Self {
        self.about(About { unit, ..self.about })
    }

    /// The first version that has it, if it is not 0.1.0.
    pub(crate) const fn since(self, since: &'static str) -> Self {
        self.about(About { since, ..self.about })
    }

    /// Errors that do not follow from the type.
    pub(crate) const fn errors(self, errors: &'static [&'static str]) -> Self {
        self.about(About { errors, ..self.about })
    }

    /// A table without the key is an error.
    pub(crate) const fn required(self) -> Self {
        let presence = Presence::Required;
        self.about(About { presence, ..self.about })
    }

    /// A table without the key is an error in this case.
    pub(crate) const fn required_if(self, when: &'static str) -> Self {
        let presence = Presence::RequiredIf(when);
        self.about(About { presence, ..self.about })
    }
}

impl<T: Type, D> Key<T, D> {
    /// Reads a value that was taken.
    pub(crate) fn read(&self, item: &Item<'_>) -> Option<T::Value> {
        self.of.read(item)
    }
}

impl<T: Type> DefaultKey<T> {
    /// The default.
    pub(crate) fn default(&self) -> T::Value {
        self.of.value(self.default.0)
    }

    /// Reads a value that was taken, if there is one.
    pub(crate) fn read_or_default(&self, item: Option<&Item<'_>>) -> T::Value {
        item.and_then(|item| self.read(item)).unwrap_or_else(|| self.default())
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

/// A type that only says what can be written; the code that takes the key reads the value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw(pub(crate) fn() -> Shape);

impl Shaped for Raw {
    fn shape(&self) -> Shape {
        (self.0)()
    }
}

/// A table with declared keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sub(pub(crate) &'static Table);

impl Shaped for Sub {
    fn shape(&self) -> Shape {
        Shape::Table(self.0)
    }
}

impl<T: Shaped> Declared for Key<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shape(&self) -> Shape {
        self.of.shape()
    }

    fn default_toml(&self) -> Option<String> {
        None
    }

    fn about(&self) -> &About {
        &self.about
    }
}

impl<T: Type> Declared for DefaultKey<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shape(&self) -> Shape {
        self.of.shape()
    }

    fn default_toml(&self) -> Option<String> {
        Some(self.of.written(self.default.0))
    }

    fn about(&self) -> &About {
        &self.about
    }
}

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

/// `a, b and c`.
pub(crate) fn listed(words: &[String], and: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {and} {last}", most.join(", ")),
    }
}

/// Reading by declaration.
impl<'c> Section<'c> {
    /// The value of a key, or its default.
    pub(crate) fn read<T: Type>(&mut self, key: &'static DefaultKey<T>) -> T::Value {
        key.read_or_default(self.take(key).as_ref())
    }

    /// The value of a key that may be absent.
    pub(crate) fn optional<T: Type>(&mut self, key: &'static Key<T>) -> Option<T::Value> {
        key.read(&self.take(key)?)
    }

    /// The value of a key that must be there.
    pub(crate) fn required<T: Type>(&mut self, key: &'static Key<T>) -> Option<T::Value> {
        key.read(&self.require(key)?)
    }

    /// The table under a key, if it is there.
    pub(crate) fn section(&mut self, key: &'static Key<Sub>) -> Option<Section<'c>> {
        let table = key.of.0;
        self.take(key)?.section(table)
    }
}

/// Tables whose keys depend on `kind`.
impl Item<'_> {
    /// Reads `kind`. `table` has no other key. The caller opens the table of this kind.
    pub(crate) fn kind<T: Type>(&self, kind: &'static Key<T>, table: &'static Table) -> Option<T::Value> {
        let mut section = self.clone().section(table)?;
        let kind = section.required(kind);
        // Without a kind, the other keys cannot be checked.
        section.take_all();
        kind
    }
}

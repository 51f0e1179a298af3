//! Declarations of keys. A [`Key`] is declared once, with its name, type, default and words. The reader takes a value by the declaration, so
//! that the manual, the JSON Schema and the messages, which are made from it, cannot differ from what is read.
//!
//! To add a key: declare it in `config/keys/`, list it in its [`Table`], and read it. A test fails if one of the three is missing.

use super::declaration::{About, Declared, Presence, Shape, Table};
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

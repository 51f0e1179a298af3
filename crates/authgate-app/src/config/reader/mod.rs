//! Walks the tree of a TOML file: [`Section`] is a table, [`Item`] a value. Both have their position and their key path.
//!
//! A key that was not taken is a problem: a [`Section`] reports it when it is dropped, so no key can be ignored by mistake.
//! A value that cannot be read is reported and becomes `None`, or the default, so that reading continues.

mod declaration;
mod key;
mod private_files;
mod text;
pub(crate) mod text_source;
pub(crate) mod types;
mod value;
pub(crate) mod walk;
mod written;

use std::cell::{OnceCell, RefCell};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use authgate_auth::fetch::FetchTls;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use self::declaration::{Declared, Form, MAX_DURATION, Misplaced, Presence, Shape, Table};
pub(crate) use self::key::{DefaultKey, Key, Raw, Sub};
pub(crate) use self::text::Text;
pub(crate) use self::value::{fold, header_name, is_connection_specific, is_token_byte};
use self::written::listed;
use super::key_path::join;
use super::named_file::NamedFile;
use super::problem::{Problem, Problems};

/// The state that all sections and items of a file share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The declaration of the whole file.
    pub(crate) root: &'static Table,
    /// The folder that relative paths start from.
    pub(crate) folder: PathBuf,
    /// The problems found so far.
    pub(in crate::config) problems: Problems,
    /// The files that were named so far.
    pub(crate) files: RefCell<Vec<NamedFile>>,
    /// TLS to identity providers with the root certificates of the system, once it is made.
    pub(crate) system_tls: OnceCell<FetchTls>,
}

#[cfg(test)]
thread_local! {
    /// The keys that this thread has read, each with the address of its table.
    pub(crate) static READ_KEYS: RefCell<std::collections::HashSet<(usize, &'static str)>> = RefCell::default();
}

/// What distinguishes a table from others.
#[cfg(test)]
pub(crate) fn table_id(table: &'static Table) -> usize {
    std::ptr::from_ref(table).addr()
}

impl Context {
    /// Call it before the file is read: a change after that is noticed by its digest.
    fn add_file(&self, key: &str, path: &Path) {
        let mut files = self.files.borrow_mut();
        // A key that is read twice follows itself, or the key beside it.
        let is_known = files
            .iter()
            .rev()
            .take(2)
            .any(|file| file.key == key && file.path == path);
        if !is_known {
            files.push(NamedFile::new(key.to_owned(), path.to_owned()));
        }
    }
}

/// A table that is being read. On drop it reports keys that were not taken.
pub(crate) struct Section<'c> {
    context: &'c Context,
    key: String,
    span: Range<usize>,
    remaining: Vec<Entry<'c>>,
    /// The keys that it can have. `None`: the operator chooses their names.
    table: Option<&'static Table>,
    /// Required keys that are missing, and what to write.
    missing: Vec<(&'static dyn Declared, String)>,
}

#[derive(Debug)]
struct Entry<'c> {
    name: &'c str,
    span: Range<usize>,
    item: Item<'c>,
}

/// An entry of a table whose names the operator chooses, such as `[stores]`.
#[derive(Debug)]
pub(crate) struct NamedEntry<'c> {
    /// The name.
    pub(crate) name: &'c str,
    /// The position of the name.
    pub(crate) span: Range<usize>,
    /// Its value.
    pub(crate) item: Item<'c>,
}

/// A value that is being read.
#[derive(Debug, Clone)]
pub(crate) struct Item<'c> {
    context: &'c Context,
    key: String,
    span: Range<usize>,
    value: &'c DeValue<'c>,
}

impl<'c> Section<'c> {
    /// The whole file.
    pub(crate) fn root(context: &'c Context, table: &'c Spanned<DeTable<'c>>) -> Self {
        Self::new(context, String::new(), 0..0, table.get_ref(), Some(context.root))
    }

    fn new(
        context: &'c Context,
        key: String,
        span: Range<usize>,
        values: &'c DeTable<'c>,
        table: Option<&'static Table>,
    ) -> Self {
        let names = table.iter().flat_map(|table| table.names());
        names.for_each(|name| context.problems.add_known_key(name));
        let mut remaining: Vec<Entry<'c>> = values
            .iter()
            .map(|(name, value)| {
                let key = join(&key, name.get_ref());
                let item = Item {
                    context,
                    key,
                    span: value.span(),
                    value: value.get_ref(),
                };
                Entry {
                    name: name.get_ref(),
                    span: name.span(),
                    item,
                }
            })
            .collect();
        remaining.sort_by_key(|entry| entry.span.start);
        Self {
            context,
            key,
            span,
            remaining,
            table,
            missing: Vec::new(),
        }
    }

    /// The position where it is opened.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Takes the value of a key that may be absent.
    pub(crate) fn take(&mut self, key: &'static dyn Declared) -> Option<Item<'c>> {
        let name = key.name();
        #[cfg(test)]
        self.record(key);
        let at = self.remaining.iter().position(|entry| entry.name == name)?;
        Some(self.remaining.remove(at).item)
    }

    /// Fails the test if the table does not declare the key, and records that it is read.
    #[cfg(test)]
    fn record(&self, key: &'static dyn Declared) {
        let table = self.table.expect("a table with declared keys");
        assert!(
            table.keys.iter().any(|declared| std::ptr::addr_eq(*declared, key)),
            "`{}` of `{}` is not declared in the table",
            key.name(),
            self.key
        );
        READ_KEYS.with_borrow_mut(|read| read.insert((table_id(table), key.name())));
    }

    /// Takes a key that belongs to another table, to report it.
    pub(crate) fn take_misplaced(&mut self, name: &str) -> Option<Item<'c>> {
        let at = self.remaining.iter().position(|entry| entry.name == name)?;
        Some(self.remaining.remove(at).item)
    }

    /// Whether a key is absent, and was not taken.
    pub(crate) fn lacks(&self, key: &'static dyn Declared) -> bool {
        self.remaining.iter().all(|entry| entry.name != key.name())
    }

    /// Takes the value of a required key.
    pub(crate) fn require(&mut self, key: &'static dyn Declared) -> Option<Item<'c>> {
        let item = self.take(key);
        if item.is_none() {
            self.missing.push((key, key.missing_help()));
        }
        item
    }

    /// The same, where another example fits better than that of the declaration.
    pub(crate) fn require_as(&mut self, key: &'static dyn Declared, example: &str) -> Option<Item<'c>> {
        let item = self.take(key);
        if item.is_none() {
            self.missing.push((key, format!("write `{example}`")));
        }
        item
    }

    /// Takes all entries of a table whose names the operator chooses.
    pub(crate) fn take_all(&mut self) -> Vec<NamedEntry<'c>> {
        self.remaining
            .drain(..)
            .map(|Entry { name, span, item }| NamedEntry { name, span, item })
            .collect()
    }

    /// Reports that something is missing in the table.
    pub(crate) fn report_missing(&self, message: impl Into<String>, help: impl Into<String>) {
        self.context
            .problems
            .add(Problem::error(self.span(), &self.key, message, help).into_missing());
    }

    /// A problem with the whole table, for the caller to complete and add.
    pub(crate) fn problem(&self, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem::error(self.span(), &self.key, message, help)
    }

    /// See [`Context::system_tls`].
    pub(crate) fn system_tls(&self) -> &OnceCell<FetchTls> {
        &self.context.system_tls
    }

    /// Whether errors were found so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.context.problems.has_errors()
    }

    /// Adds a problem.
    pub(crate) fn add(&self, problem: Problem) {
        self.context.problems.add(problem);
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let mut misspelled = Vec::new();
        for entry in &self.remaining {
            let message = || format!("unknown key `{}`", entry.name);
            let (message, help) = match self
                .table
                .map(|table| unknown(self.context.root, entry.name, &self.key, table))
            {
                None => (message(), "remove it".to_owned()),
                Some(Unknown::Misplaced(key)) => (key.message.to_owned(), key.help.replace("{table}", &self.key)),
                Some(Unknown::Misspelled(name)) => {
                    misspelled.push(name);
                    (message(), format!("did you mean `{name}`?"))
                }
                Some(Unknown::Other(help)) => (message(), help),
            };
            self.context
                .problems
                .add(Problem::error(entry.span.clone(), &entry.item.key, message, help));
        }
        // A misspelled key is not also reported as missing.
        let missing = self
            .missing
            .drain(..)
            .filter(|(key, _)| !misspelled.contains(&key.name()));
        for (key, help) in missing {
            let name = key.name();
            let message = format!("`{name}` is missing");
            let problem = Problem::error(self.span.clone(), &join(&self.key, name), message, help);
            let problem = if self.key.is_empty() {
                Problem { span: None, ..problem }
            } else {
                problem
            };
            self.context.problems.add(problem.into_missing());
        }
    }
}

/// What an unknown key may be.
enum Unknown {
    /// A key that belongs elsewhere.
    Misplaced(&'static Misplaced),
    /// Another key of the table.
    Misspelled(&'static str),
    /// Anything; the help says which keys there are.
    Other(String),
}

fn unknown(root: &'static Table, written: &str, table_key: &str, table: &'static Table) -> Unknown {
    // A key of more tables than these says nothing about where it belongs.
    const MANY: usize = 3;
    if let Some(key) = table.misplaced.iter().find(|key| key.name == written) {
        return Unknown::Misplaced(key);
    }
    if let Some(name) = nearest(written, table.names()) {
        return Unknown::Misspelled(name);
    }
    let known: Vec<&str> = table.names().collect();
    let known = known.join(", ");
    let known = match table_key {
        "" => format!("known keys: {known}"),
        key => format!("`authgate check --key '{key}'` describes the known keys: {known}"),
    };
    let elsewhere = walk::tables_with(root, written);
    let places: Vec<String> = elsewhere.iter().map(|place| format!("`{place}`")).collect();
    Unknown::Other(match places.len() {
        1..=MANY => format!("it is a key of {}; {known}", listed(&places, "and")),
        _ => known,
    })
}

impl<'c> Item<'c> {
    /// The key path of this value.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Its position.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Reports an error about this value.
    pub(crate) fn refuse(&self, message: impl Into<String>, help: impl Into<String>) {
        self.context
            .problems
            .add(Problem::error(self.span(), &self.key, message, help));
    }

    /// Reports a warning about this value.
    pub(crate) fn warn(&self, message: impl Into<String>, help: impl Into<String>) {
        self.context
            .problems
            .add(Problem::error(self.span(), &self.key, message, help).into_warning());
    }

    /// Adds a problem that [`Item::problem`] began.
    pub(crate) fn add(&self, problem: Problem) {
        self.context.problems.add(problem);
    }

    /// A problem with this value, for the caller to complete and add.
    pub(crate) fn problem(&self, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem::error(self.span(), &self.key, message, help)
    }

    /// Reports that the value is not of the type `expected`, such as `a duration`. `help` says what to write.
    fn wrong_type(&self, expected: &str, help: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(format!("expected {expected}, found {found}"), help);
    }

    /// The last part of its key path.
    pub(crate) fn name(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or_default()
    }

    /// A table with declared keys.
    pub(crate) fn section(self, table: &'static Table) -> Option<Section<'c>> {
        self.open(Some(table))
    }

    /// A table whose names the operator chooses.
    pub(crate) fn names(self) -> Option<Section<'c>> {
        self.open(None)
    }

    fn open(self, table: Option<&'static Table>) -> Option<Section<'c>> {
        if let DeValue::Table(values) = self.value {
            let mut section = Section::new(self.context, self.key, self.span, values, table);
            // It was read, to choose the table.
            if let Some(kind) = table
                .filter(|table| table.kind.is_some())
                .and_then(|table| table.find("kind"))
            {
                section.take(kind);
            }
            return Some(section);
        }
        self.wrong_type(
            "a table",
            &format!("write `[{}]`, or `{} = {{ … }}`", self.key, self.name()),
        );
        None
    }

    /// A list. Each element is an item of its own.
    pub(crate) fn list(&self, key: &dyn Declared) -> Option<Vec<Item<'c>>> {
        if !matches!(self.value, DeValue::Table(_) | DeValue::Array(_)) {
            self.show();
        }
        self.elements(key)
    }

    fn elements(&self, key: &dyn Declared) -> Option<Vec<Item<'c>>> {
        match self.value {
            DeValue::Array(elements) => Some(
                elements
                    .iter()
                    .enumerate()
                    .map(|(at, element)| Item {
                        context: self.context,
                        key: format!("{}[{at}]", self.key),
                        span: element.span(),
                        value: element.get_ref(),
                    })
                    .collect(),
            ),
            _ => {
                self.wrong_type("a list", &key.missing_help());
                None
            }
        }
    }

    /// A list that is not empty.
    pub(crate) fn non_empty_list(&self, key: &dyn Declared) -> Option<Vec<Item<'c>>> {
        self.non_empty(self.list(key)?, key)
    }

    /// A list of tables that may hold secrets: a value of another type is not shown.
    pub(crate) fn non_empty_list_of_tables(&self, key: &dyn Declared) -> Option<Vec<Item<'c>>> {
        self.non_empty(self.elements(key)?, key)
    }

    fn non_empty(&self, elements: Vec<Item<'c>>, key: &dyn Declared) -> Option<Vec<Item<'c>>> {
        if elements.is_empty() {
            self.refuse("the list is empty", key.missing_help());
            return None;
        }
        Some(elements)
    }

    /// One value, or a list of values that is not empty.
    pub(crate) fn one_or_more(&self, key: &dyn Declared) -> Option<Vec<Item<'c>>> {
        match self.value {
            DeValue::Array(_) => self.non_empty_list(key),
            _ => Some(vec![self.clone()]),
        }
    }

    /// The value is not a secret: an excerpt may show it. Values that were not read may be secrets under a misspelled key.
    fn show(&self) {
        self.context.problems.show(self.span());
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self) -> Option<bool> {
        self.show();
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong_type("true or false", "write `true` or `false`, without quotes");
                None
            }
        }
    }

    /// Whether the value is a table that is not the source of a string.
    pub(crate) fn is_table(&self) -> bool {
        match self.value {
            DeValue::Table(table) => !["env", "file"].iter().any(|name| table.contains_key(*name)),
            _ => false,
        }
    }

    /// Whether the value is `false`, which some keys accept in place of a string.
    pub(crate) fn is_false(&self) -> bool {
        self.show();
        matches!(self.value, DeValue::Boolean(false))
    }

    /// A whole number within bounds.
    pub(crate) fn count(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        self.show();
        let help = format!("write a whole number from {} to {}", bounds.start(), bounds.end());
        let DeValue::Integer(number) = self.value else {
            self.wrong_type("a whole number", &help);
            return None;
        };
        let number = u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| bounds.contains(number));
        if number.is_none() {
            self.refuse("the number is out of range", help);
        }
        number
    }

    /// The value, which is not a secret.
    pub(crate) fn shown_value(&self) -> &'c DeValue<'c> {
        if !matches!(self.value, DeValue::Table(_) | DeValue::Array(_)) {
            self.show();
        }
        self.value
    }

    /// The value as it is, for keys that accept several types.
    pub(crate) fn value(&self) -> &'c DeValue<'c> {
        self.value
    }
}

/// The known name that is closest to a misspelled one: a few letters differ, or one is a prefix of the other.
pub(crate) fn nearest<'n>(written: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let folded = written.to_lowercase();
    let begins =
        |name: &str| folded.len().min(name.len()) >= 3 && (folded.starts_with(name) || name.starts_with(&folded));
    known
        .map(|name| (strsim::osa_distance(&folded, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= written.len().max(name.len()).max(3) / 3 || begins(name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

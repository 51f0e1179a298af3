//! Walks the tree of a TOML file: [`Section`] is a table, [`Item`] a value. Both have their position and their key path.
//!
//! A key that was not taken is a problem: a [`Section`] reports it when it is dropped, so no key can be ignored by mistake.
//! A value that cannot be read is reported and becomes `None`, or the default, so that reading continues.

mod private_files;
mod text;
mod value;

use std::cell::{OnceCell, RefCell};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use authgate_auth::fetch::FetchTls;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use self::text::Text;
pub(crate) use self::value::{Zero, fold, header_name, is_connection_specific, is_token_byte};
use super::key_path::join;
use super::named_file::NamedFile;
use super::problem::{Problem, Problems};

/// The state that all sections and items of a file share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The folder that relative paths start from.
    pub(crate) folder: PathBuf,
    /// The problems found so far.
    pub(crate) problems: Problems,
    /// The files that were named so far.
    pub(crate) files: RefCell<Vec<NamedFile>>,
    /// TLS to identity providers with the root certificates of the system, once it is made.
    pub(crate) system_tls: OnceCell<FetchTls>,
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
#[derive(Debug)]
pub(crate) struct Section<'c> {
    context: &'c Context,
    key: String,
    span: Range<usize>,
    remaining: Vec<Entry<'c>>,
    known: Vec<&'static str>,
    missing: Vec<(&'static str, String)>,
    unsupported: &'static [&'static str],
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
        Self::new(context, String::new(), 0..0, table.get_ref(), &[])
    }

    fn new(
        context: &'c Context,
        key: String,
        span: Range<usize>,
        table: &'c DeTable<'c>,
        unsupported: &'static [&'static str],
    ) -> Self {
        let mut remaining: Vec<Entry<'c>> = table
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
            known: Vec::new(),
            missing: Vec::new(),
            unsupported,
        }
    }

    /// The key path of the table.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The position where it is opened.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Takes the value of a key that may be absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Item<'c>> {
        self.known.push(name);
        self.context.problems.add_known_key(name);
        let at = self.remaining.iter().position(|entry| entry.name == name)?;
        Some(self.remaining.remove(at).item)
    }

    /// Whether a key is absent, and was not taken.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.remaining.iter().all(|entry| entry.name != name)
    }

    /// Takes the value of a required key; `example` is what to write if it is missing.
    pub(crate) fn require(&mut self, name: &'static str, example: &str) -> Option<Item<'c>> {
        let item = self.take(name);
        if item.is_none() {
            self.missing.push((name, format!("write `{example}`")));
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

    /// The table under a key, if it is there.
    pub(crate) fn section(&mut self, name: &'static str, unsupported: &'static [&'static str]) -> Option<Section<'c>> {
        self.take(name)?.section(unsupported)
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
            let nearest = nearest(entry.name, self.known.iter().copied());
            misspelled.extend(nearest);
            let (message, help) = if self.unsupported.contains(&entry.name) {
                (
                    format!("`{}` is not supported yet", entry.name),
                    "this version does not have it; remove the key".to_owned(),
                )
            } else {
                let help = match nearest {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known keys: {}", self.known.join(", ")),
                };
                (format!("unknown key `{}`", entry.name), help)
            };
            self.context
                .problems
                .add(Problem::error(entry.span.clone(), &entry.item.key, message, help));
        }
        // A misspelled key is not also reported as missing.
        for (name, help) in self.missing.iter().filter(|(name, _)| !misspelled.contains(name)) {
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

    /// A table.
    pub(crate) fn section(self, unsupported: &'static [&'static str]) -> Option<Section<'c>> {
        if let DeValue::Table(table) = self.value {
            return Some(Section::new(self.context, self.key, self.span, table, unsupported));
        }
        let last = self.key.rsplit('.').next().unwrap_or_default();
        self.wrong_type("a table", &format!("write `[{}]`, or `{last} = {{ … }}`", self.key));
        None
    }

    /// A list; `example` is one. Each element is an item of its own.
    pub(crate) fn list(&self, example: &str) -> Option<Vec<Item<'c>>> {
        if !matches!(self.value, DeValue::Table(_) | DeValue::Array(_)) {
            self.show();
        }
        self.elements(example)
    }

    fn elements(&self, example: &str) -> Option<Vec<Item<'c>>> {
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
                self.wrong_type("a list", &format!("write `{example}`"));
                None
            }
        }
    }

    /// A list that is not empty.
    pub(crate) fn non_empty_list(&self, example: &str) -> Option<Vec<Item<'c>>> {
        self.non_empty(self.list(example)?, example)
    }

    /// A list of tables that may hold secrets: a value of another type is not shown.
    pub(crate) fn non_empty_list_of_tables(&self, example: &str) -> Option<Vec<Item<'c>>> {
        self.non_empty(self.elements(example)?, example)
    }

    fn non_empty(&self, elements: Vec<Item<'c>>, example: &str) -> Option<Vec<Item<'c>>> {
        if elements.is_empty() {
            self.refuse("the list is empty", format!("write `{example}`"));
            return None;
        }
        Some(elements)
    }

    /// One value, or a list of values that is not empty.
    pub(crate) fn one_or_more(&self, example: &str) -> Option<Vec<Item<'c>>> {
        match self.value {
            DeValue::Array(_) => self.non_empty_list(example),
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

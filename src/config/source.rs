//! [`Source`]: the text of a configuration and the files that it names, to report what a later text changes.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use authgate_core::printable;
use authgate_core::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key_path::join;
use super::named_file::NamedFile;

/// A longer value is not shown.
const MAX_SHOWN: usize = 80;

/// The text of a configuration, and the files that it names.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) file: String,
    text: Secret<String>,
    /// The text without possible secrets; as long as `text`.
    masked: String,
    files: Vec<NamedFile>,
}

/// A difference between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key path.
    pub key: String,
    /// What has happened to it.
    pub kind: ChangeKind,
}

/// What has happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The new text has it.
    Added,
    /// Only the old text has it. An index in its path is that of the old text.
    Removed,
    /// Its value is another one: the old and the new value, if both are short and not secret.
    Value(Option<(String, String)>),
    /// Its value is the same, but the content of the file that it names is another one.
    Content(PathBuf),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = printable::escape(&self.key, |_| false);
        match &self.kind {
            ChangeKind::Added => write!(f, "{key}: added"),
            ChangeKind::Removed => write!(f, "{key}: removed"),
            ChangeKind::Value(None) => write!(f, "{key}: changed"),
            ChangeKind::Value(Some((old, new))) => write!(f, "{key}: changed from {old} to {new}"),
            ChangeKind::Content(path) => write!(
                f,
                "{key}: the content of {} has changed",
                printable::escape(&path.display().to_string(), |_| false)
            ),
        }
    }
}

impl Source {
    pub(super) fn new(file: &str, text: &str, masked: String, files: Vec<NamedFile>) -> Self {
        Self {
            file: file.to_owned(),
            text: Secret::new(text.to_owned()),
            masked,
            files,
        }
    }

    /// The files that it names.
    pub fn files(&self) -> &[NamedFile] {
        &self.files
    }

    /// The SHA-256 of the text.
    pub fn digest(&self) -> [u8; 32] {
        let mut result = [0; 32];
        result.copy_from_slice(digest(&SHA256, self.text.expose().as_bytes()).as_ref());
        result
    }

    /// The text without possible secrets.
    pub(super) fn masked(&self) -> &str {
        &self.masked
    }

    /// What `next` changes, in the order of the key paths.
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let (old_table, _) = DeTable::parse_recoverable(self.text.expose());
        let (new_table, _) = DeTable::parse_recoverable(next.text.expose());
        Comparison {
            old: self,
            new: next,
            changes: &mut changes,
        }
        .tables("", old_table.get_ref(), new_table.get_ref());
        let before: HashMap<(&str, &Path), Option<[u8; 32]>> = self
            .files
            .iter()
            .map(|file| ((file.key.as_str(), file.path.as_path()), file.digest))
            .collect();
        changes.extend(next.files.iter().filter_map(|file| {
            let before = before.get(&(file.key.as_str(), file.path.as_path()))?;
            (*before != file.digest).then(|| Change {
                key: file.key.clone(),
                kind: ChangeKind::Content(file.path.clone()),
            })
        }));
        changes
    }

    /// The position of the value of a key path, such as `server.listen` or `routes[2].path`.
    pub(super) fn find(&self, key: &str) -> Option<Range<usize>> {
        let (table, _) = DeTable::parse_recoverable(self.text.expose());
        let (mut table, mut span) = (table.get_ref(), None);
        for part in key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse::<usize>().ok()?)),
                None => (part, None),
            };
            let mut value = table.get(name)?;
            if let (Some(index), DeValue::Array(elements)) = (index, value.get_ref()) {
                value = elements.get(index)?;
            }
            span = Some(value.span());
            table = match value.get_ref() {
                DeValue::Table(inner) => inner,
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => break,
            };
        }
        span
    }

    /// The value at a position, if all of it may be shown.
    fn shown(&self, span: Range<usize>) -> Option<String> {
        let written = self.text.expose().get(span.clone())?;
        let masked = self.masked.get(span)?;
        (written == masked && written.len() <= MAX_SHOWN && !written.contains('\n')).then(|| masked.to_owned())
    }
}

/// Compares two trees.
struct Comparison<'c> {
    old: &'c Source,
    new: &'c Source,
    changes: &'c mut Vec<Change>,
}

impl Comparison<'_> {
    fn add(&mut self, key: String, kind: ChangeKind) {
        self.changes.push(Change { key, kind });
    }

    fn tables(&mut self, at: &str, old: &DeTable<'_>, new: &DeTable<'_>) {
        let by_name =
            |table: &DeTable<'_>| -> BTreeSet<String> { table.keys().map(|name| name.get_ref().to_string()).collect() };
        let mut names = by_name(old);
        names.extend(by_name(new));
        for name in names {
            let key = join(at, &name);
            match (old.get(name.as_str()), new.get(name.as_str())) {
                (Some(old), Some(new)) => self.values(key, old, new),
                (None, Some(_)) => self.add(key, ChangeKind::Added),
                (Some(_), None) => self.add(key, ChangeKind::Removed),
                (None, None) => {}
            }
        }
    }

    fn values(&mut self, key: String, old: &Spanned<DeValue<'_>>, new: &Spanned<DeValue<'_>>) {
        match (old.get_ref(), new.get_ref()) {
            (DeValue::Table(old), DeValue::Table(new)) => self.tables(&key, old, new),
            (DeValue::Array(old), DeValue::Array(new)) if are_tables(old) && are_tables(new) => {
                self.lists_of_tables(&key, old, new);
            }
            (old_value, new_value) => {
                if canonical(old_value) != canonical(new_value) {
                    let shown = self.old.shown(old.span()).zip(self.new.shown(new.span()));
                    self.add(key, ChangeKind::Value(shown));
                }
            }
        }
    }

    /// Elements that are equal are the same element, wherever they are. The others are paired by what they match, as routes are.
    fn lists_of_tables(&mut self, at: &str, old: &[Spanned<DeValue<'_>>], new: &[Spanned<DeValue<'_>>]) {
        let mut unmatched: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, element) in old.iter().enumerate().rev() {
            unmatched.entry(canonical(element.get_ref())).or_default().push(index);
        }
        let mut others: Vec<usize> = Vec::new();
        for (index, element) in new.iter().enumerate() {
            if unmatched
                .get_mut(&canonical(element.get_ref()))
                .and_then(Vec::pop)
                .is_none()
            {
                others.push(index);
            }
        }
        let mut rest: Vec<usize> = unmatched.into_values().flatten().collect();
        rest.sort_unstable();
        let mut by_identity: HashMap<String, Vec<usize>> = HashMap::new();
        for index in rest.iter().rev() {
            by_identity.entry(identity(&old[*index])).or_default().push(*index);
        }
        for index in others {
            let key = format!("{at}[{index}]");
            match by_identity.get_mut(&identity(&new[index])).and_then(Vec::pop) {
                Some(before) => self.values(key, &old[before], &new[index]),
                None => self.add(key, ChangeKind::Added),
            }
        }
        let mut removed: Vec<usize> = by_identity.into_values().flatten().collect();
        removed.sort_unstable();
        for index in removed {
            self.add(format!("{at}[{index}]"), ChangeKind::Removed);
        }
    }
}

/// Whether this is a list of tables, and not a list of values.
fn are_tables(elements: &[Spanned<DeValue<'_>>]) -> bool {
    elements
        .iter()
        .all(|element| matches!(element.get_ref(), DeValue::Table(_)))
}

/// What tells one table of a list from the others: of a route, what it matches.
fn identity(element: &Spanned<DeValue<'_>>) -> String {
    const KEYS: [&str; 4] = ["host", "path", "methods", "kid"];
    let DeValue::Table(table) = element.get_ref() else {
        return String::new();
    };
    let values = KEYS
        .iter()
        .map(|key| table.get(*key).map(|value| canonical(value.get_ref())));
    values.map(|value| value.unwrap_or_default() + "\n").collect()
}

/// A text that is equal for equal values, however they are written.
fn canonical(value: &DeValue<'_>) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &DeValue<'_>, out: &mut String) {
    use fmt::Write;
    let written = match value {
        DeValue::String(text) => write!(out, "{text:?}"),
        DeValue::Integer(number) => write!(out, "{}:{}", number.radix(), number.as_str()),
        DeValue::Float(number) => write!(out, "{}", number.as_str()),
        DeValue::Boolean(flag) => write!(out, "{flag}"),
        DeValue::Datetime(time) => write!(out, "{time}"),
        DeValue::Array(elements) => {
            out.push('[');
            for element in elements {
                write_canonical(element.get_ref(), out);
                out.push(',');
            }
            out.push(']');
            Ok(())
        }
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by(|one, other| one.0.get_ref().cmp(other.0.get_ref()));
            out.push('{');
            for (name, value) in entries {
                let _ = write!(out, "{:?}=", name.get_ref());
                write_canonical(value.get_ref(), out);
                out.push(',');
            }
            out.push('}');
            Ok(())
        }
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    const FILE: &str = r#"
[server]
listen = ["127.0.0.1:8443"]
[server.limits]
headers = 100
[stores.redis]
kind = "redis"
url = "redis://:canary-old@127.0.0.1:6379/0"
[authenticators.token]
kind = "token"
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[routes]]
path = "/a/*"
authenticate = ["token"]
upstream = "app"
[[routes]]
path = "/b/*"
authenticate = ["token"]
upstream = "app"
"#;

    fn changes(next: &str) -> Vec<String> {
        let load = |text: &str| match parse("gateway.toml", text, std::path::Path::new("")) {
            Ok(loaded) => loaded.source,
            Err(error) => panic!("{error}"),
        };
        let changes = load(FILE).changes(&load(next));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_name_their_keys_and_no_secret() {
        let none: [&str; 0] = [];
        assert_eq!(changes(FILE), none);
        let comment = FILE.replace("headers = 100", "# more\nheaders =  100");
        assert_eq!(changes(&comment), none, "only the writing");
        for (from, to, expected) in [
            (
                "headers = 100",
                "headers = 50",
                vec!["server.limits.headers: changed from 100 to 50"],
            ),
            ("headers = 100", "", vec!["server.limits.headers: removed"]),
            ("canary-old", "canary-new", vec!["stores.redis.url: changed"]),
            (
                "[upstreams.app]",
                "[upstreams.other]\nservers = [\"http://127.0.0.1:9\"]\n[upstreams.app]",
                vec!["upstreams.other: added"],
            ),
            // A route before the others does not change them.
            (
                "[[routes]]\npath = \"/a/*\"",
                "[[routes]]\npath = \"/new\"\npublic = true\nupstream = \"app\"\n[[routes]]\npath = \"/a/*\"",
                vec!["routes[0]: added"],
            ),
            (
                "[[routes]]\npath = \"/a/*\"\nauthenticate = [\"token\"]\nupstream = \"app\"\n",
                "",
                vec!["routes[0]: removed"],
            ),
            (
                "path = \"/b/*\"",
                "path = \"/b/*\"\nmethods = [\"GET\"]",
                vec!["routes[1]: added", "routes[1]: removed"],
            ),
            (
                "path = \"/b/*\"",
                "path = \"/b/*\"\nresponse_timeout = \"5s\"",
                vec!["routes[1].response_timeout: added"],
            ),
            (
                "listen = [\"127.0.0.1:8443\"]",
                "listen = [\"127.0.0.1:8443\", \"127.0.0.1:8444\"]",
                vec!["server.listen: changed from [\"127.0.0.1:8443\"] to [\"127.0.0.1:8443\", \"127.0.0.1:8444\"]"],
            ),
        ] {
            assert_eq!(changes(&FILE.replacen(from, to, 1)), expected, "{to}");
        }
    }
}

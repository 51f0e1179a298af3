//! [`Change`]: a difference between two configurations.

use std::fmt;
use std::path::PathBuf;

use authgate_core::printable;

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

//! [`NamedFile`]: a file that the configuration names.

use std::path::PathBuf;

use authgate_dataplane::file::Fingerprint;

/// A file whose content belongs to the configuration, such as a certificate or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The key whose value names it.
    pub key: String,
    /// Its path.
    pub path: PathBuf,
    /// What it held before the configuration read it.
    pub fingerprint: Fingerprint,
}

impl NamedFile {
    /// Reads the content of the file.
    pub(super) fn new(key: String, path: PathBuf) -> Self {
        Self {
            fingerprint: Fingerprint::of(&path),
            key,
            path,
        }
    }
}

//! [`NamedFile`]: a file that the configuration names.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};

use crate::file;

/// A file whose content belongs to the configuration, such as a certificate or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The key whose value names it.
    pub key: String,
    /// Its path.
    pub path: PathBuf,
    /// The digest of its content, if it can be read.
    pub digest: Option<[u8; 32]>,
}

impl NamedFile {
    /// Reads the content of the file.
    pub(super) fn new(key: String, path: PathBuf) -> Self {
        let content = file::read(&path);
        Self {
            key,
            path,
            digest: content
                .ok()
                .and_then(|content| digest(&SHA256, &content).as_ref().try_into().ok()),
        }
    }
}

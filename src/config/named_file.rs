//! [`NamedFile`]: a file that the configuration names.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};

/// A larger file is not compared. Keys, certificates and secrets are much smaller.
const MAX_COMPARED_FILE: u64 = 16 << 20;

/// A file that the configuration names, such as a certificate or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The key whose value names it.
    pub key: String,
    /// Its path.
    pub path: PathBuf,
    /// The digest of its content, if it is small enough to be compared.
    pub digest: Option<[u8; 32]>,
}

impl NamedFile {
    /// Reads the content of the file.
    pub(super) fn new(key: String, path: PathBuf) -> Self {
        let is_compared = !key.starts_with("stores.")
            && std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= MAX_COMPARED_FILE);
        let content = is_compared.then(|| std::fs::read(&path).ok()).flatten();
        Self {
            key,
            path,
            digest: content.and_then(|content| digest(&SHA256, &content).as_ref().try_into().ok()),
        }
    }
}

//! Whether a file has changed: [`Stamp`] is cheap to read, [`Fingerprint`] decides.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::digest;

/// The SHA-256 of a file.
pub type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// What the system says about a file, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: it cannot be reached.
    pub(super) fn of(file: &Path) -> Option<Self> {
        fs::metadata(file).ok().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What a file holds, or why it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fingerprint {
    /// The SHA-256 of its content.
    Content(Digest),
    /// It is a folder, a pipe or a device, which are not read.
    NotAFile,
    /// It cannot be read.
    Unreadable(io::ErrorKind),
}

impl Fingerprint {
    /// Reads the file.
    pub(super) fn of(file: &Path) -> Self {
        Self::read(file).unwrap_or_else(|error| Self::Unreadable(error.kind()))
    }

    fn read(file: &Path) -> io::Result<Self> {
        // Opening a pipe would wait for its writer.
        if !fs::metadata(file)?.is_file() {
            return Ok(Self::NotAFile);
        }
        let mut file = File::open(file)?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = [0; 16 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => context.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut content = [0; digest::SHA256_OUTPUT_LEN];
        content.copy_from_slice(context.finish().as_ref());
        Ok(Self::Content(content))
    }
}

//! Reads files that the configuration names: certificates, keys, secrets. A pipe would wait for its writer, and a device may never end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The longest file that is read. Keys, certificates and secrets are much shorter.
pub const MAX_BYTES: u64 = 16 << 20;

/// Reads a regular file of at most [`MAX_BYTES`].
///
/// # Errors
/// It cannot be read, is longer, or is a folder, a pipe or a device.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_bounded_length_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, long) = (folder.path().join("file"), folder.path().join("long"));
        fs::write(&file, b"secret").expect("writable");
        File::create(&long)
            .and_then(|file| file.set_len(MAX_BYTES + 1))
            .expect("writable");
        assert_eq!(read(&file).expect("readable"), b"secret");
        for unreadable in [folder.path(), &long, Path::new("/dev/zero")] {
            assert!(read(unreadable).is_err(), "{}", unreadable.display());
        }
    }
}

//! Reads files that the configuration names: certificates, keys, secrets. A pipe would wait for its writer, and a device may never end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The longest file that is read. Keys, certificates and secrets are much shorter.
pub const MAX_BYTES: u64 = 16 << 20;

/// Reads a regular file of at most [`MAX_BYTES`].
///
/// # Errors
/// It cannot be read, is longer, or is a folder, a pipe or a device.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MAX_BYTES)
}

/// The same for a file of at most `max` bytes.
///
/// # Errors
/// As for [`read`].
pub fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let problem = match max >> 20 {
            0 => format!("it is longer than {max} bytes"),
            mib => format!("it is longer than {mib} MiB"),
        };
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// What a file holds, or why it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fingerprint {
    /// The SHA-256 of its content.
    Content([u8; SHA256_OUTPUT_LEN]),
    /// It cannot be read, for this reason.
    Unreadable(io::ErrorKind),
}

impl Fingerprint {
    /// Reads the file.
    pub fn of(file: &Path) -> Self {
        match read(file) {
            Ok(content) => Self::of_content(&content),
            Err(error) => Self::Unreadable(error.kind()),
        }
    }

    /// That of a file with this content.
    pub fn of_content(content: &[u8]) -> Self {
        let mut sha256 = [0; SHA256_OUTPUT_LEN];
        sha256.copy_from_slice(digest(&SHA256, content).as_ref());
        Self::Content(sha256)
    }
}

/// Limits the reads that clients cause. A flood of them, or a file system that does not answer, occupies few threads. Clones share the limit.
#[derive(Debug, Clone)]
pub struct ReadLimit(Arc<Semaphore>);

impl Default for ReadLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(Self::MAX_READS)))
    }
}

impl ReadLimit {
    /// The maximum number of reads at a time. Others wait.
    const MAX_READS: usize = 16;

    /// Runs a read where the thread may block; `None` if it panics.
    pub async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let read = spawn_blocking(move || {
            let read = read();
            // Also if the client does not wait any more.
            drop(permit);
            read
        });
        read.await.ok()?
    }
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
    #[tokio::test]
    async fn few_reads_run_at_a_time_also_for_clients_that_have_gone() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (limit, running) = (ReadLimit::default(), Arc::new(AtomicUsize::new(0)));
        let (ended, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for _ in 0..3 * ReadLimit::MAX_READS {
            let (running, wait) = (Arc::clone(&running), Arc::clone(&wait));
            let hangs = limit.run(move || {
                running.fetch_add(1, SeqCst);
                let _ = wait.lock().map(|wait| wait.recv());
                Some(())
            });
            // The client does not wait.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(1), hangs).await;
        }
        while running.load(SeqCst) < ReadLimit::MAX_READS {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.load(SeqCst), ReadLimit::MAX_READS);
        drop(ended);
        assert_eq!(limit.run(|| Some(1)).await, Some(1));
        assert_eq!(running.load(SeqCst), ReadLimit::MAX_READS);
    }
}

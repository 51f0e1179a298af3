//! Request bodies on disk: a body without a length is stored in a file until its length is known.
//!
//! The file has no name, so it is deleted when it is closed. Workers never wait for the disk: each access runs on a blocking thread. Each body
//! has one access at a time, and the total number is limited.

use std::fmt;
use std::fs::{File, Permissions};
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::body_error::RequestBodyError;
use super::settings::SpoolSettings;
use crate::concurrency::{ConcurrencyLimit, ConcurrencyPermit};

/// Bytes of one read.
const READ_SIZE: u64 = 128 * 1024;
/// Concurrent disk accesses of all workers, for each upstream.
const MAX_CONCURRENT_IO: usize = 8;
/// Concurrent files of all workers, for each upstream: even a body of one byte needs a descriptor.
const MAX_FILES: usize = 1024;
/// If one access takes longer, the disk counts as broken.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// Only this process may read what clients have sent.
const FILE_MODE: u32 = 0o600;

/// What the spooled bodies of one upstream use; clones share it.
#[derive(Debug, Clone)]
pub(super) struct SpoolUsage {
    bytes: Arc<AtomicU64>,
    files: ConcurrencyLimit,
    io_permits: Arc<Semaphore>,
}

impl SpoolUsage {
    pub(super) fn new() -> Self {
        Self {
            bytes: Arc::default(),
            files: ConcurrencyLimit::new(MAX_FILES),
            io_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_IO)),
        }
    }

    /// Takes bytes, if no more than `max` are in use then.
    fn take(&self, bytes: u64, max: u64) -> Option<BytePermit> {
        let permit = BytePermit {
            bytes,
            in_use: Arc::clone(&self.bytes),
        };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // If the limit is exceeded, dropping `permit` returns the bytes.
        (before.saturating_add(bytes) <= max).then_some(permit)
    }
}

/// The spool of one upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spool<'s> {
    pub(super) settings: &'s SpoolSettings,
    pub(super) usage: &'s SpoolUsage,
}

impl<'s> Spool<'s> {
    /// A writer for a new body.
    pub(super) fn writer(self) -> SpoolWriter<'s> {
        SpoolWriter {
            spool: self,
            file: None,
            length: 0,
        }
    }
}

/// Bytes of a spool; dropping this returns them.
#[derive(Debug)]
struct BytePermit {
    bytes: u64,
    in_use: Arc<AtomicU64>,
}

impl BytePermit {
    fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file and its space. Both live until the last access has ended, even if the request was cancelled before.
#[derive(Debug)]
struct SpoolFile {
    file: File,
    space: BytePermit,
    #[expect(dead_code, reason = "held for its drop")]
    permit: ConcurrencyPermit,
}

/// Creates a file without a name that no other user can open.
fn create(dir: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(dir)?;
    // With O_TMPFILE, the mode comes from the umask.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Runs a disk access on a blocking thread. It runs to its end even if the caller is cancelled.
async fn run_blocking<T: Send + 'static>(
    io_permits: Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RequestBodyError> {
    let run = async {
        let permit = io_permits.acquire_owned().await.map_err(io::Error::other)?;
        let task = spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        task.await.map_err(io::Error::other)?
    };
    let done = timeout(IO_TIMEOUT, run).await;
    let done = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    done.map_err(|error| RequestBodyError::Spool(error.kind()))
}

/// A body that is being written to disk.
pub(super) struct SpoolWriter<'s> {
    spool: Spool<'s>,
    file: Option<SpoolFile>,
    length: u64,
}

impl SpoolWriter<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// The body exceeds its limit, or there is no space.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), RequestBodyError> {
        let count = bytes.len() as u64;
        self.length = self.length.saturating_add(count);
        if self.length > self.spool.settings.body {
            return Err(RequestBodyError::TooLarge);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let added = self
            .spool
            .usage
            .take(count, self.spool.settings.total)
            .ok_or(RequestBodyError::BufferFull)?;
        let dir = Arc::clone(&self.spool.settings.dir);
        let current = match self.file.take() {
            Some(file) => Ok(file),
            None => Err(self
                .spool
                .usage
                .files
                .try_acquire()
                .ok_or(RequestBodyError::BufferFull)?),
        };
        let written = run_blocking(Arc::clone(&self.spool.usage.io_permits), move || {
            let mut file = match current {
                Ok(mut file) => {
                    file.space.merge(added);
                    file
                }
                Err(permit) => SpoolFile {
                    file: create(&dir)?,
                    space: added,
                    permit,
                },
            };
            file.file.write_all(&bytes)?;
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }

    /// The complete body.
    pub(super) fn finish(self) -> SpooledBody {
        SpooledBody {
            length: self.length,
            read: 0,
            file: self.file,
            pending: None,
            io_permits: Arc::clone(&self.spool.usage.io_permits),
        }
    }
}

type PendingRead = Pin<Box<dyn Future<Output = Result<(SpoolFile, Bytes), RequestBodyError>>>>;

/// A complete body on disk, which is read once from its beginning to its end.
pub(super) struct SpooledBody {
    // 0 <= read <= length
    length: u64,
    read: u64,
    /// The file while no read is under way. At most one of `file` and `pending` is set; both are `None` after the end.
    file: Option<SpoolFile>,
    pending: Option<PendingRead>,
    io_permits: Arc<Semaphore>,
}

impl fmt::Debug for SpooledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled")
            .field("length", &self.length)
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl SpooledBody {
    /// The number of bytes that were not read yet.
    pub(super) fn remaining(&self) -> u64 {
        self.length - self.read
    }

    /// The next piece; `None`: everything was read, and the file is closed. Wake-up: the blocking thread.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestBodyError>>> {
        if let Some(file) = self.file.take() {
            let count = self.remaining().min(READ_SIZE);
            self.pending = Some(Box::pin(read(file, self.read, count, Arc::clone(&self.io_permits))));
        }
        let Some(pending) = &mut self.pending else {
            return Poll::Ready(None);
        };
        let read = ready!(pending.as_mut().poll(cx));
        self.pending = None;
        let (file, bytes) = match read {
            Ok(read) => read,
            Err(fault) => return Poll::Ready(Some(Err(fault))),
        };
        self.read += bytes.len() as u64;
        // After the last read, the file is closed and its space is free.
        self.file = (self.remaining() > 0).then_some(file);
        Poll::Ready(Some(Ok(bytes)))
    }
}

async fn read(
    file: SpoolFile,
    at: u64,
    count: u64,
    io_permits: Arc<Semaphore>,
) -> Result<(SpoolFile, Bytes), RequestBodyError> {
    run_blocking(io_permits, move || {
        let mut data = vec![0; usize::try_from(count).unwrap_or(0)];
        file.file.read_exact_at(&mut data, at)?;
        Ok((file, Bytes::from(data)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn settings(dir: &Path, body: u64, total: u64) -> SpoolSettings {
        SpoolSettings {
            dir: dir.into(),
            body,
            total,
        }
    }

    async fn whole(mut spooled: SpooledBody) -> Vec<u8> {
        let mut whole = Vec::new();
        while let Some(data) = poll_fn(|cx| spooled.poll_data(cx)).await {
            whole.extend_from_slice(&data.expect("it is read"));
        }
        assert_eq!(spooled.remaining(), 0);
        whole
    }

    #[tokio::test]
    async fn a_body_is_read_as_it_was_written_and_releases_its_space() {
        let folder = tempfile::tempdir().expect("a folder");
        let (settings, usage) = (settings(folder.path(), 1_000_000, 1_000_000), SpoolUsage::new());
        let spool = Spool {
            settings: &settings,
            usage: &usage,
        };
        let used = || usage.bytes.load(Ordering::Relaxed);
        let body: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        let mut writer = spool.writer();
        for data in body.chunks(99_999) {
            writer.write(Bytes::copy_from_slice(data)).await.expect("there is room");
        }
        assert_eq!(used(), 700_000);
        let mode = writer
            .file
            .as_ref()
            .expect("a file")
            .file
            .metadata()
            .expect("open")
            .permissions();
        assert_eq!(mode.mode() & 0o777, FILE_MODE);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0,
            "no name"
        );
        let spooled = writer.finish();
        assert_eq!(spooled.remaining(), 700_000);

        let mut other = spool.writer();
        let refused = other.write(Bytes::from(vec![0; 300_001])).await;
        assert_eq!(refused, Err(RequestBodyError::BufferFull));
        drop(other);
        let mut long = spool.writer();
        let refused = long.write(Bytes::from(vec![0; 1_000_001])).await;
        assert_eq!(refused, Err(RequestBodyError::TooLarge));
        assert_eq!(used(), 700_000, "what was refused takes no space");

        assert_eq!(whole(spooled).await, body);
        assert_eq!(used(), 0);
        assert!(whole(spool.writer().finish()).await.is_empty());
    }

    #[tokio::test]
    async fn a_body_dropped_in_the_middle_releases_its_space() {
        let folder = tempfile::tempdir().expect("a folder");
        let (settings, usage) = (settings(folder.path(), 1_000_000, 1_000_000), SpoolUsage::new());
        let spool = Spool {
            settings: &settings,
            usage: &usage,
        };
        let mut writer = spool.writer();
        writer
            .write(Bytes::from(vec![1; 300_000]))
            .await
            .expect("there is room");
        let mut half = writer.finish();
        assert!(poll_fn(|cx| half.poll_data(cx)).await.is_some());
        // An access is under way at the drop, unless the disk was faster.
        let _ = futures_util::poll!(poll_fn(|cx| half.poll_data(cx)));
        drop(half);
        while usage.bytes.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_number_of_files_is_limited() {
        let folder = tempfile::tempdir().expect("a folder");
        let (settings, mut usage) = (settings(folder.path(), 10, 1_000), SpoolUsage::new());
        usage.files = ConcurrencyLimit::new(2);
        let spool = Spool {
            settings: &settings,
            usage: &usage,
        };
        let (mut one, mut two, mut three) = (spool.writer(), spool.writer(), spool.writer());
        let byte = Bytes::from_static(b"x");
        assert_eq!(one.write(byte.clone()).await, Ok(()));
        assert_eq!(two.write(byte.clone()).await, Ok(()));
        assert_eq!(one.write(byte.clone()).await, Ok(()));
        assert_eq!(three.write(byte.clone()).await, Err(RequestBodyError::BufferFull));
        assert_eq!(whole(one.finish()).await, b"xx");
        assert_eq!(three.write(byte).await, Ok(()));
    }

    #[tokio::test]
    async fn a_missing_folder_is_an_error_of_the_gateway() {
        let (settings, usage) = (settings(Path::new("/nowhere/at/all"), 10, 10), SpoolUsage::new());
        let spool = Spool {
            settings: &settings,
            usage: &usage,
        };
        let refused = spool.writer().write(Bytes::from_static(b"x")).await;
        assert_eq!(refused, Err(RequestBodyError::Spool(io::ErrorKind::NotFound)));
        assert_eq!(usage.bytes.load(Ordering::Relaxed), 0);
    }
}

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

use super::body::BodyFault;
use crate::concurrency::{ConcurrencyLimit, ConcurrencyPermit};

/// Bytes of one read.
const PIECE: u64 = 128 * 1024;
/// Concurrent disk accesses of all workers, for each upstream.
const ACCESSES: usize = 8;
/// Concurrent files of all workers, for each upstream: even a body of one byte needs a descriptor.
const FILES: usize = 1024;
/// If one access takes longer, the disk counts as broken.
const LONGEST_ACCESS: Duration = Duration::from_secs(30);
/// Only this process may read what clients have sent.
const PRIVATE: u32 = 0o600;

/// What happens to request bodies without a length that exceed the buffer, if the server speaks HTTP/1.1.
#[derive(Debug, Clone)]
pub enum Unsized {
    /// They are stored in files until their length is known.
    Spool(Spool),
    /// They are forwarded in chunks as they come.
    Stream,
    /// They are refused.
    Refuse,
}

/// The folder for bodies, and its limits.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: Arc<Path>,
    /// The limit of one body, in bytes.
    body: u64,
    space: Space,
    files: ConcurrencyLimit,
    accesses: Arc<Semaphore>,
}

impl Spool {
    /// Stores files in `dir`, with up to `body` bytes each and `total` bytes together, for all workers.
    pub fn new(dir: &Path, body: u64, total: u64) -> Self {
        Self {
            dir: dir.into(),
            body,
            space: Space {
                most: total,
                used: Arc::default(),
            },
            files: ConcurrencyLimit::new(FILES),
            accesses: Arc::new(Semaphore::new(ACCESSES)),
        }
    }

    /// The folder, the limit of one body, and the limit of all.
    pub fn settings(&self) -> (&Path, u64, u64) {
        (&self.dir, self.body, self.space.most)
    }

    /// A writer for a new body.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            spool: self,
            stored: None,
            length: 0,
        }
    }
}

/// A limit of bytes that all clones share.
#[derive(Debug, Clone)]
struct Space {
    most: u64,
    used: Arc<AtomicU64>,
}

impl Space {
    fn take(&self, bytes: u64) -> Option<Taken> {
        let taken = Taken {
            bytes,
            used: Arc::clone(&self.used),
        };
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        // If the limit is exceeded, dropping `taken` returns the bytes.
        (before.saturating_add(bytes) <= self.most).then_some(taken)
    }
}

/// Bytes of a [`Space`]; dropping this returns them.
#[derive(Debug)]
struct Taken {
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Taken {
    fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file and its space. Both live until the last access has ended, even if the request was cancelled before.
#[derive(Debug)]
struct Stored {
    file: File,
    space: Taken,
    #[expect(dead_code, reason = "held for its drop")]
    place: ConcurrencyPermit,
}

/// Creates a file without a name that no other user can open.
fn create(dir: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(dir)?;
    // With O_TMPFILE, the mode comes from the umask.
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    Ok(file)
}

/// Runs a disk access on a blocking thread. It runs to its end even if the caller is cancelled.
async fn access<T: Send + 'static>(
    accesses: Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BodyFault> {
    let run = async {
        let permit = accesses.acquire_owned().await.map_err(io::Error::other)?;
        let task = spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        task.await.map_err(io::Error::other)?
    };
    let done = timeout(LONGEST_ACCESS, run).await;
    let done = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    done.map_err(|problem| BodyFault::Spool(problem.kind()))
}

/// A body that is being written to disk.
pub(super) struct Writer<'s> {
    spool: &'s Spool,
    stored: Option<Stored>,
    length: u64,
}

impl Writer<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// The body exceeds its limit, or there is no space.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), BodyFault> {
        let count = bytes.len() as u64;
        self.length = self.length.saturating_add(count);
        if self.length > self.spool.body {
            return Err(BodyFault::TooLarge);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let more = self.spool.space.take(count).ok_or(BodyFault::NoRoom)?;
        let dir = Arc::clone(&self.spool.dir);
        let begun = match self.stored.take() {
            Some(stored) => Ok(stored),
            None => Err(self.spool.files.try_acquire().ok_or(BodyFault::NoRoom)?),
        };
        let written = access(Arc::clone(&self.spool.accesses), move || {
            let mut stored = match begun {
                Ok(mut stored) => {
                    stored.space.join(more);
                    stored
                }
                Err(place) => Stored {
                    file: create(&dir)?,
                    space: more,
                    place,
                },
            };
            stored.file.write_all(&bytes)?;
            Ok(stored)
        });
        self.stored = Some(written.await?);
        Ok(())
    }

    /// The complete body.
    pub(super) fn finish(self) -> Spooled {
        Spooled {
            length: self.length,
            read: 0,
            stored: self.stored,
            reading: None,
            accesses: Arc::clone(&self.spool.accesses),
        }
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<(Stored, Bytes), BodyFault>>>>;

/// A complete body on disk, which is read once from its beginning to its end.
pub(super) struct Spooled {
    // 0 <= read <= length
    length: u64,
    read: u64,
    /// The file while no read is under way. At most one of `stored` and `reading` is set; both are `None` after the end.
    stored: Option<Stored>,
    reading: Option<Reading>,
    accesses: Arc<Semaphore>,
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled")
            .field("length", &self.length)
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl Spooled {
    /// The number of bytes that were not read yet.
    pub(super) fn left(&self) -> u64 {
        self.length - self.read
    }

    /// The next piece; `None`: everything was read, and the file is closed. Wake-up: the blocking thread.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        if let Some(stored) = self.stored.take() {
            let count = self.left().min(PIECE);
            self.reading = Some(Box::pin(read(stored, self.read, count, Arc::clone(&self.accesses))));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        let (stored, bytes) = match read {
            Ok(read) => read,
            Err(fault) => return Poll::Ready(Some(Err(fault))),
        };
        self.read += bytes.len() as u64;
        // After the last read, the file is closed and its space is free.
        self.stored = (self.left() > 0).then_some(stored);
        Poll::Ready(Some(Ok(bytes)))
    }
}

async fn read(stored: Stored, at: u64, count: u64, accesses: Arc<Semaphore>) -> Result<(Stored, Bytes), BodyFault> {
    access(accesses, move || {
        let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
        stored.file.read_exact_at(&mut piece, at)?;
        Ok((stored, Bytes::from(piece)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn whole(mut spooled: Spooled) -> Vec<u8> {
        let mut whole = Vec::new();
        while let Some(piece) = poll_fn(|cx| spooled.poll_piece(cx)).await {
            whole.extend_from_slice(&piece.expect("it is read"));
        }
        assert_eq!(spooled.left(), 0);
        whole
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_its_space_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::new(folder.path(), 1_000_000, 1_000_000);
        let used = || spool.space.used.load(Ordering::Relaxed);
        let body: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        let mut writer = spool.writer();
        for piece in body.chunks(99_999) {
            writer
                .write(Bytes::copy_from_slice(piece))
                .await
                .expect("there is room");
        }
        assert_eq!(used(), 700_000);
        let mode = writer
            .stored
            .as_ref()
            .expect("a file")
            .file
            .metadata()
            .expect("open")
            .permissions();
        assert_eq!(mode.mode() & 0o777, PRIVATE);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0,
            "no name"
        );
        let spooled = writer.finish();
        assert_eq!(spooled.left(), 700_000);

        let mut other = spool.writer();
        let refused = other.write(Bytes::from(vec![0; 300_001])).await;
        assert_eq!(refused, Err(BodyFault::NoRoom));
        drop(other);
        let mut long = spool.writer();
        let refused = long.write(Bytes::from(vec![0; 1_000_001])).await;
        assert_eq!(refused, Err(BodyFault::TooLarge));
        assert_eq!(used(), 700_000, "what was refused takes no space");

        assert_eq!(whole(spooled).await, body);
        assert_eq!(used(), 0);
        assert!(whole(spool.writer().finish()).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_given_up_in_the_middle_gives_its_space_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::new(folder.path(), 1_000_000, 1_000_000);
        let mut writer = spool.writer();
        writer
            .write(Bytes::from(vec![1; 300_000]))
            .await
            .expect("there is room");
        let mut half = writer.finish();
        assert!(poll_fn(|cx| half.poll_piece(cx)).await.is_some());
        // An access is under way at the drop, unless the disk was faster.
        let _ = futures_util::poll!(poll_fn(|cx| half.poll_piece(cx)));
        drop(half);
        while spool.space.used.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn files_are_bounded_however_small_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::new(folder.path(), 10, 1_000);
        spool.files = ConcurrencyLimit::new(2);
        let (mut one, mut two, mut three) = (spool.writer(), spool.writer(), spool.writer());
        let byte = Bytes::from_static(b"x");
        assert_eq!(one.write(byte.clone()).await, Ok(()));
        assert_eq!(two.write(byte.clone()).await, Ok(()));
        assert_eq!(one.write(byte.clone()).await, Ok(()));
        assert_eq!(three.write(byte.clone()).await, Err(BodyFault::NoRoom));
        assert_eq!(whole(one.finish()).await, b"xx");
        assert_eq!(three.write(byte).await, Ok(()));
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_a_fault_of_ours() {
        let spool = Spool::new(Path::new("/nowhere/at/all"), 10, 10);
        let refused = spool.writer().write(Bytes::from_static(b"x")).await;
        assert_eq!(refused, Err(BodyFault::Spool(io::ErrorKind::NotFound)));
        assert_eq!(spool.space.used.load(Ordering::Relaxed), 0);
    }
}

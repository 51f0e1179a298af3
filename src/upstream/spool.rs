//! Request bodies on disk: what came without a length waits in a file until its length is known.
//!
//! The file has no name, so that it is gone when it is closed. Workers never wait for the disk: each access runs on a blocking thread, one at
//! a time for each body and few at a time in all.

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

/// Bytes that are read at once.
const PIECE: u64 = 128 * 1024;
/// Accesses to the disk at once, of all workers, for each upstream.
const ACCESSES: usize = 8;
/// Files at once, of all workers, for each upstream: a body of one byte takes a descriptor too.
const FILES: usize = 1024;
/// A disk that takes longer for one access is taken to be broken.
const LONGEST_ACCESS: Duration = Duration::from_secs(30);
/// Only this process reads what clients have sent.
const PRIVATE: u32 = 0o600;

/// What becomes of request bodies without a length that are too long to be gathered, towards servers that speak HTTP/1.1.
#[derive(Debug, Clone)]
pub enum Unsized {
    /// They wait in files until their length is known.
    Spool(Spool),
    /// They leave by chunks as they come.
    Stream,
    /// They are refused.
    Refuse,
}

/// Where bodies wait, and how much of them.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: Arc<Path>,
    /// Most bytes of one body.
    body: u64,
    space: Space,
    files: ConcurrencyLimit,
    accesses: Arc<Semaphore>,
}

impl Spool {
    /// Files in `dir`, of up to `body` bytes each and `total` bytes together, for all workers.
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

    /// Where the files are, the most bytes of one body, and of all.
    pub fn settings(&self) -> (&Path, u64, u64) {
        (&self.dir, self.body, self.space.most)
    }

    /// A body of which nothing was written.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            spool: self,
            stored: None,
            length: 0,
        }
    }
}

/// A bound on bytes, shared by all its clones.
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
        // Dropped, it is given back.
        (before.saturating_add(bytes) <= self.most).then_some(taken)
    }
}

/// Bytes of a [`Space`], given back when this is dropped.
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

/// A file, and the space that it takes. Both last until the last access to it has ended, also where its request was given up before.
#[derive(Debug)]
struct Stored {
    file: File,
    space: Taken,
    #[expect(dead_code, reason = "held for its drop")]
    place: ConcurrencyPermit,
}

/// Makes a file without a name that no other user can open.
fn create(dir: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(dir)?;
    // Where the system makes it without a name, it has taken the mode from the umask.
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    Ok(file)
}

/// Runs an access to the disk on a blocking thread. It runs to its end, whether or not it is still waited for.
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

/// A body on its way to the disk.
pub(super) struct Writer<'s> {
    spool: &'s Spool,
    stored: Option<Stored>,
    length: u64,
}

impl Writer<'_> {
    /// Writes on.
    ///
    /// # Errors
    /// The body is longer than it may be, or there is no room for it.
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
            None => Err(self.spool.files.take().ok_or(BodyFault::NoRoom)?),
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

    /// The body, whole.
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

/// A whole body on disk, read once from its beginning to its end.
pub(super) struct Spooled {
    // 0 <= read <= length
    length: u64,
    read: u64,
    /// Where it is, while nothing is being read.
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
    /// How much of it is still to be read.
    pub(super) fn left(&self) -> u64 {
        self.length - self.read
    }

    /// The next piece; `None`: all was read, and the file is closed.
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
        // The space is free as soon as all was read.
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
        // An access is under way when it is dropped, unless the disk was faster.
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

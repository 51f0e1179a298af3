//! A lock file beside the file that it protects: one program at a time.
//!
//! The lock is a separate file that only its owner can open, so that no other user can hold the lock. The file is removed before the lock
//! is released.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// A lock; dropping it releases it.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    /// The path of the locked file. `file` stays at this path while it is open, because only the holder of the lock removes it.
    file: File,
}

impl LockFile {
    /// Waits for the lock. The lock file gets the owner of `protected`, so that root does not lock out the owner of that file.
    ///
    /// # Errors
    /// The lock was held for the whole timeout, with its holder; or the lock file cannot be opened, or is a file of another program.
    pub fn acquire(path: PathBuf, protected: &Metadata, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        loop {
            let file = open(&path, protected)?;
            match file.try_lock() {
                // The last holder may have removed the file since it was opened.
                Ok(()) if is_same_file(&file, &path)? => return Ok(Self { path, file }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(RETRY_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let (path, holder) = (path.display(), holder(&file));
                    let what = format!(
                        "{path} is locked by {holder}; no success within {} s. Try again when that program has ended",
                        timeout.as_secs()
                    );
                    return Err(io::Error::new(ErrorKind::TimedOut, what));
                }
                Err(TryLockError::Error(error)) => return Err(with_path(&path, &error)),
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if is_same_file(&self.file, &self.path).unwrap_or(false) {
            // If it cannot be removed, the next program locks the existing file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path, protected: &Metadata) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        // Non-blocking: without it, opening a FIFO would wait for its reader.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| with_path(path, &error))?;
    let own = file.metadata()?;
    if !own.is_file() || own.len() > 0 {
        let error = io::Error::new(
            ErrorKind::AlreadyExists,
            "this file is not a lock file, because it is not empty; it is left alone. Rename it, or use another path",
        );
        return Err(with_path(path, &error));
    }
    if own.mode() & 0o077 != 0 {
        // The file was created before lock files were private.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|error| with_path(path, &error))?;
    }
    if (own.uid(), own.gid()) != (protected.uid(), protected.gid()) {
        // Only root can do this, and only root needs it.
        let _ = fchown(&file, Some(protected.uid()), Some(protected.gid()));
    }
    Ok(file)
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Whether a path refers to this open file.
fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The holder of the lock, for a message.
fn holder(file: &File) -> String {
    let unknown = || "another program".to_owned();
    let Ok(inode) = file.metadata().map(|metadata| metadata.ino()) else {
        return unknown();
    };
    let Some(pid) = fs::read_to_string("/proc/locks")
        .ok()
        .and_then(|locks| locks.lines().find_map(|line| pid_of(line, inode)))
    else {
        return unknown();
    };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim().escape_debug()),
        Err(_) => format!("process {pid}"),
    }
}

/// The process of a line of /proc/locks, if it holds the lock of that file: `1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF`.
fn pid_of(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let (kind, pid, place) = (words.next()?, words.nth(2)?, words.next()?);
    let locked = place.rsplit(':').next()?.parse::<u64>().ok()?;
    (kind == "FLOCK" && locked == inode).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn acquire(folder: &Path, timeout: Duration) -> io::Result<LockFile> {
        LockFile::acquire(folder.join("x.lock"), &fs::metadata(folder)?, timeout)
    }

    #[test]
    fn a_lock_file_is_private_names_its_holder_and_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.lock");
        fs::write(&path, "").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        let lock = acquire(folder.path(), Duration::ZERO).expect("free");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let error = acquire(folder.path(), Duration::ZERO).expect_err("held").to_string();
        let own = format!("process {}", std::process::id());
        assert!(error.contains(&own), "{error}");
        drop(lock);
        assert!(!path.exists());
        drop(acquire(folder.path(), Duration::ZERO).expect("free again"));
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").expect("written");
        symlink(&victim, folder.path().join("x.lock")).expect("linked");
        acquire(folder.path(), Duration::ZERO).expect_err("a symbolic link is not a lock");
        assert!(victim.exists());
    }

    #[test]
    fn a_file_of_another_program_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.lock");
        fs::write(&path, "precious").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        let error = acquire(folder.path(), Duration::ZERO)
            .expect_err("not empty")
            .to_string();
        assert!(error.contains("x.lock") && error.contains("is left alone"), "{error}");
        assert_eq!(fs::read(&path).expect("there"), b"precious");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o644);
        fs::remove_file(&path).expect("ours");
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .expect("mkfifo");
        assert!(made.success());
        acquire(folder.path(), Duration::ZERO).expect_err("a FIFO");
        assert!(path.exists());
    }

    #[test]
    fn one_holder_at_a_time_while_the_file_is_removed_and_created() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = acquire(folder.path(), Duration::from_secs(30)).expect("its turn");
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn lines_of_proc_locks_are_parsed() {
        let line = "1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF";
        assert_eq!(pid_of(line, 5678), Some(1234));
        assert_eq!(pid_of(line, 567), None);
        assert_eq!(pid_of("1: -> FLOCK  ADVISORY  WRITE 1235 08:02:5678 0 EOF", 5678), None);
        assert_eq!(pid_of("2: POSIX  ADVISORY  WRITE 1 08:02:5678 0 EOF", 5678), None);
    }
}

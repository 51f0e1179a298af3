//! Socket files to listen on: one that nobody listens on any more is replaced, nothing else is; and ours goes when we do.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::listen::BACKLOG;

/// Reading and writing, for a file's owner and its group.
const OWNER_AND_GROUP: u32 = 0o660;
const ANYBODY: u32 = 0o666;
/// How long another gateway may take to come or go in the same folder.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket file that is ours. Dropping it takes it away, unless it is somebody else's by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number. As long as `held` is there, no other file can have the same.
    id: (u64, u64),
    #[expect(dead_code, reason = "held for its file's number")]
    held: UnixListener,
}

impl SocketFile {
    /// Listens on a new file; the listeners are one, shared.
    ///
    /// # Errors
    /// Somebody listens on it, it is no socket, or the folder does not let us.
    pub fn bind(path: &Path, workers: usize) -> io::Result<(Vec<UnixListener>, Self)> {
        let _lock = lock(path)?;
        clear(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let listener = UnixListener::from(socket);
        let made = fs::symlink_metadata(path)?;
        // To connect is to write. A proxy in front is somebody else, and so the group may; whether everybody may is for the umask to say.
        let mode = made.mode() & ANYBODY | OWNER_AND_GROUP;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        let listeners = (0..workers).map(|_| listener.try_clone()).collect::<io::Result<_>>()?;
        // Only now can anybody connect.
        SockRef::from(&listener).listen(BACKLOG)?;
        let file = Self {
            path: path.to_owned(),
            id: (made.dev(), made.ino()),
            held: listener,
        };
        Ok((listeners, file))
    }

    fn remove(&self) -> io::Result<()> {
        let _lock = lock(&self.path)?;
        let there = fs::symlink_metadata(&self.path)?;
        if (there.dev(), there.ino()) == self.id {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(problem) = self.remove()
            && problem.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), reason = %problem, "a socket file could not be taken away");
        }
    }
}

/// Takes away a socket that nobody listens on.
fn clear(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.file_type().is_socket() {
        let why = "there is a file, and it is no socket; it is left alone";
        return Err(io::Error::new(ErrorKind::AlreadyExists, why));
    }
    // Must not wait: a listener whose queue is full is a listener.
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(problem) if problem.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(problem) if problem.kind() != ErrorKind::WouldBlock => Err(problem),
        Ok(()) | Err(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "address already in use: somebody listens on it",
        )),
    }
}

/// Keeps other gateways from this file: between seeing that nobody listens on it and listening ourselves, one of them might do the same.
/// The lock is on the folder, so that it leaves nothing behind.
fn lock(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    let began = Instant::now();
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => {
                let why = "its folder is locked by another program (flock)";
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            Err(TryLockError::Error(problem)) => return Err(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn kind(path: &Path) -> ErrorKind {
        SocketFile::bind(path, 1).expect_err("not to be bound").kind()
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "stale");
        let (listeners, file) = SocketFile::bind(&path, 3).expect("replaced");
        assert_eq!(listeners.len(), 3);
        assert_eq!(kind(&path), ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("still there");
        drop(file);
        assert!(!path.exists());

        fs::write(&path, "precious").expect("written");
        assert_eq!(kind(&path), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("there"), b"precious");
        let link = folder.path().join("link.sock");
        drop(UnixListener::bind(folder.path().join("other.sock")).expect("bound"));
        symlink(folder.path().join("other.sock"), &link).expect("linked");
        assert_eq!(kind(&link), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_listener_that_is_too_busy_to_accept_is_a_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let address = SockAddr::unix(&path).expect("short");
        busy.bind(&address).expect("bound");
        busy.listen(0).expect("listening");
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).expect("a socket");
                let full = client.connect(&address).is_err();
                (client, full)
            })
            .collect();
        assert!(waiting.iter().any(|(_, full)| *full), "its queue is full");
        assert_eq!(kind(&path), ErrorKind::AddrInUse);
    }

    #[test]
    fn a_file_that_somebody_has_replaced_is_theirs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        let (_listeners, file) = SocketFile::bind(&path, 1).expect("bound");
        fs::remove_file(&path).expect("removed");
        let _theirs = UnixListener::bind(&path).expect("bound");
        drop(file);
        UnixStream::connect(&path).expect("left alone");
    }

    #[test]
    fn of_many_at_once_one_listens() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = &folder.path().join("gate.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(path).expect("bound"));
            let bound = thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| SocketFile::bind(path, 1))).collect();
                let all = all.into_iter().map(|one| one.join().expect("no panic"));
                all.filter_map(Result::ok).collect::<Vec<_>>()
            });
            assert_eq!(bound.len(), 1);
            UnixStream::connect(path).expect("the one that is left is reached");
        }
    }

    #[test]
    fn owner_and_group_may_connect() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        let _bound = SocketFile::bind(&path, 1).expect("bound");
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & OWNER_AND_GROUP, OWNER_AND_GROUP, "{mode:o}");
    }
}

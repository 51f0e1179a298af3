//! Socket files of listeners. A socket that no process listens on is replaced, any other file is kept. Our file is removed when we stop.
//!
//! The file is created in a private folder and then renamed to its path. So no mode is ever set on a file that another
//! process has put at the path.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::socket::BACKLOG;
use crate::lockfile::LockFile;

/// The longest path that fits into `sun_path`, without its NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// Read and write for the owner. Connecting needs write permission.
const OWNER: u32 = 0o600;
/// Read and write for the owner and the group.
const OWNER_AND_GROUP: u32 = 0o660;
const READ_WRITE_ALL: u32 = 0o666;
/// The number of random letters and digits at the end of the name of a private folder.
const RANDOM: usize = 6;
/// The timeout for the lock that another gateway may hold on the same path.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Which users may connect to a socket file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketAccess {
    /// The user of this process (mode 0600).
    Owner,
    /// The group too, because a proxy in front runs as another user; the umask decides about all other users.
    OwnerAndGroup,
}

impl SocketAccess {
    /// The mode of a file that was created with `mode`.
    fn restrict(self, mode: u32) -> u32 {
        match self {
            Self::Owner => OWNER,
            Self::OwnerAndGroup => mode & READ_WRITE_ALL | OWNER_AND_GROUP,
        }
    }

    /// Checks a file that another process has created. It decides about the group and other users where they are permitted.
    ///
    /// # Errors
    /// More users may connect.
    pub(super) fn check(self, path: &Path) -> io::Result<()> {
        let others = fs::symlink_metadata(path)?.mode() & !OWNER & 0o777;
        if self == Self::Owner && others != 0 {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "users besides the owner may connect to the inherited socket; write `SocketMode=0600` into its socket unit",
            ));
        }
        Ok(())
    }
}

/// Our socket file. Dropping it removes the file, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode number. While `listener` is open, no other file can have the same pair.
    id: (u64, u64),
    #[expect(dead_code, reason = "held for its file's number")]
    listener: UnixListener,
}

impl SocketFile {
    /// Listens on a new file. The listeners are duplicates of one socket.
    ///
    /// # Errors
    /// Another process listens on the path, the path is no socket, or the folder does not permit it.
    pub fn bind(path: &Path, workers: usize, access: SocketAccess) -> io::Result<(Vec<UnixListener>, Self)> {
        let _lock = lock(path)?;
        check_free(path)?;
        let private = PrivateFolder::beside(path)?;
        let (listener, created) = private.bind(access)?;
        let listeners = (0..workers).map(|_| listener.try_clone()).collect::<io::Result<_>>()?;
        // Before this call, no client can connect.
        SockRef::from(&listener).listen(BACKLOG)?;
        fs::rename(&created.path, path)?;
        let file = Self {
            path: path.to_owned(),
            id: created.id,
            listener,
        };
        Ok((listeners, file))
    }

    fn remove(&self) -> io::Result<()> {
        let _lock = lock(&self.path)?;
        let metadata = fs::symlink_metadata(&self.path)?;
        if (metadata.dev(), metadata.ino()) == self.id {
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
            tracing::warn!(path = %self.path.display(), reason = %problem, "a socket file could not be removed");
        }
    }
}

/// A private folder in which the socket file is created. Dropping it removes it.
struct PrivateFolder<'p> {
    folder: tempfile::TempDir,
    name: &'p OsStr,
}

/// A socket file before the rename to its path.
struct CreatedFile {
    path: PathBuf,
    id: (u64, u64),
}

impl<'p> PrivateFolder<'p> {
    /// Call it with the lock of `path` held.
    fn beside(path: &'p Path) -> io::Result<Self> {
        let no_name = || io::Error::new(ErrorKind::InvalidInput, "the path has no file name");
        let name = path.file_name().ok_or_else(no_name)?;
        let (folder, mut prefix) = (folder(path), OsString::from(".authgate-"));
        prefix.push(name);
        prefix.push("-");
        remove_stale_folders(folder, &prefix);
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(RANDOM)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)?;
        Ok(Self { folder, name })
    }

    fn bind(&self, access: SocketAccess) -> io::Result<(UnixListener, CreatedFile)> {
        let path = self.folder.path().join(self.name);
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        let folder = File::open(self.folder.path())?;
        // A socket address has room for about 100 bytes: the path in the private folder may be too long.
        let address = SockAddr::unix(&path).or_else(|_| {
            let by_number = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
            SockAddr::unix(by_number.join(self.name))
        })?;
        socket.bind(&address)?;
        let created = fs::symlink_metadata(&path)?;
        // Only this user can enter the private folder, so no other user could connect under the mode before this one.
        fs::set_permissions(&path, Permissions::from_mode(access.restrict(created.mode())))?;
        let id = (created.dev(), created.ino());
        Ok((UnixListener::from(socket), CreatedFile { path, id }))
    }
}

/// Removes the folders of gateways that were killed while they created their file.
fn remove_stale_folders(folder: &Path, prefix: &OsStr) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // The rest of the name is compared too: the prefix of `gate` begins the folders of `gate-2`, whose gateway may be using them.
        let name = entry.file_name();
        let random = name.as_bytes().strip_prefix(prefix.as_bytes());
        let is_of_path =
            random.is_some_and(|random| random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric));
        if is_folder && is_of_path {
            // A folder that cannot be removed does no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Checks that the path is free, or is a socket that no process listens on.
fn check_free(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        let why = "there is a file, and it is no socket; it is left alone";
        return Err(io::Error::new(ErrorKind::AlreadyExists, why));
    }
    // Non-blocking: a listener with a full queue is also a listener.
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(problem) if problem.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(problem) if problem.kind() != ErrorKind::WouldBlock => Err(problem),
        Ok(()) | Err(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "address already in use: another process listens on it",
        )),
    }
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Locks the path against other gateways: between our check and our bind, another one could do the same.
fn lock(path: &Path) -> io::Result<LockFile> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    LockFile::acquire(PathBuf::from(name), &fs::metadata(folder(path))?, LOCK_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn kind(path: &Path) -> ErrorKind {
        SocketFile::bind(path, 1, SocketAccess::OwnerAndGroup)
            .expect_err("not to be bound")
            .kind()
    }

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "stale");
        let (listeners, file) = SocketFile::bind(&path, 3, SocketAccess::OwnerAndGroup).expect("replaced");
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
    fn a_listener_with_a_full_queue_keeps_its_file() {
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
    fn a_file_that_another_process_has_replaced_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        let (_listeners, file) = SocketFile::bind(&path, 1, SocketAccess::OwnerAndGroup).expect("bound");
        fs::remove_file(&path).expect("removed");
        let _theirs = UnixListener::bind(&path).expect("bound");
        drop(file);
        UnixStream::connect(&path).expect("kept");
    }

    #[test]
    fn only_one_of_many_concurrent_binds_succeeds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = &folder.path().join("gate.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(path).expect("bound"));
            let bound = thread::scope(|scope| {
                let all: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| SocketFile::bind(path, 1, SocketAccess::OwnerAndGroup)))
                    .collect();
                let all = all.into_iter().map(|one| one.join().expect("no panic"));
                all.filter_map(Result::ok).collect::<Vec<_>>()
            });
            assert_eq!(bound.len(), 1);
            UnixStream::connect(path).expect("the remaining listener accepts");
        }
    }

    #[test]
    fn a_locked_folder_does_not_prevent_binding_and_stays_clean() {
        let folder = tempfile::tempdir().expect("a folder");
        let locked = File::open(folder.path()).expect("there");
        locked.lock().expect("free");
        let path = folder.path().join("gate.sock");
        fs::create_dir(folder.path().join(".authgate-gate.sock-killed")).expect("writable");
        let (_listeners, file) = SocketFile::bind(&path, 1, SocketAccess::OwnerAndGroup).expect("bound");
        let names: Vec<_> = fs::read_dir(folder.path()).expect("there").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    }

    #[test]
    fn the_private_folder_of_another_path_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let others = ["gate-2-Ab3dEf", "gate.sock-Ab3dEf", "gate-Ab3dEfg", "gate-Ab-dEf"];
        let others = others.map(|name| folder.path().join(format!(".authgate-{name}")));
        for other in &others {
            fs::create_dir(other).expect("writable");
        }
        let path = folder.path().join("gate");
        let (_listeners, _file) = SocketFile::bind(&path, 1, SocketAccess::OwnerAndGroup).expect("bound");
        for other in &others {
            assert!(other.exists(), "{}", other.display());
        }
    }

    #[test]
    fn a_path_of_the_maximum_length_is_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let length = 107 - folder.path().as_os_str().len() - 1;
        let path = folder.path().join("s".repeat(length));
        let (_listeners, _file) = SocketFile::bind(&path, 1, SocketAccess::OwnerAndGroup).expect("bound");
        UnixStream::connect(&path).expect("it listens");
    }

    #[test]
    fn no_mode_is_set_on_the_target_of_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, victim) = (folder.path().join("gate.sock"), folder.path().join("victim"));
        fs::write(&victim, "precious").expect("written");
        fs::set_permissions(&victim, Permissions::from_mode(0o600)).expect("ours");
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::remove_file(&path);
                    let _ = symlink(&victim, &path);
                    let _ = fs::remove_file(&path);
                }
            });
            for _ in 0..500 {
                drop(SocketFile::bind(&path, 1, SocketAccess::OwnerAndGroup));
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&victim).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn owner_and_group_may_connect() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        let _bound = SocketFile::bind(&path, 1, SocketAccess::OwnerAndGroup).expect("bound");
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & OWNER_AND_GROUP, OWNER_AND_GROUP, "{mode:o}");
    }

    #[test]
    fn a_file_for_its_owner_never_has_a_wider_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let modes = scope.spawn(|| {
                let mut modes = std::collections::BTreeSet::new();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    modes.extend(fs::metadata(&path).ok().map(|there| there.mode() & 0o777));
                }
                modes
            });
            for _ in 0..200 {
                let bound = SocketFile::bind(&path, 1, SocketAccess::Owner).expect("bound");
                let mode = fs::metadata(&path).expect("there").mode() & 0o777;
                assert_eq!(mode, OWNER, "{mode:o}");
                drop(bound);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let modes = modes.join().expect("no panic");
            assert!(modes.iter().all(|mode| *mode == OWNER), "{modes:?}");
        });
    }
}

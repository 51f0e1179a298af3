//! [`AcmeStore`]: the folder for accounts, keys, certificates and challenges. Files are private and replaced atomically.
//!
//! ```text
//! STORE/DIRECTORY/account.json         account and its key
//! STORE/DIRECTORY/lock                 while a gateway orders
//! STORE/DIRECTORY/certificates/api.example.com.pem    private key, then the chain
//! STORE/DIRECTORY/tls-challenges/api.example.com.pem  while a TLS-ALPN-01 challenge is under way
//! STORE/DIRECTORY/http-challenges/TOKEN               while an HTTP-01 challenge is under way
//! ```
//!
//! DIRECTORY is made from the URL of the authority's directory, so that a certificate of a test authority is never served in its place.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use authgate_dataplane::file;
use authgate_http::lockfile::LockFile;
use tempfile::NamedTempFile;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// The age of a challenge that no gateway needs any more: an order takes less.
const OLD: Duration = Duration::from_secs(60 * 60);

/// The longest answer to an HTTP-01 challenge: a token and a digest.
const MAX_HTTP_CHALLENGE: u64 = 4 << 10;

/// The folder of one directory of an authority, for async code.
#[derive(Debug, Clone)]
pub(super) struct AcmeStore(StoreFiles);

impl AcmeStore {
    pub(super) fn new(store: &Path, directory: &str) -> Self {
        Self(StoreFiles::new(store, directory))
    }

    /// Runs an operation where the thread may block: the folder may be on another machine. Async code cannot reach the files otherwise. Passes
    /// a panic on.
    pub(super) async fn run<T: Send + 'static>(&self, operation: impl FnOnce(&StoreFiles) -> T + Send + 'static) -> T {
        let files = self.0.clone();
        let ended = spawn_blocking(move || operation(&files)).await;
        match ended.map_err(|failed| failed.try_into_panic()) {
            Ok(result) => result,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime shuts down, and the caller ends with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    pub(super) fn certificate_file(&self, domain: &str) -> PathBuf {
        self.0.certificate_file(domain)
    }

    pub(super) fn tls_challenge_file(&self, domain: &str) -> PathBuf {
        self.0.tls_challenge_file(domain)
    }

    /// The file with the response to an HTTP-01 challenge; `None` if this is no token.
    pub(super) fn http_challenge_file(&self, token: &str) -> Option<PathBuf> {
        self.0.http_challenge_file(token)
    }
}

/// The response to an HTTP-01 challenge. Reads a file.
pub(super) fn read_http_challenge(file: &Path) -> Option<Vec<u8>> {
    file::read_at_most(file, MAX_HTTP_CHALLENGE).ok()
}

/// The same folder, where the thread may block.
#[derive(Debug, Clone)]
pub(super) struct StoreFiles {
    folder: PathBuf,
}

/// Whether this gateway may order.
#[derive(Debug)]
pub(super) enum LockState {
    /// Until this is released.
    Acquired(OrderLock),
    /// Another gateway orders.
    Held,
}

/// The lock of a store, with the challenges that were written under it. They are removed before it is released, because the next gateway may
/// write the same files. If it is dropped, another thread does both.
#[derive(Debug)]
pub(super) struct OrderLock(Option<Held>);

#[derive(Debug)]
struct Held {
    // Dropped first.
    answers: Vec<ChallengeFile>,
    _lock: LockFile,
}

impl OrderLock {
    /// Keeps the answer to a challenge.
    pub(super) fn keep(&mut self, answer: ChallengeFile) {
        if let Some(held) = &mut self.0 {
            held.answers.push(answer);
        }
    }

    /// Removes the answers.
    pub(super) async fn remove_answers(&mut self) {
        let answers = self.0.as_mut().map(|held| std::mem::take(&mut held.answers));
        let _ = spawn_blocking(|| drop(answers)).await;
    }

    /// Removes the answers and releases the lock.
    pub(super) async fn release(mut self) {
        let held = self.0.take();
        let _ = spawn_blocking(|| drop(held)).await;
    }
}

impl Drop for OrderLock {
    fn drop(&mut self) {
        let held = self.0.take();
        if held.is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            // A runtime that shuts down drops it here.
            runtime.spawn_blocking(|| drop(held));
        }
    }
}

/// A file of a challenge; dropping it removes the file.
#[derive(Debug)]
pub(super) struct ChallengeFile(PathBuf);

impl Drop for ChallengeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl StoreFiles {
    fn new(store: &Path, directory: &str) -> Self {
        let name = directory.trim_start_matches("https://").trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let name = name.replace(|c| !is_plain(c), "-");
        Self {
            folder: store.join(name.trim_start_matches('.')),
        }
    }

    pub(super) fn certificate_file(&self, domain: &str) -> PathBuf {
        self.folder.join("certificates").join(format!("{domain}.pem"))
    }

    fn tls_challenge_file(&self, domain: &str) -> PathBuf {
        self.folder.join("tls-challenges").join(format!("{domain}.pem"))
    }

    fn http_challenge_file(&self, token: &str) -> Option<PathBuf> {
        // base64url (RFC 8555, section 8.3): it is no path.
        let is_token = (1..=256).contains(&token.len())
            && token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_token.then(|| self.folder.join("http-challenges").join(token))
    }

    fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// Creates the folder, and tries to get the lock.
    pub(super) fn lock(&self) -> io::Result<LockState> {
        create_folder(&self.folder)?;
        match LockFile::acquire(self.folder.join("lock"), &fs::metadata(&self.folder)?, Duration::ZERO) {
            Ok(lock) => {
                self.remove_old_challenges();
                Ok(LockState::Acquired(OrderLock(Some(Held {
                    answers: Vec::new(),
                    _lock: lock,
                }))))
            }
            Err(problem) if problem.kind() == ErrorKind::TimedOut => Ok(LockState::Held),
            Err(problem) => Err(problem),
        }
    }

    /// Removes the challenges of gateways that ended in the middle of an order.
    fn remove_old_challenges(&self) {
        let folders = ["tls-challenges", "http-challenges"].map(|name| self.folder.join(name));
        for file in folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
        {
            let age = file
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map(|written| written.elapsed());
            if age.is_ok_and(|age| age.is_ok_and(|age| age > OLD)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// The account, if there is one.
    pub(super) fn read_account(&self) -> io::Result<Option<Vec<u8>>> {
        match file::read(&self.account_file()) {
            Ok(account) => Ok(Some(account)),
            Err(problem) if problem.kind() == ErrorKind::NotFound => Ok(None),
            Err(problem) => Err(with_path(&self.account_file(), &problem)),
        }
    }

    pub(super) fn write_account(&self, account: &[u8]) -> io::Result<()> {
        write(&self.account_file(), account)
    }

    /// Removes an account that the authority does not know any more.
    pub(super) fn remove_account(&self) -> io::Result<()> {
        fs::remove_file(self.account_file())
    }

    /// `pem`: the private key and the chain, in one file, so that no reader gets a key without its chain.
    pub(super) fn write_certificate(&self, domain: &str, pem: &str) -> io::Result<()> {
        write(&self.certificate_file(domain), pem.as_bytes())
    }

    /// `pem`: the key and the certificate that answer the challenge.
    pub(super) fn write_tls_challenge(&self, domain: &str, pem: &str) -> io::Result<ChallengeFile> {
        let file = self.tls_challenge_file(domain);
        write(&file, pem.as_bytes())?;
        Ok(ChallengeFile(file))
    }

    pub(super) fn write_http_challenge(&self, token: &str, response: &str) -> io::Result<ChallengeFile> {
        let Some(file) = self.http_challenge_file(token) else {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the token of the challenge is not base64url",
            ));
        };
        write(&file, response.as_bytes())?;
        Ok(ChallengeFile(file))
    }
}

/// Replaces a file as a whole; only its owner can read it.
fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let replace = || {
        create_folder(folder)?;
        // Its permissions are 0600.
        let mut new = NamedTempFile::new_in(folder)?;
        new.write_all(content)?;
        new.as_file().sync_all()?;
        new.persist(file).map_err(|problem| problem.error)?;
        File::open(folder)?.sync_all()
    };
    replace().map_err(|problem| with_path(file, &problem))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|problem| with_path(folder, &problem))
}

fn with_path(path: &Path, problem: &io::Error) -> io::Error {
    io::Error::new(problem.kind(), format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_tokens_are_no_paths() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StoreFiles::new(&folder.path().join("acme"), "https://ca.example:14000/dir");
        let read = |token: &str| read_http_challenge(&store.http_challenge_file(token)?);
        assert_eq!(store.folder, folder.path().join("acme/ca.example-14000-dir"));
        store.write_certificate("api.example", "pem").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let file = store.certificate_file("api.example");
        assert_eq!((mode(&file), mode(&store.folder)), (0o600, 0o700));
        let challenge = store.write_http_challenge("tok_en-1", "answer").expect("written");
        assert_eq!(read("tok_en-1").as_deref(), Some(&b"answer"[..]));
        drop(challenge);
        assert_eq!(read("tok_en-1"), None);
        for token in ["", ".", "..", "../account.json", "a/b", "a%2fb", &"a".repeat(257)] {
            assert_eq!(store.http_challenge_file(token), None, "{token}");
            assert!(store.write_http_challenge(token, "").is_err(), "{token}");
        }
        assert_eq!(
            StoreFiles::new(folder.path(), "https://../..").folder,
            folder.path().join("-..")
        );
    }

    #[test]
    fn one_gateway_at_a_time_orders() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StoreFiles::new(folder.path(), "https://ca.example/directory");
        let lock = store.lock().expect("a folder");
        assert!(matches!(lock, LockState::Acquired(_)));
        assert!(matches!(store.lock(), Ok(LockState::Held)));
        drop(lock);
        assert!(matches!(store.lock(), Ok(LockState::Acquired(_))));
    }
    #[test]
    fn the_answer_to_a_challenge_is_short_and_a_regular_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let [short, long] = [MAX_HTTP_CHALLENGE, MAX_HTTP_CHALLENGE + 1].map(|length| {
            let file = folder.path().join(length.to_string());
            let content = vec![b'x'; usize::try_from(length).expect("small")];
            fs::write(&file, content).expect("writable");
            read_http_challenge(&file).map(|answer| answer.len() as u64)
        });
        assert_eq!((short, long), (Some(MAX_HTTP_CHALLENGE), None));
        assert_eq!(read_http_challenge(Path::new("/dev/zero")), None);
    }

    #[test]
    fn answers_are_removed_before_the_lock_is_released_also_if_an_order_is_dropped() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let store = AcmeStore::new(folder.path(), "https://ca.example/directory");
        let order = |store: AcmeStore| async move {
            let (state, answer) = store
                .run(|files| (files.lock(), files.write_tls_challenge("a.example", "pem")))
                .await;
            let LockState::Acquired(mut lock) = state.expect("a folder") else {
                panic!("the lock is free");
            };
            lock.keep(answer.expect("written"));
            lock
        };
        let answer = store.tls_challenge_file("a.example");
        let is_free = || matches!(store.0.lock(), Ok(LockState::Acquired(_)));
        let lock = runtime.block_on(order(store.clone()));
        assert!(answer.exists() && !is_free());
        runtime.block_on(lock.release());
        assert!(!answer.exists() && is_free());
        runtime.block_on(async { drop(order(store.clone()).await) });
        while !is_free() {
            std::thread::yield_now();
        }
        assert!(!answer.exists());
        // The runtime has ended, with the task that held the lock.
        let task = runtime.spawn(async move {
            let _lock = order(store).await;
            std::future::pending::<()>().await;
        });
        runtime.block_on(async {
            while !answer.exists() {
                tokio::task::yield_now().await;
            }
        });
        drop((runtime, task));
        assert!(!answer.exists());
    }
}

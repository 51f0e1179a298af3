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
use std::path::{Path, PathBuf};
use std::time::Duration;

use authgate_http::lockfile::LockFile;
use tempfile::NamedTempFile;

/// The age of a challenge that no gateway needs any more: an order takes less.
const OLD: Duration = Duration::from_secs(60 * 60);

/// The folder of one directory of an authority.
#[derive(Debug, Clone)]
pub(super) struct AcmeStore {
    folder: PathBuf,
}

/// Whether this gateway may order.
#[derive(Debug)]
pub(super) enum LockState {
    /// Until this is dropped.
    Acquired(LockFile),
    /// Another gateway orders.
    Held,
}

/// A file of a challenge; dropping it removes the file.
#[derive(Debug)]
pub(super) struct ChallengeFile(PathBuf);

impl Drop for ChallengeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl AcmeStore {
    pub(super) fn new(store: &Path, directory: &str) -> Self {
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

    pub(super) fn tls_challenge_file(&self, domain: &str) -> PathBuf {
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

    /// The response to an HTTP-01 challenge.
    pub(super) fn http_challenge(&self, token: &str) -> Option<Vec<u8>> {
        fs::read(self.http_challenge_file(token)?).ok()
    }

    /// Creates the folder, and tries to get the lock.
    pub(super) fn lock(&self) -> io::Result<LockState> {
        create_folder(&self.folder)?;
        match LockFile::acquire(self.folder.join("lock"), &fs::metadata(&self.folder)?, Duration::ZERO) {
            Ok(lock) => {
                self.remove_old_challenges();
                Ok(LockState::Acquired(lock))
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
        match fs::read(self.account_file()) {
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
        let store = AcmeStore::new(&folder.path().join("acme"), "https://ca.example:14000/dir");
        assert_eq!(store.folder, folder.path().join("acme/ca.example-14000-dir"));
        store.write_certificate("api.example", "pem").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let file = store.certificate_file("api.example");
        assert_eq!((mode(&file), mode(&store.folder)), (0o600, 0o700));
        let challenge = store.write_http_challenge("tok_en-1", "answer").expect("written");
        assert_eq!(store.http_challenge("tok_en-1").as_deref(), Some(&b"answer"[..]));
        drop(challenge);
        assert_eq!(store.http_challenge("tok_en-1"), None);
        for token in ["", ".", "..", "../account.json", "a/b", "a%2fb", &"a".repeat(257)] {
            assert_eq!(store.http_challenge(token), None, "{token}");
            assert!(store.write_http_challenge(token, "").is_err(), "{token}");
        }
        assert_eq!(
            AcmeStore::new(folder.path(), "https://../..").folder,
            folder.path().join("-..")
        );
    }

    #[test]
    fn one_gateway_at_a_time_orders() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = AcmeStore::new(folder.path(), "https://ca.example/directory");
        let lock = store.lock().expect("a folder");
        assert!(matches!(lock, LockState::Acquired(_)));
        assert!(matches!(store.lock(), Ok(LockState::Held)));
        drop(lock);
        assert!(matches!(store.lock(), Ok(LockState::Acquired(_))));
    }
}

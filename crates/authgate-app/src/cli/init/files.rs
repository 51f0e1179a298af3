//! The files that `authgate init` makes. None replaces a file, except gateway.toml with `--force`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::answers::{Answers, Certificate, JWT_PUBLIC_KEY, Jwt};
use crate::cli::values;

pub(super) const CA: &str = "dev-ca.pem";
pub(super) const CHAIN: &str = "dev-tls.pem";
pub(super) const KEY: &str = "dev-tls.key";
pub(super) const JWT_KEY: &str = "jwt.key";
pub(super) const STORE_URL: &str = "store.url";

/// How long a development certificate is valid. Some clients accept no longer time.
const VALIDITY: Duration = Duration::from_secs(397 * 24 * 3600);

/// A file to write.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) name: &'static str,
    content: String,
    pub(super) purpose: &'static str,
    is_secret: bool,
}

/// What to do if such a file exists.
pub(super) fn remedy(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let in_its_folder = |name: &str| path.with_file_name(name).display().to_string();
    match name {
        KEY | CHAIN | CA => format!(
            "To use this certificate, pass `--chain {} --key {}`; for another one, move the files away",
            in_its_folder(CHAIN),
            in_its_folder(KEY)
        ),
        JWT_KEY | JWT_PUBLIC_KEY => format!(
            "To use this key, pass `--jwt {}`; for another one, move the files away",
            in_its_folder(JWT_PUBLIC_KEY)
        ),
        _ => "Move it away".to_owned(),
    }
}

/// Makes the keys and certificates of these answers.
///
/// # Errors
/// They cannot be made.
pub(super) fn make(answers: &Answers, store_url: Option<&str>) -> Result<Vec<NewFile>, rcgen::Error> {
    let mut files = Vec::new();
    let mut file = |name, content, purpose, is_secret| {
        files.push(NewFile {
            name,
            content,
            purpose,
            is_secret,
        });
    };
    if answers.certificate == Certificate::Development {
        let made = development_certificate(&names(answers))?;
        file(KEY, made.key, "the private key of the certificate", true);
        file(CHAIN, made.chain, "the certificate of the gateway", false);
        file(CA, made.ca, "the authority that clients must trust", false);
    }
    if answers.jwt == Jwt::NewKey {
        let pair = KeyPair::generate()?;
        file(JWT_KEY, pair.serialize_pem(), "the private key that signs JWTs", true);
        file(
            JWT_PUBLIC_KEY,
            pair.public_key_pem(),
            "the public key that verifies JWTs",
            false,
        );
    }
    if let Some(url) = store_url {
        file(
            STORE_URL,
            format!("{url}\n"),
            "the URL of the store, with its password",
            true,
        );
    }
    Ok(files)
}

/// The names of a development certificate.
fn names(answers: &Answers) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let addresses = answers
        .listen
        .0
        .iter()
        .filter_map(|address| address.parse::<SocketAddr>().ok());
    let addresses = addresses.map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
    let more = addresses
        .map(|ip| ip.to_string())
        .chain(answers.domains.iter().cloned());
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

struct Made {
    ca: String,
    chain: String,
    key: String,
}

/// A certificate, and the authority that has signed it. The key of the authority is not kept: it can sign no other certificate.
fn development_certificate(names: &[String]) -> Result<Made, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name
        .push(DnType::CommonName, "authgate development authority");
    set_validity(&mut ca);
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    set_validity(&mut leaf);
    let chain = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
    Ok(Made {
        ca: ca_pem,
        chain,
        key: key.serialize_pem(),
    })
}

fn set_validity(params: &mut CertificateParams) {
    // From yesterday: clocks of clients differ.
    let yesterday = u64::try_from(values::now())
        .unwrap_or_default()
        .saturating_sub(24 * 3600);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(yesterday);
    params.not_after = params.not_before + VALIDITY;
}

/// Files that are removed again, unless they are kept.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<PathBuf>);

impl Written {
    pub(super) fn keep(mut self) {
        self.0.clear();
    }

    /// Writes a file that does not exist yet.
    ///
    /// # Errors
    /// It exists, or cannot be written.
    pub(super) fn create(&mut self, path: &Path, content: &str, is_secret: bool) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if is_secret {
            options.mode(0o600);
        }
        let file = options.open(path)?;
        self.0.push(path.to_owned());
        write(file, content)
    }

    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn create_all(&mut self, folder: &Path, files: &[NewFile]) -> Result<(), (PathBuf, io::Error)> {
        files.iter().try_for_each(|file| {
            let path = folder.join(file.name);
            self.create(&path, &file.content, file.is_secret)
                .map_err(|error| (path, error))
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn write(mut file: File, content: &str) -> io::Result<()> {
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// Replaces a file as a whole. The new one has its mode, owner and group.
///
/// # Errors
/// It cannot be written.
pub(super) fn replace(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let before = fs::metadata(path)?;
    let mut new = tempfile::Builder::new();
    let mut new = new
        .permissions(before.permissions())
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    // The user of the gateway may be able to read it by its group alone.
    fchown(new.as_file(), Some(before.uid()), Some(before.gid()))?;
    new.write_all(content.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

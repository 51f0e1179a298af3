//! [`Certificate`]: a chain with its key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::pem::{PemError, load_combined, load_pair, parse_pair};

/// A chain with its key.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    file: PathBuf,
}

/// A certificate determines its private key, which was compared with it.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.file == other.file
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Loads a PEM chain (leaf first) and its private key.
    ///
    /// # Errors
    /// A file cannot be read or parsed, or the key does not match the certificate.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Self, PemError> {
        Self::new(load_pair(chain_file, key_file)?, chain_file)
    }

    /// Loads a PEM file with a chain (leaf first) and its private key.
    ///
    /// # Errors
    /// As for [`Certificate::load`].
    pub fn load_combined(file: &Path) -> Result<Self, PemError> {
        Self::new(load_combined(file)?, file)
    }

    /// The same, from the content that the file will have.
    ///
    /// # Errors
    /// As for [`Certificate::load`].
    pub fn from_combined_pem(pem: &[u8], file: &Path) -> Result<Self, PemError> {
        Self::new(parse_pair((file, pem), (file, pem))?, file)
    }

    fn new(key: CertifiedKey, chain_file: &Path) -> Result<Self, PemError> {
        let names = key
            .cert
            .first()
            .map_or(Ok(Vec::new()), dns_names)
            .map_err(|problem| PemError {
                file: chain_file.to_owned(),
                problem,
            })?;
        Ok(Self {
            key: Arc::new(key),
            names,
            file: chain_file.to_owned(),
        })
    }

    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The path of the chain file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The DER of the chain, leaf first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.key.cert.iter().map(AsRef::as_ref)
    }

    /// The DER of the leaf.
    pub fn leaf(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |leaf| leaf.as_ref())
    }

    /// Its DNS names in lower case, with `*.` for a wildcard.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The DNS names of a certificate's subjectAltName (RFC 5280, section 4.2.1.6); the common name is ignored (RFC 9110, section 4.3.4).
fn dns_names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let certificate = webpki::EndEntityCert::try_from(leaf)
        .map_err(|problem| format!("the first certificate cannot be read: {problem}"))?;
    Ok(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

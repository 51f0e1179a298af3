//! PEM files for both sides of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::provider;
use crate::file;

/// Why a chain or a key cannot be used: the file, what is wrong, and how to correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct PemError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// Certificates of authorities.
#[derive(Debug, Clone)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    certificates: Arc<[CertificateDer<'static>]>,
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl Eq for Authorities {}

impl Authorities {
    /// Their number.
    pub fn count(&self) -> usize {
        self.certificates.len()
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    pub(super) fn certificates(&self) -> &Arc<[CertificateDer<'static>]> {
        &self.certificates
    }
}

/// Loads authorities from a PEM file.
///
/// # Errors
/// The file cannot be read, or has no certificate of an authority.
pub fn load_authorities(file: &Path) -> Result<Authorities, PemError> {
    let error = |problem: String| PemError {
        file: file.to_owned(),
        problem,
    };
    let bytes = file::read(file).map_err(|problem| error(problem.to_string()))?;
    let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|problem| error(format!("not readable as PEM: {problem}")))?;
        roots
            .add(certificate.clone())
            .map_err(|problem| error(format!("a certificate in it cannot be used: {problem}")))?;
        certificates.push(certificate);
    }
    if roots.is_empty() {
        return Err(error("it has no -----BEGIN CERTIFICATE-----".to_owned()));
    }
    Ok(Authorities {
        roots: Arc::new(roots),
        certificates: certificates.into(),
    })
}

/// Loads a chain, leaf first, and its private key.
pub(super) fn load_pair(chain_file: &Path, key_file: &Path) -> Result<CertifiedKey, PemError> {
    parse_pair((chain_file, &read(chain_file)?), (key_file, &read(key_file)?))
}

/// Loads a file with both.
pub(super) fn load_combined(file: &Path) -> Result<CertifiedKey, PemError> {
    let pem = read(file)?;
    parse_pair((file, &pem), (file, &pem))
}

/// The longest file with the answer to a challenge: it has one certificate and its key.
const MAX_CHALLENGE: u64 = 64 << 10;

/// Loads a file with the certificate that answers a challenge, and its key. webpki cannot parse such a certificate, because it has a critical
/// extension that only authorities know (RFC 8737, section 3).
pub(super) fn load_challenge(file: &Path) -> Option<CertifiedKey> {
    let pem = file::read_at_most(file, MAX_CHALLENGE).ok()?;
    let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
    let key = PrivateKeyDer::from_pem_slice(&pem).ok()?;
    let signer = provider::provider().key_provider.load_private_key(key).ok()?;
    Some(CertifiedKey::new(vec![certificate], signer))
}

fn read(file: &Path) -> Result<Vec<u8>, PemError> {
    file::read(file).map_err(|problem| PemError {
        file: file.to_owned(),
        problem: problem.to_string(),
    })
}

/// Parses a chain and a private key. The files are for messages.
pub(super) fn parse_pair(
    (chain_file, chain): (&Path, &[u8]),
    (key_file, pem): (&Path, &[u8]),
) -> Result<CertifiedKey, PemError> {
    let error = |file: &Path, problem: String| PemError {
        file: file.to_owned(),
        problem,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|problem| error(chain_file, format!("not readable as PEM: {problem}")))?;
    if chain.is_empty() {
        let problem = "it has no -----BEGIN CERTIFICATE-----; write a chain in PEM, the leaf first";
        return Err(error(chain_file, problem.to_owned()));
    }
    if let Some(Err(problem)) = chain.first().map(webpki::EndEntityCert::try_from) {
        return Err(error(chain_file, unusable_leaf(&problem)));
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|problem| error(key_file, no_key(pem, &problem)))?;
    let signer = provider::provider()
        .key_provider
        .load_private_key(key)
        .map_err(|problem| error(key_file, format!("the key cannot be used: {problem}")))?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => Err(wrong_pair(&pair, chain_file, key_file)),
        Err(problem) => Err(error(
            chain_file,
            format!("the first certificate cannot be used: {problem}"),
        )),
    }
}

/// Explains which file is wrong: the chain is in the wrong order, or the key belongs to none of its certificates.
fn wrong_pair(pair: &CertifiedKey, chain_file: &Path, key_file: &Path) -> PemError {
    let is_of_key = |certificate: &CertificateDer<'static>| {
        let alone = CertifiedKey::new(vec![certificate.clone()], Arc::clone(&pair.key));
        alone.keys_match().is_ok()
    };
    let (file, problem) = match pair.cert.iter().position(is_of_key) {
        Some(at) => (
            chain_file,
            format!(
                "the chain is in the wrong order: the certificate of the key in {} is number {} in it and must be the first, each \
                 before the one that signed it",
                key_file.display(),
                at + 1
            ),
        ),
        None => (
            key_file,
            format!(
                "this key belongs to no certificate in {}: one of the two files belongs to another pair",
                chain_file.display()
            ),
        ),
    };
    PemError {
        file: file.to_owned(),
        problem,
    }
}

/// Why a file has no usable private key.
fn no_key(pem: &[u8], problem: &pem::Error) -> String {
    let has = |label: &[u8]| memchr::memmem::find(pem, label).is_some();
    let text = if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        "the private key is encrypted; write it without a passphrase with `openssl pkey -in KEY -out PLAIN`, in a file for this user alone"
    } else if has(b"PRIVATE KEY-----") {
        return format!("the private key cannot be read as PEM: {problem}");
    } else if has(b"-----BEGIN CERTIFICATE-----") {
        "it holds a certificate instead of a private key"
    } else if has(b"-----BEGIN PUBLIC KEY-----") {
        "it holds a public key instead of a private key"
    } else {
        "it has no private key; write one in PEM (PKCS #8, PKCS #1 or SEC 1)"
    };
    text.to_owned()
}

fn unusable_leaf(problem: &webpki::Error) -> String {
    if *problem == webpki::Error::UnsupportedCertVersion {
        let what =
            "the first certificate is X.509 version 1, which TLS clients refuse, because it cannot hold host names";
        return format!("{what}; sign it as version 3 with a subjectAltName, as `openssl x509 -req -extfile` does");
    }
    format!("the first certificate cannot be read: {problem}")
}

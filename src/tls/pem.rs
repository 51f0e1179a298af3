//! PEM files that both sides of TLS read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why a chain or a key cannot be used: names the file, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct PemError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// Authorities from a PEM file.
///
/// # Errors
/// It cannot be read, or has no certificate that can sign others.
pub fn load_authorities(file: &Path) -> Result<Arc<RootCertStore>, PemError> {
    let error = |problem: String| PemError {
        file: file.to_owned(),
        problem,
    };
    let bytes = std::fs::read(file).map_err(|problem| error(problem.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|problem| error(format!("not readable as PEM: {problem}")))?;
        roots
            .add(certificate)
            .map_err(|problem| error(format!("a certificate in it cannot be used: {problem}")))?;
    }
    if roots.is_empty() {
        return Err(error("there is no -----BEGIN CERTIFICATE----- in it".to_owned()));
    }
    Ok(Arc::new(roots))
}

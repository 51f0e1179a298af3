//! The client's side of TLS, towards https upstreams: the roots of this system, HTTP/1.1.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::provider::{self, MinVersion};

/// Why upstreams cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// This system has none.
    #[error("this system has no root certificates; on Debian they come with the package ca-certificates")]
    None,
    /// The provider cannot speak these versions.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Builds rustls's configuration for https upstreams.
///
/// # Errors
/// There is no root to trust.
pub fn config() -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(RootsError::None);
    }
    let mut config = ClientConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(MinVersion::Tls12.versions())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![provider::HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

//! TLS client side, for https upstreams.

use std::path::Path;
use std::sync::Arc;

use authgate_http::alpn;
use rustls::client::{ResolvesClientCert, Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::pem::{Authorities, PemError, load_pair};
use super::provider::{self, MinVersion};
use super::sessions::SessionStore;
use super::trust::UpstreamVerifier;

/// The configuration of `tls` of an upstream.
#[derive(Debug, Clone, Default)]
pub struct ClientTlsSettings {
    /// Authorities that sign its certificates, or these certificates themselves; `None`: the root certificates of the system.
    pub ca: Option<Authorities>,
    /// The client certificate of the gateway.
    pub identity: Option<Arc<SingleCertAndKey>>,
}

/// Why upstream certificates cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The system has no root certificates.
    #[error("the system has no root certificates; install them (on Debian: the package ca-certificates)")]
    None,
    /// The provider does not support these versions.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The root certificates are not usable.
    #[error(transparent)]
    Roots(#[from] VerifierBuilderError),
}

/// Loads the client certificate of the gateway from PEM files.
///
/// # Errors
/// As for [`super::server::Certificate::load`].
pub fn load_identity(chain: &Path, key: &Path) -> Result<Arc<SingleCertAndKey>, PemError> {
    load_pair(chain, key).map(|pair| Arc::new(SingleCertAndKey::from(pair)))
}

/// Builds the rustls configuration. ALPN offers HTTP/2 and HTTP/1.1; the server chooses.
///
/// # Errors
/// There is no root certificate.
pub fn config(settings: &ClientTlsSettings) -> Result<Arc<ClientConfig>, RootsError> {
    let roots = match &settings.ca {
        Some(ca) => Arc::clone(ca.roots()),
        None => Arc::new(system_roots()?),
    };
    let provider = provider::provider();
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let sessions = Arc::new(SessionStore::new());
    let trust = UpstreamVerifier::new(inner, settings.ca.as_ref(), Arc::clone(&sessions));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(MinVersion::Tls12.versions())?
        // This verifier makes all checks of the verifier of rustls.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.resumption = Resumption::store(sessions);
    if let Some(identity) = &settings.identity {
        config.client_auth_cert_resolver = Arc::clone(identity) as Arc<dyn ResolvesClientCert>;
    }
    config.alpn_protocols = alpn::protocols();
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(RootsError::None);
    }
    Ok(roots)
}

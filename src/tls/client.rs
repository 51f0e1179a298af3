//! The client's side of TLS, towards https upstreams.

use std::path::Path;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::pem::{Authorities, PemError, load_pair};
use super::provider::{self, MinVersion};
use super::sessions::Sessions;
use super::trust::ServerTrust;

/// What an upstream's `tls` says.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who signs its certificates, or these certificates themselves; `None`: the roots of this system.
    pub ca: Option<Authorities>,
    /// The certificate that we show.
    pub identity: Option<Arc<SingleCertAndKey>>,
}

/// Why upstreams cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// This system has none.
    #[error("this system has no root certificates; on Debian they come with the package ca-certificates")]
    None,
    /// The provider cannot speak these versions.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The roots cannot be verified against.
    #[error(transparent)]
    Roots(#[from] VerifierBuilderError),
}

/// Our own certificate, from PEM files.
///
/// # Errors
/// As for a certificate of the server's side.
pub fn load_identity(chain: &Path, key: &Path) -> Result<Arc<SingleCertAndKey>, PemError> {
    load_pair(chain, key).map(|pair| Arc::new(SingleCertAndKey::from(pair)))
}

/// Builds rustls's configuration. Servers choose between HTTP/2 and HTTP/1.1.
///
/// # Errors
/// There is no root to trust.
pub fn config(settings: &Settings) -> Result<Arc<ClientConfig>, RootsError> {
    let roots = match &settings.ca {
        Some(ca) => Arc::clone(ca.roots()),
        None => Arc::new(system_roots()?),
    };
    let provider = provider::provider();
    let chains = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let sessions = Arc::new(Sessions::new());
    let trust = ServerTrust::new(chains, settings.ca.as_ref(), Arc::clone(&sessions));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(MinVersion::Tls12.versions())?
        // It verifies all that rustls's own does.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.resumption = Resumption::store(sessions);
    if let Some(identity) = &settings.identity {
        config.client_auth_cert_resolver = Arc::clone(identity) as Arc<dyn ResolvesClientCert>;
    }
    config.alpn_protocols = vec![provider::H2.to_vec(), provider::HTTP_1_1.to_vec()];
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

//! TLS client side, for https upstreams.

use std::path::Path;
use std::sync::Arc;

use authgate_http::alpn;
use aws_lc_rs::digest;
use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use super::pem::{Authorities, PemError, load_pair};
use super::provider::{self, TlsVersion};
use super::sessions::SessionStore;
use super::trust::UpstreamVerifier;

/// The configuration of `tls` of an upstream.
#[derive(Debug, Clone, Default)]
pub struct ClientTlsSettings {
    /// Authorities that sign its certificates, or these certificates themselves; `None`: the root certificates of the system.
    pub ca: Option<Authorities>,
    /// The client certificate of the gateway.
    pub identity: Option<Arc<CertifiedKey>>,
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
/// As for [`super::certificate::Certificate::load`].
pub fn load_identity(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, PemError> {
    load_pair(chain, key).map(Arc::new)
}

/// Builds the rustls configuration. ALPN offers HTTP/2 and HTTP/1.1; the server chooses. Also returns a hash of all certificates that it was
/// made from. The certificate of the gateway determines its private key, which was compared with it.
///
/// # Errors
/// There is no root certificate.
pub fn config(settings: &ClientTlsSettings) -> Result<(Arc<ClientConfig>, [u8; 32]), RootsError> {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut add = |kind: u8, certificates: &[CertificateDer<'_>]| {
        for certificate in certificates {
            digest.update(&[kind]);
            digest.update(&certificate.len().to_be_bytes());
            digest.update(certificate);
        }
    };
    let roots = match &settings.ca {
        Some(ca) => {
            add(0, ca.certificates());
            Arc::clone(ca.roots())
        }
        None => {
            let certificates = rustls_native_certs::load_native_certs().certs;
            add(1, &certificates);
            Arc::new(system_roots(certificates)?)
        }
    };
    if let Some(identity) = &settings.identity {
        add(2, &identity.cert);
    }
    let mut made_from = [0; 32];
    made_from.copy_from_slice(digest.finish().as_ref());
    let provider = provider::provider();
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let sessions = Arc::new(SessionStore::new());
    let trust = UpstreamVerifier::new(inner, settings.ca.as_ref(), Arc::clone(&sessions));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(TlsVersion::Tls12.and_later())?
        // This verifier makes all checks of the verifier of rustls.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.resumption = Resumption::store(sessions);
    if let Some(identity) = &settings.identity {
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(identity)));
    }
    config.alpn_protocols = alpn::protocols();
    Ok((Arc::new(config), made_from))
}

fn system_roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(RootsError::None);
    }
    Ok(roots)
}

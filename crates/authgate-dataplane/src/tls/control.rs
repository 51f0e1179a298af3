//! TLS of control listeners: one certificate, HTTP/1.1, and no sessions to resume, so that every connection is checked by the rules in force.

use std::fmt;
use std::io;
use std::sync::Arc;

use authgate_http::alpn::HTTP_1_1;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Certificate;
use super::pem::Authorities;
use super::provider::{self, TlsVersion};
use super::server::verifier;

/// The configuration of `[admin] tls`, with all files loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlTlsSettings {
    /// The chain and the key.
    pub certificate: Certificate,
    /// Clients must show a certificate that these authorities have signed.
    pub client_ca: Option<Authorities>,
}

/// Completes handshakes of a control listener. Clones are cheap.
#[derive(Clone)]
pub struct ControlTls {
    acceptor: TlsAcceptor,
    security: Security,
}

/// How a connection of a control listener is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Without TLS.
    Cleartext,
    /// With TLS.
    Tls {
        /// The authorities that may have signed the client's certificate; `None`: the client was not asked for one.
        client_ca: Option<Authorities>,
    },
}

impl fmt::Debug for ControlTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlTls")
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

impl ControlTls {
    /// Makes the acceptor of a control listener.
    ///
    /// # Errors
    /// The authorities cannot be used for client certificates.
    pub fn new(settings: &ControlTlsSettings) -> Result<Self, rustls::Error> {
        let provider = provider::provider();
        let verifier = match &settings.client_ca {
            Some(authorities) => verifier(authorities, true, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let key = Arc::clone(settings.certificate.certified_key());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(TlsVersion::Tls12.and_later())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            security: Security::Tls {
                client_ca: settings.client_ca.clone(),
            },
        })
    }

    /// The rules of its connections.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Completes a handshake.
    ///
    /// # Errors
    /// The handshake has failed.
    pub async fn accept<I: AsyncRead + AsyncWrite + Unpin>(&self, io: I) -> io::Result<TlsStream<I>> {
        self.acceptor.accept(io).await
    }
}

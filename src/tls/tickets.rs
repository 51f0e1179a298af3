//! Session tickets with client certificates.
//!
//! rustls takes the client certificate of a resumed session from its ticket and does not check it again. A client could use an expired
//! certificate as long as it keeps resuming. So each ticket has the expiry of the certificate, and a digest of the settings that it was checked by.
//! A ticket with another digest, or after this expiry, is not accepted. Then a full handshake follows, which checks the certificate.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider::MinVersion;
use super::validity::Validity;

/// SHA-256 of the settings for client certificates: whether a certificate is required, and the accepted authorities.
pub(super) type ClientAuthDigest = [u8; 32];

/// State shared by all handshakes that ask for a client certificate.
#[derive(Debug)]
pub(super) struct ClientAuthConfig {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) min_version: MinVersion,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) certificates: Arc<dyn ResolvesServerCert>,
    pub(super) ticketer: Arc<dyn ProducesTickets>,
    pub(super) digest: ClientAuthDigest,
}

impl ClientAuthConfig {
    /// # Errors
    /// The TLS configuration is invalid.
    pub(super) fn check(&self) -> Result<(), Error> {
        let versions = self.min_version.versions();
        ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(versions)?;
        Ok(())
    }

    /// Makes the configuration for one connection, whose tickets depend on the client certificate.
    pub(super) fn config(self: &Arc<Self>) -> Result<(ServerConfig, Arc<ConnectionTickets>), Error> {
        let connection = Arc::new(ConnectionTickets {
            shared: Arc::clone(self),
            certificate: Mutex::new(ClientCertificate::None),
        });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.min_version.versions())?
            .with_client_cert_verifier(Arc::clone(&connection) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&self.certificates));
        config.ticketer = Arc::clone(&connection) as Arc<dyn ProducesTickets>;
        // Sessions are stored in tickets only.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok((config, connection))
    }
}

/// One connection: verifies the client certificate, and makes and accepts tickets for it.
#[derive(Debug)]
pub(super) struct ConnectionTickets {
    shared: Arc<ClientAuthConfig>,
    certificate: Mutex<ClientCertificate>,
}

/// The client certificate of this handshake, or of the one that issued the ticket.
#[derive(Debug, Clone, Copy)]
enum ClientCertificate {
    None,
    /// The certificate and its chain are valid until this time.
    ValidUntil(UnixTime),
    /// It was accepted, but its expiry cannot be parsed. Such a connection gets no ticket.
    UnknownExpiry,
}

impl ConnectionTickets {
    /// When the client certificate expires.
    pub(super) fn expiry(&self) -> Option<UnixTime> {
        match self.certificate() {
            ClientCertificate::ValidUntil(expiry) => Some(expiry),
            ClientCertificate::None | ClientCertificate::UnknownExpiry => None,
        }
    }

    fn certificate(&self) -> ClientCertificate {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, certificate: ClientCertificate) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl ProducesTickets for ConnectionTickets {
    fn enabled(&self) -> bool {
        self.shared.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.shared.ticketer.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let expiry = match self.certificate() {
            ClientCertificate::None => u64::MAX,
            ClientCertificate::ValidUntil(expiry) => expiry.as_secs(),
            ClientCertificate::UnknownExpiry => return None,
        };
        // `u64::MAX` means that there is no client certificate.
        let ticket = [&self.shared.digest[..], &expiry.to_be_bytes(), plain].concat();
        self.shared.ticketer.encrypt(&ticket)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.shared.ticketer.decrypt(cipher)?;
        let (digest, ticket) = ticket.split_first_chunk::<32>()?;
        let (expiry, plain) = ticket.split_first_chunk::<8>()?;
        let expiry = u64::from_be_bytes(*expiry);
        if *digest != self.shared.digest || expiry < UnixTime::now().as_secs() {
            return None;
        }
        self.set(match expiry {
            u64::MAX => ClientCertificate::None,
            expiry => ClientCertificate::ValidUntil(UnixTime::since_unix_epoch(std::time::Duration::from_secs(expiry))),
        });
        Some(plain.to_vec())
    }
}

impl ClientCertVerifier for ConnectionTickets {
    fn offer_client_auth(&self) -> bool {
        self.shared.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.shared.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.shared.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .shared
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        let chain = std::iter::once(end_entity).chain(intermediates);
        let expiry = Validity::earliest_expiry_after(now, chain.map(|certificate| &certificate[..]));
        self.set(expiry.map_or(ClientCertificate::UnknownExpiry, ClientCertificate::ValidUntil));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shared.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shared.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.shared.verifier.supported_verify_schemes()
    }
}

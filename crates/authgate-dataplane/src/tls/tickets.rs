//! Session tickets, which are accepted only under the settings that they were issued under.
//!
//! Keys from a file outlive a configuration and belong to several gateways. So each ticket has a digest of the settings for client
//! certificates and of the gateway's own certificates. With another digest there is a full handshake.
//!
//! rustls takes the client certificate of a resumed session from its ticket and does not check it again. A client could use an expired
//! certificate as long as it keeps resuming. So each ticket also has the expiry of the client certificate, and is not accepted after it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider::TlsVersion;
use super::validity::Validity;

/// SHA-256 of the settings that a session depends on.
pub(super) type SettingsDigest = [u8; 32];

/// The expiry of a ticket whose client has no certificate.
const NO_EXPIRY: u64 = u64::MAX;

/// Issues tickets that are accepted only under the same settings, and not after their lifetime.
#[derive(Debug, Clone)]
pub(super) struct Ticketer {
    pub(super) keys: Arc<dyn ProducesTickets>,
    pub(super) settings: SettingsDigest,
}

impl Ticketer {
    /// `expiry`: after this Unix time the ticket is not accepted.
    fn issue(&self, expiry: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let issued = UnixTime::now().as_secs();
        let ticket = [&self.settings[..], &issued.to_be_bytes(), &expiry.to_be_bytes(), plain].concat();
        self.keys.encrypt(&ticket)
    }

    /// The content of a ticket that is accepted, and its expiry.
    fn accept(&self, ticket: &[u8]) -> Option<(u64, Vec<u8>)> {
        let ticket = self.keys.decrypt(ticket)?;
        let (settings, ticket) = ticket.split_first_chunk::<32>()?;
        let (issued, ticket) = ticket.split_first_chunk::<8>()?;
        let (expiry, plain) = ticket.split_first_chunk::<8>()?;
        let (issued, expiry) = (u64::from_be_bytes(*issued), u64::from_be_bytes(*expiry));
        let now = UnixTime::now().as_secs();
        // The clock of the gateway that issued the ticket may be a little ahead.
        let is_fresh = now.saturating_sub(issued) <= u64::from(self.keys.lifetime());
        (*settings == self.settings && is_fresh && now <= expiry).then(|| (expiry, plain.to_vec()))
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        self.keys.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.keys.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.issue(NO_EXPIRY, plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        Some(self.accept(ticket)?.1)
    }
}

/// State shared by all handshakes that ask for a client certificate.
#[derive(Debug)]
pub(super) struct ClientAuthConfig {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) min_version: TlsVersion,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) certificates: Arc<dyn ResolvesServerCert>,
    pub(super) ticketer: Ticketer,
}

impl ClientAuthConfig {
    /// # Errors
    /// The TLS configuration is invalid.
    pub(super) fn check(&self) -> Result<(), Error> {
        let versions = self.min_version.and_later();
        ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(versions)?;
        Ok(())
    }

    /// Makes the configuration for one connection, whose tickets depend on the client certificate.
    pub(super) fn config(self: &Arc<Self>) -> Result<(ServerConfig, Arc<ConnectionTickets>), Error> {
        let connection = Arc::new(ConnectionTickets {
            shared: Arc::clone(self),
            expiry: Mutex::new(None),
        });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.min_version.and_later())?
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
    /// When the client certificate of this handshake expires, or of the one that issued the ticket; `None`: the client has none.
    expiry: Mutex<Option<UnixTime>>,
}

impl ConnectionTickets {
    /// When the client certificate or its chain expires; `None` if the client has no certificate.
    pub(super) fn expiry(&self) -> Option<UnixTime> {
        *self.expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_expiry(&self, expiry: Option<UnixTime>) {
        *self.expiry.lock().unwrap_or_else(PoisonError::into_inner) = expiry;
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
        let expiry = self.expiry().map_or(NO_EXPIRY, |expiry| expiry.as_secs());
        self.shared.ticketer.issue(expiry, plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (expiry, plain) = self.shared.ticketer.accept(ticket)?;
        self.set_expiry(match expiry {
            NO_EXPIRY => None,
            expiry => Some(UnixTime::since_unix_epoch(Duration::from_secs(expiry))),
        });
        Some(plain)
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
        let expiry = Validity::accepted_chain_expiry(now, chain.map(|certificate| &certificate[..]));
        // Without an expiry the connection and its tickets would outlive the certificate.
        self.set_expiry(Some(expiry.ok_or(CertificateError::BadEncoding)?));
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

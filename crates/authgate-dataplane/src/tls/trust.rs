//! Verifies upstream certificates: accepts those that an authority in `tls.ca` has signed, and those listed in `tls.ca` themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::pem::Authorities;
use super::sessions::SessionStore;
use super::validity::Validity;

#[derive(Debug)]
pub(super) struct UpstreamVerifier {
    inner: Arc<WebPkiServerVerifier>,
    /// Certificates that are accepted without an authority. Their name and dates are still checked.
    pinned: Arc<[CertificateDer<'static>]>,
    /// Receives each accepted certificate.
    sessions: Arc<SessionStore>,
}

impl UpstreamVerifier {
    pub(super) fn new(inner: Arc<WebPkiServerVerifier>, ca: Option<&Authorities>, sessions: Arc<SessionStore>) -> Self {
        Self {
            inner,
            pinned: ca.map_or_else(Arc::default, |ca| Arc::clone(ca.certificates())),
            sessions,
        }
    }

    /// A certificate listed in `tls.ca` needs no signature of an authority, even if it is a certificate of an authority itself (curl and
    /// nginx accept that too).
    fn verify_pinned(end_entity: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        let validity = Validity::of(end_entity).ok_or(CertificateError::BadEncoding)?;
        if now < validity.not_before {
            let not_before = validity.not_before;
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now > validity.not_after {
            let not_after = validity.not_after;
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = if self.pinned.iter().any(|pinned| pinned == end_entity) {
            Self::verify_pinned(end_entity, server_name, now).map(|()| ServerCertVerified::assertion())
        } else {
            let inner = &self.inner;
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let verified = verified.map_err(explain)?;
        let chain = std::iter::once(end_entity).chain(intermediates);
        let until = Validity::accepted_chain_expiry(now, chain.map(|certificate| &certificate[..]));
        self.sessions.certificate_accepted(&server_name.to_owned(), until);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Certificates that webpki refuses, with an error that rustls has no message for.
#[derive(Debug, thiserror::Error)]
enum UnusableCertificate {
    #[error(
        "the server's certificate is the certificate of an authority; write that certificate in `tls.ca` to accept it"
    )]
    Authority,
    #[error("the server's certificate is X.509 version 1; sign it as version 3, with its host names in subjectAltName")]
    Version1,
}

fn explain(error: Error) -> Error {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = &error else {
        return error;
    };
    let unusable = match inner.downcast_ref() {
        Some(webpki::Error::CaUsedAsEndEntity) => UnusableCertificate::Authority,
        Some(webpki::Error::UnsupportedCertVersion) => UnusableCertificate::Version1,
        Some(_) | None => return error,
    };
    Error::Other(OtherError(Arc::new(unusable)))
}

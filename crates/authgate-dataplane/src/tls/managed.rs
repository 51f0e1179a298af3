//! [`ManagedCertificates`]: certificates that arrive and are replaced while the gateway serves, one for each of a fixed list of domains.
//! Also the certificates that answer TLS-ALPN-01 challenges (RFC 8737).
//!
//! This module reads certificates from files. The module `acme` obtains them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use authgate_http::alpn;
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, version};

use super::certificate::Certificate;
use super::pem::load_challenge;
use super::provider;
use crate::file::ReadLimit;

/// Certificates by domain. Workers read them at each handshake.
pub struct ManagedCertificates {
    domains: Vec<Managed>,
    positions: HashMap<String, usize>,
    /// Any client can ask for the answer to a challenge.
    reads: ReadLimit,
}

struct Managed {
    domain: String,
    /// `None` until the first certificate is there. It is never removed.
    certificate: ArcSwapOption<CertifiedKey>,
    /// The file of the certificate and key that answer a challenge, while there is one. Another gateway may write it.
    challenge: PathBuf,
}

impl fmt::Debug for ManagedCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.domains.iter().map(|managed| &managed.domain))
            .finish()
    }
}

impl ManagedCertificates {
    /// No certificate is there yet. `domains`: host names in lower case, and the file of their challenge.
    pub fn new(domains: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        let domains: Vec<Managed> = domains
            .into_iter()
            .map(|(domain, challenge)| Managed {
                domain,
                certificate: ArcSwapOption::empty(),
                challenge,
            })
            .collect();
        let names = domains.iter().map(|managed| managed.domain.clone());
        Self {
            positions: names.zip(0..).collect(),
            domains,
            reads: ReadLimit::default(),
        }
    }

    /// The domains, in the order of the configuration.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(|managed| managed.domain.as_str())
    }

    /// Serves this certificate for the domain at this position from the next handshake on.
    pub fn set(&self, at: usize, certificate: &Certificate) {
        if let Some(managed) = self.domains.get(at) {
            managed.certificate.store(Some(Arc::clone(certificate.certified_key())));
        }
    }

    pub(super) fn position(&self, host: &str) -> Option<usize> {
        self.positions.get(host).copied()
    }

    pub(super) fn domain(&self, at: usize) -> Option<&str> {
        Some(self.domains.get(at)?.domain.as_str())
    }

    pub(super) fn certificate(&self, at: usize) -> Option<Arc<CertifiedKey>> {
        self.domains.get(at)?.certificate.load_full()
    }

    pub(super) fn has_certificate(&self, at: usize) -> bool {
        self.domains
            .get(at)
            .is_some_and(|managed| managed.certificate.load().is_some())
    }

    /// The position of the first domain that has a certificate.
    pub(super) fn first(&self) -> Option<usize> {
        (0..self.domains.len()).find(|at| self.has_certificate(*at))
    }

    /// The configuration that answers the challenge for this host, if one is under way.
    pub(super) async fn challenge(&self, host: &str) -> Option<Arc<ServerConfig>> {
        let file = self.domains.get(self.position(host)?)?.challenge.clone();
        // The file may be on another machine: its read must not block the worker.
        let key = self.reads.run(move || load_challenge(&file)).await?;
        let mut config = ServerConfig::builder_with_provider(provider::provider())
            // RFC 8737, section 4, requires at least TLS 1.2.
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .ok()?
            // An authority has no certificate of a client.
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![alpn::ACME_TLS_1.to_vec()];
        // A session of a challenge must not be resumed as one for requests.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Some(Arc::new(config))
    }
}

/// Whether a client asks for the answer to a challenge: it offers `acme-tls/1` alone (RFC 8737, section 3).
pub(super) fn asks_for_challenge(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut protocols| protocols.next() == Some(alpn::ACME_TLS_1) && protocols.next().is_none())
}

//! [`CertificateNames`]: finds the certificate for a host, and [`ServedCertificate`]: the one that a client got.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::managed::ManagedCertificates;

/// Finds the certificate for a host. Positions: first the certificates of the configuration, then the managed ones.
#[derive(Debug, Default)]
pub struct CertificateNames {
    exact: HashMap<String, usize>,
    /// Wildcard certificates, by the domain after `*.`.
    wildcard: HashMap<String, usize>,
    /// The names of each certificate of the configuration.
    names: Vec<Vec<String>>,
    pub(super) managed: Option<Arc<ManagedCertificates>>,
}

impl CertificateNames {
    /// The first certificate for a name wins.
    pub(super) fn new(certificates: &[Certificate], managed: Option<Arc<ManagedCertificates>>) -> Self {
        let mut index = Self {
            managed,
            ..Self::default()
        };
        for (at, certificate) in certificates.iter().enumerate() {
            for name in certificate.names() {
                let (map, name) = name
                    .strip_prefix("*.")
                    .map_or((&mut index.exact, name.as_str()), |domain| {
                        (&mut index.wildcard, domain)
                    });
                map.entry(name.to_owned()).or_insert(at);
            }
            index.names.push(certificate.names().to_vec());
        }
        index
    }

    /// Position of the certificate for a host in lower case. A managed certificate comes first. Until it is there, another one for the
    /// host is used.
    fn find(&self, host: &str) -> Option<usize> {
        let managed = self
            .managed
            .as_ref()
            .and_then(|managed| Some((managed.position(host)?, managed)));
        match managed {
            Some((at, managed)) if managed.has_certificate(at) => Some(self.names.len() + at),
            Some((at, _)) => self.find_configured(host).or(Some(self.names.len() + at)),
            None => self.find_configured(host),
        }
    }

    fn find_configured(&self, host: &str) -> Option<usize> {
        let wildcard = || host.split_once('.').and_then(|(_, domain)| self.wildcard.get(domain));
        self.exact.get(host).or_else(wildcard).copied()
    }

    /// Position of the certificate for a client that asks for this name, or for none. If no certificate is for the name: the first one.
    fn position_for(&self, sni: Option<&str>) -> usize {
        let name = sni.unwrap_or_default().to_ascii_lowercase();
        self.find(&name).unwrap_or_else(|| match &self.managed {
            Some(managed) if self.names.is_empty() => managed.first().unwrap_or(0),
            Some(_) | None => 0,
        })
    }

    /// Whether a client that asks for this name gets a certificate.
    pub(super) fn has_certificate_for(&self, sni: Option<&str>) -> bool {
        let at = self.position_for(sni);
        match (at.checked_sub(self.names.len()), &self.managed) {
            (Some(at), Some(managed)) => managed.has_certificate(at),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    fn covers(&self, at: usize, host: &str) -> bool {
        let domain = host.split_once('.').map(|(_, domain)| domain);
        match self.names.get(at) {
            Some(names) => names
                .iter()
                .any(|name| name == host || name.strip_prefix("*.").is_some_and(|own| Some(own) == domain)),
            None => {
                let managed = self.managed.as_ref();
                managed.and_then(|managed| managed.domain(at - self.names.len())) == Some(host)
            }
        }
    }

    /// The certificate for a client that asked for this name.
    pub fn select(self: &Arc<Self>, sni: Option<&str>) -> ServedCertificate {
        ServedCertificate {
            at: self.position_for(sni),
            names: Arc::clone(self),
        }
    }
}

/// The certificate that a connection was opened with.
#[derive(Debug, Clone)]
pub struct ServedCertificate {
    names: Arc<CertificateNames>,
    at: usize,
}

impl ServedCertificate {
    /// Whether a host, in lower case, has another configured certificate and not this one (RFC 9110, section 7.4). Such a request is
    /// misdirected: the client verified a certificate that does not cover the host.
    pub fn is_misdirected(&self, host: &str) -> bool {
        self.names.find(host).is_some_and(|at| at != self.at) && !self.names.covers(self.at, host)
    }
}

/// Selects certificates by SNI.
pub(super) struct SniResolver {
    names: Arc<CertificateNames>,
    keys: Vec<Arc<CertifiedKey>>,
}

impl fmt::Debug for SniResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SniResolver")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl SniResolver {
    pub(super) fn new(certificates: &[Certificate], names: &Arc<CertificateNames>) -> Self {
        Self {
            names: Arc::clone(names),
            keys: certificates
                .iter()
                .map(|certificate| Arc::clone(certificate.certified_key()))
                .collect(),
        }
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let at = self.names.position_for(hello.server_name());
        match self.keys.get(at) {
            Some(key) => Some(Arc::clone(key)),
            None => self.names.managed.as_ref()?.certificate(at - self.keys.len()),
        }
    }
}

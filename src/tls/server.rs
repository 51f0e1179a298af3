//! The server's side of TLS: certificates chosen by SNI, tickets that all workers share, no early data.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::provider::{self, MinVersion};

/// What the configuration says of `[server.tls]`, with everything loaded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Chains and keys; the first is for clients that name no host of the others.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
}

/// A chain with its key.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// Why a chain or a key cannot be used: names the file, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct PemError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Certificate {
    /// Loads a PEM chain (leaf first) and its private key.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, or the key belongs to another certificate.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Self, PemError> {
        let error = |file: &Path, problem: String| PemError {
            file: file.to_owned(),
            problem,
        };
        let read = |file: &Path| std::fs::read(file).map_err(|problem| error(file, problem.to_string()));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(chain_file)?)
            .collect::<Result<_, _>>()
            .map_err(|problem| error(chain_file, format!("not readable as PEM: {problem}")))?;
        let Some(leaf) = chain.first() else {
            return Err(error(
                chain_file,
                "there is no -----BEGIN CERTIFICATE----- in it; a chain is PEM, the leaf first".to_owned(),
            ));
        };
        let names = names_of(leaf).map_err(|problem| error(chain_file, problem))?;
        let key = PrivateKeyDer::from_pem_slice(&read(key_file)?).map_err(|_| {
            error(
                key_file,
                "there is no unencrypted private key in it; PEM of PKCS #8, PKCS #1 or SEC 1 is taken".to_owned(),
            )
        })?;
        let signer = provider::provider()
            .key_provider
            .load_private_key(key)
            .map_err(|problem| error(key_file, format!("the key cannot be used: {problem}")))?;
        let key = CertifiedKey::new(chain, signer);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(error(
                    key_file,
                    format!("this is not the key of the certificate in {}", chain_file.display()),
                ));
            }
        }
        Ok(Self {
            key: Arc::new(key),
            names,
        })
    }

    /// The DER of the leaf.
    pub fn leaf(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |leaf| leaf.as_ref())
    }

    /// The DNS names that it is for, lower case, `*.` where it is a wildcard.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The DNS names of a certificate's subjectAltName (RFC 5280, section 4.2.1.6); the common name is not looked at (RFC 9110, 4.3.4).
fn names_of(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let certificate = webpki::EndEntityCert::try_from(leaf)
        .map_err(|problem| format!("the first certificate cannot be read: {problem}"))?;
    Ok(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// Builds rustls's configuration. It is shared by all workers, and with it the keys of the session tickets.
///
/// # Errors
/// The provider cannot speak these versions, or make ticket keys.
pub fn config(settings: &Settings) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(settings.min_version.versions())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni::new(&settings.certificates)));
    config.alpn_protocols = vec![provider::H2.to_vec(), provider::HTTP_1_1.to_vec()];
    // Tickets are stateless and their keys rotate; a session is resumed by any worker and costs no memory here.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    // One ticket is enough for a client that keeps its connection; each costs an encryption and a write.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Certificates by the name that a client asks for.
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the domain below which a wildcard holds.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BySni")
            .field("exact", &self.exact.keys())
            .field("wildcard", &self.wildcard.keys())
            .finish()
    }
}

impl BySni {
    fn new(certificates: &[Certificate]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in certificates {
            for name in &certificate.names {
                let (map, name) = name
                    .strip_prefix("*.")
                    .map_or((&mut exact, name.as_str()), |domain| (&mut wildcard, domain));
                map.entry(name.to_owned())
                    .or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Self {
            exact,
            wildcard,
            first: certificates.first().map(|certificate| Arc::clone(&certificate.key)),
        }
    }

    /// No name, or one that no certificate is for: the first.
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let below = || name.split_once('.').and_then(|(_, domain)| self.wildcard.get(domain));
        self.exact.get(&name).or_else(below).or(self.first.as_ref()).cloned()
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

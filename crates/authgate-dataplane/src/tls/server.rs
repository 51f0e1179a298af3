//! TLS server side: certificates by SNI, session tickets shared by all workers, no early data.

use std::fmt;
use std::io;
use std::sync::Arc;

use authgate_http::alpn;
use authgate_http::server::handler::TlsEnded;
use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::certificate::Certificate;
use super::certificate_names::{CertificateNames, SniResolver};
use super::managed::{ManagedCertificates, asks_for_challenge};
use super::pem::Authorities;
use super::provider::{self, TlsVersion};
use super::ticket_keys::TicketKeys;
use super::tickets::{ClientAuthConfig, SettingsDigest, Ticketer};

/// The configuration of `[server.tls]`, with all files loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// Chains and keys. The first one is the default, for clients whose host has no certificate.
    pub certificates: Vec<Certificate>,
    /// The minimum TLS version.
    pub min_version: TlsVersion,
    /// Client certificates.
    pub client_auth: ClientAuth,
    /// Keys of session tickets that gateways share; `None`: keys of this process, which it rotates.
    pub tickets: Option<TicketKeys>,
}

/// Whether clients must present a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    #[default]
    Off,
    /// Optional: a client may present no certificate. With one that these authorities have not signed, the handshake fails.
    Optional(Authorities),
    /// Required: a certificate that these authorities have signed.
    Required(Authorities),
}

/// What a client must do before its requests are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientSecurity {
    /// Connect.
    Cleartext,
    /// Complete a TLS handshake.
    Tls {
        /// The certificate that it must present.
        client_auth: ClientAuth,
        /// The minimum TLS version.
        min_version: TlsVersion,
    },
}

impl ClientSecurity {
    /// The connection that meets these rules, and no more.
    pub fn weakest_connection(&self) -> ConnectionSecurity {
        match self {
            Self::Cleartext => ConnectionSecurity::Cleartext,
            Self::Tls {
                client_auth,
                min_version,
            } => ConnectionSecurity::Tls {
                client_auth: client_auth.clone(),
                version: *min_version,
            },
        }
    }
}

/// How a client has connected.
#[derive(Debug, Clone)]
pub enum ConnectionSecurity {
    /// Without TLS.
    Cleartext,
    /// With TLS.
    Tls {
        /// What it had to present at its handshake.
        client_auth: ClientAuth,
        /// The negotiated version.
        version: TlsVersion,
    },
}

impl ConnectionSecurity {
    /// Whether the connection may be used under the present rules. Otherwise it takes no more requests.
    pub fn is_accepted_under(&self, rules: &ClientSecurity) -> bool {
        match (self, rules) {
            (Self::Cleartext, ClientSecurity::Cleartext) => true,
            (Self::Tls { client_auth, .. }, ClientSecurity::Cleartext) => *client_auth == ClientAuth::Off,
            (Self::Cleartext, ClientSecurity::Tls { .. }) => false,
            (
                Self::Tls { client_auth, version },
                ClientSecurity::Tls {
                    client_auth: required,
                    min_version,
                },
            ) => client_auth == required && version >= min_version,
        }
    }
}

/// The TLS of a listener, and the certificate for each host.
#[derive(Clone)]
pub struct Acceptor {
    config: HandshakeConfig,
    client_auth: ClientAuth,
    /// The hosts of the certificates.
    pub certificates: Arc<CertificateNames>,
    /// What clients must do.
    pub security: Arc<ClientSecurity>,
}

/// The rustls configuration of a handshake.
#[derive(Clone)]
enum HandshakeConfig {
    /// Shared by all connections: clients are not asked for a certificate.
    Shared(TlsAcceptor),
    /// One for each connection, because its tickets depend on the client certificate.
    PerConnection(Arc<ClientAuthConfig>),
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Makes the acceptor, which all workers share, together with the keys of the session tickets. `managed` are further certificates.
    ///
    /// # Errors
    /// The provider does not support these versions, or cannot make ticket keys.
    pub fn new(settings: &ServerTlsSettings, managed: Option<Arc<ManagedCertificates>>) -> Result<Self, rustls::Error> {
        let names = Arc::new(CertificateNames::new(&settings.certificates, managed));
        let resolver = Arc::new(SniResolver::new(&settings.certificates, &names));
        let certificates: Arc<dyn ResolvesServerCert> = resolver;
        let (provider, min_version) = (provider::provider(), settings.min_version);
        // Tickets are stateless and their keys rotate: any worker can resume a session, and sessions need no memory.
        let keys: Arc<dyn ProducesTickets> = match &settings.tickets {
            Some(keys) => Arc::new(keys.clone()),
            None => rustls::crypto::aws_lc_rs::Ticketer::new()?,
        };
        let ticketer = Ticketer {
            keys,
            settings: digest_of(settings, &names),
        };
        let requested = match &settings.client_auth {
            ClientAuth::Off => None,
            ClientAuth::Optional(authorities) => Some((authorities, false)),
            ClientAuth::Required(authorities) => Some((authorities, true)),
        };
        let config = match requested {
            None => {
                let mut config = ServerConfig::builder_with_provider(provider)
                    .with_protocol_versions(min_version.and_later())?
                    .with_no_client_auth()
                    .with_cert_resolver(certificates);
                config.ticketer = Arc::new(ticketer);
                HandshakeConfig::Shared(TlsAcceptor::from(Arc::new(with_session_settings(config))))
            }
            Some((authorities, required)) => {
                let client_auth = ClientAuthConfig {
                    verifier: verifier(authorities, required, &provider)?,
                    provider,
                    min_version,
                    certificates,
                    ticketer,
                };
                // An error here comes from the configuration, not from a connection.
                client_auth.check()?;
                HandshakeConfig::PerConnection(Arc::new(client_auth))
            }
        };
        Ok(Self {
            config,
            security: Arc::new(ClientSecurity::Tls {
                client_auth: settings.client_auth.clone(),
                min_version,
            }),
            client_auth: settings.client_auth.clone(),
            certificates: names,
        })
    }

    /// How a client has connected that has completed a handshake of this acceptor.
    pub fn connection_security(&self, session: &ServerConnection) -> ConnectionSecurity {
        ConnectionSecurity::Tls {
            client_auth: self.client_auth.clone(),
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                Some(_) | None => TlsVersion::Tls12,
            },
        }
    }

    /// Completes a handshake. Also returns when the client certificate expires.
    ///
    /// # Errors
    /// No requests are served on the connection; the caller closes it.
    pub async fn accept<I>(&self, io: I) -> Result<(TlsStream<I>, Option<UnixTime>), TlsEnded<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(managed) = &self.certificates.managed {
            return self.accept_managed(io, managed).await;
        }
        match &self.config {
            HandshakeConfig::Shared(acceptor) => Ok((acceptor.accept(io).into_fallible().await?, None)),
            HandshakeConfig::PerConnection(client_auth) => {
                let (config, connection) = match client_auth.config() {
                    Ok(config) => config,
                    Err(problem) => return Err((io::Error::other(problem), io).into()),
                };
                let acceptor = TlsAcceptor::from(Arc::new(with_session_settings(config)));
                let tls = acceptor.accept(io).into_fallible().await?;
                Ok((tls, connection.expiry()))
            }
        }
    }

    /// The same where certificates may be missing, and challenges are answered: both depend on the ClientHello.
    async fn accept_managed<I>(
        &self,
        io: I,
        managed: &ManagedCertificates,
    ) -> Result<(TlsStream<I>, Option<UnixTime>), TlsEnded<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut reading = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
        let mut start = match (&mut reading).await {
            Ok(start) => start,
            Err(problem) => {
                let io = reading
                    .take_io()
                    .expect("only an accepted ClientHello takes the stream");
                return Err((problem, io).into());
            }
        };
        let hello = start.client_hello();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let challenge = match asks_for_challenge(&hello) {
            true => Some(managed.challenge(name.as_deref().unwrap_or_default()).await),
            false => None,
        };
        match challenge {
            Some(Some(config)) => {
                let mut tls = start.into_stream(config).into_fallible().await?;
                // The authority has seen the certificate; whether it still reads does not matter.
                let _ = tls.shutdown().await;
                return Err(TlsEnded::Challenge(tls.into_inner().0));
            }
            Some(None) => {}
            None if self.certificates.has_certificate_for(name.as_deref()) => {
                let (config, connection) = match &self.config {
                    HandshakeConfig::Shared(acceptor) => (Arc::clone(acceptor.config()), None),
                    HandshakeConfig::PerConnection(client_auth) => match client_auth.config() {
                        Ok((config, connection)) => (Arc::new(with_session_settings(config)), Some(connection)),
                        Err(problem) => return Err((io::Error::other(problem), start.io).into()),
                    },
                };
                let tls = start.into_stream(config).into_fallible().await?;
                return Ok((tls, connection.and_then(|connection| connection.expiry())));
            }
            None => {}
        }
        // A client that is gone needs no alert.
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let problem = format!(
            "there is no certificate or challenge for {:?} yet",
            name.unwrap_or_default()
        );
        Err((io::Error::new(io::ErrorKind::NotFound, problem), start.io).into())
    }
}

/// The fatal alert `unrecognized_name` in a record of TLS 1.2, which both versions use before the ServerHello (RFC 6066, section 3; RFC 8446,
/// section 5.1).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

fn with_session_settings(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = alpn::protocols();
    // One ticket is enough for a client that keeps its connection; each ticket costs an encryption and a write.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    config
}

pub(super) fn verifier(
    authorities: &Authorities,
    required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities.roots()), Arc::clone(provider));
    let builder = match required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|problem: VerifierBuilderError| rustls::Error::General(problem.to_string()))
}

/// The digest of client authentication and of the certificates: a session that was begun under others is not resumed.
fn digest_of(settings: &ServerTlsSettings, names: &CertificateNames) -> SettingsDigest {
    let mut digest = digest::Context::new(&digest::SHA256);
    let (mode, authorities) = match &settings.client_auth {
        ClientAuth::Off => (0, None),
        ClientAuth::Optional(authorities) => (1, Some(authorities)),
        ClientAuth::Required(authorities) => (2, Some(authorities)),
    };
    digest.update(&[mode]);
    let authorities: Vec<&[u8]> = authorities.map_or_else(Vec::new, |authorities| {
        authorities.certificates().iter().map(AsRef::as_ref).collect()
    });
    let chains = settings
        .certificates
        .iter()
        .map(|certificate| certificate.chain().collect());
    for list in std::iter::once(authorities).chain(chains) {
        digest.update(&list.len().to_be_bytes());
        for certificate in list {
            digest.update(&certificate.len().to_be_bytes());
            digest.update(certificate);
        }
    }
    // A managed certificate is renewed with the same name, so sessions survive that.
    for domain in names.managed.iter().flat_map(|managed| managed.domains()) {
        digest.update(&domain.len().to_be_bytes());
        digest.update(domain.as_bytes());
    }
    let mut result = SettingsDigest::default();
    result.copy_from_slice(digest.finish().as_ref());
    result
}

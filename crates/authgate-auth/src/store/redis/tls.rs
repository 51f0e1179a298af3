//! [`RedisTls`]: TLS to the servers of a store.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// TLS to the servers of a store, for `rediss://`.
#[derive(Clone)]
pub struct RedisTls {
    /// Roots, versions, and the certificate of the gateway. It offers no protocols by ALPN.
    pub config: Arc<ClientConfig>,
    /// A hash of everything that `config` was made from.
    pub made_from: [u8; 32],
    /// The name in the certificates of the servers; `None`: the host that is connected to.
    pub server_name: Option<ServerName<'static>>,
}

impl RedisTls {
    pub(super) async fn handshake(&self, host: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.config))
            .connect(self.name(host)?, tcp)
            .await
    }

    /// The name that the certificate of the server at this host must have.
    pub(super) fn name(&self, host: &str) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other),
        }
    }
}

impl fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Equal ones trust the same certificates for the same name, and show the same one.
impl PartialEq for RedisTls {
    fn eq(&self, other: &Self) -> bool {
        self.made_from == other.made_from && self.server_name == other.server_name
    }
}

impl Eq for RedisTls {}

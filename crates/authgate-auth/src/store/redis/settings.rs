//! The configuration of one Redis, and how to connect to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use authgate_core::secret::Secret;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult,
};

use socket2::TcpKeepalive;

use super::connection::Node;
use super::keys::Keys;
use super::tls::RedisTls;
use super::transport::Connection;
use crate::store::Digests;

/// The configuration of one Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Its address and database.
    pub endpoint: Endpoint,
    /// Login, if not in the URL.
    pub username: Option<String>,
    /// Password, if not in the URL.
    pub password: Option<Secret<String>>,
    /// TLS, for `rediss://`.
    pub tls: Option<RedisTls>,
    /// Prefix of all keys.
    pub prefix: String,
    /// One deadline for connecting, waiting and answering.
    pub timeout: Duration,
    /// How cached decisions are invalidated.
    pub invalidation: Invalidation,
    /// The kinds of digests that tokens are stored under.
    pub digests: Digests,
}

/// How a change in Redis invalidates cached decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// Redis reports changes: `CLIENT TRACKING` with RESP3.
    Tracking,
    /// Changes are not reported: cache entries expire after their `ttl`.
    Off,
}

/// A parsed `redis://`, `rediss://` or `unix://` URL. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Endpoint {
    info: redis::ConnectionInfo,
    /// What `info` was parsed from, to compare two of them.
    url: Secret<String>,
}

/// Explains what is wrong with a URL, by its parts.
fn wrong(url: &str) -> Option<&'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    match scheme {
        "redis" | "rediss" => {}
        "unix" => return rest.is_empty().then_some("it has no path of a socket"),
        _ => return Some("it must begin with redis://, rediss:// or unix://"),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    // A common mistake is a password that is not percent-encoded: a `/`, `?` or `#` ends it.
    if rest.contains('@') && !authority.contains('@') || login.contains(['[', ']', ' ', '"']) {
        return Some("its password has a character that ends it; write that character as %XX, or use `password`");
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (host, None),
    };
    if name.is_empty() {
        return Some("it has no host");
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Some("its port is not a number up to 65535"),
        Some(_) | None => None,
    }
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        if let Some(problem) = wrong(url) {
            return Err(problem.to_owned());
        }
        // The library's message would be about its own types.
        let info = url
            .into_connection_info()
            .map_err(|_: RedisError| "its host, database or parameters cannot be read".to_owned())?;
        Ok(Self {
            info,
            url: Secret::new(url.to_owned()),
        })
    }

    /// The path of the socket, for `unix://`.
    pub fn socket(&self) -> Option<&PathBuf> {
        match self.info.addr() {
            ConnectionAddr::Unix(path) => Some(path),
            _ => None,
        }
    }
}

impl Endpoint {
    /// Whether both are the same database of the same server.
    fn is_same_database(&self, other: &Self) -> bool {
        let database = |info: &redis::ConnectionInfo| info.redis_settings().db();
        self.info.addr() == other.info.addr() && database(&self.info) == database(&other.info)
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for Endpoint {}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.info.addr())
    }
}

impl RedisSettings {
    /// Whether it has the same records: how the gateway logs in and waits makes no difference.
    pub(in crate::store) fn has_records_of(&self, previous: &Self) -> bool {
        self.endpoint.is_same_database(&previous.endpoint) && self.prefix == previous.prefix
    }

    /// Makes a client for this Redis, without connecting.
    ///
    /// # Errors
    /// This build does not support the URL.
    pub fn client(&self) -> RedisResult<Client> {
        self.client_speaking(&Node::Configured, self.endpoint.info.redis_settings().protocol())
    }

    /// Makes a client for one server, with this version of the protocol.
    pub(super) fn client_speaking(&self, node: &Node, protocol: ProtocolVersion) -> RedisResult<Client> {
        let Node::Configured = node;
        let mut login = self.endpoint.info.redis_settings().clone().set_protocol(protocol);
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.expose());
        }
        let endpoint = self.endpoint.info.clone().set_redis_settings(login);
        Client::open(endpoint.set_tcp_settings(tcp_settings()))
    }

    /// Opens a connection to a server.
    pub(super) async fn connect(&self, node: &Node) -> RedisResult<Connection> {
        let protocol = self.endpoint.info.redis_settings().protocol();
        self.open(node, protocol, &connection_config()).await
    }

    /// Opens a connection to a server, with this version of the protocol.
    pub(super) async fn open(
        &self,
        node: &Node,
        protocol: ProtocolVersion,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Connection> {
        let client = self.client_speaking(node, protocol)?;
        Connection::open(client.get_connection_info(), self.tls.as_ref(), config).await
    }

    /// The names of the keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(&self.prefix)
    }
}

/// No delay for small writes, and keep-alive probes so that firewalls keep idle connections.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

/// Switches off the deadlines and retries of the crate: callers apply one deadline.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
}

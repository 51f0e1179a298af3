//! The configuration of one Redis, and how to connect to it.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use authgate_core::secret::Secret;
use redis::cluster::NodeAddress;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult};

use super::blocking::BlockingConnection;
use super::keys::Keys;
use super::seal::Seal;
use super::servers::{Node, require_primary};
use super::tls::RedisTls;
use super::transport::Connection;
use crate::store::Digests;

/// The configuration of one Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// The servers that have the records, and how they are found.
    pub servers: Servers,
    /// Login, if not in the URL.
    pub username: Option<String>,
    /// Password, if not in the URL.
    pub password: Option<Secret<String>>,
    /// The role that writes, if the other one may only read.
    pub writer: Option<Login>,
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
    /// The key that all records are sealed with.
    pub seal: Option<Seal>,
}

/// A user of Redis, with the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret<String>,
}

/// The role that a connection logs in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Reader,
    /// The role of `writer`, or the reader's where there is none.
    Writer,
}

/// The servers that have the records, and how they are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    Single(Endpoint),
    /// The primary that sentinels name.
    Sentinel(Sentinels),
    /// The primaries of a cluster; some of its servers.
    Cluster(Vec<Endpoint>),
}

/// The sentinels of a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// Their addresses. Scheme and database are those of the primary too.
    pub endpoints: Vec<Endpoint>,
    /// The name of the primary.
    pub service: String,
    /// Login at the sentinels.
    pub username: Option<String>,
    /// Password at the sentinels.
    pub password: Option<Secret<String>>,
    /// TLS to the sentinels, where it differs from that to the servers.
    pub tls: Option<RedisTls>,
}

impl Servers {
    /// The word in the configuration.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Sentinel(_) => "sentinel",
            Self::Cluster(_) => "cluster",
        }
    }

    /// The addresses in the configuration.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Single(endpoint) => std::slice::from_ref(endpoint),
            Self::Sentinel(sentinels) => &sentinels.endpoints,
            Self::Cluster(endpoints) => endpoints,
        }
    }

    /// Whether they have the same records: one of the addresses is in both.
    fn have_records_of(&self, previous: &Self) -> bool {
        let service = |servers: &Self| match servers {
            Self::Sentinel(sentinels) => Some(sentinels.service.clone()),
            Self::Single(_) | Self::Cluster(_) => None,
        };
        let is_shared = |one: &Endpoint| previous.endpoints().iter().any(|other| one.is_same_database(other));
        self.mode() == previous.mode() && service(self) == service(previous) && self.endpoints().iter().any(is_shared)
    }
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
        "rediss" if rest.contains("#insecure") => {
            return Some("certificates are always checked: remove #insecure, and write `tls = { ca = \"ca.pem\" }`");
        }
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
    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Whether the URL has a name or a password.
    pub fn has_login(&self) -> bool {
        let login = self.info.redis_settings();
        login.username().is_some() || login.password().is_some()
    }

    /// Whether the URL has a password.
    pub fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    fn protocol(&self) -> ProtocolVersion {
        self.info.redis_settings().protocol()
    }

    /// The server by its address. A socket file has none.
    pub(super) fn node(&self) -> Node {
        NodeAddress::try_from(self.info.addr()).map_or(Node::Configured, Node::At)
    }

    /// Another server, that is connected to in the same way.
    fn at(&self, address: &NodeAddress) -> redis::ConnectionInfo {
        let (host, port) = (address.host().to_owned(), address.port());
        self.info.clone().set_addr(match self.info.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure, tls_params, ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(host, port),
        })
    }

    /// Whether both are the same database of the same server.
    fn is_same_database(&self, other: &Self) -> bool {
        self.info.addr() == other.info.addr() && self.database() == other.database()
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
    /// Whether it has the same records: how the gateway logs in and waits makes no difference. Records that were accepted without this
    /// seal are others.
    pub(in crate::store) fn has_records_of(&self, previous: &Self) -> bool {
        self.servers.have_records_of(&previous.servers) && self.prefix == previous.prefix && self.seal == previous.seal
    }

    /// The same servers, with the login of the role that writes.
    #[must_use]
    pub fn for_writing(&self) -> Self {
        let mut settings = self.clone();
        if let Some(Login { username, password }) = settings.writer.take() {
            settings.username = Some(username);
            settings.password = Some(password);
        }
        settings
    }

    /// Opens a connection to a server, for the command line.
    ///
    /// # Errors
    /// As for [`BlockingConnection::open`].
    pub fn connect_blocking(&self, node: &Node, time_limit: Duration) -> RedisResult<BlockingConnection> {
        let info = self.info(node, self.protocol())?;
        BlockingConnection::open(&info, self.tls.as_ref(), time_limit)
    }

    /// How to connect to a server, and to log in.
    fn info(&self, node: &Node, protocol: ProtocolVersion) -> RedisResult<redis::ConnectionInfo> {
        let endpoint = self.servers.endpoints().first();
        let endpoint = endpoint.ok_or_else(|| io::Error::other("no address"))?;
        let info = match node {
            Node::Configured => endpoint.info.clone(),
            Node::At(address) => endpoint.at(address),
        };
        Ok(with_login(
            info,
            protocol,
            self.username.as_ref(),
            self.password.as_ref(),
        ))
    }

    fn protocol(&self) -> ProtocolVersion {
        let endpoint = self.servers.endpoints().first();
        endpoint.map_or_else(ProtocolVersion::default, Endpoint::protocol)
    }

    /// Opens a connection to a server. One that sentinels have named must say that it is a primary.
    pub(super) async fn connect(&self, node: &Node) -> RedisResult<Connection> {
        self.open(node, self.protocol(), &connection_config()).await
    }

    /// Opens a connection to a server, with this version of the protocol.
    pub(super) async fn open(
        &self,
        node: &Node,
        protocol: ProtocolVersion,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Connection> {
        let mut connection = Connection::open(&self.info(node, protocol)?, self.tls.as_ref(), config).await?;
        match self.servers {
            Servers::Sentinel(_) => require_primary(&mut connection).await?,
            // A replica of a cluster redirects commands by itself.
            Servers::Single(_) | Servers::Cluster(_) => {}
        }
        Ok(connection)
    }

    /// Opens a connection to a server that is asked for its role, or for the others.
    pub(super) async fn open_to_ask(&self, node: &Node) -> RedisResult<Connection> {
        let info = self.info(node, self.protocol())?;
        Connection::open(&info, self.tls.as_ref(), &connection_config()).await
    }

    /// Opens a connection to a sentinel.
    pub(super) async fn open_sentinel(&self, sentinels: &Sentinels, index: usize) -> RedisResult<Connection> {
        let endpoint = sentinels.endpoints.get(index);
        let endpoint = endpoint.ok_or_else(|| io::Error::other("no address"))?;
        // A sentinel has no databases.
        let login = endpoint.info.redis_settings().clone().set_db(0);
        let info = endpoint.info.clone().set_redis_settings(login);
        let login = (sentinels.username.as_ref(), sentinels.password.as_ref());
        let info = with_login(info, endpoint.protocol(), login.0, login.1);
        Connection::open(
            &info,
            sentinels.tls.as_ref().or(self.tls.as_ref()),
            &connection_config(),
        )
        .await
    }

    /// Whether connections to the servers are encrypted.
    pub(super) fn has_tls(&self) -> bool {
        self.servers.endpoints().first().is_some_and(Endpoint::has_tls)
    }

    /// The names of the keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(&self.prefix, self.seal.as_ref())
    }
}

fn with_login(
    info: redis::ConnectionInfo,
    protocol: ProtocolVersion,
    username: Option<&String>,
    password: Option<&Secret<String>>,
) -> redis::ConnectionInfo {
    let mut login = info.redis_settings().clone().set_protocol(protocol);
    if let Some(username) = username {
        login = login.set_username(username);
    }
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    info.set_redis_settings(login)
}

/// Switches off the deadlines and retries of the crate: callers apply one deadline.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
}

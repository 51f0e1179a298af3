//! What the configuration says of one Redis, and how it is reached.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError};

use socket2::TcpKeepalive;

use super::keys::Keys;
use crate::auth::store::Digests;
use crate::secret::Secret;

/// What the configuration says of one Redis.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is, and which database.
    pub endpoint: Endpoint,
    /// Login, if not in the URL.
    pub username: Option<String>,
    /// Password, if not in the URL.
    pub password: Option<Secret<String>>,
    /// Put before every key.
    pub prefix: String,
    /// One deadline for connecting, waiting and answering.
    pub timeout: Duration,
    /// How changes are heard of.
    pub invalidation: Invalidation,
    /// What tokens are named by.
    pub digests: Digests,
}

/// How changes of a Redis are heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// It tells: `CLIENT TRACKING`, of RESP3.
    Tracking,
    /// Not at all: verdicts live for their `ttl`.
    Off,
}

/// A `redis://`, `rediss://` or `unix://` URL that was understood. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Endpoint(redis::ConnectionInfo);

/// What is wrong with a URL, as far as its parts tell.
fn wrong(url: &str) -> Option<&'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    match scheme {
        "redis" | "rediss" => {}
        "unix" => return rest.is_empty().then_some("it names no socket file"),
        _ => return Some("it begins with none of redis://, rediss:// and unix://"),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    // People write a password as it is; from its first `/`, `?` or `#` on it would be something else.
    if rest.contains('@') && !authority.contains('@') || login.contains(['[', ']', ' ', '"']) {
        return Some("its password holds a character that ends it; write it as %XX, or under `password`");
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (host, None),
    };
    if name.is_empty() {
        return Some("it has no host");
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Some("its port is no number up to 65535"),
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
        // The library's own words are about its own types.
        url.into_connection_info()
            .map(Self)
            .map_err(|_: RedisError| "its host, database or parameters cannot be read".to_owned())
    }

    /// The socket file, where it is one.
    pub fn socket(&self) -> Option<&PathBuf> {
        match self.0.addr() {
            ConnectionAddr::Unix(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.addr())
    }
}

impl Settings {
    /// A client for this Redis; nothing is connected.
    ///
    /// # Errors
    /// The URL names something that this build cannot reach.
    pub fn client(&self) -> redis::RedisResult<Client> {
        self.client_speaking(self.endpoint.0.redis_settings().protocol())
    }

    pub(super) fn client_speaking(&self, protocol: ProtocolVersion) -> redis::RedisResult<Client> {
        let mut login = self.endpoint.0.redis_settings().clone().set_protocol(protocol);
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.expose());
        }
        let endpoint = self.endpoint.0.clone().set_redis_settings(login);
        Client::open(endpoint.set_tcp_settings(tcp_settings()))
    }

    /// A connection for many requests at once.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        self.client()?
            .get_multiplexed_async_connection_with_config(&connection_config())
            .await
    }

    /// The names of the keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(&self.prefix)
    }
}

/// Small writes leave at once, and firewalls do not forget a connection that is idle.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

/// The crate's own deadlines and retries are switched off: there is one deadline, and it is ours.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
}

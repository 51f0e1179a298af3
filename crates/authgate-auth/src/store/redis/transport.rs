//! [`Connection`]: a connection to one server of Redis. It is handed out only after the server has answered a PING.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, ProtocolVersion,
    RedisConnectionInfo, RedisError, RedisFuture, RedisResult, Value, cmd,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::tls::RedisTls;

/// How often a connection is opened that ends before the server has answered. A server that is not there is not tried again.
const ATTEMPTS: u32 = 3;

/// A connection to one server. Clones share it, and commands of all clones may be under way at once: each gets its own answer, also if
/// others are cancelled.
#[derive(Clone)]
pub(super) struct Connection {
    commands: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// The task that reads and writes the socket. It ends with the last clone of the connection, also if answers are missing.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.commands.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.commands.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.commands.get_db()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connection {
    /// Connects, logs in, selects the database, and waits for the answer to a PING. There is no deadline: callers have one.
    pub(super) async fn open(
        info: &ConnectionInfo,
        tls: Option<&RedisTls>,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Self> {
        let mut attempts = 1;
        loop {
            let stream = connect(info.addr(), tls).await?;
            match Self::set_up(info.redis_settings(), stream, config.clone()).await {
                Err(problem) if problem.is_connection_dropped() && attempts < ATTEMPTS => attempts += 1,
                // The server checks the certificate of the client after the handshake.
                Err(problem) if tls.is_some() && problem.is_io_error() && !problem.is_connection_dropped() => {
                    return Err(tls_error(&problem));
                }
                done => return done,
            }
        }
    }

    async fn set_up(
        login: &RedisConnectionInfo,
        stream: Box<dyn Stream>,
        config: AsyncConnectionConfig,
    ) -> RedisResult<Self> {
        // With RESP3, HELLO logs in. Otherwise this sends nothing, because it would not pass on what the server answers.
        let protocol = login.protocol();
        let greeting = match protocol {
            ProtocolVersion::RESP3 => login.clone(),
            _ => RedisConnectionInfo::default().set_protocol(protocol),
        };
        let greeting = greeting.set_skip_set_lib_name();
        let (commands, driver) = MultiplexedConnection::new_with_config(&greeting, stream, config).await?;
        let connection = Self {
            commands,
            _driver: Arc::new(Driver(tokio::spawn(driver).abort_handle())),
        };
        let required = match protocol {
            ProtocolVersion::RESP3 => vec![cmd("PING")],
            _ => login_commands(login),
        };
        // Shown by CLIENT LIST. Without the right to set it, the connection has no name.
        let mut name = cmd("CLIENT");
        name.arg("SETNAME").arg("authgate");
        let answers = join_all(required.iter().chain([&name]).map(|command| {
            let mut connection = connection.clone();
            async move { command.query_async::<Value>(&mut connection).await }
        }))
        .await;
        for answer in answers.into_iter().take(required.len()) {
            answer?;
        }
        Ok(connection)
    }
}

async fn connect(address: &ConnectionAddr, tls: Option<&RedisTls>) -> RedisResult<Box<dyn Stream>> {
    match (address, tls) {
        (ConnectionAddr::Unix(path), _) => Ok(Box::new(UnixStream::connect(path).await?)),
        (ConnectionAddr::Tcp(host, port), _) => Ok(Box::new(connect_tcp(host, *port).await?)),
        (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
            let tcp = connect_tcp(host, *port).await?;
            match tls.handshake(host, tcp).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(problem) => Err(match RedisError::from(problem) {
                    lost if lost.is_connection_dropped() => lost,
                    problem => tls_error(&problem),
                }),
            }
        }
        (_, _) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    }
}

/// No delay for small writes, and keep-alive probes so that firewalls keep idle connections.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

/// The commands that log in and select the database, and a PING. All of them must succeed.
pub(super) fn login_commands(login: &RedisConnectionInfo) -> Vec<Cmd> {
    let mut commands = Vec::with_capacity(3);
    if let Some(password) = login.password() {
        let mut auth = cmd("AUTH");
        // Servers without users know only the form without a name.
        auth.arg(login.username().filter(|name| *name != "default"))
            .arg(password);
        commands.push(auth);
    }
    if login.db() != 0 {
        let mut select = cmd("SELECT");
        select.arg(login.db());
        commands.push(select);
    }
    commands.push(cmd("PING"));
    commands
}

/// [`super::failure::answer`] knows it by its kind.
pub(super) fn tls_error(problem: &RedisError) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "TLS", problem.to_string()))
}

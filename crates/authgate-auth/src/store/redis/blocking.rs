//! [`BlockingConnection`]: a connection for programs that do one thing after the other, such as the command line.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, ConnectionLike, Parser, RedisError, RedisResult, Value};
use rustls::{ClientConnection, StreamOwned};

use super::tls::RedisTls;
use super::transport::{login_commands, tls_error};

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection to one server. Each command is sent after the answer to the one before.
pub struct BlockingConnection {
    stream: Box<dyn Stream>,
    parser: Parser,
    /// No command has failed to be sent or answered.
    is_open: bool,
}

impl fmt::Debug for BlockingConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingConnection")
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}

impl BlockingConnection {
    /// Connects, logs in and selects the database. Connecting and each answer may take up to `time_limit`.
    ///
    /// # Errors
    /// There is no connection, or the server answers with an error.
    pub fn open(info: &ConnectionInfo, tls: Option<&RedisTls>, time_limit: Duration) -> RedisResult<Self> {
        let mut connection = Self {
            stream: connect(info.addr(), tls, time_limit)?,
            parser: Parser::new(),
            is_open: true,
        };
        for command in login_commands(info.redis_settings()) {
            let answer = command.query::<Value>(&mut connection);
            answer.map_err(|problem| {
                let is_lost = problem.is_connection_dropped() || problem.is_timeout();
                match tls.is_some() && problem.is_io_error() && !is_lost {
                    true => tls_error(&problem),
                    false => problem,
                }
            })?;
        }
        Ok(connection)
    }

    fn send(&mut self, commands: &[u8]) -> RedisResult<()> {
        if !self.is_open {
            // The next answer may be that of an earlier command.
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        }
        let sent = self.stream.write_all(commands).and_then(|()| self.stream.flush());
        self.is_open &= sent.is_ok();
        Ok(sent?)
    }

    fn receive(&mut self) -> RedisResult<Value> {
        let received = self.parser.parse_value(&mut self.stream);
        // After an error it is not known where the next answer begins.
        self.is_open &= received.is_ok();
        received
    }
}

impl ConnectionLike for BlockingConnection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.send(command)?;
        self.receive()
    }

    /// The first `offset` answers belong to the commands of a transaction, and say whether each was accepted.
    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.send(commands)?;
        let mut refused = None;
        for _ in 0..offset {
            if let Value::ServerError(error) = self.receive()? {
                refused.get_or_insert(error);
            }
        }
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(self.receive()?);
        }
        match refused {
            // It says more than the EXECABORT that follows.
            Some(error) => Err(error.into()),
            None => Ok(answers),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").query::<Value>(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.is_open
    }
}

fn connect(address: &ConnectionAddr, tls: Option<&RedisTls>, time_limit: Duration) -> RedisResult<Box<dyn Stream>> {
    match (address, tls) {
        (ConnectionAddr::Unix(path), _) => {
            let unix = UnixStream::connect(path)?;
            unix.set_read_timeout(Some(time_limit))?;
            unix.set_write_timeout(Some(time_limit))?;
            Ok(Box::new(unix))
        }
        (ConnectionAddr::Tcp(host, port), _) => Ok(Box::new(connect_tcp(host, *port, time_limit)?)),
        (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
            let tcp = connect_tcp(host, *port, time_limit)?;
            let session = ClientConnection::new(Arc::clone(&tls.config), tls.name(host)?).map_err(RedisError::from)?;
            Ok(Box::new(StreamOwned::new(session, tcp)))
        }
        (_, _) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    }
}

fn connect_tcp(host: &str, port: u16, time_limit: Duration) -> io::Result<TcpStream> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, time_limit) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(time_limit))?;
                tcp.set_write_timeout(Some(time_limit))?;
                return Ok(tcp);
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

//! The tests' client: [`Call`] says what to send, [`Conn`] is one HTTP/1.1 connection, [`Reply`] is the response.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use super::upstream::MARK;
use super::wire::{Body, Head, Wire, WithoutLength};

/// The timeout for a response.
const PATIENCE: Duration = Duration::from_secs(15);

/// The fields that the gateway's own answers may have.
const OWN_FIELDS: [&str; 13] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "vary",
    "content-type",
    "cache-control",
    "x-request-id",
    "www-authenticate",
    "retry-after",
    "allow",
    "content-length",
    "date",
    "connection",
];

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub target: String,
    pub host: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub(super) echoes: bool,
}

pub fn get(target: &str) -> Call {
    call("GET", target)
}

pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Call {
    let mut call = call("POST", target);
    call.body = body.into();
    let length = call.body.len();
    call.header("Content-Length", length.to_string())
}

pub fn call(method: &str, target: &str) -> Call {
    Call {
        method: method.to_owned(),
        target: target.to_owned(),
        host: "localhost".to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
        echoes: false,
    }
}

impl Call {
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn authorization(self, value: &str) -> Self {
        self.header("Authorization", value)
    }

    pub fn token(self, key: &str) -> Self {
        self.authorization(&format!("Token {key}"))
    }

    pub fn bearer(self, jwt: &str) -> Self {
        self.authorization(&format!("Bearer {jwt}"))
    }

    /// The upstream's response repeats the request, credentials included.
    pub fn echoes(mut self) -> Self {
        self.echoes = true;
        self
    }

    /// As HTTP/1.1.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub head: Head,
    pub body: Body,
    /// Statuses of the answers before it, such as 100.
    pub interim: Vec<u16>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Every value of a field, in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.head.all(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body.data).unwrap_or_else(|_| panic!("JSON, not {:?}", self.text()))
    }

    /// `detail` of an error.
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether an upstream made it.
    pub fn is_from_upstream(&self) -> bool {
        let marked = self.head.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(MARK));
        marked || matches!(self.header("server"), Some("gunicorn" | "uvicorn" | "oidc-provider"))
    }

    /// Checks that apply to every response of every test.
    pub(super) fn check(&self, echoes: bool) {
        let shown = format!("{}{}", String::from_utf8_lossy(&self.head.raw), self.text());
        assert!(
            echoes || !shown.contains("canary"),
            "a credential is in a reply:\n{shown}"
        );
        if self.is_from_upstream() {
            return;
        }
        assert!(
            !shown.contains("panicked") && !shown.contains(env!("CARGO_PKG_VERSION")),
            "it tells too much:\n{shown}"
        );
        for (name, value) in &self.head.fields {
            let known = OWN_FIELDS.contains(&name.to_ascii_lowercase().as_str());
            assert!(known, "an answer of the gateway has {name}: {value}");
        }
        let id = self.header("x-request-id").unwrap_or_default();
        assert_eq!(id.len(), 32, "an answer of the gateway has an id:\n{shown}");
        let expected = match self.header("content-type") {
            Some("application/json" | "application/problem+json") => "no-store",
            // Public keys.
            Some("application/jwk-set+json") if self.status == 200 => "public, max-age=300",
            _ => panic!("an answer of the gateway has another type:\n{shown}"),
        };
        assert_eq!(self.header("cache-control"), Some(expected), "{shown}");
    }
}

/// Cleartext or TLS.
pub enum Socket {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buf),
            Self::Unix(unix) => unix.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(buf),
            Self::Unix(unix) => unix.write(buf),
            Self::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Unix(unix) => unix.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// One connection that speaks HTTP/1.1.
pub struct Conn {
    pub wire: Wire<Socket>,
    echoes: bool,
}

impl Conn {
    pub fn plain(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).expect("the gateway listens");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        tcp.set_nodelay(true).expect("no delay");
        Self {
            wire: Wire::new(Socket::Plain(tcp)),
            echoes: false,
        }
    }

    /// Over a socket file.
    pub fn unix(path: &Path) -> Self {
        let unix = UnixStream::connect(path).expect("the gateway listens");
        unix.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            wire: Wire::new(Socket::Unix(unix)),
            echoes: false,
        }
    }

    pub fn tls(address: SocketAddr, name: &str, config: ClientConfig) -> io::Result<Self> {
        Self::tls_over(TcpStream::connect(address)?, name, config)
    }

    /// TLS on a connection that is open already.
    pub fn tls_over(tcp: TcpStream, name: &str, config: ClientConfig) -> io::Result<Self> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut tls = StreamOwned::new(client, tcp);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self {
            wire: Wire::new(Socket::Tls(Box::new(tls))),
            echoes: false,
        })
    }

    /// Sets the timeout for responses.
    pub fn set_timeout(&mut self, timeout: Duration) {
        let tcp = match &self.wire.stream {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => &tls.sock,
            Socket::Unix(unix) => return unix.set_read_timeout(Some(timeout)).expect("a timeout"),
        };
        tcp.set_read_timeout(Some(timeout)).expect("a timeout");
    }

    /// The session, where it is TLS.
    pub fn session(&self) -> &ClientConnection {
        match &self.wire.stream {
            Socket::Tls(tls) => &tls.conn,
            Socket::Plain(_) | Socket::Unix(_) => panic!("not TLS"),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.wire.write(bytes.as_ref()).expect("the gateway reads");
        self
    }

    /// Closes the sending side; responses can still be read.
    pub fn end(&mut self) {
        let ended = match &mut self.wire.stream {
            Socket::Plain(tcp) => tcp.shutdown(Shutdown::Write),
            Socket::Unix(unix) => unix.shutdown(Shutdown::Write),
            Socket::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush().expect("the gateway reads");
                tls.sock.shutdown(Shutdown::Write)
            }
        };
        ended.expect("an open connection");
    }

    /// Sends a request and reads its answer.
    pub fn call(&mut self, call: &Call) -> Reply {
        self.echoes = call.echoes;
        // A gateway that has answered already may stop reading.
        let _ = self.wire.write(&call.bytes());
        self.reply_to(&call.method)
    }

    /// The answer to a GET, or the orderly end of the connection before it. A reset is an error here, and so is TLS without its close_notify.
    pub fn try_reply_strictly(&mut self) -> io::Result<Option<Reply>> {
        self.wire.is_strict = true;
        self.try_reply("GET")
    }

    /// Checks that the connection ends next, and in order.
    pub fn ends(&mut self) -> io::Result<()> {
        self.wire.is_strict = true;
        match self.wire.some()? {
            none if none.is_empty() => Ok(()),
            some => Err(io::Error::other(format!("{} bytes more", some.len()))),
        }
    }

    /// The answer to a GET.
    pub fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    pub fn reply_to(&mut self, method: &str) -> Reply {
        self.try_reply(method)
            .expect("an answer in time")
            .expect("an answer before the end of the connection")
    }

    /// The next answer, if there is one. Framing that is broken, and what no answer may have, fails the test.
    pub fn try_reply(&mut self, method: &str) -> io::Result<Option<Reply>> {
        let mut interim = Vec::new();
        loop {
            let Some(head) = self.wire.head()? else { return Ok(None) };
            let status = head
                .first
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .expect("a status line");
            if (100..200).contains(&status) {
                interim.push(status);
                continue;
            }
            let body = if method == "HEAD" || matches!(status, 204 | 304) {
                Body {
                    complete: true,
                    ..Body::default()
                }
            } else {
                self.wire.body(&head, WithoutLength::Close)?
            };
            let reply = Reply {
                status,
                head,
                body,
                interim,
            };
            reply.check(self.echoes);
            return Ok(Some(reply));
        }
    }
}

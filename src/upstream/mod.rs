//! The application servers: one seam, [`Upstream::forward`], through which every request leaves.

pub mod body;
mod check;
mod client;
mod connector;
mod health;
pub mod http1;
mod http2;
mod idle;
mod pool;
mod read_ahead;
mod resolve;
pub mod response;
mod spool;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use rustls::ClientConfig;

pub use self::check::Check;
pub use self::client::{Answer, Unreadable, Upstream, UpstreamError, is_grpc};
pub use self::connector::Tunnel;
pub use self::pool::Held;
pub use self::resolve::Resolver;
pub use self::spool::{Spool, Unsized};
use crate::concurrency::ConcurrencyLimit;
use crate::framing::spelling::Spelling;
use crate::transfer::hints::Hints;

/// What passes between a server and the client that its response is for, beside the messages themselves.
#[derive(Debug, Clone, Copy)]
pub struct ClientSide<'c> {
    /// How the client wrote the names of the request's fields.
    pub request: &'c Spelling,
    /// Where early hints go; `None`: the client cannot read them.
    pub hints: Option<&'c Hints>,
    /// Where the server's spelling of the response's fields goes; `None`: the client reads them in lower case.
    pub response: Option<&'c RefCell<Spelling>>,
}

impl<'c> ClientSide<'c> {
    /// No client reads the response.
    pub fn unread(request: &'c Spelling) -> Self {
        Self {
            request,
            hints: None,
            response: None,
        }
    }
}

/// What the configuration says of one upstream.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Its servers, at least one.
    pub servers: Vec<Server>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// What it reads in `Host`.
    pub host: HostMode,
    /// To a usable connection: name look-up, TCP, TLS.
    pub connect_timeout: Duration,
    /// From the request sent to the head of the response.
    pub response_timeout: Duration,
    /// The longest that a connection is kept idle.
    pub idle_timeout: Duration,
    /// The longest silence in the middle of a response's body; not of one that is live.
    pub body_read_timeout: Duration,
    /// Requests at once, of all workers.
    pub in_flight: ConcurrencyLimit,
    /// A request's body of up to so much is gathered before a server is taken; a longer one streams.
    pub request_buffer: Option<Buffer>,
    /// What becomes of request bodies without a length beyond that, towards servers that speak HTTP/1.1.
    pub beyond: Unsized,
    /// So much of a response is read ahead of a client that does not keep up.
    pub response_buffer: Option<Buffer>,
    /// How often a request that can be repeated is sent again, on another connection.
    pub retries: u32,
    /// A field that proves to the application that a request came this way; its value cannot be printed.
    pub secret_header: Option<(http::HeaderName, http::HeaderValue)>,
    /// What its servers are asked to find out whether they are up.
    pub check: Option<Check>,
    /// TLS towards its https servers; `None` where there are none.
    pub tls: Option<Tls>,
}

/// What may be held of messages in all, by all workers, in bytes: for requests and for responses of each upstream.
pub const MOST_HELD: usize = 256 * 1024 * 1024;

/// How much of a message is held, so that a slow client does not hold a server.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Of one message, in bytes.
    pub bytes: usize,
    /// Of how many at once. Where none is left, nothing is held, and messages pass as their clients are.
    pub messages: ConcurrencyLimit,
}

impl Buffer {
    /// Room for so many bytes of each message, and for as many messages as [`MOST_HELD`] allows; 0: none is held.
    pub fn new(bytes: usize) -> Option<Self> {
        let messages = MOST_HELD.checked_div(bytes)?.max(1);
        let messages = ConcurrencyLimit::new(messages);
        Some(Self { bytes, messages })
    }
}

/// TLS towards an upstream.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Roots, our own certificate, protocols.
    pub config: Arc<ClientConfig>,
    /// The name that is asked for and checked; `None`: the host of each server.
    pub server_name: Option<rustls_pki_types::ServerName<'static>>,
}

/// One application server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How it is spoken to.
    pub transport: Transport,
    /// Host and port, the port always written; `localhost` behind a socket file.
    pub authority: Authority,
    /// Its share of the requests, beside the others'.
    pub weight: u32,
}

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 in the clear.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1, as the server chooses.
    Https,
    /// HTTP/2 in the clear, with prior knowledge.
    H2c,
    /// HTTP/1.1 over a socket file.
    Unix(Arc<Path>),
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two picked at random.
    LeastRequest,
    /// One after the other.
    RoundRobin,
}

/// What an upstream reads in `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMode {
    /// What the client sent.
    Preserve,
    /// The server's own authority.
    Server,
    /// This name.
    Name(http::HeaderValue),
}

//! The application servers: every request is forwarded by [`Upstream::forward`].

pub mod body;
mod client;
mod connector;
mod health;
mod health_check;
pub mod http1;
mod http2;
mod idle_estimate;
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

pub use self::client::{Forwarded, NoResponseCause, Upstream, UpstreamError, is_grpc};
pub use self::connector::Tunnel;
pub use self::health_check::HealthCheck;
pub use self::pool::TunnelGuard;
pub use self::resolve::Resolver;
pub use self::spool::{Spool, UnsizedBodies};
use crate::concurrency::ConcurrencyLimit;
use crate::framing::header_case::HeaderCase;
use crate::transfer::early_hints::EarlyHints;

/// What the upstream side needs from the client side, besides the messages.
#[derive(Debug, Clone, Copy)]
pub struct ClientSide<'c> {
    /// How the client wrote the field names of the request.
    pub request_header_case: &'c HeaderCase,
    /// Receives early hints; `None`: the client cannot read them.
    pub early_hints: Option<&'c EarlyHints>,
    /// Receives the case of the response fields; `None`: the client gets them in lower case.
    pub response_header_case: Option<&'c RefCell<HeaderCase>>,
}

impl<'c> ClientSide<'c> {
    /// For requests without a client, such as health checks.
    pub fn without_client(request: &'c HeaderCase) -> Self {
        Self {
            request_header_case: request,
            early_hints: None,
            response_header_case: None,
        }
    }
}

/// The configuration of one upstream.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its servers, at least one.
    pub servers: Vec<Server>,
    /// How a server is chosen.
    pub balance: Balance,
    /// What the upstream gets as `Host`.
    pub host: HostMode,
    /// The timeout for a new connection: name look-up, TCP, TLS.
    pub connect_timeout: Duration,
    /// The timeout from the sent request to the head of the response.
    pub response_timeout: Duration,
    /// The longest time that a connection is kept idle.
    pub idle_timeout: Duration,
    /// The longest time without data in a response body; does not apply to a live stream.
    pub body_read_timeout: Duration,
    /// Concurrent requests of all workers.
    pub in_flight: ConcurrencyLimit,
    /// A request body up to this size is buffered before a server is chosen; a longer one streams.
    pub request_buffer: Option<Buffer>,
    /// What happens to longer request bodies without a length, if the server speaks HTTP/1.1.
    pub unsized_bodies: UnsizedBodies,
    /// How much of a response is read ahead for a client that reads slowly.
    pub response_buffer: Option<Buffer>,
    /// How often a repeatable request is sent again on another connection.
    pub retries: u32,
    /// A field that proves to the application that the request came through the gateway; its value cannot be printed.
    pub secret_header: Option<(http::HeaderName, http::HeaderValue)>,
    /// The active health check, if any.
    pub health_check: Option<HealthCheck>,
    /// TLS for https servers; `None` without such servers.
    pub tls: Option<Tls>,
}

/// The limit of buffered bytes in all workers: once for requests and once for responses, for each upstream.
pub const MAX_BUFFERED: usize = 256 * 1024 * 1024;

/// How much of a message is buffered, so that a slow client does not occupy a server.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// The limit for one message, in bytes.
    pub bytes: usize,
    /// The limit of buffered messages. Beyond it, messages are forwarded without a buffer.
    pub messages: ConcurrencyLimit,
}

impl Buffer {
    /// Buffers this many bytes of each message, and as many messages as [`MAX_BUFFERED`] allows; 0: no buffer.
    pub fn new(bytes: usize) -> Option<Self> {
        let messages = MAX_BUFFERED.checked_div(bytes)?.max(1);
        let messages = ConcurrencyLimit::new(messages);
        Some(Self { bytes, messages })
    }
}

/// TLS to an upstream.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Roots, client certificate, protocols.
    pub config: Arc<ClientConfig>,
    /// The name for SNI and for certificate verification; `None`: the host of each server.
    pub server_name: Option<rustls_pki_types::ServerName<'static>>,
}

/// One application server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The protocol and transport.
    pub transport: Transport,
    /// Host and port, always with the port; `localhost` for a socket file.
    pub authority: Authority,
    /// Its share of the requests, relative to the other servers.
    pub weight: u32,
}

/// The protocol and transport to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 without TLS.
    Http,
    /// TLS; the server chooses HTTP/2 or HTTP/1.1.
    Https,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
    /// HTTP/1.1 over a socket file.
    Unix(Arc<Path>),
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less busy one of two random servers.
    LeastRequest,
    /// One after the other.
    RoundRobin,
}

/// What the upstream gets as `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMode {
    /// The value that the client sent.
    Preserve,
    /// The authority of the server.
    Server,
    /// This name.
    Name(http::HeaderValue),
}

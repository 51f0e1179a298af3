//! The server side: listeners, workers, connections, and how they end.

pub(crate) mod closing;
mod connection;
mod date;
pub mod handler;
mod http1;
mod http2;
pub mod listen;
mod proxy_protocol;
pub mod socket;
pub mod socket_file;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use self::listen::Address;
use crate::outbound::forwarded::TrustedProxies;

/// Limits for clients; `[server.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections.
    pub connections: usize,
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Fields of a request head.
    pub headers: usize,
    /// Bytes of a request body; `None`: no limit.
    pub body_bytes: Option<u64>,
    /// The timeout of a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// The timeout from the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// The idle timeout between requests.
    pub idle_timeout: Duration,
    /// The longest time without data while a body is read.
    pub body_read_timeout: Duration,
    /// Concurrent HTTP/2 streams of a connection.
    pub h2_streams: u32,
    /// Concurrent requests; 0: no limit.
    pub in_flight: usize,
}

/// The times of a shutdown; `[server.drain]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long the gateway reports not ready and still accepts.
    pub delay: Duration,
    /// How long requests may continue before they are cut off.
    pub timeout: Duration,
}

/// The section `[server]` of the configuration, without its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The addresses to listen on.
    pub listen: Vec<Address>,
    /// The number of worker threads, at least 1.
    pub workers: usize,
    /// The proxies whose forwarding fields are trusted.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Trusted proxies begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Limits for clients.
    pub limits: Limits,
    /// The times of a shutdown.
    pub drain: Drain,
}

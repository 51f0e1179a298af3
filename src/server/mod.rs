//! Listeners: sockets, workers, connections, and how they end.

pub(crate) mod closing;
mod connection;
mod date;
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

/// Bounds on what one client may use; `[server.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Fields of a request's head.
    pub headers: usize,
    /// Bytes of a request's body; `None`: no bound.
    pub body_bytes: Option<u64>,
    /// For a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// The longest silence while a body is read.
    pub body_read_timeout: Duration,
    /// HTTP/2 streams of a connection at once.
    pub h2_streams: u32,
    /// Requests at once; 0: no bound.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            header_bytes: 32 * 1024,
            headers: 100,
            body_bytes: None,
            tls_handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_read_timeout: Duration::from_secs(60),
            h2_streams: 128,
            in_flight: 0,
        }
    }
}

/// How a shutdown goes; `[server.drain]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Not ready any more, still accepting.
    pub delay: Duration,
    /// For requests under way, before they are cut.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            timeout: Duration::from_secs(20),
        }
    }
}

/// What the configuration says of `[server]`, its certificates aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Worker threads, at least one.
    pub workers: usize,
    /// Whose word about their clients is believed.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Whether they begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Bounds on clients.
    pub limits: Limits,
    /// How a shutdown goes.
    pub drain: Drain,
}

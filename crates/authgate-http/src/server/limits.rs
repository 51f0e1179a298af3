//! [`Limits`] for clients.

use std::time::Duration;

/// Limits for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections.
    pub connections: usize,
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Fields of a request head.
    pub headers: usize,
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
}

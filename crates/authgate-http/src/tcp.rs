//! TCP socket options for all connections: to clients, to upstreams and to stores.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tracing::debug;

/// The kernel sends the first keep-alive probe after this much idle time. The interval between further probes is a
/// quarter of this.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Keep-alive probes detect a peer that vanished without closing its connections, even if the gateway writes nothing.
pub fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_IDLE / 4)
}

/// Enables keep-alive probes, and turns off Nagle's algorithm: messages are written whole, so waiting for more data
/// would only delay them.
pub fn set_options(stream: &TcpStream) {
    if let Err(problem) = SockRef::from(stream).set_tcp_keepalive(&keepalive()) {
        debug!(reason = %problem, "SO_KEEPALIVE");
    }
    if let Err(problem) = stream.set_nodelay(true) {
        debug!(reason = %problem, "TCP_NODELAY");
    }
}

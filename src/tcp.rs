//! Options of TCP sockets that hold for every connection, to clients, to upstreams and to stores alike.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tracing::debug;

/// The kernel sends the first keep-alive probe after this much silence, and the next ones a quarter of it apart.
const SILENCE: Duration = Duration::from_secs(60);

/// Keep-alive probes: a host that has vanished without closing its connections is noticed, also where nothing is written to it.
pub fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 4)
}

/// Sets keep-alive probes, and turns off Nagle's algorithm: messages are written whole, and waiting for more would only delay them.
pub fn prepare(stream: &TcpStream) {
    if let Err(problem) = SockRef::from(stream).set_tcp_keepalive(&keepalive()) {
        debug!(reason = %problem, "SO_KEEPALIVE");
    }
    if let Err(problem) = stream.set_nodelay(true) {
        debug!(reason = %problem, "TCP_NODELAY");
    }
}

//! [`Node`]: the other end of a connection, as logs and forwarding fields name it.

use std::fmt;
use std::net::IpAddr;

/// The node at the other end of a connection (RFC 7239, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A node with an IP address. An IPv4-mapped IPv6 address is stored as IPv4.
    Ip(IpAddr),
    /// A node on a Unix socket; it has no address.
    Unix,
}

impl From<IpAddr> for Node {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

/// Writes a Unix socket as nginx does.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

//! [`Peer`]: the other end of a connection, and whether it is a trusted proxy.

use std::sync::Arc;

use authgate_http::node::Node;
use http::HeaderValue;
use ipnet::IpNet;

/// The other end of a connection. It is created once and used for all requests of the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) node: Node,
    pub(super) scheme: Scheme,
    /// `None` on a Unix socket: applications expect only addresses in this field, and such a peer has none.
    pub(super) forwarded_for: Option<HeaderValue>,
    /// Set if the peer is a trusted proxy.
    pub(super) trusted_proxies: Option<Arc<TrustedProxies>>,
}

/// The proxies whose `X-Forwarded-*` and `X-Request-Id` are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// The networks of the trusted proxies. If it is empty, no network is trusted.
    pub networks: Vec<IpNet>,
    /// Whether every client of the gateway's Unix sockets is trusted.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether this node is a trusted proxy.
    pub fn contains(&self, node: Node) -> bool {
        match node {
            Node::Ip(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            Node::Unix => self.unix,
        }
    }
}

/// The scheme of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The scheme with this name, in any ASCII case (RFC 3986, section 3.1).
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| name.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
    }

    /// The port of a URI that contains no port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme as a URI writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Peer {
    /// Creates the peer for a node.
    pub fn new(node: Node, scheme: Scheme, trusted: &Arc<TrustedProxies>) -> Self {
        let forwarded_for = match node {
            Node::Ip(ip) => Some(HeaderValue::try_from(ip.to_string()).expect("an address is visible ASCII")),
            Node::Unix => None,
        };
        Self {
            node,
            scheme,
            forwarded_for,
            trusted_proxies: trusted.contains(node).then(|| Arc::clone(trusted)),
        }
    }

    /// The peer's node.
    pub fn node(&self) -> Node {
        self.node
    }

    /// The scheme of the connection.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The address of a client as a header value. `None` if the client has no address.
    pub(super) fn address_value(&self, client: Node) -> Option<HeaderValue> {
        match client {
            node if node == self.node => self.forwarded_for.clone(),
            Node::Ip(ip) => HeaderValue::try_from(ip.to_string()).ok(),
            Node::Unix => None,
        }
    }
}

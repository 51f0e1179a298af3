//! The application servers: one seam, [`Upstream::forward`], through which every request leaves.

pub mod body;
mod client;
mod connector;

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;

pub use self::client::{Upstream, UpstreamError};

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
}

/// One application server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How it is spoken to.
    pub transport: Transport,
    /// Host and port, the port always written.
    pub authority: Authority,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In the clear.
    Http,
    /// TLS, against the roots of this system.
    Https,
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

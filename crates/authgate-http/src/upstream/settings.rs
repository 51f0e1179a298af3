//! The settings of an upstream, as the configuration has them. They are immutable and hold no state.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

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
    /// The limit of concurrent requests in all workers; 0: no limit.
    pub in_flight: usize,
    /// A request body up to this many bytes is buffered before a server is chosen; a longer one streams. 0: no buffer.
    pub request_buffer: usize,
    /// What happens to longer request bodies without a length, if the server speaks HTTP/1.1.
    pub unsized_bodies: UnsizedBodies,
    /// How many bytes of a response are read ahead for a client that reads slowly. 0: no buffer.
    pub response_buffer: usize,
    /// How often a repeatable request is sent again on another connection.
    pub retries: u32,
    /// A field that proves to the application that the request came through the gateway; its value cannot be printed.
    pub secret_header: Option<(HeaderName, HeaderValue)>,
    /// The active health check, if any.
    pub health_check: Option<HealthCheck>,
    /// TLS for https servers; `None` without such servers.
    pub tls: Option<Tls>,
}

/// What happens to request bodies without a length that exceed the buffer, if the server speaks HTTP/1.1.
#[derive(Debug, Clone)]
pub enum UnsizedBodies {
    /// They are stored in files until their length is known.
    Spool(SpoolSettings),
    /// They are forwarded in chunks as they come.
    Stream,
    /// They are refused.
    Refuse,
}

/// Where request bodies are stored until their length is known, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The folder of the files.
    pub dir: Arc<Path>,
    /// The limit of one body, in bytes.
    pub body: u64,
    /// The limit of all bodies in all workers, in bytes.
    pub total: u64,
}

/// How servers are checked: `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path of the request; a status from 200 to 399 passes.
    pub path: PathAndQuery,
    /// How often each worker checks. It is also the timeout of a check.
    pub interval: Duration,
    /// `Host` of the request; `None`: the address of each server.
    pub host: Option<HeaderValue>,
}

/// TLS to an upstream.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Roots, client certificate, protocols.
    pub config: Arc<ClientConfig>,
    /// A hash of everything that `config` was made from.
    pub digest: [u8; 32],
    /// The name for SNI and for certificate verification; `None`: the host of each server.
    pub server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Uses the `config` of another one that was made from the same. Then connections and sessions of the other one can be used.
    pub fn share_config(&mut self, other: &Self) {
        if self.digest == other.digest {
            self.config = Arc::clone(&other.config);
        }
    }

    /// Whether a connection that was made with one may be used with the other. Without [`Tls::share_config`], two configurations are never the same.
    pub(super) fn is_same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(&one.config, &other.config) && one.server_name == other.server_name,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
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

/// Where a server listens, and how it is spoken to. Two servers with the same endpoint can share connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) transport: Transport,
    pub(super) authority: Authority,
}

impl Server {
    /// Everything but the weight.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            transport: self.transport.clone(),
            authority: self.authority.clone(),
        }
    }
}

impl Endpoint {
    /// The address, or the path of the socket file, for logs and reports.
    pub(super) fn name(&self) -> String {
        match &self.transport {
            Transport::Unix(path) => path.display().to_string(),
            Transport::Http | Transport::Https | Transport::H2c => self.authority.to_string(),
        }
    }
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
    Name(HeaderValue),
}

#[cfg(test)]
impl UpstreamSettings {
    /// Settings without limits, buffers and checks, for servers with these URLs.
    pub(super) fn for_tests(urls: &[&str]) -> Self {
        Self {
            name: "app".into(),
            servers: urls.iter().map(|url| Server::for_tests(url)).collect(),
            balance: Balance::LeastRequest,
            host: HostMode::Preserve,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            body_read_timeout: Duration::from_secs(5),
            in_flight: 0,
            request_buffer: 0,
            unsized_bodies: UnsizedBodies::Stream,
            response_buffer: 0,
            retries: 0,
            secret_header: None,
            health_check: None,
            tls: None,
        }
    }
}

#[cfg(test)]
impl Server {
    pub(super) fn for_tests(url: &str) -> Self {
        let (transport, authority) = match url.split_once("://").expect("a URL") {
            ("h2c", authority) => (Transport::H2c, authority),
            ("unix", path) => (Transport::Unix(Path::new(path).into()), "localhost"),
            (_, authority) => (Transport::Http, authority),
        };
        Self {
            transport,
            authority: authority.parse().expect("an authority"),
            weight: 1,
        }
    }
}

//! [`Gateway`]: what the server of one worker asks for: its proxy, its TLS and its limits, as they are at that moment.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::outbound::forwarded::{Peer, Scheme, TrustedProxies};
use authgate_http::node::Node;
use authgate_http::server::Limits;
use authgate_http::server::handler::{
    Connected, ConnectionEvent, Exchange, Handler, Handshake, HeadFault, Reply, TlsAccept, TlsAccepted,
};
use authgate_http::server::listen::Address;
use authgate_http::server::socket::Stream;
use authgate_http::transfer::incoming::IncomingBody;
use bytes::Bytes;
use http::{Request, Response};

use crate::proxy::body::ResponseBody;
use crate::proxy::websocket::WebSocket;
use crate::proxy::{Client, Proxy};
use crate::telemetry::metrics::Metrics;
use crate::tls::server::Acceptor;

/// Limits for requests; `[server.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a request body; `None`: no limit.
    pub body_bytes: Option<u64>,
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
pub struct ServerSettings {
    /// The addresses to listen on.
    pub listen: Vec<Address>,
    /// The number of worker threads, at least 1.
    pub workers: usize,
    /// The proxies whose forwarding fields are trusted.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Trusted proxies begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Limits for connections; `[server.limits]`.
    pub limits: Limits,
    /// Limits for requests; `[server.limits]`.
    pub requests: RequestLimits,
    /// The times of a shutdown.
    pub drain: Drain,
}

/// The gateway on one worker; clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    serving: RefCell<Serving>,
    metrics: Arc<Metrics>,
}

/// What a gateway serves requests with. A request that has begun keeps its proxy.
#[derive(Debug)]
pub struct Serving {
    /// Answers requests.
    pub proxy: Rc<Proxy>,
    /// TLS for clients, if it is on.
    pub tls: Option<Acceptor>,
    /// Limits for clients.
    pub limits: Limits,
    /// The proxies whose forwarding fields are trusted.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Trusted proxies begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
}

impl Gateway {
    /// Creates the gateway of a worker. `metrics` are those of the process.
    pub fn new(serving: Serving, metrics: Arc<Metrics>) -> Self {
        Self(Rc::new(Inner {
            serving: RefCell::new(serving),
            metrics,
        }))
    }

    /// Serves the next requests and connections with this.
    pub fn serve(&self, serving: Serving) {
        self.0.serving.replace(serving);
    }
}

impl Handler for Gateway {
    type Connection = Client;
    type Tls = Acceptor;
    type Body = ResponseBody;
    type Tunnel = WebSocket;

    fn limits(&self) -> Limits {
        self.0.serving.borrow().limits
    }

    fn tls(&self) -> Option<Acceptor> {
        self.0.serving.borrow().tls.clone()
    }

    fn expects_proxy_header(&self, node: Node) -> bool {
        let serving = self.0.serving.borrow();
        serving.proxy_protocol && serving.trusted_proxies.contains(node)
    }

    fn connected(&self, connected: Connected<'_, Acceptor>) -> Client {
        let serving = self.0.serving.borrow();
        // The forwarding fields of a load balancer that names no client are not trusted.
        let none = Arc::default();
        let trusted = if connected.is_unnamed {
            &none
        } else {
            &serving.trusted_proxies
        };
        let (scheme, served) = match connected.tls {
            Some((session, acceptor)) => (Scheme::Https, Some(acceptor.certificates.select(session.server_name()))),
            None => (Scheme::Http, None),
        };
        Client {
            peer: Peer::new(connected.node, scheme, trusted),
            served,
        }
    }

    fn handle(
        &self,
        request: Request<IncomingBody>,
        exchange: Exchange<'_>,
        client: &Client,
    ) -> impl Future<Output = Reply<ResponseBody, WebSocket>> {
        let proxy = Rc::clone(&self.0.serving.borrow().proxy);
        proxy.handle(request, exchange, client)
    }

    fn refuse(&self, client: &Client, fault: HeadFault) -> Response<Bytes> {
        self.0.serving.borrow().proxy.refuse_head(&client.peer, fault)
    }

    fn count(&self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Opened => {
                self.0.metrics.connections.inc();
            }
            ConnectionEvent::Closed => {
                self.0.metrics.connections.dec();
            }
            ConnectionEvent::Handshake(handshake) => self.0.metrics.count_handshake(match handshake {
                Handshake::Full => "full",
                Handshake::Resumed => "resumed",
                Handshake::Failed => "failed",
                Handshake::TimedOut => "timeout",
            }),
            ConnectionEvent::Flooded => self.0.metrics.count_flood(),
        }
    }
}

impl TlsAccept for Acceptor {
    async fn accept(&self, stream: Stream) -> Result<TlsAccepted, (io::Error, Stream)> {
        let (stream, expires) = Self::accept(self, stream).await?;
        Ok(TlsAccepted { stream, expires })
    }
}

//! [`Gateway`]: what the server of one worker asks for: its proxy, its TLS and its limits, as they are at that moment.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::Thumbprint;
use authgate_core::outbound::peer::{Peer, Scheme, TrustedProxies};
use authgate_http::node::Node;
use authgate_http::server::address::Address;
use authgate_http::server::handler::{
    Connected, ConnectionEvent, Exchange, Handler, Handshake, HeadFault, Origin, Reply, TlsAccept, TlsAccepted,
    TlsEnded,
};
use authgate_http::server::limits::Limits;
use authgate_http::server::listener_handle::WorkerListener;
use authgate_http::server::socket::Stream;
use authgate_http::server::worker::{Inbox, Worker, WorkerPool};
use authgate_http::transfer::incoming::IncomingBody;
use authgate_http::upstream::HealthChecks;
use aws_lc_rs::digest;
use bytes::Bytes;
use http::{Request, Response};
use rustls::ServerConnection;

use crate::proxy::body::ResponseBody;
use crate::proxy::websocket_tunnel::WebSocket;
use crate::proxy::{Client, Proxy};
use crate::telemetry::labels;
use crate::telemetry::metrics::Metrics;
use crate::tls::certificate_names::ServedCertificate;
use crate::tls::server::{Acceptor, ClientSecurity, ConnectionSecurity};

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
    /// The trusted proxies.
    pub proxies: ProxyRules,
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
    /// The trusted proxies.
    pub proxies: Arc<ProxyRules>,
    /// What clients must do before their requests are accepted.
    pub security: Arc<ClientSecurity>,
    /// The health checks of its upstreams. They end when the next [`Serving`] takes its place.
    pub health_checks: Vec<HealthChecks>,
}

/// Which proxies are trusted, and how they connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyRules {
    /// The proxies whose forwarding fields are trusted.
    pub trusted: Arc<TrustedProxies>,
    /// Trusted proxies begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
}

impl ProxyRules {
    /// The peer of a connection that may have been opened under other rules.
    fn peer(&self, origin: Origin, scheme: Scheme) -> Peer {
        let trusted = match origin {
            Origin::Named { proxy, .. } if !self.trusted.contains(proxy) => {
                // The proxy is not trusted any more, so the address that it sent is not used.
                return Peer::new(proxy, scheme, &Arc::default());
            }
            Origin::Named { .. } => &self.trusted,
            // It should have sent a PROXY protocol header, so its forwarding fields may come from a client.
            Origin::Peer(node) if self.proxy_protocol && self.trusted.contains(node) => &Arc::default(),
            Origin::Peer(_) => &self.trusted,
            // The forwarding fields of a load balancer that names no client are not trusted.
            Origin::Unnamed { .. } => &Arc::default(),
        };
        Peer::new(origin.node(), scheme, trusted)
    }
}

/// The connection of a client.
#[derive(Debug)]
pub struct Connection {
    origin: Origin,
    scheme: Scheme,
    security: ConnectionSecurity,
    /// The client of the last request, and the rules that it was made by.
    client: RefCell<(Rc<Client>, Arc<ProxyRules>, Arc<ClientSecurity>)>,
}

impl Connection {
    fn new(
        origin: Origin,
        security: ConnectionSecurity,
        served: Option<ServedCertificate>,
        certificate: Option<Thumbprint>,
        serving: &Serving,
    ) -> Self {
        let scheme = match security {
            ConnectionSecurity::Cleartext => Scheme::Http,
            ConnectionSecurity::Tls { .. } => Scheme::Https,
        };
        let client = Client {
            peer: serving.proxies.peer(origin, scheme),
            served,
            certificate,
            is_outdated: !security.is_accepted_under(&serving.security),
        };
        let rules = (Arc::clone(&serving.proxies), Arc::clone(&serving.security));
        Self {
            origin,
            scheme,
            security,
            client: RefCell::new((Rc::new(client), rules.0, rules.1)),
        }
    }

    /// The client of a request that begins now. It is made again if the rules have changed, because the connection may come from a proxy
    /// that is not trusted any more.
    fn client(&self, serving: &Serving) -> Rc<Client> {
        let mut current = self.client.borrow_mut();
        let (client, proxies, security) = &mut *current;
        if !Arc::ptr_eq(proxies, &serving.proxies) || !Arc::ptr_eq(security, &serving.security) {
            *client = Rc::new(Client {
                peer: serving.proxies.peer(self.origin, self.scheme),
                served: client.served.clone(),
                certificate: client.certificate,
                is_outdated: !self.security.is_accepted_under(&serving.security),
            });
            *proxies = Arc::clone(&serving.proxies);
            *security = Arc::clone(&serving.security);
        }
        Rc::clone(client)
    }
}

impl Gateway {
    /// Creates the gateway of a worker. `metrics` are those of the process.
    pub fn new(serving: Serving, metrics: Arc<Metrics>) -> Self {
        Self(Rc::new(Inner {
            serving: RefCell::new(serving),
            metrics,
        }))
    }

    /// Serves on this thread, as the worker with this index, until it is drained.
    ///
    /// The future is boxed so that the server is compiled in this crate, for speed. The caller is compiled for size.
    pub fn run(
        &self,
        index: usize,
        pool: Arc<WorkerPool>,
        listeners: Vec<WorkerListener>,
        inbox: Inbox,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>>>> {
        Box::pin(Worker::new(index, pool, self.clone()).run(listeners, inbox))
    }

    /// Serves the next requests and connections with this.
    pub fn serve(&self, serving: Serving) {
        self.0.serving.replace(serving);
    }
}

impl Handler for Gateway {
    type Connection = Connection;
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
        serving.proxies.proxy_protocol && serving.proxies.trusted.contains(node)
    }

    fn connected(&self, connected: Connected<'_, Acceptor>) -> Connection {
        // The certificate is one of the acceptor that made the handshake, which may have been replaced since.
        let (security, served, certificate) = match connected.tls {
            Some((session, acceptor)) => {
                let served = acceptor.certificates.select(session.server_name());
                let certificate = client_certificate(session);
                (acceptor.connection_security(session), Some(served), certificate)
            }
            None => (ConnectionSecurity::Cleartext, None, None),
        };
        Connection::new(
            connected.origin,
            security,
            served,
            certificate,
            &self.0.serving.borrow(),
        )
    }

    fn handle(
        &self,
        request: Request<IncomingBody>,
        exchange: Exchange<'_>,
        connection: &Connection,
    ) -> impl Future<Output = Reply<ResponseBody, WebSocket>> {
        let serving = self.0.serving.borrow();
        Rc::clone(&serving.proxy).handle(request, exchange, connection.client(&serving))
    }

    fn refuse(&self, connection: &Connection, fault: HeadFault) -> Response<Bytes> {
        let serving = self.0.serving.borrow();
        let client = connection.client(&serving);
        serving.proxy.refuse_head(&client.peer, fault)
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
                Handshake::Full => &labels::HANDSHAKE_FULL,
                Handshake::Resumed => &labels::HANDSHAKE_RESUMED,
                Handshake::Failed => &labels::HANDSHAKE_FAILED,
                Handshake::TimedOut => &labels::HANDSHAKE_TIMEOUT,
                Handshake::Challenge => &labels::HANDSHAKE_CHALLENGE,
            }),
            ConnectionEvent::Flooded => self.0.metrics.count_flood(),
        }
    }
}

/// SHA-256 of the certificate that the client has shown. rustls takes it from the ticket if the session is resumed.
fn client_certificate(session: &ServerConnection) -> Option<Thumbprint> {
    let certificate = session.peer_certificates()?.first()?;
    let mut thumbprint = Thumbprint::default();
    thumbprint.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    Some(thumbprint)
}

impl TlsAccept for Acceptor {
    async fn accept(&self, stream: Stream) -> Result<TlsAccepted, TlsEnded<Stream>> {
        let (stream, expires) = Self::accept(self, stream).await?;
        Ok(TlsAccepted { stream, expires })
    }
}

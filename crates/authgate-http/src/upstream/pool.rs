//! One worker's connections to one server.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::HeaderValue;
use hyper::client::conn::http2;
use tokio::time::{Instant, sleep};

use super::body::RequestBody;
use super::connector::{HttpConnection, Io};
use super::health::Health;
use super::http1::Connection;
use super::idle_estimate::{IdleEstimate, limit_from_keep_alive};
use super::limits::UpstreamLimits;
use super::resolve::{Addresses, PeerAddress, Resolver};
use super::settings::{Endpoint, Server, Transport, UpstreamSettings};
use crate::concurrency::ConcurrencyPermit;

/// The limit of idle connections, for each server and worker.
const MAX_IDLE: usize = 1024;
/// An older connection is not reused: the server's name may have more addresses by now, which then get their share.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How often idle connections are checked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// One server, and this worker's connections to it.
pub(super) struct Pool {
    pub(super) server: Endpoint,
    /// The addresses of its name.
    pub(super) addresses: Addresses,
    /// The timeout of a name look-up.
    lookup_timeout: Cell<Duration>,
    /// A connection that was idle for longer is not reused.
    idle_timeout: Cell<Duration>,
    /// `Host`, if the upstream gets the server's own authority.
    pub(super) host: HeaderValue,
    pub(super) health: Health,
    /// Requests that are under way.
    pub(super) active_requests: Cell<u32>,
    /// Idle HTTP/1.1 connections; the one that was used last is at the end.
    idle: RefCell<Vec<IdleConnection>>,
    pub(super) idle_estimate: IdleEstimate,
    /// The protocol of the server; for https servers, as the last connection has negotiated it.
    protocol: Cell<Protocol>,
    /// Whether the sweep task runs, and when it ran last.
    sweeper_runs: Cell<bool>,
    last_sweep: Cell<Instant>,
    /// When the number of active requests last became 0, while there is a shared connection.
    inactive_since: Cell<Instant>,
    /// The HTTP/2 connection, which all requests share.
    http2: RefCell<Option<(http2::SendRequest<RequestBody>, ConnOrigin)>>,
}

/// The version of HTTP that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// The TLS handshake decides, and none has been made yet.
    Unknown,
}

impl Protocol {
    fn of(transport: &Transport) -> Self {
        match transport {
            Transport::Http | Transport::Unix(_) => Self::Http1,
            Transport::H2c => Self::Http2,
            Transport::Https => Self::Unknown,
        }
    }
}

/// When a connection was opened, and to which address.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnOrigin {
    at: Instant,
    peer: PeerAddress,
}

impl ConnOrigin {
    /// A connection to `peer` that was opened now.
    pub(super) fn now(peer: PeerAddress) -> Self {
        Self {
            at: Instant::now(),
            peer,
        }
    }

    /// Whether the connection may take another request: it is young enough, and the server still has this address.
    fn is_reusable(&mut self, now: Instant, addresses: &Addresses) -> bool {
        now - self.at <= MAX_AGE && addresses.is_current(&mut self.peer)
    }
}

/// What a request needs of a reused connection. It depends on whether the request may be sent again if the server closes the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdlePolicy {
    /// An open connection.
    AnyOpen,
    /// A connection that the server will not close soon: the request cannot be repeated.
    SafeOnly,
}

/// The history of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnState {
    /// It is new.
    New,
    /// It is shared, and other requests are under way on it.
    Active,
    /// It was idle for this long.
    Idle(Duration),
}

struct IdleConnection {
    connection: Connection<Io>,
    since: Instant,
    /// How long the connection is kept.
    max_idle: Duration,
    origin: ConnOrigin,
}

impl IdleConnection {
    /// Whether we stop using the connection, independent of the server.
    fn is_expired(&mut self, now: Instant, addresses: &Addresses) -> bool {
        now.saturating_duration_since(self.since) > self.max_idle || !self.origin.is_reusable(now, addresses)
    }

    /// Whether the connection is open and silent. Bytes that came while it was idle must not be read as the answer to the next request.
    fn is_open(&mut self) -> bool {
        // TLS has its own messages, which are read first.
        let silent = !matches!(self.connection.io(), Io::Tls(_)) || self.connection.is_silent();
        silent && self.connection.io().is_open()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("server", &self.server)
            .field("active", &self.active_requests)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without connections.
    pub(super) fn new(
        server: &Server,
        settings: &UpstreamSettings,
        limits: &UpstreamLimits,
        resolver: &Resolver,
    ) -> Self {
        let now = Instant::now();
        let server = server.endpoint();
        Self {
            addresses: resolver.addresses(&server),
            lookup_timeout: Cell::new(settings.connect_timeout),
            idle_timeout: Cell::new(settings.idle_timeout),
            host: HeaderValue::try_from(host_value(&server)).expect("an authority is visible ASCII"),
            protocol: Cell::new(Protocol::of(&server.transport)),
            health: Health::new(limits.reports.report(server.name())),
            server,
            active_requests: Cell::new(0),
            idle: RefCell::new(Vec::new()),
            idle_estimate: IdleEstimate::new(),
            sweeper_runs: Cell::new(false),
            last_sweep: Cell::new(now),
            inactive_since: Cell::new(now),
            http2: RefCell::new(None),
        }
    }

    /// Takes over changed settings. Connections that are idle already keep their limit.
    pub(super) fn apply(&self, settings: &UpstreamSettings) {
        self.lookup_timeout.set(settings.connect_timeout);
        self.idle_timeout.set(settings.idle_timeout);
        if settings.health_check.is_none() {
            self.health.forget_checks();
        }
    }

    /// The server's address or the path of its socket file, for logs.
    pub(super) fn server_name(&self) -> String {
        self.server.name()
    }

    /// Active requests for each unit of weight, for balancing.
    pub(super) fn load(&self, weight: u32) -> f64 {
        f64::from(self.active_requests.get()) / f64::from(weight.max(1))
    }

    /// Takes the connection that was used last and is usable, so that unneeded ones expire. Returns also its origin and history.
    pub(super) fn take(&self, now: Instant, policy: IdlePolicy) -> Option<(HttpConnection, ConnOrigin, ConnState)> {
        if let Some(http2) = self.take_http2(now, policy) {
            return Some(http2);
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.last() {
            let since = last.since;
            let age = now.saturating_duration_since(since);
            // The other connections were idle for even longer.
            if policy == IdlePolicy::SafeOnly && age > self.idle_estimate.safe_idle_time() {
                return None;
            }
            let mut last = idle.pop()?;
            if last.is_expired(now, &self.addresses) {
                continue;
            }
            if last.is_open() {
                return Some((
                    HttpConnection::Http1(last.connection),
                    last.origin,
                    ConnState::Idle(age),
                ));
            }
            self.record_closed(since, now);
        }
        None
    }

    /// The shared HTTP/2 connection, if it is usable.
    pub(super) fn take_http2(
        &self,
        now: Instant,
        policy: IdlePolicy,
    ) -> Option<(HttpConnection, ConnOrigin, ConnState)> {
        let mut http2 = self.http2.borrow_mut();
        let (sender, origin) = http2.as_mut()?;
        let state = match self.active_requests.get() {
            0 => ConnState::Idle(now.saturating_duration_since(self.inactive_since.get())),
            _ => ConnState::Active,
        };
        let closed = sender.is_closed();
        let unusable = match state {
            ConnState::Idle(_) if closed => {
                self.record_closed(self.inactive_since.get(), now);
                true
            }
            ConnState::Idle(age) => {
                age > self.idle_timeout.get()
                    || (policy == IdlePolicy::SafeOnly && age > self.idle_estimate.safe_idle_time())
            }
            ConnState::Active | ConnState::New => closed,
        };
        if unusable || !origin.is_reusable(now, &self.addresses) {
            // Requests that are under way keep the connection until they end.
            *http2 = None;
            return None;
        }
        Some((HttpConnection::Http2(sender.clone()), *origin, state))
    }

    /// Records that the server has closed a connection that was idle since `since`. Its idle time counts to the last sweep, which found it open.
    fn record_closed(&self, since: Instant, now: Instant) {
        let idle_when_seen = self.last_sweep.get().saturating_duration_since(since);
        self.idle_estimate.record_closed(idle_when_seen, now);
    }

    /// Records the protocol of a new connection. An HTTP/2 connection becomes the shared one.
    pub(super) fn record_opened(self: &Rc<Self>, connection: &HttpConnection, origin: ConnOrigin) {
        match connection {
            HttpConnection::Http1(_) => self.protocol.set(Protocol::Http1),
            HttpConnection::Http2(sender) => {
                self.protocol.set(Protocol::Http2);
                self.http2.replace(Some((sender.clone(), origin)));
                self.start_sweeper();
            }
        }
    }

    /// The protocol of the server, as far as it is known.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    fn put_idle(self: &Rc<Self>, connection: Connection<Io>, origin: ConnOrigin) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() == MAX_IDLE {
            return;
        }
        let announced = connection.idle_limit().map_or(Duration::MAX, limit_from_keep_alive);
        let max_idle = self.idle_timeout.get().min(announced);
        if max_idle.is_zero() {
            return;
        }
        idle.push(IdleConnection {
            connection,
            since: Instant::now(),
            max_idle,
            origin,
        });
        drop(idle);
        self.start_sweeper();
    }

    fn start_sweeper(self: &Rc<Self>) {
        if !self.sweeper_runs.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }
}

/// Closes connections that the server has closed, that are too old, or whose server has another address. It runs while there are connections.
/// So long it also refreshes the addresses of the name, even without requests.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        pool.addresses.refresh_expired(pool.lookup_timeout.get());
        let http2 = pool.take_http2(now, IdlePolicy::AnyOpen);
        if let Some((_, _, ConnState::Idle(age))) = http2 {
            pool.idle_estimate.record_open(age, now);
        }
        let mut idle = pool.idle.borrow_mut();
        idle.retain_mut(|idle_connection| {
            let age = now.saturating_duration_since(idle_connection.since);
            if age > SWEEP_INTERVAL {
                idle_connection.connection.release_buffers();
            }
            if idle_connection.is_expired(now, &pool.addresses) {
                return false;
            }
            let open = idle_connection.is_open();
            match open {
                true => pool.idle_estimate.record_open(age, now),
                false => pool.record_closed(idle_connection.since, now),
            }
            open
        });
        pool.last_sweep.set(now);
        if idle.is_empty() && http2.is_none() {
            pool.sweeper_runs.set(false);
            return;
        }
    }
}

/// `Host` without the default port of the scheme.
fn host_value(server: &Endpoint) -> String {
    let implied = match server.transport {
        Transport::Http | Transport::H2c => 80,
        Transport::Https => 443,
        // A socket file has no port, and neither has its authority.
        Transport::Unix(_) => return server.authority.to_string(),
    };
    match server.authority.port_u16() {
        Some(port) if port == implied => server.authority.host().to_owned(),
        _ => server.authority.to_string(),
    }
}

/// A request at one server: the server counts it as active while this lives.
pub(super) struct ActiveRequest {
    pub(super) pool: Rc<Pool>,
    origin: ConnOrigin,
    guard: ActiveGuard,
}

/// Decrements the server's count of active requests when it is dropped.
struct ActiveGuard {
    pool: Rc<Pool>,
    /// The permit of the upstream's limit of concurrent requests.
    permit: Option<ConcurrencyPermit>,
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        let active = self.pool.active_requests.get().saturating_sub(1);
        self.pool.active_requests.set(active);
        if active == 0 && self.pool.http2.borrow().is_some() {
            self.pool.inactive_since.set(Instant::now());
        }
    }
}

impl fmt::Debug for ActiveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.pool.server)
            .finish_non_exhaustive()
    }
}

impl ActiveRequest {
    /// Counts a request on a connection with this origin.
    pub(super) fn new(pool: &Rc<Pool>, origin: ConnOrigin) -> Self {
        pool.active_requests.set(pool.active_requests.get() + 1);
        Self {
            pool: Rc::clone(pool),
            origin,
            guard: ActiveGuard {
                pool: Rc::clone(pool),
                permit: None,
            },
        }
    }

    /// Keeps a permit of the upstream's limit until the request ends.
    pub(super) fn keep_permit(&mut self, permit: ConcurrencyPermit) {
        self.guard.permit = Some(permit);
    }

    /// Takes the permit out.
    pub(super) fn take_permit(&mut self) -> Option<ConcurrencyPermit> {
        self.guard.permit.take()
    }

    /// Ends the request after its response was read. An HTTP/1.1 connection that can be reused goes back to the pool.
    pub(super) fn finish(self, connection: Option<Connection<Io>>) {
        let Self { pool, origin, guard } = self;
        drop(guard);
        if let Some(connection) = connection {
            pool.put_idle(connection, origin);
        }
    }

    /// After a switch of protocols: keeps only the count.
    pub(super) fn into_tunnel_guard(self) -> TunnelGuard {
        TunnelGuard(self.guard)
    }
}

/// Counts as an active request of its server until it is dropped.
pub struct TunnelGuard(#[expect(dead_code, reason = "held for its drop")] ActiveGuard);

impl fmt::Debug for TunnelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

//! One worker's connections to one server.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::HeaderValue;
use hyper::client::conn::http2;
use tokio::time::{Instant, sleep};

use super::body::RequestBody;
use super::connector::{Io, Link};
use super::health::Health;
use super::http1::Connection;
use super::idle::{IdleLimit, announced_limit};
use super::resolve::{Addresses, Peer, Resolver};
use super::{Buffer, Server, Settings, Transport};
use crate::concurrency::ConcurrencyPermit;

/// The limit of idle connections, for each server and worker.
const MOST_IDLE: usize = 1024;
/// An older connection is not reused: the server's name may have more addresses by now, which then get their share.
const LONGEST_LIFE: Duration = Duration::from_secs(300);
/// How often idle connections are checked.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One server, and this worker's connections to it.
pub(super) struct Pool {
    pub(super) server: Server,
    /// The addresses of its name.
    pub(super) addresses: Addresses,
    /// The timeout of a name look-up.
    patience: Duration,
    /// A connection that was idle for longer is not reused.
    idle_timeout: Duration,
    /// `Host`, if the upstream gets the server's own authority.
    pub(super) host: HeaderValue,
    pub(super) health: Health,
    /// The buffer for responses to slow clients.
    pub(super) buffer: Option<Buffer>,
    /// Requests that are under way.
    pub(super) active: Cell<u32>,
    /// Idle HTTP/1.1 connections; the one that was used last is at the end.
    idle: RefCell<Vec<Idle>>,
    pub(super) idle_limit: IdleLimit,
    /// The protocol of the server; for https servers, as the last connection has negotiated it.
    speaks: Cell<Speaks>,
    /// Whether the sweep task runs, and when it ran last.
    swept: Cell<bool>,
    swept_at: Cell<Instant>,
    /// When the number of active requests last became 0, while there is a shared connection.
    quiet_since: Cell<Instant>,
    /// The HTTP/2 connection, which all requests share.
    shared: RefCell<Option<(http2::SendRequest<RequestBody>, Born)>>,
}

/// The version of HTTP that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
    /// The TLS handshake decides, and none has been made yet.
    Unknown,
}

impl Speaks {
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
pub(super) struct Born {
    at: Instant,
    peer: Peer,
}

impl Born {
    /// A connection to `peer` that was opened now.
    pub(super) fn now(peer: Peer) -> Self {
        Self {
            at: Instant::now(),
            peer,
        }
    }

    /// Whether the connection may take another request: it is young enough, and the server still has this address.
    fn is_good(&mut self, now: Instant, addresses: &Addresses) -> bool {
        now - self.at <= LONGEST_LIFE && addresses.has(&mut self.peer)
    }
}

/// What a request needs of a reused connection. It depends on whether the request may be sent again if the server closes the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// An open connection.
    Open,
    /// A connection that the server will not close soon: the request cannot be repeated.
    Safe,
}

/// The history of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It is new.
    New,
    /// It is shared, and other requests are under way on it.
    Busy,
    /// It was idle for this long.
    Idle(Duration),
}

struct Idle {
    connection: Connection<Io>,
    since: Instant,
    /// How long the connection is kept.
    limit: Duration,
    born: Born,
}

impl Idle {
    /// Whether we stop using the connection, independent of the server.
    fn is_expired(&mut self, now: Instant, addresses: &Addresses) -> bool {
        now.saturating_duration_since(self.since) > self.limit || !self.born.is_good(now, addresses)
    }

    /// Whether the connection is open and silent. Bytes that came while it was idle must not be read as the answer to the next request.
    fn is_silent(&mut self) -> bool {
        // TLS has its own messages, which are read first.
        let quiet = !matches!(self.connection.io(), Io::Tls(_)) || self.connection.is_quiet();
        quiet && self.connection.io().is_open()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("server", &self.server)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without connections.
    pub(super) fn new(server: &Server, settings: &Settings, resolver: &Resolver) -> Self {
        let now = Instant::now();
        Self {
            addresses: resolver.addresses(server),
            patience: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            host: HeaderValue::try_from(host_value(server)).expect("an authority is visible ASCII"),
            server: server.clone(),
            health: Health::new(),
            buffer: settings.response_buffer.clone(),
            active: Cell::new(0),
            idle: RefCell::new(Vec::new()),
            idle_limit: IdleLimit::new(),
            speaks: Cell::new(Speaks::of(&server.transport)),
            swept: Cell::new(false),
            swept_at: Cell::new(now),
            quiet_since: Cell::new(now),
            shared: RefCell::new(None),
        }
    }

    /// The server's address or the path of its socket file, for logs.
    pub(super) fn name(&self) -> String {
        match &self.server.transport {
            Transport::Unix(path) => path.display().to_string(),
            Transport::Http | Transport::Https | Transport::H2c => self.server.authority.to_string(),
        }
    }

    /// Active requests for each unit of weight, for balancing.
    pub(super) fn load(&self) -> f64 {
        f64::from(self.active.get()) / f64::from(self.server.weight.max(1))
    }

    /// Takes the connection that was used last and is usable, so that unneeded ones expire. Returns also its origin and history.
    pub(super) fn take(&self, now: Instant, needs: Needs) -> Option<(Link, Born, Past)> {
        if let Some(shared) = self.take_shared(now, needs) {
            return Some(shared);
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.last() {
            let since = last.since;
            let age = now.saturating_duration_since(since);
            // The other connections were idle for even longer.
            if needs == Needs::Safe && age > self.idle_limit.safe() {
                return None;
            }
            let mut last = idle.pop()?;
            if last.is_expired(now, &self.addresses) {
                continue;
            }
            if last.is_silent() {
                return Some((Link::Http1(last.connection), last.born, Past::Idle(age)));
            }
            self.note_closed(since, now);
        }
        None
    }

    /// The shared HTTP/2 connection, if it is usable.
    pub(super) fn take_shared(&self, now: Instant, needs: Needs) -> Option<(Link, Born, Past)> {
        let mut shared = self.shared.borrow_mut();
        let (sender, born) = shared.as_mut()?;
        let past = match self.active.get() {
            0 => Past::Idle(now.saturating_duration_since(self.quiet_since.get())),
            _ => Past::Busy,
        };
        let closed = sender.is_closed();
        let unfit = match past {
            Past::Idle(_) if closed => {
                self.note_closed(self.quiet_since.get(), now);
                true
            }
            Past::Idle(age) => age > self.idle_timeout || (needs == Needs::Safe && age > self.idle_limit.safe()),
            Past::Busy | Past::New => closed,
        };
        if unfit || !born.is_good(now, &self.addresses) {
            // Requests that are under way keep the connection until they end.
            *shared = None;
            return None;
        }
        Some((Link::Http2(sender.clone()), *born, past))
    }

    /// Records that the server has closed a connection that was idle since `since`. Its idle time counts to the last sweep, which found it open.
    fn note_closed(&self, since: Instant, now: Instant) {
        let seen_open = self.swept_at.get().saturating_duration_since(since);
        self.idle_limit.closed(seen_open, now);
    }

    /// Records the protocol of a new connection. An HTTP/2 connection becomes the shared one.
    pub(super) fn opened(self: &Rc<Self>, link: &Link, born: Born) {
        match link {
            Link::Http1(_) => self.speaks.set(Speaks::Http1),
            Link::Http2(sender) => {
                self.speaks.set(Speaks::Http2);
                self.shared.replace(Some((sender.clone(), born)));
                self.watch();
            }
        }
    }

    /// The protocol of the server, as far as it is known.
    pub(super) fn speaks(&self) -> Speaks {
        self.speaks.get()
    }

    fn put(self: &Rc<Self>, connection: Connection<Io>, born: Born) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() == MOST_IDLE {
            return;
        }
        let announced = connection.idle_limit().map_or(Duration::MAX, announced_limit);
        let limit = self.idle_timeout.min(announced);
        if limit.is_zero() {
            return;
        }
        idle.push(Idle {
            connection,
            since: Instant::now(),
            limit,
            born,
        });
        drop(idle);
        self.watch();
    }

    fn watch(self: &Rc<Self>) {
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }
}

/// Closes connections that the server has closed, that are too old, or whose server has another address. It runs while there are connections.
/// So long it also refreshes the addresses of the name, even without requests.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        pool.addresses.refresh(pool.patience);
        let shared = pool.take_shared(now, Needs::Open);
        if let Some((_, _, Past::Idle(age))) = shared {
            pool.idle_limit.survived(age, now);
        }
        let mut idle = pool.idle.borrow_mut();
        idle.retain_mut(|one| {
            let age = now.saturating_duration_since(one.since);
            if age > SWEEP_EVERY {
                one.connection.settle();
            }
            if one.is_expired(now, &pool.addresses) {
                return false;
            }
            let open = one.is_silent();
            match open {
                true => pool.idle_limit.survived(age, now),
                false => pool.note_closed(one.since, now),
            }
            open
        });
        pool.swept_at.set(now);
        if idle.is_empty() && shared.is_none() {
            pool.swept.set(false);
            return;
        }
    }
}

/// `Host` without the default port of the scheme.
fn host_value(server: &Server) -> String {
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
pub(super) struct Lease {
    pub(super) pool: Rc<Pool>,
    born: Born,
    counted: Counted,
}

/// Decrements the server's count of active requests when it is dropped.
struct Counted {
    pool: Rc<Pool>,
    /// The permit of the upstream's limit of concurrent requests.
    slot: Option<ConcurrencyPermit>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let active = self.pool.active.get().saturating_sub(1);
        self.pool.active.set(active);
        if active == 0 && self.pool.shared.borrow().is_some() {
            self.pool.quiet_since.set(Instant::now());
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.pool.server)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Counts a request on a connection with this origin.
    pub(super) fn new(pool: &Rc<Pool>, born: Born) -> Self {
        pool.active.set(pool.active.get() + 1);
        Self {
            pool: Rc::clone(pool),
            born,
            counted: Counted {
                pool: Rc::clone(pool),
                slot: None,
            },
        }
    }

    /// Keeps a permit of the upstream's limit until the lease ends.
    pub(super) fn hold(&mut self, slot: ConcurrencyPermit) {
        self.counted.slot = Some(slot);
    }

    /// Takes the permit out.
    pub(super) fn release(&mut self) -> Option<ConcurrencyPermit> {
        self.counted.slot.take()
    }

    /// Ends the request after its response was read. An HTTP/1.1 connection that can be reused goes back to the pool.
    pub(super) fn give_back(self, connection: Option<Connection<Io>>) {
        let Self { pool, born, counted } = self;
        drop(counted);
        if let Some(connection) = connection {
            pool.put(connection, born);
        }
    }

    /// After a switch of protocols: keeps only the count.
    pub(super) fn into_held(self) -> Held {
        Held(self.counted)
    }
}

/// Counts as an active request of its server until it is dropped.
pub struct Held(#[expect(dead_code, reason = "held for its drop")] Counted);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

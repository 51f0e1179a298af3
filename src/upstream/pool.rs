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
use super::resolve::{Addresses, Peer, Resolver};
use super::{Buffer, Server, Transport};
use crate::slots::Slot;

/// Connections kept for later, for each server and worker.
const MOST_IDLE: usize = 1024;
/// A connection that was idle for longer is not used again.
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// A connection that is older is not used again: its server's name may have more addresses by now, and they get their share.
const LONGEST_LIFE: Duration = Duration::from_secs(300);
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One server, and this worker's connections to it.
pub(super) struct Pool {
    pub(super) server: Server,
    /// Where it is.
    pub(super) addresses: Addresses,
    /// How long a look-up of that may take.
    patience: Duration,
    /// `Host`, where the upstream is to read its own.
    pub(super) host: HeaderValue,
    pub(super) health: Health,
    /// For responses whose clients do not keep up.
    pub(super) buffer: Option<Buffer>,
    pub(super) active: Cell<u32>,
    idle: RefCell<Vec<Idle>>,
    /// Whether somebody looks after them.
    swept: Cell<bool>,
    /// One HTTP/2 connection has room for many requests.
    shared: RefCell<Option<(http2::SendRequest<RequestBody>, Born)>>,
}

/// When a connection was opened, and where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Born {
    at: Instant,
    peer: Peer,
}

impl Born {
    /// A connection to there, just now.
    pub(super) fn now(peer: Peer) -> Self {
        Self {
            at: Instant::now(),
            peer,
        }
    }

    /// Whether another request may go that way: the connection is young enough, and its server still there.
    fn is_good(&mut self, now: Instant, addresses: &Addresses) -> bool {
        now - self.at <= LONGEST_LIFE && addresses.has(&mut self.peer)
    }
}

struct Idle {
    connection: Connection<Io>,
    since: Instant,
    born: Born,
}

impl Idle {
    /// Whether it can serve another request. What has come meanwhile answers nothing, and must not be taken for the answer to what is sent now.
    fn is_usable(&mut self, now: Instant, addresses: &Addresses) -> bool {
        now - self.since <= LONGEST_IDLE && self.born.is_good(now, addresses) && self.is_silent()
    }

    fn is_silent(&mut self) -> bool {
        // TLS has things to say for itself, and they are read first.
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
    /// `patience`: how long a look-up of the server's name may take.
    pub(super) fn new(server: &Server, buffer: Option<Buffer>, resolver: &Resolver, patience: Duration) -> Self {
        Self {
            addresses: resolver.addresses(server),
            patience,
            host: HeaderValue::try_from(host_value(server)).expect("an authority is visible ASCII"),
            server: server.clone(),
            health: Health::new(),
            buffer,
            active: Cell::new(0),
            idle: RefCell::new(Vec::new()),
            swept: Cell::new(false),
            shared: RefCell::new(None),
        }
    }

    /// The server's address, or the path of its socket file, for people.
    pub(super) fn name(&self) -> String {
        match &self.server.transport {
            Transport::Unix(path) => path.display().to_string(),
            Transport::Http | Transport::Https | Transport::H2c => self.server.authority.to_string(),
        }
    }

    /// Requests for each unit of weight: what is balanced.
    pub(super) fn load(&self) -> f64 {
        f64::from(self.active.get()) / f64::from(self.server.weight.max(1))
    }

    /// The one that was used last and is good: the others may grow old and go. And where it came from.
    pub(super) fn take(&self, now: Instant) -> Option<(Link, Born)> {
        if let Some(shared) = self.take_shared(now) {
            return Some(shared);
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            if last.is_usable(now, &self.addresses) {
                return Some((Link::Http1(last.connection), last.born));
            }
        }
        None
    }

    /// The one that requests share, where it speaks HTTP/2.
    pub(super) fn take_shared(&self, now: Instant) -> Option<(Link, Born)> {
        let mut shared = self.shared.borrow_mut();
        let (sender, born) = shared.as_mut()?;
        if sender.is_closed() || !born.is_good(now, &self.addresses) {
            // Requests that are under way keep it until they end.
            *shared = None;
            return None;
        }
        Some((Link::Http2(sender.clone()), *born))
    }

    /// A new HTTP/2 connection is for everybody at once.
    pub(super) fn share(self: &Rc<Self>, link: &Link, born: Born) {
        if let Link::Http2(sender) = link {
            self.shared.replace(Some((sender.clone(), born)));
            self.watch();
        }
    }

    fn put(self: &Rc<Self>, connection: Connection<Io>, born: Born) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() == MOST_IDLE {
            return;
        }
        let since = Instant::now();
        idle.push(Idle {
            connection,
            since,
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

/// Closes connections that their server has closed, that are too old, or whose server has moved, as long as there are any; so long its
/// name is asked for, whether or not there are requests.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        pool.addresses.refresh(pool.patience);
        let shares = pool.take_shared(now).is_some();
        let mut idle = pool.idle.borrow_mut();
        idle.retain_mut(|one| {
            if now - one.since > SWEEP_EVERY {
                one.connection.settle();
            }
            one.is_usable(now, &pool.addresses)
        });
        if idle.is_empty() && !shares {
            pool.swept.set(false);
            return;
        }
    }
}

/// `Host` without the port that its scheme implies.
fn host_value(server: &Server) -> String {
    let implied = match server.transport {
        Transport::Http | Transport::H2c => 80,
        Transport::Https => 443,
        // A socket file has no port, and its authority none either.
        Transport::Unix(_) => return server.authority.to_string(),
    };
    match server.authority.port_u16() {
        Some(port) if port == implied => server.authority.host().to_owned(),
        _ => server.authority.to_string(),
    }
}

/// A place at one server; it counts a request as long as this lives.
pub(super) struct Lease {
    pub(super) pool: Rc<Pool>,
    born: Born,
    counted: Counted,
}

/// Keeps a server's count of requests true however a lease ends.
struct Counted {
    pool: Rc<Pool>,
    /// One of the upstream's requests at once.
    slot: Option<Slot>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let active = &self.pool.active;
        active.set(active.get().saturating_sub(1));
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
    /// A place for one request, on a connection that was opened then and there.
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

    /// Keeps one of the upstream's requests at once until the lease ends.
    pub(super) fn hold(&mut self, slot: Slot) {
        self.counted.slot = Some(slot);
    }

    /// Gives that up again.
    pub(super) fn release(&mut self) -> Option<Slot> {
        self.counted.slot.take()
    }

    /// The response has been read to its end; a connection of HTTP/1.1 may serve another request, if it is left.
    pub(super) fn give_back(self, connection: Option<Connection<Io>>) {
        let Self { pool, born, counted } = self;
        drop(counted);
        if let Some(connection) = connection {
            pool.put(connection, born);
        }
    }

    /// The protocol was switched: what keeps the count.
    pub(super) fn into_held(self) -> Held {
        Held(self.counted)
    }
}

/// Counts as a request of its server until it is dropped.
pub struct Held(#[expect(dead_code, reason = "held for its drop")] Counted);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

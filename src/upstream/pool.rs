//! One worker's connections to one server.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::RequestBody;
use super::connector::Tunnel;
use super::health::Health;
use super::{Buffer, Server, Transport};
use crate::slots::Slot;

/// Connections kept for later, for each server and worker.
const MOST_IDLE: usize = 256;
/// A connection that was idle for longer is not used again.
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// A connection that is older is not used again: its server's name may have another address by now.
const LONGEST_LIFE: Duration = Duration::from_secs(300);

/// The sending end of a connection.
pub(super) enum Sender {
    Http1(Http1),
    Http2(http2::SendRequest<RequestBody>),
}

/// One request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    /// Comes once the protocol was switched, for a request that has asked for it.
    pub(super) tunnel: oneshot::Receiver<Tunnel>,
    /// Whether its request asks for that. Else a connection that has ended is closed at once, and not kept for nobody.
    pub(super) switches: Rc<Cell<bool>>,
}

impl Sender {
    /// Sends a request; what was not begun comes back.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(http1) => http1.sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// Its next request asks for another protocol, or does not.
    pub(super) fn set_switches(&self, switches: bool) {
        if let Self::Http1(http1) = self {
            http1.switches.set(switches);
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}

/// One server, and this worker's connections to it.
pub(super) struct Pool {
    pub(super) server: Server,
    /// `Host`, where the upstream is to read its own.
    pub(super) host: HeaderValue,
    pub(super) health: Health,
    /// For responses whose clients do not keep up.
    pub(super) buffer: Option<Buffer>,
    pub(super) active: Cell<u32>,
    idle: RefCell<Vec<Idle<Http1>>>,
    /// One HTTP/2 connection has room for many requests.
    shared: RefCell<Option<Idle<http2::SendRequest<RequestBody>>>>,
}

struct Idle<S> {
    sender: S,
    since: Instant,
    born: Instant,
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
    pub(super) fn new(server: &Server, buffer: Option<Buffer>) -> Self {
        Self {
            host: HeaderValue::try_from(host_value(server)).expect("an authority is visible ASCII"),
            server: server.clone(),
            health: Health::new(),
            buffer,
            active: Cell::new(0),
            idle: RefCell::new(Vec::new()),
            shared: RefCell::new(None),
        }
    }

    /// Requests for each unit of weight: what is balanced.
    pub(super) fn load(&self) -> f64 {
        f64::from(self.active.get()) / f64::from(self.server.weight.max(1))
    }

    /// The one that was used last: the others may grow old and go. And when it was opened.
    pub(super) fn take(&self) -> Option<(Sender, Instant)> {
        let now = Instant::now();
        let mut shared = self.shared.borrow_mut();
        if let Some(Idle { sender, born, .. }) = shared.as_ref() {
            if sender.is_closed() || now - *born > LONGEST_LIFE {
                // Requests that are under way keep it until they end.
                *shared = None;
            } else {
                return Some((Sender::Http2(sender.clone()), *born));
            }
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { sender, since, born }) = idle.pop() {
            if now - since > LONGEST_IDLE {
                idle.clear();
            } else if now - born <= LONGEST_LIFE && sender.sender.is_ready() {
                return Some((Sender::Http1(sender), born));
            }
        }
        None
    }

    /// A new HTTP/2 connection is for everybody at once.
    pub(super) fn share(&self, sender: &Sender, born: Instant) {
        if let Sender::Http2(sender) = sender {
            self.shared.replace(Some(Idle {
                sender: sender.clone(),
                since: born,
                born,
            }));
        }
    }

    fn put(&self, sender: Http1, born: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST_IDLE && !sender.sender.is_closed() {
            let since = Instant::now();
            idle.push(Idle { sender, since, born });
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

/// A connection in use by one request; the server counts it as busy until the lease ends.
pub(super) struct Lease {
    pub(super) pool: Rc<Pool>,
    pub(super) sender: Sender,
    born: Instant,
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
    pub(super) fn new(pool: &Rc<Pool>, sender: Sender, born: Instant) -> Self {
        pool.active.set(pool.active.get() + 1);
        Self {
            pool: Rc::clone(pool),
            sender,
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

    /// The response has been read to its end: the connection may serve another request as soon as it is ready for one.
    pub(super) fn give_back(self) {
        let Self {
            pool,
            sender,
            born,
            counted,
        } = self;
        drop(counted);
        sender.set_switches(false);
        let Sender::Http1(mut http1) = sender else { return };
        if http1.sender.is_ready() {
            pool.put(http1, born);
        } else if !http1.sender.is_closed() {
            tokio::task::spawn_local(async move {
                if http1.sender.ready().await.is_ok() {
                    pool.put(http1, born);
                }
            });
        }
    }

    /// The protocol was switched: the bytes behind the response, and what keeps the count.
    pub(super) async fn into_tunnel(self) -> Option<(Tunnel, Held)> {
        let Self { sender, counted, .. } = self;
        let Sender::Http1(http1) = sender else { return None };
        let tunnel = http1.tunnel.await.ok()?;
        Some((tunnel, Held(counted)))
    }
}

/// Counts as a request of its server until it is dropped.
pub struct Held(#[expect(dead_code, reason = "held for its drop")] Counted);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

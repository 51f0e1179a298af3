//! The cache entry of one name, and its look-up.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::ask::{Answer, Asked, Asker, ask_system};
use super::{Peer, ResolveError};
use crate::telemetry::log_throttle::LogThrottle;

/// The limits for the lifetime of an answer, whatever its TTL.
const SHORTEST: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// The pause after a failed look-up.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the last addresses are used after they expire: if look-ups fail, and if an answer says that the name does not exist. The second is
/// not zero, because such an answer can be wrong. If the DNS server of a search domain is down, the next domain does not know the name.
pub(super) const KEPT: Duration = Duration::from_secs(3600);
pub(super) const KEPT_UNKNOWN: Duration = Duration::from_secs(30);
/// The limit of addresses for one name. DNS messages have room for thousands.
pub(super) const MOST_ADDRESSES: usize = 256;
/// How long an address that could not be reached is tried last.
const AVOIDED: Duration = Duration::from_secs(10);

/// A name of the configuration.
pub(in crate::upstream) struct Name {
    host: Box<str>,
    asker: Rc<Asker>,
    pub(super) known: RefCell<Known>,
    /// Incremented when the addresses change.
    pub(super) generation: Cell<u64>,
    /// The position at which the next answer begins.
    turn: Cell<usize>,
    /// Whether a look-up is under way; `ended` notifies the callers that wait for it.
    pub(super) asking: Cell<bool>,
    ended: Notify,
    failures: RefCell<LogThrottle>,
}

/// The cached result of a name.
pub(super) struct Known {
    /// Sorted, without duplicates; empty if nothing is known.
    pub(super) addresses: Vec<IpAddr>,
    /// No look-up is started before this time.
    pub(super) until: Instant,
    /// The addresses are not used after this time.
    kept: Instant,
    /// Why the last look-up failed; `None` after success.
    pub(super) failure: Option<ResolveError>,
    /// Addresses that could not be reached, and until when they are tried last; at most as many as `addresses`.
    avoided: Vec<(IpAddr, Instant)>,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Name").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Name {
    pub(super) fn new(host: &str, asker: &Rc<Asker>) -> Self {
        let now = Instant::now();
        Self {
            host: host.into(),
            asker: Rc::clone(asker),
            known: RefCell::new(Known {
                addresses: Vec::new(),
                until: now,
                kept: now,
                failure: None,
                avoided: Vec::new(),
            }),
            generation: Cell::new(0),
            // A random start, so that workers do not all begin with the same address.
            turn: Cell::new(fastrand::usize(..MOST_ADDRESSES)),
            asking: Cell::new(false),
            ended: Notify::new(),
            failures: RefCell::default(),
        }
    }

    /// The addresses to try. The look-up ends after `patience`; if there are old addresses, the caller waits less.
    ///
    /// # Errors
    /// There is no address.
    pub(super) async fn find(self: &Rc<Self>, patience: Duration) -> Result<Vec<IpAddr>, ResolveError> {
        let (now, mut wait) = (Instant::now(), patience);
        {
            let known = self.known.borrow();
            if now < known.until {
                return self.answer(&known, now);
            }
            if known.is_kept(now) {
                // Old addresses are better than none; half of the time is left for connecting. After a failed look-up the caller does not wait at all.
                wait = if known.failure.is_some() {
                    Duration::ZERO
                } else {
                    patience / 2
                };
            }
        }
        self.look_up(patience);
        let ended = self.ended.notified();
        if !wait.is_zero() {
            // The result is read from `known`, whether or not the look-up has ended.
            let _ = timeout(wait, ended).await;
        }
        self.answer(&self.known.borrow(), Instant::now())
    }

    /// The known addresses: each call begins with another one, and avoided ones are last.
    pub(super) fn answer(&self, known: &Known, now: Instant) -> Result<Vec<IpAddr>, ResolveError> {
        if !known.is_kept(now) {
            return Err(known.failure.clone().unwrap_or(ResolveError::Late));
        }
        let mut addresses = known.addresses.clone();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let count = addresses.len();
        addresses.rotate_left(turn % count);
        addresses.sort_by_key(|address| known.avoids(*address, now));
        Ok(addresses)
    }

    /// Whether the cached answer has expired.
    pub(super) fn is_due(&self) -> bool {
        self.known.borrow().until <= Instant::now()
    }

    /// The connection to this address failed or was slow.
    pub(super) fn avoid(&self, address: IpAddr) {
        let mut known = self.known.borrow_mut();
        known.avoided.retain(|(other, _)| *other != address);
        if known.has(address) {
            known.avoided.push((address, Instant::now() + AVOIDED));
        }
    }

    /// Whether the address of a connection is still one of the addresses, after these have changed.
    #[cold]
    pub(super) fn has_still(&self, peer: &mut Peer) -> bool {
        let known = self.known.borrow();
        peer.generation = self.generation.get();
        peer.address.is_some_and(|address| known.has(address))
    }

    /// Starts a look-up, if none is under way.
    pub(super) fn look_up(self: &Rc<Self>, patience: Duration) {
        if !self.asking.replace(true) {
            let asking = Asking(Rc::clone(self));
            spawn_local(async move { asking.0.ask(patience).await });
        }
    }

    async fn ask(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let asked = timeout_at(end, self.asker.ask(&self.host)).await;
        let unknown = match asked.unwrap_or(Err(ResolveError::Late)) {
            Ok(Asked::Found(answer)) => return self.found(answer),
            Ok(Asked::Unknown) => ResolveError::Unknown,
            Ok(Asked::NoDns) => ResolveError::System,
            Err(error) => return self.failed(error),
        };
        let mut asked = std::pin::pin!(ask_system(&self.host));
        let answer = match timeout_at(end, &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                // Release the callers that wait. The system's look-up cannot be cancelled, so no new one starts until it ends.
                self.failed(ResolveError::Late);
                self.ended.notify_waiters();
                asked.await
            }
        };
        match answer {
            Ok(answer) => self.found(answer),
            Err(error) => self.failed(unknown(Arc::new(error))),
        }
    }

    pub(super) fn found(&self, (mut addresses, holds): Answer) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        if addresses.is_empty() {
            return self.failed(ResolveError::Unknown(Arc::new(io::ErrorKind::NotFound.into())));
        }
        let mut known = self.known.borrow_mut();
        let now = Instant::now();
        known.until = now + holds.clamp(SHORTEST, LONGEST);
        known.kept = known.until + KEPT;
        known.failure = None;
        self.change(&mut known, addresses);
    }

    pub(super) fn failed(&self, error: ResolveError) {
        let mut known = self.known.borrow_mut();
        let now = Instant::now();
        known.until = now + PAUSE;
        if matches!(error, ResolveError::Unknown(_)) && !error.is_ours() {
            known.kept = known.kept.min(now + KEPT_UNKNOWN);
        }
        if known.is_kept(now) {
            if let Some(times) = self.failures.borrow_mut().note() {
                warn!(name = &*self.host, reason = %error, times, "a server's name cannot be looked up; its last addresses are used");
            }
        } else {
            self.change(&mut known, Vec::new());
        }
        known.failure = Some(error);
    }

    fn change(&self, known: &mut Known, addresses: Vec<IpAddr>) {
        if known.addresses != addresses {
            debug!(name = &*self.host, ?addresses, "a server's name has other addresses");
            known.avoided.retain(|(address, _)| addresses.contains(address));
            known.addresses = addresses;
            self.generation.set(self.generation.get() + 1);
        }
    }
}

impl Known {
    fn is_kept(&self, now: Instant) -> bool {
        !self.addresses.is_empty() && now < self.kept
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&address).is_ok()
    }

    fn avoids(&self, address: IpAddr, now: Instant) -> bool {
        let mut avoided = self.avoided.iter();
        avoided.any(|(avoided, until)| *avoided == address && now < *until)
    }
}

/// A look-up that is under way. Its drop, also after a panic, wakes the callers that wait and allows the next look-up.
struct Asking(Rc<Name>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.set(false);
        self.0.ended.notify_waiters();
    }
}

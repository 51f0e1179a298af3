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

use super::error::ResolveError;
use super::lookup::{AddressesWithTtl, LookupResult, NameLookup, look_up_in_system};
use crate::log_throttle::LogThrottle;

/// The limits for the lifetime of an answer, whatever its TTL.
const MIN_TTL: Duration = Duration::from_secs(1);
pub(super) const MAX_TTL: Duration = Duration::from_secs(300);
/// The pause after a failed look-up.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the last addresses are used after they expire: if look-ups fail, and if an answer says that the name does not exist. The second is
/// not zero, because such an answer can be wrong. If the DNS server of a search domain is down, the next domain does not know the name.
pub(super) const STALE_TTL: Duration = Duration::from_secs(3600);
pub(super) const STALE_TTL_NOT_FOUND: Duration = Duration::from_secs(30);
/// The limit of addresses for one name. DNS messages have room for thousands.
pub(super) const MAX_ADDRESSES: usize = 256;
/// How long an address that could not be reached is tried last.
const AVOID_TIME: Duration = Duration::from_secs(10);

/// The address of a connection, and the generation of the server's addresses when it was last compared.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::upstream) struct PeerAddress {
    pub(in crate::upstream) address: Option<IpAddr>,
    pub(super) generation: u64,
}

/// A name of the configuration.
pub(in crate::upstream) struct CachedName {
    host: Box<str>,
    lookup: Rc<NameLookup>,
    pub(super) entry: RefCell<CacheEntry>,
    /// Incremented when the addresses change.
    pub(super) generation: Cell<u64>,
    /// The position at which the next answer begins.
    rotation: Cell<usize>,
    /// Whether a look-up is under way; `lookup_ended` notifies the callers that wait for it.
    pub(super) lookup_runs: Cell<bool>,
    lookup_ended: Notify,
    log_throttle: RefCell<LogThrottle>,
}

/// The cached result of a name.
pub(super) struct CacheEntry {
    /// Sorted, without duplicates; empty if nothing is known.
    pub(super) addresses: Vec<IpAddr>,
    /// No look-up is started before this time.
    pub(super) expires: Instant,
    /// The addresses are not used after this time.
    stale_until: Instant,
    /// Why the last look-up failed; `None` after success.
    pub(super) last_error: Option<ResolveError>,
    /// Addresses that could not be reached, and until when they are tried last; at most as many as `addresses`.
    avoided: Vec<(IpAddr, Instant)>,
}

impl fmt::Debug for CachedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Name").field("host", &self.host).finish_non_exhaustive()
    }
}

impl CachedName {
    pub(super) fn new(host: &str, lookup: &Rc<NameLookup>) -> Self {
        let now = Instant::now();
        Self {
            host: host.into(),
            lookup: Rc::clone(lookup),
            entry: RefCell::new(CacheEntry {
                addresses: Vec::new(),
                expires: now,
                stale_until: now,
                last_error: None,
                avoided: Vec::new(),
            }),
            generation: Cell::new(0),
            // A random start, so that workers do not all begin with the same address.
            rotation: Cell::new(fastrand::usize(..MAX_ADDRESSES)),
            lookup_runs: Cell::new(false),
            lookup_ended: Notify::new(),
            log_throttle: RefCell::default(),
        }
    }

    /// The addresses to try. The look-up ends after `lookup_timeout`; if there are old addresses, the caller waits less.
    ///
    /// # Errors
    /// There is no address.
    pub(super) async fn resolve(self: &Rc<Self>, lookup_timeout: Duration) -> Result<Vec<IpAddr>, ResolveError> {
        let (now, mut wait) = (Instant::now(), lookup_timeout);
        {
            let entry = self.entry.borrow();
            if now < entry.expires {
                return self.addresses(&entry, now);
            }
            if entry.is_usable(now) {
                // Old addresses are better than none; half of the time is left for connecting. After a failed look-up the caller does not wait at all.
                wait = if entry.last_error.is_some() {
                    Duration::ZERO
                } else {
                    lookup_timeout / 2
                };
            }
        }
        self.start_lookup(lookup_timeout);
        let lookup_ended = self.lookup_ended.notified();
        if !wait.is_zero() {
            // The result is read from `entry`, whether or not the look-up has ended.
            let _ = timeout(wait, lookup_ended).await;
        }
        self.addresses(&self.entry.borrow(), Instant::now())
    }

    /// The known addresses: each call begins with another one, and avoided ones are last.
    pub(super) fn addresses(&self, entry: &CacheEntry, now: Instant) -> Result<Vec<IpAddr>, ResolveError> {
        if !entry.is_usable(now) {
            return Err(entry.last_error.clone().unwrap_or(ResolveError::Timeout));
        }
        let mut addresses = entry.addresses.clone();
        let rotation = self.rotation.get();
        self.rotation.set(rotation.wrapping_add(1));
        let count = addresses.len();
        addresses.rotate_left(rotation % count);
        addresses.sort_by_key(|address| entry.avoids(*address, now));
        Ok(addresses)
    }

    /// Whether the cached answer has expired.
    pub(super) fn is_expired(&self) -> bool {
        self.entry.borrow().expires <= Instant::now()
    }

    /// The connection to this address failed or was slow.
    pub(super) fn avoid(&self, address: IpAddr) {
        let mut entry = self.entry.borrow_mut();
        entry.avoided.retain(|(other, _)| *other != address);
        if entry.has(address) {
            entry.avoided.push((address, Instant::now() + AVOID_TIME));
        }
    }

    /// Whether the address of a connection is still one of the addresses, after these have changed.
    #[cold]
    pub(super) fn recheck(&self, peer: &mut PeerAddress) -> bool {
        let entry = self.entry.borrow();
        peer.generation = self.generation.get();
        peer.address.is_some_and(|address| entry.has(address))
    }

    /// Starts a look-up, if none is under way.
    pub(super) fn start_lookup(self: &Rc<Self>, lookup_timeout: Duration) {
        if !self.lookup_runs.replace(true) {
            let running = RunningLookup(Rc::clone(self));
            spawn_local(async move { running.0.run_lookup(lookup_timeout).await });
        }
    }

    async fn run_lookup(&self, lookup_timeout: Duration) {
        let deadline = Instant::now() + lookup_timeout;
        let result = timeout_at(deadline, self.lookup.look_up(&self.host)).await;
        let system_error = match result.unwrap_or(Err(ResolveError::Timeout)) {
            Ok(LookupResult::Found(addresses)) => return self.store_addresses(addresses),
            Ok(LookupResult::NotFound) => ResolveError::NotFound,
            Ok(LookupResult::NoDnsServers) => ResolveError::System,
            Err(error) => return self.store_error(error),
        };
        let mut result = std::pin::pin!(look_up_in_system(&self.host));
        let addresses = match timeout_at(deadline, &mut result).await {
            Ok(addresses) => addresses,
            Err(_) => {
                // Release the callers that wait. The system's look-up cannot be cancelled, so no new one starts until it ends.
                self.store_error(ResolveError::Timeout);
                self.lookup_ended.notify_waiters();
                result.await
            }
        };
        match addresses {
            Ok(addresses) => self.store_addresses(addresses),
            Err(error) => self.store_error(system_error(Arc::new(error))),
        }
    }

    pub(super) fn store_addresses(&self, (mut addresses, ttl): AddressesWithTtl) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return self.store_error(ResolveError::NotFound(Arc::new(io::ErrorKind::NotFound.into())));
        }
        let mut entry = self.entry.borrow_mut();
        let now = Instant::now();
        entry.expires = now + ttl.clamp(MIN_TTL, MAX_TTL);
        entry.stale_until = entry.expires + STALE_TTL;
        entry.last_error = None;
        self.replace_addresses(&mut entry, addresses);
    }

    pub(super) fn store_error(&self, error: ResolveError) {
        let mut entry = self.entry.borrow_mut();
        let now = Instant::now();
        entry.expires = now + RETRY_PAUSE;
        if matches!(error, ResolveError::NotFound(_)) && !error.is_local_exhaustion() {
            entry.stale_until = entry.stale_until.min(now + STALE_TTL_NOT_FOUND);
        }
        if entry.is_usable(now) {
            if let Some(times) = self.log_throttle.borrow_mut().note() {
                warn!(name = &*self.host, reason = %error, times, "a server's name cannot be looked up; its last addresses are used");
            }
        } else {
            self.replace_addresses(&mut entry, Vec::new());
        }
        entry.last_error = Some(error);
    }

    fn replace_addresses(&self, entry: &mut CacheEntry, addresses: Vec<IpAddr>) {
        if entry.addresses != addresses {
            debug!(name = &*self.host, ?addresses, "a server's name has other addresses");
            entry.avoided.retain(|(address, _)| addresses.contains(address));
            entry.addresses = addresses;
            self.generation.set(self.generation.get() + 1);
        }
    }
}

impl CacheEntry {
    fn is_usable(&self, now: Instant) -> bool {
        !self.addresses.is_empty() && now < self.stale_until
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&address).is_ok()
    }

    fn avoids(&self, address: IpAddr, now: Instant) -> bool {
        let mut avoided = self.avoided.iter();
        avoided.any(|(avoided, expires)| *avoided == address && now < *expires)
    }
}

/// A look-up that is under way. Its drop, also after a panic, wakes the callers that wait and allows the next look-up.
struct RunningLookup(Rc<CachedName>);

impl Drop for RunningLookup {
    fn drop(&mut self) {
        self.0.lookup_runs.set(false);
        self.0.lookup_ended.notify_waiters();
    }
}

//! The addresses of servers' names: cached for the TTL of the DNS, and then looked up again.
//!
//! Each name has at most one look-up under way, in a separate task; all callers wait for that one. The names of the configuration bound the
//! cache. If a look-up fails, the old addresses are kept for a while. A DNS server that is down is no reason to stop using application
//! servers that are up.

mod error;
mod lookup;
mod name;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::{Rc, Weak};
use std::time::Duration;

pub(super) use self::error::ResolveError;
use self::lookup::NameLookup;
use self::name::CachedName;
pub(super) use self::name::PeerAddress;
use super::settings::{Endpoint, Transport};

/// One worker's resolver.
#[derive(Debug, Clone)]
pub struct Resolver {
    lookup: Rc<NameLookup>,
    /// The names that some server uses.
    names: Rc<RefCell<HashMap<Box<str>, Weak<CachedName>>>>,
}

impl Resolver {
    /// A resolver with the system's configuration.
    pub fn of_system() -> Self {
        Self::new(NameLookup::System(RefCell::new(None)))
    }

    fn new(lookup: NameLookup) -> Self {
        Self {
            lookup: Rc::new(lookup),
            names: Rc::default(),
        }
    }

    /// The addresses of a server. This starts no look-up.
    pub(super) fn addresses(&self, server: &Endpoint) -> Addresses {
        if let Transport::Unix(_) = server.transport {
            return Addresses::Fixed(Box::new([]));
        }
        let host = without_brackets(server.authority.host());
        if let Ok(address) = host.parse() {
            return Addresses::Fixed(Box::new([address]));
        }
        // `localhost` is always the loopback address (RFC 6761, section 6.3).
        if host == "localhost" || host.ends_with(".localhost") {
            return Addresses::Fixed(Box::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        let mut names = self.names.borrow_mut();
        if let Some(name) = names.get(host).and_then(Weak::upgrade) {
            return Addresses::Named(name);
        }
        names.retain(|_, name| name.strong_count() > 0);
        let name = Rc::new(CachedName::new(host, &self.lookup));
        names.insert(host.into(), Rc::downgrade(&name));
        Addresses::Named(name)
    }
}

/// A host in the form for look-ups: an IPv6 address without brackets.
pub(super) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The addresses of a server.
#[derive(Debug)]
pub(super) enum Addresses {
    /// Constant, in this order; empty for a socket file.
    Fixed(Box<[IpAddr]>),
    /// The addresses of a name.
    Named(Rc<CachedName>),
}

impl Addresses {
    /// The addresses to try, in this order, each as a new [`PeerAddress`]. A look-up ends after `lookup_timeout`.
    ///
    /// # Errors
    /// There is no address.
    pub(super) async fn resolve(&self, lookup_timeout: Duration) -> Result<Vec<PeerAddress>, ResolveError> {
        let (addresses, generation) = match self {
            Self::Fixed(addresses) => (addresses.to_vec(), 0),
            Self::Named(name) => (name.resolve(lookup_timeout).await?, name.generation.get()),
        };
        let peer = |address| PeerAddress {
            address: Some(address),
            generation,
        };
        Ok(addresses.into_iter().map(peer).collect())
    }

    /// Whether the server still has the address of the connection. One comparison of numbers, unless the addresses have changed.
    pub(super) fn is_current(&self, peer: &mut PeerAddress) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Named(name) => peer.generation == name.generation.get() || name.recheck(peer),
        }
    }

    /// Starts a look-up if the cached answer has expired. Call it regularly while there are connections; it does not wait.
    pub(super) fn refresh_expired(&self, lookup_timeout: Duration) {
        if let Self::Named(name) = self
            && name.is_expired()
        {
            name.start_lookup(lookup_timeout);
        }
    }

    /// The connection to this address failed or was slow: for a while, the other addresses are tried first.
    pub(super) fn avoid(&self, address: IpAddr) {
        if let Self::Named(name) = self {
            name.avoid(address);
        }
    }
}

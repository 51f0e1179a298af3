//! Where servers are: the addresses of their names, remembered for as long as the DNS says and then asked for again.
//!
//! One look-up of a name is under way at a time, in a task of its own; who needs its answer waits for it. What is remembered is bounded by
//! the names in the configuration. A look-up that fails leaves what was known before in place for a while: a DNS server that is down
//! is no reason to stop talking to application servers that are up.

mod ask;
mod name;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;

use self::ask::Asker;
use self::name::Name;
use super::connector::is_ours;
use super::{Server, Transport};

/// Why a server's name has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The DNS does not say.
    #[error("its name could not be looked up: {0}")]
    Dns(#[from] NetError),
    /// The DNS says that there is no such name, and the system knows none either.
    #[error("its name is not known: {0}")]
    Unknown(Arc<io::Error>),
    /// There is no DNS, and the system does not say.
    #[error("its name could not be looked up: {0}")]
    System(Arc<io::Error>),
    /// There was no answer in time.
    #[error("its name could not be looked up in time")]
    Late,
}

impl ResolveError {
    /// Whether this process lacks what a look-up needs.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Dns(NetError::Io(error)) | Self::Unknown(error) | Self::System(error) => is_ours(error),
            Self::Dns(_) | Self::Late => false,
        }
    }
}

/// One worker's way to the addresses of names.
#[derive(Debug, Clone)]
pub struct Resolver {
    asker: Rc<Asker>,
    /// Those that some server has.
    names: Rc<RefCell<HashMap<Box<str>, Weak<Name>>>>,
}

impl Resolver {
    /// Asks whom the system asks.
    pub fn of_system() -> Self {
        Self::new(Asker::System(RefCell::new(None)))
    }

    fn new(asker: Asker) -> Self {
        Self {
            asker: Rc::new(asker),
            names: Rc::default(),
        }
    }

    /// Where a server is. Nothing is asked yet.
    pub(super) fn addresses(&self, server: &Server) -> Addresses {
        if let Transport::Unix(_) = server.transport {
            return Addresses::Fixed(Box::new([]));
        }
        let host = bare(server.authority.host());
        if let Ok(address) = host.parse() {
            return Addresses::Fixed(Box::new([address]));
        }
        // RFC 6761, section 6.3.
        if host == "localhost" || host.ends_with(".localhost") {
            return Addresses::Fixed(Box::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        let mut names = self.names.borrow_mut();
        if let Some(name) = names.get(host).and_then(Weak::upgrade) {
            return Addresses::Named(name);
        }
        names.retain(|_, name| name.strong_count() > 0);
        let name = Rc::new(Name::new(host, &self.asker));
        names.insert(host.into(), Rc::downgrade(&name));
        Addresses::Named(name)
    }
}

/// A host as it is looked up: an IPv6 address without its brackets.
pub(super) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Where a server is.
#[derive(Debug)]
pub(super) enum Addresses {
    /// Always there, and in this order; nowhere behind a socket file.
    Fixed(Box<[IpAddr]>),
    /// Where its name leads.
    Named(Rc<Name>),
}

/// Where a connection leads, and what its server's addresses were when that was last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peer {
    pub(super) address: Option<IpAddr>,
    generation: u64,
}

impl Addresses {
    /// Where to try to connect to, in this order, each the beginning of a [`Peer`]. A look-up is given up after `patience`.
    ///
    /// # Errors
    /// There is no address.
    pub(super) async fn find(&self, patience: Duration) -> Result<Vec<Peer>, ResolveError> {
        let (addresses, generation) = match self {
            Self::Fixed(addresses) => (addresses.to_vec(), 0),
            Self::Named(name) => (name.find(patience).await?, name.generation.get()),
        };
        let peer = |address| Peer {
            address: Some(address),
            generation,
        };
        Ok(addresses.into_iter().map(peer).collect())
    }

    /// Whether a connection still leads to the server. One comparison, unless its addresses have changed.
    pub(super) fn has(&self, peer: &mut Peer) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Named(name) => peer.generation == name.generation.get() || name.has_still(peer),
        }
    }

    /// Looks the name up again, if it is time to. To be called now and then while there are connections; nobody waits.
    pub(super) fn refresh(&self, patience: Duration) {
        if let Self::Named(name) = self
            && name.is_due()
        {
            name.look_up(patience);
        }
    }

    /// It could not be reached there, or not at once: the others come first for a while.
    pub(super) fn avoid(&self, address: IpAddr) {
        if let Self::Named(name) = self {
            name.avoid(address);
        }
    }
}

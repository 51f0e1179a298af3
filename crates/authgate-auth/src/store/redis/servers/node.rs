//! [`Node`]: one server of a Redis. [`SlotRange`]: what it has of a cluster.

use std::fmt;

use redis::cluster::NodeAddress;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// The server that the configuration names.
    Configured,
    /// One that a sentinel or a server of the cluster names.
    At(NodeAddress),
}

impl Node {
    /// Its address, if it is not in the configuration.
    pub fn address(&self) -> Option<&NodeAddress> {
        match self {
            Self::Configured => None,
            Self::At(address) => Some(address),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("the configured server"),
            Self::At(address) => write!(f, "{address}"),
        }
    }
}

/// A range of slots of a cluster, and the server that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    /// Is in the range.
    pub(super) last: u16,
    pub(super) node: Node,
}

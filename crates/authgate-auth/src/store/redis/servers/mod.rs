//! The servers that have the records, and how they are found: the one of the configuration, the primary that sentinels name, or those of a
//! cluster.
//!
//! [`Topology`] has them for the whole process, and [`watch`] follows them by [`Discovery`]. [`Primaries`] says which of them has a key.
//! Nothing here sends a look-up.

mod discovery;
mod node;
mod primaries;
mod redirect;
mod role;
mod slots;
mod topology;

pub use self::discovery::{Discovery, DiscoveryError};
pub use self::node::Node;
pub use self::primaries::Primaries;
pub use self::redirect::{MAX_REDIRECTS, Redirect};
pub(super) use self::role::require_primary;
pub(super) use self::topology::{Topology, watch};

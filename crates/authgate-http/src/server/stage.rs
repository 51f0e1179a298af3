//! [`Stage`]: how far the shutdown of the gateway has come.

use std::time::Duration;

/// A drain does not close a connection that was used within this time: the next request may be on its way.
pub const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The stages of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serves normally.
    Serving,
    /// Serves, but reports not ready, so that load balancers can remove this gateway.
    NotReady,
    /// Accepts no new connections, and no more requests on open ones.
    Draining,
    /// The drain timeout has passed: workers drop the remaining connections.
    Aborting,
}

//! [`Stage`]: how far the shutdown of the gateway has come.

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

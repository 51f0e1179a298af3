//! [`StreamEnd`]: why the gateway ends a stream.

use authgate_auth::Withdrawn;

/// Why a stream ends. The text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// No route leads to its upstream as its own did.
    #[error("its route is gone")]
    Route,
    /// Its route does not admit its user.
    #[error("its route does not admit its user any more")]
    NotAdmitted,
    /// Its credential is not accepted.
    #[error("its credential is not accepted any more: {0}")]
    Credential(#[from] Withdrawn),
}

impl StreamEnd {
    /// The outcome of such a stream, for logs and metrics.
    pub const LABEL: &'static str = "stream_ended";
}

//! [`StreamEnd`]: why the gateway ends a stream.

use authgate_auth::Withdrawn;
use authgate_core::credential::Refusal;

/// What happens to a stream when its credential or its route is not valid any more; `streams` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamRule {
    /// The gateway ends it.
    End,
    /// It goes on.
    Keep,
}

/// Why a stream ends. The text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// No route leads to its upstream as its own did.
    #[error("its route is gone")]
    Route,
    /// Its route does not admit its user.
    #[error("its route does not admit its user any more")]
    NotAdmitted,
    /// The configuration does not accept its credential.
    #[error("its credential is not accepted any more: {0}")]
    Credential(#[from] Withdrawn),
    /// Its credential has expired.
    #[error("its credential has expired")]
    Expired,
    /// Its credential is refused, for the reason with this label.
    #[error("its credential is refused now: {0}")]
    Refused(&'static str),
}

impl StreamEnd {
    /// The outcome of such a stream, for logs and metrics.
    pub const LABEL: &'static str = "stream_ended";

    /// Its credential is refused now.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::TokenInvalid(why) => Self::Refused(why),
            other => Self::Refused(other.label()),
        }
    }

    /// A short name for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::NotAdmitted => "policy",
            Self::Credential(_) => "configuration",
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
        }
    }
}

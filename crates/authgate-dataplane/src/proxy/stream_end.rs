//! [`StreamEnd`]: why the gateway ends a stream.

use authgate_auth::Withdrawn;
use authgate_core::credential::Refusal;
use authgate_core::label_value::LabelValue;

use crate::telemetry::labels;

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
    /// Its credential is refused now.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::TokenInvalid(why) => Self::Refused(why),
            other => Self::Refused(other.label()),
        }
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Route => &labels::ENDED_ROUTE,
            Self::NotAdmitted => &labels::ENDED_POLICY,
            Self::Credential(_) => &labels::ENDED_CONFIGURATION,
            Self::Expired => &labels::ENDED_EXPIRED,
            Self::Refused(_) => &labels::ENDED_REFUSED,
        }
    }
}

//! Why there are no keys.

use std::sync::Arc;

use crate::fetch::FetchError;
use crate::fetch::discovery::DiscoveryError;

/// Why a fetch has brought no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchProblem {
    /// There is no document.
    #[error("{url}: {error}")]
    Fetch {
        /// Its URL.
        url: Arc<str>,
        /// What happened.
        error: FetchError,
    },
    /// The metadata of the issuer cannot be used.
    #[error("the metadata of the issuer: {0}")]
    Discovery(DiscoveryError),
    /// The metadata of the issuer do not say where its keys are.
    #[error("the metadata of issuer {0} have no `jwks_uri`; write `jwks = {{ url = \"…\" }}` in place of `discovery`")]
    NoSet(Arc<str>),
    /// The document is no set of keys, or no key of it can be used.
    #[error("{url}: {problem}")]
    Set {
        /// Its URL.
        url: Arc<str>,
        /// What is wrong.
        problem: String,
    },
    /// The fetch has panicked.
    #[error("the fetch has failed, which is a bug: {0}")]
    Panicked(String),
}

impl FetchProblem {
    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Fetch { error, .. } => error.label(),
            Self::Discovery(_) | Self::NoSet(_) => "discovery",
            Self::Set { .. } => "set",
            Self::Panicked(_) => "panicked",
        }
    }
}

/// Why a token cannot be verified: its keys are not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No fetch has succeeded since the start.
    #[error("there are no keys of {0} yet")]
    NotYet(Arc<str>),
    /// The last successful fetch is longer ago than `max_stale`.
    #[error("the keys of {0} are too old: no fetch has succeeded within max_stale")]
    TooOld(Arc<str>),
    /// The token names a key that is not known, and the last fetch has failed.
    #[error("the token names an unknown key, and the keys of {0} could not be fetched")]
    FetchFailed(Arc<str>),
    /// The token names a key that is not known, and a fetch has not ended in time.
    #[error("the token names an unknown key, and the keys of {0} were not fetched in time")]
    Timeout(Arc<str>),
}

impl KeysError {
    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotYet(_) => "keys_missing",
            Self::TooOld(_) => "keys_too_old",
            Self::FetchFailed(_) => "keys_fetch_failed",
            Self::Timeout(_) => "keys_timeout",
        }
    }
}

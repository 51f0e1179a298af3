//! Why there are no keys.

use std::sync::Arc;

use authgate_core::label_value::LabelValue;

use crate::fetch::FetchError;
use crate::fetch::discovery::DiscoveryError;
use crate::labels;

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
    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::Fetch { error, .. } => error.label_value(),
            Self::Discovery(_) | Self::NoSet(_) => &labels::FETCH_DISCOVERY,
            Self::Set { .. } => &labels::FETCH_SET,
            Self::Panicked(_) => &labels::FETCH_PANICKED,
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
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::NotYet(_) => &labels::KEYS_MISSING,
            Self::TooOld(_) => &labels::KEYS_TOO_OLD,
            Self::FetchFailed(_) => &labels::KEYS_FETCH_FAILED,
            Self::Timeout(_) => &labels::KEYS_TIMEOUT,
        }
    }
}

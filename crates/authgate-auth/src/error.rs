//! [`EvaluationError`]: why a credential could not be evaluated. It is never a refusal: the client gets 503.

use std::sync::Arc;

use authgate_core::label_value::LabelValue;

use crate::introspection::error::IntrospectionError;
use crate::keys::remote::KeysError;
use crate::labels;
use crate::replay::MAX_PROOFS;
use crate::store::StoreError;

/// A credential could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An introspection endpoint has not said whether a token is active.
    #[error(transparent)]
    Introspection(#[from] IntrospectionError),
    /// The keys that would verify a token are not there.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The evaluation did not end in time, although nothing was asked over a network.
    #[error("too many credentials are waiting to be checked")]
    Busy,
    /// The memory of used proofs is full.
    #[error("the memory of used DPoP proofs is full: {MAX_PROOFS} are in it, each for twice `dpop_window`")]
    ReplayMemoryFull,
}

/// What could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered<'e> {
    /// The store of this name.
    Store(&'e Arc<str>),
    /// The introspection endpoint.
    Endpoint,
}

impl EvaluationError {
    /// What could not answer, if this is an outage: then the error says nothing about the credential. Keys that are too old are none:
    /// `max_stale` says how long an outage of their source may last.
    pub(crate) fn unanswered(&self) -> Option<Unanswered<'_>> {
        match self {
            Self::Store(error) => error.unanswered().map(Unanswered::Store),
            Self::Introspection(error) => error.is_outage().then_some(Unanswered::Endpoint),
            Self::Keys(_) | Self::Busy | Self::ReplayMemoryFull => None,
        }
    }

    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::Store(error) => error.label_value(),
            Self::Introspection(error) => error.label_value(),
            Self::Keys(error) => error.label_value(),
            Self::Busy => &labels::BUSY,
            Self::ReplayMemoryFull => &labels::DPOP_REPLAY_FULL,
        }
    }
}

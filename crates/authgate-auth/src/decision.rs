//! [`Decision`]: the result of authenticating one credential.

use std::sync::Arc;

use authgate_core::credential::Refusal;
use authgate_core::identity::{Identity, UserId};

use crate::validity::Validity;

/// The result of authenticating one credential.
#[derive(Debug, Clone)]
pub(crate) enum Decision {
    /// The credential is valid.
    Accepted {
        /// The user.
        identity: Arc<Identity>,
        /// When the credential itself is valid.
        validity: Validity,
    },
    /// The credential is refused.
    Refused(RefusedCredential),
}

/// A refused credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedCredential {
    /// The reason.
    pub refusal: Refusal,
    /// The user that the credential was issued to, if that is certain.
    pub user: Option<Arc<UserId>>,
}

impl From<Refusal> for RefusedCredential {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, user: None }
    }
}

impl From<Refusal> for Decision {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl Decision {
    pub(crate) fn into_result(self) -> Result<Arc<Identity>, RefusedCredential> {
        match self {
            Self::Accepted { identity, .. } => Ok(identity),
            Self::Refused(refused) => Err(refused),
        }
    }
}

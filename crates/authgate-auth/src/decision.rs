//! [`Decision`]: the result of authenticating one credential.

use std::sync::Arc;

use authgate_core::credential::Refusal;
use authgate_core::identity::Identity;

use crate::validity::Validity;

/// The result of authenticating one credential.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The credential is valid.
    Accepted {
        /// The user.
        identity: Arc<Identity>,
        /// When the credential itself is valid.
        validity: Validity,
    },
    /// The credential is refused.
    Refused(Refusal),
}

impl Decision {
    pub(crate) fn into_result(self) -> Result<Arc<Identity>, Refusal> {
        match self {
            Self::Accepted { identity, .. } => Ok(identity),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

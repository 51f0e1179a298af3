//! [`Decision`]: the result of authenticating one credential.

use std::sync::Arc;

use authgate_core::credential::Refusal;
use authgate_core::identity::{Identity, UserId};

use crate::binding_rules::TokenBinding;
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
        /// What requests with the credential must prove. `None`: nothing.
        binding: Option<Arc<TokenBinding>>,
    },
    /// The credential is refused.
    Refused(RefusedCredential),
}

/// The user of an accepted credential, and what a request must prove.
#[derive(Debug)]
pub(crate) struct AcceptedUser {
    pub(crate) identity: Arc<Identity>,
    pub(crate) binding: Option<Arc<TokenBinding>>,
}

/// A refused credential. It is behind a pointer, because each result of an accepted credential has room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedCredential(Arc<RefusedDetails>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct RefusedDetails {
    refusal: Refusal,
    user: Option<Arc<UserId>>,
}

impl RefusedCredential {
    /// `user`: whom the credential was issued to, if that is certain.
    pub(crate) fn new(refusal: Refusal, user: Option<UserId>) -> Self {
        let user = user.map(Arc::new);
        Self(Arc::new(RefusedDetails { refusal, user }))
    }

    /// The reason.
    pub(crate) fn refusal(&self) -> &Refusal {
        &self.0.refusal
    }

    /// The reason, and the user that the credential was issued to, if that is certain.
    pub(crate) fn into_parts(self) -> (Refusal, Option<Arc<UserId>>) {
        let RefusedDetails { refusal, user } = Arc::unwrap_or_clone(self.0);
        (refusal, user)
    }
}

impl From<Refusal> for RefusedCredential {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal, None)
    }
}

impl From<Refusal> for Decision {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl Decision {
    pub(crate) fn into_result(self) -> Result<AcceptedUser, RefusedCredential> {
        match self {
            Self::Accepted { identity, binding, .. } => Ok(AcceptedUser { identity, binding }),
            Self::Refused(refused) => Err(refused),
        }
    }
}

//! [`Withdrawn`]: why a credential that was accepted is not accepted by a later configuration.

use std::sync::Arc;

/// Why a credential that was accepted is not accepted by a later configuration. The text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Withdrawn {
    /// There is no authenticator of this name and kind.
    #[error("the authenticator is gone")]
    Authenticator,
    /// The authenticator does not know the issuer of the credential, or it did not tell issuers apart before.
    #[error("the issuer of the credential is gone")]
    Issuer,
    /// The key that has verified the credential is gone.
    #[error("the key that verified the credential is gone")]
    Key,
    /// A store that was asked about the credential is gone, or it is another one.
    #[error("a store that the credential depends on is gone")]
    Store,
    /// The introspection endpoint is gone, or it is another one, or the gateway asks it as another client.
    #[error("the introspection endpoint that knows the credential is gone")]
    Endpoint,
    /// The authenticator has become stricter.
    #[error("the authenticator has become stricter")]
    Stricter,
}

/// Whether the store with revocations is still the same one. Without one before, a credential may have been revoked in a new one.
pub(crate) fn check_revocation(
    own: Option<&Arc<str>>,
    previous: Option<&Arc<str>>,
    is_same_store: &dyn Fn(&str, &str) -> bool,
) -> Result<(), Withdrawn> {
    match (own, previous) {
        (None, None) => Ok(()),
        (Some(store), Some(previous)) if is_same_store(store, previous) => Ok(()),
        (None | Some(_), Some(_)) => Err(Withdrawn::Store),
        (Some(_), None) => Err(Withdrawn::Stricter),
    }
}

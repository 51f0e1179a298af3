//! [`Withdrawn`]: why a credential that was accepted is not accepted by a later configuration.

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

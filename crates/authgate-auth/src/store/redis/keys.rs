//! The names of the keys of the layout.

use crate::store::TokenDigest;

/// The names of the keys of the layout.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'p> {
    prefix: &'p str,
}

impl<'p> Keys<'p> {
    /// The names with this prefix.
    pub fn new(prefix: &'p str) -> Self {
        Self { prefix }
    }

    /// The layout record.
    pub fn layout(self) -> String {
        format!("{}layout", self.prefix)
    }

    /// One opaque token.
    pub fn token(self, digest: &TokenDigest) -> String {
        format!("{}token:{}", self.prefix, digest.to_hex())
    }

    /// The prefix of all tokens.
    pub fn tokens(self) -> String {
        format!("{}token:", self.prefix)
    }

    /// One user.
    pub fn user(self, id: &str) -> String {
        format!("{}user:{id}", self.prefix)
    }

    /// The id of the user with that username.
    pub fn user_by_name(self, name: &str) -> String {
        format!("{}user-by-name:{name}", self.prefix)
    }

    /// The digests of a user's tokens.
    pub fn tokens_of(self, id: &str) -> String {
        format!("{}tokens-of:{id}", self.prefix)
    }

    /// A revoked JWT.
    pub fn revoked_jti(self, jti: &str) -> String {
        format!("{}revoked:jti:{jti}", self.prefix)
    }

    /// The revocation of a user's credentials.
    pub fn revoked_user(self, id: &str) -> String {
        format!("{}revoked:user:{id}", self.prefix)
    }

    /// A revoked signing key.
    pub fn revoked_kid(self, kid: &str) -> String {
        format!("{}revoked:kid:{kid}", self.prefix)
    }

    /// A DPoP proof that was used.
    pub fn proof(self, id: &str) -> String {
        format!("{}dpop:{id}", self.prefix)
    }

    /// The key that a gateway writes to measure the delay of reported changes.
    pub fn canary(self, gateway: &str) -> String {
        format!("{}canary:{gateway}", self.prefix)
    }

    /// Prefixes of all keys that a decision can depend on. No prefix begins with another one, as Redis requires.
    pub(super) fn tracked_prefixes(self) -> [String; 5] {
        ["layout", "token:", "user:", "user-by-name:", "revoked:"].map(|name| format!("{}{name}", self.prefix))
    }
}

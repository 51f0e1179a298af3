//! The names of the keys of the layout.

use crate::auth::store::TokenDigest;

/// The names of the keys of the layout.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'p> {
    prefix: &'p str,
}

impl<'p> Keys<'p> {
    pub(in crate::auth::store) fn new(prefix: &'p str) -> Self {
        Self { prefix }
    }

    /// The mark that this is a store of ours.
    pub fn layout(self) -> String {
        format!("{}layout", self.prefix)
    }

    /// One opaque token.
    pub fn token(self, digest: &TokenDigest) -> String {
        format!("{}token:{}", self.prefix, digest.to_hex())
    }

    /// What the names of all tokens begin with.
    pub fn tokens(self) -> String {
        format!("{}token:", self.prefix)
    }

    /// One user.
    pub fn user(self, id: &str) -> String {
        format!("{}user:{id}", self.prefix)
    }

    /// The id of the user of that name.
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

    /// A user of whom everything issued by then is revoked.
    pub fn revoked_user(self, id: &str) -> String {
        format!("{}revoked:user:{id}", self.prefix)
    }

    /// A revoked key.
    pub fn revoked_kid(self, kid: &str) -> String {
        format!("{}revoked:kid:{kid}", self.prefix)
    }

    /// What the names of those keys begin with that a verdict can rest on. None of them begins with another, as Redis wants it.
    pub(super) fn that_verdicts_rest_on(self) -> [String; 5] {
        ["layout", "token:", "user:", "user-by-name:", "revoked:"].map(|name| format!("{}{name}", self.prefix))
    }
}

//! The names of the keys of the layout, and the form of their values.

use std::borrow::Cow;

use super::seal::{BadSeal, Seal, is_sealed};
use crate::store::TokenDigest;

/// The names of the keys of the layout, and the form of their values: with a seal, digests and values are sealed.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'p> {
    prefix: &'p str,
    seal: Option<&'p Seal>,
}

impl<'p> Keys<'p> {
    /// The names with this prefix.
    pub fn new(prefix: &'p str, seal: Option<&'p Seal>) -> Self {
        Self { prefix, seal }
    }

    /// The layout record.
    pub fn layout(self) -> String {
        format!("{}layout", self.prefix)
    }

    /// The digest that names a token here: with a seal the HMAC of the digest of its key.
    pub fn digest(self, digest: &TokenDigest) -> TokenDigest {
        self.seal.map_or(*digest, |seal| seal.digest(digest))
    }

    /// The digest in the name of a token; `None`: no token has this name.
    pub fn parse_digest(self, hex: &str) -> Option<TokenDigest> {
        match self.seal {
            Some(_) => TokenDigest::from_sealed_hex(hex),
            None => TokenDigest::from_hex(hex),
        }
    }

    /// One opaque token, by the digest of its key or by [`Keys::digest`].
    pub fn token(self, digest: &TokenDigest) -> String {
        format!("{}token:{}", self.prefix, self.digest(digest).to_hex())
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

    /// A DPoP proof that was used. Its value is never sealed: it grants nothing.
    pub fn proof(self, id: &str) -> String {
        format!("{}dpop:{id}", self.prefix)
    }

    /// The key that a gateway writes to measure the delay of reported changes. Its value is never sealed: it grants nothing.
    pub fn canary(self, gateway: &str) -> String {
        format!("{}canary:{gateway}", self.prefix)
    }

    /// The value to store under the key of this name.
    pub fn stored<'v>(self, name: &str, value: &'v [u8]) -> Cow<'v, [u8]> {
        self.seal
            .map_or(Cow::Borrowed(value), |seal| Cow::Owned(seal.seal(name, value)))
    }

    /// The value that is stored under the key of this name.
    ///
    /// # Errors
    /// The store has a seal, and the value was not sealed with it for this name.
    pub fn value<'v>(self, name: &str, stored: &'v [u8]) -> Result<&'v [u8], BadSeal> {
        match self.seal {
            Some(seal) => seal.open(name, stored),
            // Only the layout record is checked: other values of this form are possible ids, and JSON never has it.
            None if is_sealed(stored) && name == self.layout() => Err(BadSeal::NoKey(name.to_owned())),
            None => Ok(stored),
        }
    }

    /// Prefixes of all keys that a decision can depend on. No prefix begins with another one, as Redis requires.
    pub(super) fn tracked_prefixes(self) -> [String; 5] {
        ["layout", "token:", "user:", "user-by-name:", "revoked:"].map(|name| format!("{}{name}", self.prefix))
    }
}

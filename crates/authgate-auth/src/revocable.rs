//! What can be revoked, and what an authenticator says about a token that is to be revoked.

use std::sync::Arc;

use authgate_core::label_value::LabelValue;

use crate::labels;

/// The kinds of things that a revocation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationKind {
    /// An opaque token.
    Token,
    /// A JWT, or an introspected token, by its id.
    Jti,
    /// All credentials that were issued to a user until a time.
    User,
    /// A key that verifies JWTs.
    Kid,
}

impl RevocationKind {
    /// A short name for logs.
    pub fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Token => &labels::KIND_TOKEN,
            Self::Jti => &labels::KIND_JTI,
            Self::User => &labels::KIND_USER,
            Self::Kid => &labels::KIND_KID,
        }
    }
}

/// What an authenticator says about a token that is to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocable {
    /// It does not accept the token, and will not accept it later.
    NotAccepted,
    /// It accepts the token unless this id is revoked in this store.
    ById {
        /// The name of the store.
        store: Arc<str>,
        /// The id of the token. It is not empty.
        id: String,
        /// The Unix second at which the token expires; `None`: never.
        expires: Option<i64>,
    },
    /// It has verified the token, which cannot be revoked here.
    Irrevocable(Irrevocable),
}

/// Why a verified token cannot be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Irrevocable {
    /// The authenticator looks for no revocations.
    NoStore,
    /// The token has no id, or the authenticator reads none.
    NoId,
    /// It is not an access token, such as a refresh token of the same issuer.
    OtherType,
}

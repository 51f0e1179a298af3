//! The settings of JWT authenticators, and the rules for claims of each profile.

use std::sync::Arc;
use std::time::Duration;

use super::keys::VerificationKey;
use crate::scheme::AuthScheme;

/// The settings of this kind.
#[derive(Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// The keys, and how a token selects one.
    pub keys: KeySet,
    /// Longer tokens are refused without parsing.
    pub token_bytes: usize,
    /// Rules for the claims.
    pub rules: Rules,
    /// Where the user of a token comes from.
    pub users: Users,
    /// Name of the store with revocations, if these are checked.
    pub revocation: Option<Arc<str>>,
}

impl JwtSettings {
    pub(crate) fn stores(&self) -> Vec<&Arc<str>> {
        let users = match &self.users {
            Users::Claims { .. } => None,
            Users::Store { store, .. } => Some(store),
        };
        users.into_iter().chain(&self.revocation).collect()
    }
}

/// Keys, and how a token selects one.
#[derive(Debug, PartialEq, Eq)]
pub enum KeySet {
    /// Keys from key files: if both sides have a `kid`, it must match; otherwise every key of the token's algorithm is tried.
    Static(Vec<VerificationKey>),
    /// Keys of a JWK Set: `kid` selects the key and is required.
    Jwks(Vec<VerificationKey>),
}

impl KeySet {
    /// All keys.
    pub fn keys(&self) -> &[VerificationKey] {
        match self {
            Self::Static(keys) | Self::Jwks(keys) => keys,
        }
    }
}

/// Where the user of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// From the claims only.
    Claims {
        /// The claim with the username.
        username_claim: String,
    },
    /// From a store: the user must exist there.
    Store {
        /// Name of the store.
        store: Arc<str>,
        /// The field of the record that the user id claim holds.
        field: UserIdField,
        /// Inactive users are refused.
        check_active: bool,
        /// The claim that must equal the record's `password_md5`, if that is checked.
        revoke_claim: Option<String>,
    },
}

/// The field of a user record that the user id claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIdField {
    /// Its id.
    Id,
    /// Its login name.
    Username,
}

/// SimpleJWT's token classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// `AccessToken`.
    Access,
    /// `SlidingToken`.
    Sliding,
}

impl TokenType {
    /// Its value in the token type claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Sliding => "sliding",
        }
    }

    /// Its class name in SimpleJWT.
    pub fn class(self) -> &'static str {
        match self {
            Self::Access => "AccessToken",
            Self::Sliding => "SlidingToken",
        }
    }
}

/// Rules for the claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Accepted issuers; empty: not checked.
    pub issuer: Vec<String>,
    /// Accepted audiences; empty: not checked.
    pub audience: Vec<String>,
    /// Accepted clock difference.
    pub leeway: Duration,
    /// Maximum lifetime of a token.
    pub max_lifetime: Option<Duration>,
    /// The claim that names the user.
    pub user_id_claim: String,
    /// The claim with the token type, if it is checked.
    pub token_type_claim: Option<String>,
    /// The claim with the token id, if it is checked.
    pub jti_claim: Option<String>,
    /// Accepted token types.
    pub token_types: Vec<TokenType>,
    /// The profile, for rules without a configuration key.
    pub profile: Profile,
}

/// The specification that a token is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// SimpleJWT over PyJWT, with their deviations from the RFCs.
    SimpleJwt,
    /// RFC 7519 and RFC 7515.
    Plain,
    /// RFC 9068 in addition: `typ` is `at+jwt` (section 2.1); `iss`, `sub`, `client_id`, `aud` and `iat` are present (section 2.2).
    Rfc9068,
}

impl Profile {
    /// These schemes, as the profile compares them. RFC 9110, section 11.1, ignores ASCII case; SimpleJWT compares exactly.
    pub fn auth_scheme(self, names: Vec<String>) -> AuthScheme {
        match self {
            Self::SimpleJwt => AuthScheme::OneOfExactly(names),
            Self::Plain | Self::Rfc9068 => AuthScheme::OneOf(names),
        }
    }

    /// Whether `=` may end a segment. RFC 7515, section 2, has no padding; PyJWT accepts it.
    pub(super) fn padding(self) -> Padding {
        match self {
            Self::SimpleJwt => Padding::Accepted,
            Self::Plain | Self::Rfc9068 => Padding::Refused,
        }
    }
}

/// Whether `=` may end a segment of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// If the padded segment is a multiple of four characters.
    Accepted,
    /// Never.
    Refused,
}

impl Rules {
    /// The defaults of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::SimpleJwt => Self::simplejwt(),
            Profile::Plain => Self::plain(),
            Profile::Rfc9068 => Self::rfc9068(),
        }
    }

    /// SimpleJWT's defaults.
    pub fn simplejwt() -> Self {
        Self {
            issuer: Vec::new(),
            audience: Vec::new(),
            leeway: Duration::ZERO,
            max_lifetime: None,
            user_id_claim: "user_id".to_owned(),
            token_type_claim: Some("token_type".to_owned()),
            jti_claim: Some("jti".to_owned()),
            token_types: vec![TokenType::Access],
            profile: Profile::SimpleJwt,
        }
    }

    /// RFC 7519, without deviations of Django.
    pub fn plain() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            jti_claim: None,
            profile: Profile::Plain,
            ..Self::simplejwt()
        }
    }

    /// RFC 9068: OAuth 2.0 access tokens.
    pub fn rfc9068() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            profile: Profile::Rfc9068,
            ..Self::simplejwt()
        }
    }
}

//! What the configuration says of one JWT authenticator, and what a token's claims must say under each profile.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use super::keys::VerificationKey;
use crate::auth::cache;

/// What the configuration says of one JWT authenticator.
#[derive(Debug)]
pub struct Settings {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Schemes, compared as the profile says.
    pub schemes: Vec<String>,
    /// The header that carries the credential.
    pub header: HeaderName,
    /// What the challenge names.
    pub realm: String,
    /// The keys, and how one is chosen.
    pub keys: KeySet,
    /// Longer tokens are refused unread.
    pub token_bytes: usize,
    /// What the claims must say.
    pub rules: Rules,
    /// Whose word counts for who it is.
    pub users: Users,
    /// Name of the store whose revocations are obeyed.
    pub revocation: Option<Arc<str>>,
    /// What is remembered.
    pub cache: cache::Settings,
    /// What identities keep of the claims.
    pub kept: Kept,
}

/// What identities keep of the claims, because a route or an `[identity]` table asks for it. What nobody asks for is not looked at,
/// and so refuses nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// These, as they are.
    pub claims: Vec<String>,
    /// `email`.
    pub email: bool,
    /// `groups`.
    pub groups: bool,
    /// `scope`, or `scp`.
    pub scopes: bool,
}

/// Keys, and how a token chooses among them.
#[derive(Debug)]
pub enum KeySet {
    /// Keys of the file: a `kid` on both sides must agree, else every key of the token's algorithm is tried.
    Static(Vec<VerificationKey>),
    /// Keys of a JWK Set: `kid` chooses; no `kid`, no key.
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
#[derive(Debug, Clone)]
pub enum Users {
    /// From the claims alone.
    Claims {
        /// The claim that names them.
        username_claim: String,
    },
    /// From a store: the record must exist.
    Store {
        /// Name of the store.
        store: Arc<str>,
        /// Which field of the record the user id claim holds.
        field: UserIdField,
        /// Inactive users are refused.
        check_active: bool,
        /// The claim that must equal the record's `password_md5`, if that is looked at.
        revoke_claim: Option<String>,
    },
}

/// Which field of a user record the user id claim holds.
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
    /// What the token type claim says.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Sliding => "sliding",
        }
    }

    /// What SimpleJWT calls the class.
    pub fn class(self) -> &'static str {
        match self {
            Self::Access => "AccessToken",
            Self::Sliding => "SlidingToken",
        }
    }
}

/// What the claims of a token must say.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Accepted issuers; none: not looked at.
    pub issuer: Vec<String>,
    /// Accepted audiences; none: not looked at.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The longest that a token may live.
    pub max_lifetime: Option<Duration>,
    /// The claim that names the user.
    pub user_id_claim: String,
    /// The claim that names the kind of token, if it is looked at.
    pub token_type_claim: Option<String>,
    /// The claim that names the token, if it is looked at.
    pub jti_claim: Option<String>,
    /// Accepted kinds of tokens.
    pub token_types: Vec<TokenType>,
    /// Whose rules hold where no other key of the configuration says more.
    pub profile: Profile,
}

/// The specification that a token is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// SimpleJWT over PyJWT, with their deviations from the RFCs.
    SimpleJwt,
    /// RFC 7519 and RFC 7515.
    Plain,
    /// RFC 9068 on top: `typ` is `at+jwt` (section 2.1); `iss`, `sub`, `client_id`, `aud` and `iat` are there (section 2.2).
    Rfc9068,
}

impl Profile {
    /// Whether a scheme as sent is the configured one. RFC 9110, section 11.1, ignores ASCII case; SimpleJWT compares exactly.
    pub fn is_scheme(self, own: &str, sent: &[u8]) -> bool {
        match self {
            Self::SimpleJwt => own.as_bytes() == sent,
            Self::Plain | Self::Rfc9068 => own.as_bytes().eq_ignore_ascii_case(sent),
        }
    }

    /// Whether `=` may end a segment. RFC 7515, section 2, has no padding; PyJWT takes it.
    pub(super) fn padding(self) -> Padding {
        match self {
            Self::SimpleJwt => Padding::Taken,
            Self::Plain | Self::Rfc9068 => Padding::Refused,
        }
    }
}

/// Whether `=` may end a segment of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// Where the segment with it is a whole number of quanta.
    Taken,
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

    /// RFC 7519 and nothing of Django.
    pub fn plain() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            jti_claim: None,
            profile: Profile::Plain,
            ..Self::simplejwt()
        }
    }

    /// RFC 9068: access tokens of OAuth 2.0 in the form that authorization servers agree on.
    pub fn rfc9068() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            profile: Profile::Rfc9068,
            ..Self::simplejwt()
        }
    }
}

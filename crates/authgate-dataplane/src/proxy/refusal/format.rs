//! [`RefusalFormat`]: the format of a route's refusals. It is made from the configuration.

use authgate_auth::jwt::TokenType;
use http::{HeaderName, HeaderValue};

/// The format of a route's refusals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RefusalFormat {
    /// The format of Django REST Framework and SimpleJWT.
    Drf {
        /// The whole value of `WWW-Authenticate`: that of the route's first authenticator. `None`: no challenge, and
        /// 403 instead of 401, as in DRF when `SessionAuthentication` is listed first.
        challenge: Option<HeaderValue>,
        /// For each authenticator of the route, in order: the token classes that its refusals name. Empty for opaque
        /// tokens.
        token_types: Vec<Vec<TokenType>>,
    },
    /// The problem details of RFC 9457, with the challenges of RFC 6750.
    Problem {
        /// Every scheme that the route accepts, in order. If it is empty: no challenge, and 403 instead of 401.
        schemes: Vec<Scheme>,
        /// The scopes that the route requires, as RFC 6750, section 3, writes them.
        scope: Option<String>,
    },
}

/// A scheme that a route accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// The position of its authenticator in the route's order.
    pub authenticator: usize,
    /// Its name.
    pub name: String,
    /// The realm, if the authenticator has one.
    pub realm: Option<String>,
    /// The header, if the credential is a key without a scheme.
    pub header: Option<HeaderName>,
    /// The algorithms of proofs, if the scheme is `DPoP` (RFC 9449, section 7.1).
    pub algorithms: Option<&'static str>,
}

/// The challenge scheme for a key that is a whole header value. RFC 9110, section 11.6.1, requires a scheme in every
/// 401, and none is registered for such keys. Other gateways that accept such keys use this word.
pub const KEY_CHALLENGE: &str = "Key";

impl Scheme {
    /// Whether a client cannot distinguish the challenges of the two schemes.
    pub fn is_challenged_as(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(&other.name) && self.realm == other.realm && self.header == other.header
    }
}

impl RefusalFormat {
    /// The DRF format for requests that match no route.
    pub const DRF: Self = Self::Drf {
        challenge: None,
        token_types: Vec::new(),
    };

    /// The RFC 9457 format for requests that match no route.
    pub const PROBLEM: Self = Self::Problem {
        schemes: Vec::new(),
        scope: None,
    };

    /// Whether a 401 can have a challenge. If not, the gateway sends 403 instead.
    pub fn has_challenge(&self) -> bool {
        match self {
            Self::Drf { challenge, .. } => challenge.is_some(),
            Self::Problem { schemes, .. } => !schemes.is_empty(),
        }
    }
}

//! How a route's refusals look: [`Answers`], made once from the configuration.

use http::{HeaderName, HeaderValue};

use crate::auth::jwt::TokenType;

/// How a route's refusals look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answers {
    /// As Django REST Framework and SimpleJWT write them.
    Drf {
        /// The whole value of `WWW-Authenticate`: that of the route's first authenticator. `None`: no challenge, and 403 for 401, as
        /// where DRF lists `SessionAuthentication` first.
        challenge: Option<HeaderValue>,
        /// For each authenticator of the route, in order: the token classes that its refusals name; empty for opaque tokens.
        token_types: Vec<Vec<TokenType>>,
    },
    /// As RFC 9457 writes problems, with the challenges of RFC 6750.
    Problem {
        /// Every scheme that the route accepts, in order. None: no challenge, and 403 for 401.
        schemes: Vec<Scheme>,
        /// The least that a token must allow here, as RFC 6750, section 3, writes scopes.
        scope: Option<String>,
    },
}

/// A scheme that a route accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Position of its authenticator in the route's order.
    pub by: usize,
    /// Its name.
    pub name: String,
    /// The realm, where the authenticator has one.
    pub realm: Option<String>,
    /// The header, where the scheme stands for a key without one.
    pub header: Option<HeaderName>,
}

/// The scheme of challenges for a key that is a whole header. RFC 9110, section 11.6.1, wants a scheme in every 401, and none is
/// registered for this; gateways that take such keys use this word.
pub const KEY_CHALLENGE: &str = "Key";

impl Scheme {
    /// Whether a client could not tell the challenges of the two apart.
    pub fn is_challenged_as(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(&other.name) && self.realm == other.realm && self.header == other.header
    }
}

impl Answers {
    /// The shape of answers to requests that no route is found for, where that is DRF's.
    pub const DRF: Self = Self::Drf {
        challenge: None,
        token_types: Vec::new(),
    };

    /// The shape of answers to requests that no route is found for, where that is RFC 9457's.
    pub const PROBLEM: Self = Self::Problem {
        schemes: Vec::new(),
        scope: None,
    };

    /// Whether a 401 can be challenged here; where it cannot, there is none.
    pub fn challenges(&self) -> bool {
        match self {
            Self::Drf { challenge, .. } => challenge.is_some(),
            Self::Problem { schemes, .. } => !schemes.is_empty(),
        }
    }
}

//! Who is asking: a route's authenticators, asked in order, and what they say.
//!
//! An authenticator passes (not my scheme), accepts, or refuses; the first that accepts or refuses ends the matter, as in Django
//! REST Framework. Beside these three there is one more end: it could not find out. That one is no verdict.

pub mod cache;
pub mod dependencies;
pub mod jwt;
pub mod record;
pub mod single_flight;
pub mod store;
pub mod token;

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::HeaderName;

use self::cache::Validity;
use self::jwt::JwtAuthenticator;
use self::store::StoreError;
use self::token::TokenAuthenticator;
use crate::credential::{Presented, Refusal};
use crate::identity::Identity;

/// The time, read once a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of Unix time: what credentials are dated in.
    pub unix_ms: i64,
    /// Milliseconds since this process first asked: what caches are timed in. It never goes back.
    pub uptime_ms: u64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let uptime = START.get_or_init(Instant::now).elapsed();
        Self {
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Whole seconds of Unix time.
    pub fn unix_seconds(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

/// What an authenticator concluded about one credential.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Somebody.
    Accepted {
        /// Who.
        identity: Arc<Identity>,
        /// While the credential itself is good.
        validity: Validity,
    },
    /// Nobody.
    Refused(Refusal),
}

impl Decision {
    fn into_verdict(self) -> Result<Arc<Identity>, Refusal> {
        match self {
            Self::Accepted { identity, .. } => Ok(identity),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

/// What an authenticator says of a request.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing in it is for this authenticator.
    Pass,
    /// Somebody.
    Accept(Arc<Identity>),
    /// A credential that is no good.
    Refuse(Refused),
}

/// Who refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Position of the authenticator in its route's order.
    pub by: usize,
    /// Why.
    pub refusal: Refusal,
}

/// An authenticator, with the handles of one worker.
#[derive(Debug)]
pub enum Authenticator {
    /// Opaque tokens.
    Token(TokenAuthenticator),
    /// JSON Web Tokens.
    Jwt(JwtAuthenticator),
}

impl Authenticator {
    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Token(token) => token.name(),
            Self::Jwt(jwt) => jwt.name(),
        }
    }

    /// The header that it reads.
    pub fn header(&self) -> &HeaderName {
        match self {
            Self::Token(token) => token.header(),
            Self::Jwt(jwt) => jwt.header(),
        }
    }

    async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Result<Arc<Identity>, Refusal>>, StoreError> {
        let Some((words, acceptance)) = presented.words() else {
            return Ok(None);
        };
        match self {
            Self::Token(token) => token.authenticate(words, acceptance, now).await,
            Self::Jwt(jwt) => jwt.authenticate(words, acceptance, now).await,
        }
    }
}

/// A route's authenticators, in its order.
#[derive(Debug, Clone)]
pub struct Chain {
    authenticators: Rc<[Rc<Authenticator>]>,
}

/// An authenticator could not find out.
#[derive(Debug, thiserror::Error)]
#[error("authenticator {authenticator} could not find out")]
pub struct Unavailable {
    /// Its name.
    pub authenticator: Arc<str>,
    /// Why.
    #[source]
    pub source: StoreError,
}

impl Chain {
    /// A chain of these.
    pub fn new(authenticators: Vec<Rc<Authenticator>>) -> Self {
        Self {
            authenticators: authenticators.into(),
        }
    }

    /// The authenticators.
    pub fn authenticators(&self) -> impl Iterator<Item = &Authenticator> {
        self.authenticators.iter().map(AsRef::as_ref)
    }

    /// Asks each in turn, until one accepts or refuses.
    ///
    /// # Errors
    /// The one whose turn it was could not find out. Nobody else is asked: the next one might accept what this one would refuse.
    pub async fn authenticate(&self, headers: &HeaderMap, now: Now) -> Result<Verdict, Unavailable> {
        for (by, authenticator) in self.authenticators.iter().enumerate() {
            let presented = Presented::from_headers(headers, authenticator.header());
            match authenticator.authenticate(&presented, now).await {
                Ok(None) => {}
                Ok(Some(Ok(identity))) => return Ok(Verdict::Accept(identity)),
                Ok(Some(Err(refusal))) => return Ok(Verdict::Refuse(Refused { by, refusal })),
                Err(source) => {
                    return Err(Unavailable {
                        authenticator: Arc::clone(authenticator.name()),
                        source,
                    });
                }
            }
        }
        Ok(Verdict::Pass)
    }

    /// Whether some credential header came at all, in any scheme and however often.
    pub fn saw_repeated_credential(&self, headers: &HeaderMap) -> bool {
        self.authenticators.iter().any(|authenticator| {
            matches!(
                Presented::from_headers(headers, authenticator.header()),
                Presented::Several(_)
            )
        })
    }
}

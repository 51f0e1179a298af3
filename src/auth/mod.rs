//! Authentication: the authenticators of a route, tried in order, and the verdict about a request.
//!
//! An authenticator passes (the credential has another scheme), accepts, or refuses. The first one that accepts or refuses decides, as in
//! Django REST Framework. An authenticator may also fail, because its store is unavailable. A failure is an error and never a verdict.

mod authenticator;
pub mod cache;
pub mod dependencies;
mod identities;
pub mod jwt;
mod kind;
pub mod record;
mod scheme;
pub mod single_flight;
pub mod store;
pub mod token;

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use authgate_core::credential::{Presented, Refusal};
use authgate_core::identity::Identity;
use http::HeaderMap;

pub use self::authenticator::{Authenticator, AuthenticatorSettings, SharedAuthenticator, WorkerResources};
use self::cache::Validity;
pub use self::identities::{IdentityRules, KeptClaims};
pub use self::kind::KindSettings;
pub use self::scheme::AuthScheme;
use self::store::StoreError;

/// The current time, read once per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Unix time in milliseconds, for the dates of credentials.
    pub unix_ms: i64,
    /// Milliseconds since the first call of [`Now::read`], for cache lifetimes. Monotonic.
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

    /// Unix time in whole seconds.
    pub fn unix_seconds(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

/// The result of authenticating one credential.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The credential is valid.
    Accepted {
        /// The user.
        identity: Arc<Identity>,
        /// When the credential itself is valid.
        validity: Validity,
    },
    /// The credential is refused.
    Refused(Refusal),
}

impl Decision {
    fn into_result(self) -> Result<Arc<Identity>, Refusal> {
        match self {
            Self::Accepted { identity, .. } => Ok(identity),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

/// The result of authenticating one request.
#[derive(Debug)]
pub enum Verdict {
    /// The request has no credential for any authenticator of the route.
    Pass,
    /// An authenticator accepted the credential.
    Accept(Arc<Identity>),
    /// A credential was refused.
    Refuse(Refused),
}

/// The authenticator that refused, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Position of the authenticator in its route's order.
    pub by: usize,
    /// The reason.
    pub refusal: Refusal,
}

/// A route's authenticators, in its order.
#[derive(Debug, Clone)]
pub struct Chain {
    authenticators: Rc<[Rc<Authenticator>]>,
}

/// An authenticator failed: its store is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("authenticator {authenticator} failed")]
pub struct Unavailable {
    /// Its name.
    pub authenticator: Arc<str>,
    /// The cause.
    #[source]
    pub source: StoreError,
}

impl Chain {
    /// Makes a chain of these authenticators.
    pub fn new(authenticators: Vec<Rc<Authenticator>>) -> Self {
        Self {
            authenticators: authenticators.into(),
        }
    }

    /// The authenticators.
    pub fn authenticators(&self) -> impl Iterator<Item = &Authenticator> {
        self.authenticators.iter().map(AsRef::as_ref)
    }

    /// Tries each authenticator in order, until one accepts or refuses.
    ///
    /// # Errors
    /// An authenticator failed. The remaining ones are not tried: one of them might accept a credential that the failed one would refuse.
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

    /// Whether a credential header of this chain occurs more than once.
    pub fn saw_repeated_credential(&self, headers: &HeaderMap) -> bool {
        self.authenticators.iter().any(|authenticator| {
            matches!(
                Presented::from_headers(headers, authenticator.header()),
                Presented::Several(_)
            )
        })
    }
}

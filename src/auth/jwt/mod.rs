//! `Authorization: Bearer <jwt>`: checked as SimpleJWT's `JWTAuthentication` and `JWTStatelessUserAuthentication` do, in the same order.
//!
//! This module parses tokens itself, strictly. Only the signature is verified by a library.

mod claims;
pub mod explain;
mod json;
pub mod keys;
mod named;
mod segments;
mod settings;
pub mod sign;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use tokio::time::{Instant, timeout_at};

use self::claims::Claims;
use self::keys::VerificationKey;
use self::named::{NamedUser, unnamed};
use self::segments::Segments;
pub use self::settings::{KeptClaims, KeySet, Profile, Rules, Settings, TokenType, UserIdField, Users};
use super::cache::{self, Key, VerdictCache};
use super::dependencies::{ChangeCounters, Dependencies};
use super::single_flight::{SingleFlight, WorkQueue};
use super::store::{Lookup, NO_STORE, Store, StoreError};
use super::{Decision, Now};
use crate::credential::{Acceptance, Defect, JwtFault, Refusal, Shape, Words};
use crate::identity::{Identity, UserInfo};
use crate::outbound::identity::IdentityTables;
use crate::telemetry::auth::CacheMetrics;

/// The part that all workers share.
#[derive(Debug)]
pub struct Shared {
    settings: Settings,
    cache: VerdictCache,
    tables: Arc<IdentityTables>,
}

impl Shared {
    /// Makes the shared part from the settings. Identities get header values for each of `tables`.
    pub fn new(settings: Settings, tables: Arc<IdentityTables>, counters: Arc<ChangeCounters>) -> Arc<Self> {
        Arc::new(Self {
            cache: VerdictCache::new(settings.cache, counters),
            settings,
            tables,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The metrics of its cache.
    pub fn metrics(&self) -> &CacheMetrics {
        self.cache.metrics()
    }
}

/// One worker's authenticator.
#[derive(Debug)]
pub struct JwtAuthenticator {
    shared: Arc<Shared>,
    users: Option<Rc<Store>>,
    revocation: Option<Rc<Store>>,
    single_flight: SingleFlight<(Decision, Dependencies)>,
    queue: Rc<WorkQueue>,
}

/// Why authentication ended without an identity.
enum End {
    Refused(Refusal),
    Unknown(StoreError),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<JwtFault> for End {
    fn from(fault: JwtFault) -> Self {
        Self::Refused(Refusal::Jwt(fault))
    }
}

impl From<Defect> for End {
    fn from(defect: Defect) -> Self {
        JwtFault::from(defect).into()
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error)
    }
}

/// A well-formed token with a valid signature. Its claims are not checked yet.
#[derive(Debug)]
struct Signed<'t, 'k> {
    segments: Segments<'t>,
    key: &'k VerificationKey,
}

impl<'t, 'k> Signed<'t, 'k> {
    fn check(settings: &'k Settings, token: &'t [u8]) -> Result<Self, Defect> {
        if token.len() > settings.token_bytes {
            return Err(Defect::Size);
        }
        let segments = Segments::parse(token, settings.rules.profile.padding())?;
        if settings.rules.profile == Profile::Rfc9068 && !segments.header.access_token {
            return Err(Defect::HeaderType);
        }
        let (keys, by_kid) = match &settings.keys {
            KeySet::Static(keys) => (keys, false),
            KeySet::Jwks(keys) => (keys, true),
        };
        let mut defect = Defect::KeyId;
        for key in keys {
            let agree = match (key.kid(), segments.header.kid.as_deref()) {
                (Some(own), Some(sent)) => own == sent,
                _ => !by_kid,
            };
            if !agree {
                continue;
            }
            if key.algorithm().name() != segments.header.alg {
                defect = defect.max(Defect::Algorithm);
                continue;
            }
            if key.verifies(segments.signed, &segments.signature) {
                return Ok(Self { segments, key });
            }
            defect = Defect::Signature;
        }
        Err(defect)
    }
}

/// The payload of a token, after its signature was verified with a key of `settings`. Its claims are not checked.
///
/// # Errors
/// The token is malformed, or no key verifies its signature.
pub fn verified_payload(settings: &Settings, token: &[u8]) -> Result<Vec<u8>, Defect> {
    Signed::check(settings, token).map(|signed| signed.segments.into_payload())
}

impl JwtAuthenticator {
    /// Combines the shared part with this worker's handles on the stores and its queue for signature verification.
    pub fn new(
        shared: Arc<Shared>,
        users: Option<Rc<Store>>,
        revocation: Option<Rc<Store>>,
        queue: Rc<WorkQueue>,
    ) -> Self {
        Self {
            shared,
            users,
            revocation,
            single_flight: SingleFlight::default(),
            queue,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.shared.settings.name
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.shared.settings.header
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// `None`: the credential has another scheme.
    pub(super) async fn authenticate(
        &self,
        words: &Words<'_>,
        acceptance: Acceptance,
        now: Now,
    ) -> Result<Option<Result<Arc<Identity>, Refusal>>, StoreError> {
        let shape = words.shape();
        let settings = &self.shared.settings;
        let mine = |sent: &[u8]| {
            let is_sent = |own: &String| settings.rules.profile.is_scheme(own, sent);
            settings.schemes.iter().any(is_sent)
        };
        if !shape.scheme().is_some_and(mine) {
            return Ok(None);
        }
        let refused = |defect: Defect| Ok(Some(Err(Refusal::Jwt(defect.into()))));
        let Shape::Pair(_, token) = shape else {
            return Ok(Some(Err(Refusal::BearerNotTwoWords)));
        };
        if acceptance == Acceptance::RefuseOnly {
            return refused(Defect::Repeated);
        }
        if token.len() > settings.token_bytes {
            return refused(Defect::Size);
        }
        let key = cache::key(token);
        if let Some(verdict) = self.shared.cache.find(&key, now) {
            return Ok(Some(verdict));
        }
        // Boxed: this future is large and rarely needed, so it must not enlarge the future of each request.
        Box::pin(self.look_up(key, token, now))
            .await
            .map(|decision| Some(decision.into_verdict()))
    }

    /// Authenticates a token that is not in the cache, or waits for another request that has begun to authenticate the same token.
    async fn look_up(&self, key: Key, token: &[u8], now: Now) -> Result<Decision, StoreError> {
        let deadline = Instant::now() + self.time_limit();
        let decision = async {
            if self.shared.cache.is_off() {
                return self.ask_all(key, token, deadline, now).await;
            }
            let good = |(decision, dependencies): &(Decision, Dependencies)| {
                self.shared.cache.holds(decision, dependencies, now)
            };
            self.single_flight
                .share(key, || self.ask_all(key, token, deadline, now), good)
                .await
        };
        match timeout_at(deadline, decision).await {
            Ok(decision) => decision.map(|(decision, _)| decision),
            Err(_) => Err(self.slowest().map_or(StoreError::Busy, Store::too_late)),
        }
    }

    fn slowest(&self) -> Option<&Store> {
        let stores = self.users.iter().chain(&self.revocation);
        stores.map(AsRef::as_ref).max_by_key(|store| store.time_limit())
    }

    /// The deadline for authenticating one token.
    fn time_limit(&self) -> Duration {
        self.slowest().map_or(NO_STORE, Store::time_limit)
    }

    /// Waits in the queue, verifies the token, asks the stores, and caches the decision.
    async fn ask_all(
        &self,
        key: Key,
        token: &[u8],
        deadline: Instant,
        now: Now,
    ) -> Result<(Decision, Dependencies), StoreError> {
        self.queue.next().await;
        let mut lookup = Lookup::until(deadline);
        let decision = match self.evaluate(token, now, &mut lookup).await {
            Ok(decision) => decision,
            Err(End::Refused(refusal)) => Decision::Refused(refusal),
            Err(End::Unknown(error)) => return Err(error),
        };
        self.shared.cache.insert(key, &decision, lookup.dependencies, now);
        Ok((decision, lookup.dependencies))
    }

    /// All checks, in the order of SimpleJWT.
    async fn evaluate(&self, token: &[u8], now: Now, lookup: &mut Lookup) -> Result<Decision, End> {
        let settings = &self.shared.settings;
        let Signed { segments, key } = Signed::check(settings, token)?;
        let claims = Claims::check(segments.claims()?, &settings.rules, now)?;

        let named = claims
            .get(&settings.rules.user_id_claim)
            .map(|claim| NamedUser::from_claim(claim, &settings.users));
        let jti = match (&settings.revocation, &settings.rules.jti_claim) {
            (Some(_), Some(name)) => claims.revocable_id(name)?,
            (None, _) | (_, None) => None,
        };
        let facts = self.ask(jti.as_deref(), key, named.as_ref(), lookup).await?;
        if facts.jti_revoked || facts.kid_revoked || facts.user_revoked.is_some_and(|by| claims.issued_by(by)) {
            let as_access = claims.check_kind(&settings.rules, &[TokenType::Access]);
            return Err(JwtFault::Revoked(as_access.err()).into());
        }
        claims
            .check_kind(&settings.rules, &settings.rules.token_types)
            .map_err(JwtFault::TypeMismatch)?;

        let Some(named) = named else {
            return Err(unnamed(&settings.rules.user_id_claim, "is absent").into());
        };
        let validity = claims.validity;
        let user_info = match &settings.users {
            Users::Claims { username_claim } => self.known_by_claims(claims, named, username_claim)?,
            Users::Store {
                check_active,
                revoke_claim,
                ..
            } => {
                let user = facts.user.ok_or(Refusal::JwtUserNotFound)?;
                if *check_active && !user.active {
                    return Err(Refusal::JwtUserInactive.into());
                }
                if let Some(name) = revoke_claim
                    && (user.password_md5.is_none() || user.password_md5.as_deref() != claims.text(name))
                {
                    return Err(Refusal::JwtPasswordChanged.into());
                }
                UserInfo {
                    authenticator: Arc::clone(&settings.name),
                    id: user.id,
                    username: user.username,
                    email: user.email,
                    groups: user.groups,
                    scopes: Vec::new(),
                    claims: claims.only(&settings.kept.claims),
                    attributes: user.attributes,
                }
            }
        };
        let identity = self
            .shared
            .tables
            .identity(user_info)
            .map_err(|error| Refusal::JwtUnsendableClaim(error.to_string().into()))?;
        Ok(Decision::Accepted {
            identity: Arc::new(identity),
            validity,
        })
    }
}

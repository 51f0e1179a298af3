//! `Authorization: Bearer <jwt>`, checked as SimpleJWT's `JWTAuthentication` and `JWTStatelessUserAuthentication` do, in the same order.
//!
//! This module parses tokens itself, strictly. Only the signature is verified by a library.

pub mod explain;
pub mod identity_key;
mod issuers;
mod key_set;
mod key_sources;
mod profile;
mod revocable;
mod rules;
pub(crate) mod segments;
mod settings;
pub mod sign;
mod signed;
mod user;
mod users;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::{Acceptance, Defect, JwtFault, Refusal, Shape, Words};
use authgate_core::identity::UserInfo;

use self::issuers::SelectedIssuer;
pub use self::issuers::{InvalidNamespace, Issuer, IssuerTable, Issuers, Namespace};
pub use self::key_set::KeySet;
pub use self::key_sources::KeySources;
use self::key_sources::NotFound;
pub use self::rules::{Profile, Rules, TokenType};
pub use self::settings::JwtSettings;
use self::signed::Unverified;
pub use self::users::{UserIdField, Users};
use crate::claims::Claims;
use crate::claims::user::{ClaimProblem, NamedUser, user_info};
use crate::decision::{Decision, RefusedCredential};
use crate::error::EvaluationError;
use crate::identities::IdentityFactory;
pub use crate::keys;
use crate::keys::VerificationKey;
use crate::now::Now;
use crate::outage::Outage;
use crate::reading::Reading;
use crate::scheme::AuthScheme;
use crate::single_flight::WorkQueue;
use crate::store::{JwtFacts, Lookup, Store, StoreError};
use crate::worker::WorkerResources;

/// One worker's evaluator.
#[derive(Debug)]
pub struct JwtEvaluator {
    settings: Arc<JwtSettings>,
    identities: IdentityFactory,
    /// For each issuer, in order: the store of its users, if they are in one.
    users: Box<[Option<Rc<Store>>]>,
    revocation: Option<Rc<Store>>,
    /// The time limit of the slowest of its stores.
    store_time_limit: Duration,
    sources: KeySources,
    queue: Rc<WorkQueue>,
}

/// Why an evaluation ended without an identity.
enum Stop {
    Refused(RefusedCredential),
    Failed(EvaluationError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<JwtFault> for Stop {
    fn from(fault: JwtFault) -> Self {
        Refusal::Jwt(fault).into()
    }
}

impl From<Defect> for Stop {
    fn from(defect: Defect) -> Self {
        JwtFault::from(defect).into()
    }
}

impl From<NotFound> for Stop {
    fn from(not_found: NotFound) -> Self {
        match not_found {
            NotFound::Defect(defect) => defect.into(),
            NotFound::Failed(error) => Self::Failed(error),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl JwtEvaluator {
    pub(super) fn new(
        settings: &Arc<JwtSettings>,
        sources: &KeySources,
        identities: &IdentityFactory,
        worker: &WorkerResources,
    ) -> Self {
        let issuers = settings.issuers.all();
        let users = issuers.map(|issuer| issuer.users.store().map(|store| worker.store(store)));
        let users: Vec<Option<Rc<Store>>> = users.collect();
        let revocation = settings.revocation.as_ref().map(|store| worker.store(store));
        let limits = users
            .iter()
            .flatten()
            .chain(&revocation)
            .map(|store| store.time_limit());
        Self {
            identities: identities.clone(),
            store_time_limit: limits.max().unwrap_or_default(),
            users: users.into_boxed_slice(),
            revocation,
            sources: sources.clone(),
            queue: worker.queue(),
            settings: Arc::clone(settings),
        }
    }

    pub(super) fn read<'w>(&self, scheme: &AuthScheme, words: &'w Words<'_>, acceptance: Acceptance) -> Reading<'w> {
        let shape = words.shape();
        if !shape.scheme().is_some_and(|sent| scheme.is(sent)) {
            return Reading::OtherScheme;
        }
        let Shape::Pair(_, token) = shape else {
            return Reading::Malformed(Refusal::BearerNotTwoWords);
        };
        if !self.settings.form.matches(token) {
            return Reading::OtherForm(Refusal::Jwt(Defect::Form.into()));
        }
        if acceptance == Acceptance::RefuseOnly {
            return Reading::Malformed(Refusal::Jwt(Defect::Repeated.into()));
        }
        if token.len() > self.settings.issuers.token_bytes() {
            return Reading::Malformed(Refusal::Jwt(Defect::Size.into()));
        }
        Reading::Credential(token)
    }

    /// An outage of the store with revocations, or of all stores with users.
    pub(super) fn down(&self) -> Option<&Outage> {
        // With keys that are too old, a token does not get as far as the stores.
        if self.sources.all().any(|source| source.keys().is_err()) {
            return None;
        }
        if let Some(outage) = self.revocation.as_ref().and_then(|store| store.down()) {
            return Some(outage);
        }
        let mut users = self
            .users
            .iter()
            .map(|store| store.as_ref().and_then(|store| store.down()));
        let first = users.next()??;
        users.all(|outage| outage.is_some()).then_some(first)
    }

    /// Waits in the queue, then verifies the token and asks the stores.
    pub(super) async fn evaluate(
        &self,
        token: &[u8],
        now: Now,
        lookup: &mut Lookup,
    ) -> Result<Decision, EvaluationError> {
        self.queue.next().await;
        match self.check(token, now, lookup).await {
            Ok(decision) => Ok(decision),
            Err(Stop::Refused(refused)) => Ok(Decision::Refused(refused)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// All checks, in the order of SimpleJWT. With several issuers, that of `iss` comes before the signature.
    async fn check(&self, token: &[u8], now: Now, lookup: &mut Lookup) -> Result<Decision, Stop> {
        let settings = &*self.settings;
        let unverified = Unverified::parse(&settings.issuers, token)?;
        let found;
        let signed = match self.sources.of_issuer(unverified.selected.at) {
            None => unverified.verify()?,
            Some(source) => {
                found = key_sources::find(source, &unverified, async || self.queue.next().await, lookup).await?;
                let key = found.known.keys.get(found.at).ok_or(Defect::KeyId)?;
                unverified.signed_by(key)
            }
        };
        let verified = signed.verified_by();
        let Issuer {
            rules,
            users,
            namespace,
            ..
        } = verified.selected.issuer;
        let claims = profile::check(signed.claims()?, rules, now)?;

        let named = claims
            .get(&rules.user_id_claim)
            .map(|claim| namespace.user(NamedUser::from_claim(claim, users.id_numbers())));
        let jti = match (&settings.revocation, &rules.jti_claim) {
            (Some(_), Some(name)) => claims.revocable_id(name)?,
            (None, _) | (_, None) => None,
        };
        let facts = self.look_up(jti.as_deref(), verified, named.as_ref(), lookup).await?;
        let by_claim = named.as_ref().and_then(NamedUser::id);
        let user = facts.user.as_ref().map(|user| &user.id).or(by_claim).cloned();
        self.check_facts(claims, facts, named, verified)
            .map_err(|refusal| Stop::Refused(RefusedCredential::new(refusal, user)))
    }

    /// The checks after the look-up.
    fn check_facts(
        &self,
        claims: Claims,
        facts: JwtFacts,
        named: Option<NamedUser>,
        verified: VerifiedBy<'_, '_>,
    ) -> Result<Decision, Refusal> {
        let Issuer {
            rules, users, binding, ..
        } = verified.selected.issuer;
        if facts.jti_revoked || facts.kid_revoked || facts.user_revoked.is_some_and(|by| claims.issued_by(by)) {
            let as_access = profile::check_kind(&claims, rules, &[TokenType::Access]);
            return Err(Refusal::Jwt(JwtFault::Revoked(as_access.err())));
        }
        profile::check_kind(&claims, rules, &rules.token_types).map_err(|mismatch| Refusal::Jwt(mismatch.into()))?;

        let Some(named) = named else {
            return Err(refusal(ClaimProblem::names_no_user(&rules.user_id_claim, "is absent")));
        };
        let validity = claims.validity;
        let binding = binding.bind(claims.get("cnf"));
        let issuer = verified.selected.name.cloned();
        let key = Some(Arc::clone(verified.key.identity()));
        let user_info = match users {
            Users::Claims { username_claim } => {
                let id = named.into_id(&rules.user_id_claim).map_err(refusal)?;
                let claimed = user_info(claims, id, username_claim, &self.identities, key).map_err(refusal)?;
                UserInfo { issuer, ..claimed }
            }
            Users::Store {
                check_active,
                revoke_claim,
                ..
            } => {
                let user = facts.user.ok_or(Refusal::JwtUserNotFound)?;
                if *check_active && !user.active {
                    return Err(Refusal::JwtUserInactive);
                }
                if let Some(name) = revoke_claim
                    && (user.password_md5.is_none() || user.password_md5.as_deref() != claims.text(name))
                {
                    return Err(Refusal::JwtPasswordChanged);
                }
                UserInfo {
                    authenticator: self.identities.authenticator(),
                    issuer,
                    key,
                    id: user.id,
                    username: user.username,
                    email: user.email,
                    groups: user.groups,
                    scopes: Vec::new(),
                    claims: claims.only(&self.identities.kept_claims().claims),
                    attributes: user.attributes,
                }
            }
        };
        let identity = self
            .identities
            .identity(user_info)
            .map_err(|error| Refusal::JwtUnsendableClaim(error.to_string().into()))?;
        Ok(Decision::Accepted {
            identity,
            validity,
            binding: binding?,
        })
    }
}

/// The payload of a token, after its signature was verified with a key of `settings`. Its claims are not checked.
///
/// # Errors
/// The token is malformed, its issuer is not known, or no key of the issuer verifies its signature.
pub fn verified_payload(settings: &JwtSettings, token: &[u8]) -> Result<Vec<u8>, Defect> {
    let signed = Unverified::parse(&settings.issuers, token)?.verify()?;
    Ok(signed.into_payload())
}

/// What has verified a token: an issuer, and one of its keys.
#[derive(Debug, Clone, Copy)]
struct VerifiedBy<'s, 'k> {
    selected: SelectedIssuer<'s>,
    key: &'k VerificationKey,
}

fn refusal(problem: ClaimProblem) -> Refusal {
    match problem {
        ClaimProblem::NamesNoUser(which) => Refusal::JwtInvalidUserClaim(which),
        ClaimProblem::Unsendable(which) => Refusal::JwtUnsendableClaim(which),
    }
}

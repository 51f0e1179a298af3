//! Tokens that only an authorization server knows: each is introspected at an endpoint of that server (RFC 7662).
//!
//! The endpoint says whether a token is active, and what it says about it: claims, which are checked and read as those of a JWT. The gateway
//! asks with its own credentials. What the endpoint cannot answer is an error, and never a refusal.

mod answer;
mod client;
mod endpoint;
mod endpoint_settings;
pub(crate) mod error;
mod location;
mod revocable;
mod settings;

use std::rc::Rc;
use std::sync::Arc;

use authgate_core::credential::{Acceptance, Defect, IntrospectionFault, Refusal, Shape, Words};
use tokio::time::Instant;

pub(crate) use self::answer::Answer;
pub use self::client::{ClientAuthentication, IntrospectionClient};
pub use self::endpoint::{IntrospectionStatus, SharedEndpoint};
pub use self::endpoint_settings::EndpointSettings;
pub use self::error::IntrospectionError;
pub use self::location::Location;
pub use self::settings::{IntrospectionRules, IntrospectionSettings};
use crate::claims::Claims;
use crate::claims::user::{ClaimProblem, IdNumbers, NamedUser, user_info};
use crate::decision::{Decision, RefusedCredential};
use crate::error::EvaluationError;
use crate::identities::IdentityFactory;
use crate::now::Now;
use crate::outage::Outage;
use crate::reading::Reading;
use crate::scheme::AuthScheme;
use crate::store::{JwtFacts, JwtQuery, Lookup, Store};
use crate::worker::WorkerResources;

/// One worker's evaluator.
#[derive(Debug)]
pub(super) struct IntrospectionEvaluator {
    settings: Arc<IntrospectionSettings>,
    identities: IdentityFactory,
    endpoint: Arc<SharedEndpoint>,
    revocation: Option<Rc<Store>>,
}

impl IntrospectionEvaluator {
    pub(super) fn new(
        settings: &Arc<IntrospectionSettings>,
        endpoint: &Arc<SharedEndpoint>,
        identities: &IdentityFactory,
        worker: &WorkerResources,
    ) -> Self {
        Self {
            identities: identities.clone(),
            endpoint: Arc::clone(endpoint),
            revocation: settings.revocation.as_ref().map(|store| worker.store(store)),
            settings: Arc::clone(settings),
        }
    }

    pub(super) fn read<'w>(&self, scheme: &AuthScheme, words: &'w Words<'_>, acceptance: Acceptance) -> Reading<'w> {
        let shape = words.shape();
        if !shape.scheme().is_some_and(|sent| scheme.is(sent)) {
            return Reading::OtherScheme;
        }
        let token = match shape {
            Shape::Empty => return Reading::OtherScheme,
            Shape::Scheme(_) => return Reading::Malformed(Refusal::TokenMissing),
            Shape::More(_) => return Reading::Malformed(Refusal::TokenHasSpaces),
            Shape::Pair(_, token) => token,
        };
        if !self.settings.form.matches(token) {
            return Reading::OtherForm(IntrospectionFault::Invalid(Defect::Form).into());
        }
        // RFC 6749, appendix A.12: visible ASCII.
        if !token.iter().all(u8::is_ascii_graphic) {
            return Reading::Malformed(Refusal::TokenHasInvalidCharacters);
        }
        // The endpoint is not asked about what no client has sent.
        if acceptance == Acceptance::RefuseOnly {
            return Reading::Malformed(IntrospectionFault::Invalid(Defect::Repeated).into());
        }
        if token.len() > self.settings.token_bytes {
            return Reading::Malformed(IntrospectionFault::Invalid(Defect::Size).into());
        }
        Reading::Credential(token)
    }

    /// An outage of the endpoint, or of the store with revocations. In the second, the endpoint is not asked either, or else it would get
    /// every request.
    pub(super) fn down(&self) -> Option<&Outage> {
        let of_endpoint = self.endpoint.down();
        of_endpoint.or_else(|| self.revocation.as_ref().and_then(|store| store.down()))
    }

    /// Introspects the token, checks the claims of the answer, and asks the store with revocations.
    pub(super) async fn evaluate(
        &self,
        token: &[u8],
        now: Now,
        lookup: &mut Lookup,
    ) -> Result<Decision, EvaluationError> {
        let began = Instant::now();
        let answer = self.endpoint.introspect(token).await?;
        let now = now.later(began.elapsed());
        let claims = match answer {
            Answer::Inactive => return Ok(Refusal::from(IntrospectionFault::Inactive).into()),
            Answer::Active(members) => match Claims::check(members, self.settings.rules.claims(), now) {
                Ok(claims) => claims,
                Err(fault) => return Ok(Refusal::from(IntrospectionFault::from(fault)).into()),
            },
        };
        let rules = &self.settings.rules;
        let named = claims
            .get(&rules.user_id_claim)
            .map(|claim| NamedUser::from_claim(claim, IdNumbers::Integers));
        let jti = match rules.jti_claim.as_deref().filter(|_| self.revocation.is_some()) {
            None => None,
            Some(name) => match claims.revocable_id(name) {
                Ok(id) => id,
                Err(defect) => return Ok(Refusal::from(IntrospectionFault::Invalid(defect)).into()),
            },
        };
        let user = named.as_ref().and_then(NamedUser::id).cloned();
        let revocations = JwtQuery {
            jti: jti.as_deref(),
            revoked_user: user.as_ref(),
            ..JwtQuery::default()
        };
        let facts = self.look_up(revocations, lookup).await?;
        let accepted = match facts.jti_revoked || facts.user_revoked.is_some_and(|by| claims.issued_by(by)) {
            true => Err(IntrospectionFault::Revoked.into()),
            false => accept(claims, named, rules, &self.identities),
        };
        Ok(match accepted {
            Ok(decision) => decision,
            Err(refusal) => Decision::Refused(RefusedCredential::new(refusal, user)),
        })
    }

    async fn look_up(&self, revocations: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, EvaluationError> {
        let Some(store) = &self.revocation else {
            return Ok(JwtFacts::default());
        };
        lookup.deadline = lookup.deadline.min(Instant::now() + store.time_limit());
        Ok(store.jwt(revocations, lookup).await?)
    }
}

/// Makes the identity of the user that the claims name.
pub(crate) fn accept(
    claims: Claims,
    named: Option<NamedUser>,
    rules: &IntrospectionRules,
    identities: &IdentityFactory,
) -> Result<Decision, Refusal> {
    let absent = || ClaimProblem::names_no_user(&rules.user_id_claim, "is absent");
    let id = named
        .ok_or_else(absent)
        .and_then(|named| named.into_id(&rules.user_id_claim))
        .map_err(IntrospectionFault::from)?;
    let validity = claims.validity;
    let binding = rules.binding.bind(claims.get("cnf"))?;
    let user_info = user_info(claims, id, &rules.username_claim, identities, None).map_err(IntrospectionFault::from)?;
    let identity = identities.identity(user_info);
    let identity = identity.map_err(|error| IntrospectionFault::Unsendable(error.to_string().into()))?;
    Ok(Decision::Accepted {
        identity,
        validity,
        binding,
    })
}

impl From<ClaimProblem> for IntrospectionFault {
    fn from(problem: ClaimProblem) -> Self {
        match problem {
            ClaimProblem::NamesNoUser(which) => Self::NamesNoUser(which),
            ClaimProblem::Unsendable(which) => Self::Unsendable(which),
        }
    }
}

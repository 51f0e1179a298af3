//! Authenticators: what all kinds have in common.
//!
//! An authenticator reads the credential from its header and looks in its cache. On a miss, one request evaluates the credential within a
//! deadline, and concurrent requests with the same credential wait for the result. [`kind`](super::kind) has the table of kinds, which
//! say how a header is read and how a credential is evaluated.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::{Presented, Refusal, Words};
use authgate_core::identity::Identity;
use http::header::{HeaderName, HeaderValue};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::basis::Basis;
use crate::binding::{AcceptedCredential, BindingChecker};
use crate::binding_rules::TokenBinding;
use crate::cache::{self, CacheSettings, ConfirmedBy, DecisionCache, OnOutage};
use crate::decision::{AcceptedUser, Decision, RefusedCredential};
use crate::dependencies::{ChangeCounters, Dependencies};
use crate::error::{EvaluationError, Unanswered};
use crate::held::{HeldCredential, Standing};
use crate::identities::{IdentityFactory, IdentityRules};
use crate::introspection::{IntrospectionError, SharedEndpoint};
use crate::jwt::JwtEvaluator;
use crate::keys::remote::SharedKeySource;
use crate::kind::{Evaluator, KindSettings, SharedKind};
use crate::metrics::CacheMetrics;
use crate::now::Now;
use crate::outage::Outage;
use crate::reading::Reading;
use crate::request::RequestFacts;
use crate::revocable::Revocable;
use crate::scheme::AuthScheme;
use crate::single_flight::SingleFlight;
use crate::store::{LOCAL_TIME_LIMIT, Lookup, Store};
use crate::worker::WorkerResources;

/// The configuration of one authenticator.
#[derive(Debug, PartialEq, Eq)]
pub struct AuthenticatorSettings {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The header that carries the credential.
    pub header: HeaderName,
    /// The scheme before the credential.
    pub scheme: AuthScheme,
    /// The realm of its challenge, if its kind has one.
    pub realm: Option<String>,
    /// Limits of its cache.
    pub cache: CacheSettings,
    /// What happens if a store or an endpoint that it asks cannot answer.
    pub on_outage: OnOutage,
    /// Its kind, with the settings of that kind.
    pub kind: KindSettings,
}

/// An authenticator of the process: its settings and its cache. All workers share it.
///
/// It is immutable. With other settings, or with other rules for identities, a new one is made, whose cache is empty.
#[derive(Debug)]
pub struct SharedAuthenticator {
    settings: AuthenticatorSettings,
    kind: SharedKind,
    /// All its identities were made by `identities`.
    cache: DecisionCache,
    identities: IdentityFactory,
    /// For a kind that asks over a network on behalf of all workers. The others have one in each worker.
    single_flight: Arc<SingleFlight<Outcome>>,
}

impl SharedAuthenticator {
    /// Makes an authenticator whose identities are made by these rules. `counters` are those of its stores.
    pub fn new(
        settings: AuthenticatorSettings,
        rules: &Arc<IdentityRules>,
        counters: &Arc<ChangeCounters>,
    ) -> Arc<Self> {
        let kind = settings.kind.share(&settings.name, None, counters);
        Self::with_kind(kind, settings, rules, counters)
    }

    /// Makes the authenticator that replaces this one. It takes over the connections that the change of the settings leaves as they are.
    pub fn next(
        &self,
        settings: AuthenticatorSettings,
        rules: &Arc<IdentityRules>,
        counters: &Arc<ChangeCounters>,
    ) -> Arc<Self> {
        let kind = settings.kind.share(&settings.name, Some(&self.kind), counters);
        Self::with_kind(kind, settings, rules, counters)
    }

    fn with_kind(
        kind: SharedKind,
        settings: AuthenticatorSettings,
        rules: &Arc<IdentityRules>,
        counters: &Arc<ChangeCounters>,
    ) -> Arc<Self> {
        let confirmed_by = match kind.endpoint() {
            Some(_) => ConfirmedBy::Nothing,
            None => ConfirmedBy::Stores,
        };
        Arc::new(Self {
            kind,
            cache: DecisionCache::new(settings.cache, settings.on_outage, confirmed_by, Arc::clone(counters)),
            identities: IdentityFactory::new(Arc::clone(&settings.name), Arc::clone(rules)),
            single_flight: Arc::default(),
            settings,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &AuthenticatorSettings {
        &self.settings
    }

    /// Whether one with these settings and rules would decide in the same way, provided that its [`stores`](Self::stores) are the same. Then
    /// this one can be kept, with its cache.
    pub fn is_same(&self, settings: &AuthenticatorSettings, rules: &Arc<IdentityRules>) -> bool {
        self.settings == *settings && self.identities.uses(rules)
    }

    /// Names of the stores that its decisions depend on.
    pub fn stores(&self) -> Vec<&Arc<str>> {
        self.settings.kind.stores()
    }

    /// Lets it ask over the network from the current runtime. Only the first call has an effect.
    pub fn start(&self) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.start();
        }
        for source in self.key_sources() {
            source.start();
        }
    }

    /// Its introspection endpoint, if it asks one.
    pub fn endpoint(&self) -> Option<&Arc<SharedEndpoint>> {
        self.kind.endpoint()
    }

    /// The sources of its keys, where identity providers publish them.
    pub fn key_sources(&self) -> impl Iterator<Item = &Arc<SharedKeySource>> {
        self.kind.key_sources()
    }

    /// What it says about a token that is to be revoked, without the stores. Call it on the runtime of [`Self::start`].
    ///
    /// # Errors
    /// Keys or an endpoint, which it asks over the network, are not there.
    pub async fn revocable(&self, token: &[u8], now: Now) -> Result<Revocable, EvaluationError> {
        let deadline = Instant::now() + self.kind.network_timeout() + LOCAL_TIME_LIMIT;
        self.kind.revocable(token, now, deadline).await
    }

    /// The metrics of its cache.
    pub fn metrics(&self) -> &CacheMetrics {
        self.cache.metrics()
    }
}

/// A decision about a held credential that is not cached is used for at least this long if changes are not reported.
const SHORTEST_CONFIRMATION: Duration = Duration::from_secs(1);

/// The result of evaluating a credential, which requests with the same credential share. An endpoint that fails has failed for all that wait.
type Outcome = Result<(Decision, Dependencies), IntrospectionError>;

/// What an authenticator says about a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The request has no credential for it.
    NoCredential,
    /// The request has a credential of its scheme, in a form that it does not read. It is refused for this reason if no other authenticator of
    /// the route reads it.
    OtherForm(Refusal),
    /// The credential is accepted or refused.
    Decided(Result<Arc<Identity>, RefusedCredential>),
}

#[cfg(test)]
impl Answer {
    /// The decision, if there is one.
    pub(super) fn decided(self) -> Option<Result<Arc<Identity>, RefusedCredential>> {
        match self {
            Self::Decided(decided) => Some(decided),
            Self::NoCredential | Self::OtherForm(_) => None,
        }
    }
}

/// One worker's authenticator.
#[derive(Debug)]
pub struct Authenticator {
    shared: Arc<SharedAuthenticator>,
    basis: Rc<Basis>,
    evaluator: Evaluator,
    binding: BindingChecker,
    stores: Vec<Rc<Store>>,
    /// The number of the last outage in which it has used a cached decision.
    recalled_in: Cell<u64>,
    /// Of its stores, the one with the longest time limit.
    slowest_store: Option<Rc<Store>>,
    single_flight: Arc<SingleFlight<Outcome>>,
}

impl Authenticator {
    /// Makes the authenticator of one worker.
    pub fn new(shared: &Arc<SharedAuthenticator>, worker: &WorkerResources) -> Self {
        let kind = &shared.settings.kind;
        let stores: Vec<Rc<Store>> = kind.stores().into_iter().map(|name| worker.store(name)).collect();
        let store_settings = stores.iter().map(|store| store.settings().clone());
        Self {
            basis: Rc::new(Basis::new(&shared.settings.name, kind, store_settings.collect())),
            evaluator: shared.kind.evaluator(&shared.identities, worker),
            slowest_store: stores.iter().max_by_key(|store| store.time_limit()).cloned(),
            binding: BindingChecker::new(worker, stores.clone()),
            stores,
            recalled_in: Cell::new(0),
            single_flight: match shared.endpoint() {
                Some(_) => Arc::clone(&shared.single_flight),
                None => Arc::default(),
            },
            shared: Arc::clone(shared),
        }
    }

    /// Whether it is this worker's part of that authenticator.
    pub fn is_of(&self, shared: &Arc<SharedAuthenticator>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.settings.name
    }

    /// What its acceptance of a credential is based on.
    pub fn basis(&self) -> &Rc<Basis> {
        &self.basis
    }

    /// The header that it reads.
    pub fn header(&self) -> &HeaderName {
        &self.shared.settings.header
    }

    /// The settings.
    pub fn settings(&self) -> &AuthenticatorSettings {
        &self.shared.settings
    }

    /// Its evaluator, if it is for JWTs.
    pub fn as_jwt(&self) -> Option<&JwtEvaluator> {
        self.evaluator.as_jwt()
    }

    /// The deadline for one credential, over all lookups.
    pub fn time_limit(&self) -> Duration {
        let stores = self
            .slowest_store
            .as_ref()
            .map_or(LOCAL_TIME_LIMIT, |store| store.time_limit());
        // The stores are asked after that.
        stores + self.shared.kind.network_timeout()
    }

    /// Whether all that its decisions depend on reports changes now. Otherwise, a decision must be confirmed again after the `ttl` of the
    /// cache.
    pub fn reports_changes(&self) -> bool {
        self.shared.endpoint().is_none() && self.stores.iter().all(|store| store.reports_changes())
    }

    /// Whether a credential that has expired may have been extended meanwhile, without a report.
    pub fn may_extend_credentials(&self) -> bool {
        self.shared.settings.kind.may_extend_credentials() && !self.reports_changes()
    }

    /// The credential in a header of a request that was accepted, to be checked again later.
    pub fn hold(&self, value: &HeaderValue) -> Option<HeldCredential> {
        let presented = Presented::from_value(value);
        let (words, acceptance) = presented.words()?;
        match self.evaluator.read(&self.shared.settings.scheme, words, acceptance) {
            Reading::Credential(credential) => Some(HeldCredential::new(credential)),
            Reading::OtherScheme | Reading::OtherForm(_) | Reading::Malformed(_) | Reading::Joined(..) => None,
        }
    }

    /// The cached decision about a held credential, if there is one that accepts it.
    pub fn recall(&self, held: &HeldCredential, now: Now) -> Option<Standing> {
        let (decision, dependencies, until) = self.shared.cache.recall_until(&held.digest, now)?;
        standing(decision, dependencies, until).ok()
    }

    /// Decides about a held credential, as about that of a request. What a request must prove is not checked: it has done so.
    ///
    /// # Errors
    /// The credential could not be evaluated.
    pub async fn check(&self, held: &HeldCredential, now: Now) -> Result<Result<Standing, Refusal>, EvaluationError> {
        if let Some((decision, dependencies, until)) = self.shared.cache.recall_until(&held.digest, now) {
            return Ok(standing(decision, dependencies, until));
        }
        let (decision, dependencies) = self.decide(held.digest, held.credential.expose(), now).await?;
        let ttl = self.shared.settings.cache.ttl.max(SHORTEST_CONFIRMATION);
        Ok(standing(decision, dependencies, now.later(ttl).uptime_ms))
    }

    /// Reads the credential of a request, and decides about it.
    pub(super) async fn authenticate(
        &self,
        presented: &Presented<'_>,
        request: &RequestFacts<'_>,
        now: Now,
    ) -> Result<Answer, EvaluationError> {
        let Some((words, acceptance)) = presented.words() else {
            return Ok(Answer::NoCredential);
        };
        match self.evaluator.read(&self.shared.settings.scheme, words, acceptance) {
            Reading::OtherScheme => Ok(Answer::NoCredential),
            Reading::OtherForm(refusal) => Ok(Answer::OtherForm(refusal)),
            Reading::Malformed(refusal) => Ok(Answer::Decided(Err(refusal.into()))),
            Reading::Credential(credential) => {
                let key = cache::key(credential);
                let decided = match self.shared.cache.find(&key, now) {
                    Some(decided) => decided,
                    // Boxed: this future is large and rarely needed, so it must not enlarge the future of each request.
                    None => Box::pin(self.decide_or_recall(key, credential, now)).await?,
                };
                match decided {
                    Ok(AcceptedUser {
                        identity,
                        binding: None,
                    }) => Ok(Answer::Decided(Ok(identity))),
                    Ok(AcceptedUser {
                        identity,
                        binding: Some(binding),
                    }) => Box::pin(self.confirm(identity, binding, words, key, request, now)).await,
                    Err(refused) => Ok(Answer::Decided(Err(refused))),
                }
            }
            Reading::Joined(credential, refusal) => {
                let key = cache::key(credential);
                let decided = match self.shared.cache.find(&key, now) {
                    Some(decided) => decided,
                    None => Box::pin(self.decide_or_recall(key, credential, now)).await?,
                };
                Ok(Answer::Decided(Err(decided.err().unwrap_or_else(|| refusal.into()))))
            }
        }
    }

    /// Checks what a request with an accepted credential must prove.
    async fn confirm(
        &self,
        identity: Arc<Identity>,
        binding: Arc<TokenBinding>,
        words: &Words<'_>,
        digest: cache::Key,
        request: &RequestFacts<'_>,
        now: Now,
    ) -> Result<Answer, EvaluationError> {
        let credential = AcceptedCredential {
            scheme: words.shape().scheme().unwrap_or_default(),
            digest: &digest,
        };
        let confirmed = self.binding.check(&binding, credential, request, now).await?;
        Ok(Answer::Decided(confirmed.map(|()| Arc::clone(&identity)).map_err(
            |fault| {
                let user = identity.user_info().id.clone();
                RefusedCredential::new(Refusal::Binding(fault), Some(user))
            },
        )))
    }

    /// Decides about a credential, for which the cache has no valid decision. In an outage, uses one that was confirmed not long ago, if the
    /// configuration allows that.
    async fn decide_or_recall(
        &self,
        key: cache::Key,
        credential: &[u8],
        now: Now,
    ) -> Result<Result<AcceptedUser, RefusedCredential>, EvaluationError> {
        let OnOutage::ServeCached { stale_for } = self.shared.settings.on_outage else {
            return Ok(self.decide(key, credential, now).await?.0.into_result());
        };
        let began = Instant::now();
        // Known users cost no look-up then.
        if let Some(outage) = self.evaluator.down()
            && let Some(decided) = self.shared.cache.find_confirmed(&key, now)
        {
            if let Some(endpoint) = self.shared.endpoint() {
                endpoint.probe(credential);
            }
            self.note_recalled(outage, stale_for, "known to be down");
            return Ok(decided);
        }
        let error = match self.decide(key, credential, now).await {
            Ok((decision, _)) => return Ok(decision.into_result()),
            Err(error) => error,
        };
        let Some(outage) = self.outage_of(&error) else {
            return Err(error);
        };
        match self.shared.cache.find_confirmed(&key, now.later(began.elapsed())) {
            Some(decided) => {
                self.note_recalled(outage, stale_for, error.label());
                Ok(decided)
            }
            None => Err(error),
        }
    }

    /// The outage that this error is about, if it is one.
    fn outage_of(&self, error: &EvaluationError) -> Option<&Outage> {
        match error.unanswered()? {
            Unanswered::Store(name) => {
                let store = self.stores.iter().find(|store| store.settings().name == *name);
                store.map(|store| store.outage())
            }
            Unanswered::Endpoint => self.shared.endpoint().map(|endpoint| endpoint.outage()),
        }
    }

    fn note_recalled(&self, outage: &Outage, stale_for: Duration, reason: &str) {
        let number = outage.note_failure();
        if self.recalled_in.replace(number) != number {
            outage.note_serving(self.name(), stale_for, reason);
        }
        self.shared.cache.metrics().record_stale();
    }

    /// Decides about a credential that is not in the cache, or waits for another request that has begun to decide about the same one.
    async fn decide(
        &self,
        key: cache::Key,
        credential: &[u8],
        now: Now,
    ) -> Result<(Decision, Dependencies), EvaluationError> {
        let deadline = Instant::now() + self.time_limit();
        let cache = &self.shared.cache;
        let decided = async {
            if cache.is_off() {
                return self.evaluate(key, credential, deadline, now).await;
            }
            let evaluate = || async {
                match self.evaluate(key, credential, deadline, now).await {
                    Ok(decided) => Ok(Ok(decided)),
                    Err(EvaluationError::Introspection(error)) => Ok(Err(error)),
                    Err(error) => Err(error),
                }
            };
            let is_valid = |outcome: &Outcome| match outcome {
                Ok((decision, dependencies)) => cache.is_valid(decision, dependencies, now),
                Err(_) => true,
            };
            Ok(self.single_flight.share(key, evaluate, is_valid).await??)
        };
        match timeout_at(deadline, decided).await {
            Ok(decided) => decided,
            Err(Elapsed { .. }) => Err(match &self.slowest_store {
                Some(store) => store.timeout_error().into(),
                None => EvaluationError::Busy,
            }),
        }
    }

    /// Evaluates a credential, and caches the decision.
    async fn evaluate(
        &self,
        key: cache::Key,
        credential: &[u8],
        deadline: Instant,
        now: Now,
    ) -> Result<(Decision, Dependencies), EvaluationError> {
        // Another worker may have cached a decision since this one has looked.
        if self.shared.endpoint().is_some()
            && let Some(decided) = self.shared.cache.recall(&key, now)
        {
            return Ok(decided);
        }
        let mut lookup = Lookup::until(deadline).confirmed_for(self.shared.settings.cache.ttl);
        lookup.last_user = self.shared.cache.last_user(&key);
        let decision = self.evaluator.evaluate(credential, now, &mut lookup).await?;
        self.shared.cache.insert(key, &decision, lookup.dependencies, now);
        Ok((decision, lookup.dependencies))
    }
}

fn standing(decision: Decision, dependencies: Dependencies, confirmed_until: u64) -> Result<Standing, Refusal> {
    match decision {
        Decision::Accepted { identity, validity, .. } => Ok(Standing {
            identity,
            validity,
            confirmed_until,
            dependencies,
        }),
        Decision::Refused(refused) => Err(refused.into_parts().0),
    }
}

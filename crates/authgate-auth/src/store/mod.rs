//! Stores of tokens, users and revocations: Redis, or a file. Of tokens and users: the database of a Django application.
//!
//! The request path only reads. A store that cannot answer returns an error; an outage is never treated as "not found".

mod digest;
pub mod django;
pub mod embedded;
mod error;
mod error_reply;
mod kind;
pub mod redis;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use authgate_core::identity::UserId;
use authgate_http::log_throttle::LogThrottle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::error;

pub use self::digest::{DigestKind, Digests, TokenDigest};
use self::django::DjangoStore;
pub use self::error::{LayoutProblem, StoreError};
pub use self::error_reply::{ErrorReply, ErrorReplyKind};
pub use self::kind::StoreKind;
use self::kind::{Handle, SharedKind};
use self::redis::{ChangeReports, Seal, SealId, SourceRecord};
use crate::dependencies::{ChangeCounters, Dependencies};
use crate::metrics::StoreMetrics;
use crate::outage::{Asked, Outage, OutageStatus};
use crate::record::{TokenRecord, UserRecord};
use crate::replay::ProofId;
use crate::store_changes::StoreChanges;

/// The deadline for one credential where nothing is asked over a network.
pub(super) const LOCAL_TIME_LIMIT: Duration = Duration::from_secs(1);

/// How often the state of a store is looked at.
const OUTAGE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a task that has failed is not started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The configuration of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its kind, with the settings of that kind.
    pub kind: StoreKind,
}

impl StoreSettings {
    /// The kinds of digests that its tokens are stored under.
    pub fn digests(&self) -> Digests {
        self.kind.digests()
    }

    /// Names the seal of its records, if they have one.
    pub fn seal_id(&self) -> Option<SealId> {
        match &self.kind {
            StoreKind::Redis(redis) => redis.seal.as_ref().map(Seal::id),
            StoreKind::Embedded(_) | StoreKind::Django(_) => None,
        }
    }
}

/// One store, shared by all workers: its health, its metrics, and for a file also its records.
///
/// It lives as long as a configuration or a worker's handle refers to it. Dropping it ends the task that watches the store.
#[derive(Debug)]
pub struct SharedStore {
    settings: StoreSettings,
    kind: SharedKind,
    metrics: StoreMetrics,
    outage: Arc<Outage>,
    watcher: OnceLock<AbortHandle>,
    /// The tasks that follow the sources in front of which it stands.
    followers: Mutex<Vec<Follower>>,
}

/// A task that removes from a store what a source reports as changed.
#[derive(Debug)]
struct Follower {
    source: Weak<SharedStore>,
    task: AbortHandle,
}

/// What a source reports as changed, for the stores in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SourceChange {
    /// A token, by its digest.
    Token(Arc<str>),
    /// A user, by id.
    User(Arc<str>),
    /// Any number of them.
    All,
}

/// What was revoked in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedItem<'t> {
    /// An opaque token.
    Token(&'t TokenDigest),
    /// The credentials of a user.
    User(&'t str),
    /// The JWT with this id.
    Jti(&'t str),
    /// A key that verifies JWTs.
    Kid,
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.abort();
        }
        for follower in self.followers.get_mut().unwrap_or_else(PoisonError::into_inner) {
            follower.task.abort();
        }
    }
}

impl SharedStore {
    /// Makes the shared part from the settings. It does not connect, and a file that cannot be read is no error yet: see
    /// [`SharedStore::watch`]. Changes of the store increment `counters`.
    pub fn new(settings: StoreSettings, counters: &Arc<ChangeCounters>) -> Arc<Self> {
        let metrics = StoreMetrics::new(settings.kind.name());
        let changes = StoreChanges::new(&settings.name, counters);
        Arc::new(Self {
            kind: settings.kind.clone().share(&settings.name, changes, &metrics),
            outage: Arc::new(Outage::new(Asked::Store(Arc::clone(&settings.name)))),
            settings,
            metrics,
            watcher: OnceLock::new(),
            followers: Mutex::default(),
        })
    }

    /// Its metrics.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// Its settings.
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Whether it was usable at least once since the start.
    pub fn was_reached(&self) -> bool {
        self.kind.was_reached()
    }

    /// Whether it was usable at the last check.
    pub fn is_usable(&self) -> bool {
        self.kind.is_usable()
    }

    /// Accepts another layout record, if the store has one now: the operator has asked for it.
    pub fn permit_other_layout(&self) {
        if let Some(redis) = self.kind.as_redis() {
            redis.permit_other_layout();
        }
    }

    /// How long a change takes until this gateway knows of it. `None`: this is not measured.
    pub fn revocation_lag(&self) -> Option<Duration> {
        self.kind.as_redis()?.revocation_lag()
    }

    /// Its present outage: it does not answer, or not to all look-ups.
    pub fn outage(&self) -> Option<OutageStatus> {
        self.outage.status()
    }

    /// How its servers are found (`single`, `sentinel`, `cluster`), and the addresses of the primaries in use. `None`: it has no servers.
    pub fn primaries(&self) -> Option<(&'static str, Vec<String>)> {
        let redis = self.kind.as_redis()?;
        Some((redis.mode(), redis.primary_addresses()))
    }

    /// Whether a Redis reports changes. `None`: the store is of another kind.
    pub fn change_reports(&self) -> Option<ChangeReports> {
        self.kind.as_redis().map(|redis| redis.change_reports())
    }

    /// Watches the store on the current runtime, as long as it lives: reads the layout record of Redis periodically and subscribes to its
    /// changes, or reads a file again when it changes. Only the first call has an effect.
    pub fn watch(&self) {
        self.watcher.get_or_init(|| {
            let (store, kind) = (Arc::clone(&self.settings.name), self.kind.clone());
            let outage = Arc::clone(&self.outage);
            tokio::spawn(supervise(store, kind, outage)).abort_handle()
        });
    }

    /// Removes from this store what the source reports as changed, as long as both live. It runs on the current runtime; a second call for
    /// the same source has no effect.
    pub fn follow(&self, source: &Arc<Self>) {
        let (Some(redis), Some(django)) = (self.kind.as_redis(), source.kind.as_django()) else {
            return;
        };
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| {
            let is_live = follower.source.strong_count() > 0;
            if !is_live {
                follower.task.abort();
            }
            is_live
        });
        if followers
            .iter()
            .any(|follower| follower.source.as_ptr() == Arc::as_ptr(source))
        {
            return;
        }
        let (redis, changes) = (Arc::clone(redis), django.reports());
        followers.push(Follower {
            source: Arc::downgrade(source),
            task: tokio::spawn(async move { redis.follow(changes).await }).abort_handle(),
        });
    }

    /// This process has revoked something in this store: decisions that depend on it are invalid at once, on this gateway. It blocks while a
    /// file is read.
    pub fn revoked(&self, item: RevokedItem<'_>) {
        self.kind.revoked(item);
    }

    /// Looks up an opaque token in the database of an application; `None` for other kinds of stores.
    ///
    /// # Errors
    /// The database could not answer.
    pub async fn token_in_database(&self, key: &[u8]) -> Option<Result<Option<TokenFacts>, StoreError>> {
        let django = DjangoStore::new(Arc::clone(self.kind.as_django()?));
        let mut lookup = Lookup::until(Instant::now() + django.time_limit());
        Some(django.token(key, &mut lookup).await)
    }

    /// Makes a handle for one worker; with Redis it has its own connection.
    pub(crate) fn open(self: &Arc<Self>) -> Rc<Store> {
        Rc::new(Store {
            shared: Arc::clone(self),
            handle: self.kind.handle(),
            bad_records: RefCell::default(),
        })
    }
}

/// Notes when an outage begins and ends, also while no look-up fails; never returns.
async fn follow_outages(kind: &SharedKind, outage: &Outage) {
    let mut ticks = tokio::time::interval(OUTAGE_INTERVAL);
    loop {
        ticks.tick().await;
        if kind.is_in_outage() {
            outage.note_failure();
        } else {
            // Also if its records must not be used: it answers.
            outage.note_answer();
        }
    }
}

/// Watches a store. If that panics, reports it and starts again after a pause: without the task, changes would not be noticed.
async fn supervise(store: Arc<str>, kind: SharedKind, outage: Arc<Outage>) {
    loop {
        // Dropping it ends the task.
        let mut task = JoinSet::new();
        let (kind, outage) = (kind.clone(), Arc::clone(&outage));
        task.spawn(async move { tokio::join!(kind.watch(), follow_outages(&kind, &outage)) });
        let Some(Err(ended)) = task.join_next().await else {
            return;
        };
        error!(%store, reason = %ended, "the task that watches the store has failed, which is a bug, and starts again");
        sleep(RESTART_PAUSE).await;
    }
}

/// A worker's handle on a store.
#[derive(Debug)]
pub(crate) struct Store {
    shared: Arc<SharedStore>,
    handle: Handle,
    bad_records: RefCell<LogThrottle>,
}

/// The lookups for one credential: their deadline, and the dependencies of the result.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Time in queues counts too.
    pub deadline: Instant,
    /// How old what the store has confirmed before may be.
    pub confirmed_for: Duration,
    /// Each item is marked before it is read.
    pub dependencies: Dependencies,
    /// The user that the credential had when it was accepted before, if that is known. It may have another one now.
    pub last_user: Option<UserId>,
}

impl Lookup {
    /// A lookup with this deadline.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            confirmed_for: Duration::ZERO,
            dependencies: Dependencies::default(),
            last_user: None,
        }
    }

    /// With this limit for what the store has confirmed before.
    pub(crate) fn confirmed_for(self, confirmed_for: Duration) -> Self {
        Self { confirmed_for, ..self }
    }
}

/// What a store holds about an opaque token.
#[derive(Debug, Clone)]
pub struct TokenFacts {
    /// The token.
    pub token: TokenRecord,
    /// Its user, if there is one.
    pub user: Option<UserRecord>,
    /// All credentials issued to that user up to this Unix second are revoked.
    pub user_revoked: Option<i64>,
    /// The digest by which the store reports changes of the token, if the store can be a source.
    pub digest: Option<TokenDigest>,
}

/// Why a token that exists in a store is refused, in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// It was revoked at this Unix second.
    Revoked(i64),
    /// It expired at this Unix second.
    Expired(i64),
    /// All credentials issued to its user up to this Unix second are revoked.
    UserRevoked(i64),
    /// Its user does not exist.
    NoUser,
    /// Its user is inactive.
    UserInactive,
}

impl TokenFacts {
    /// The first reason to refuse the token at Unix second `now`; `None`: the token is valid.
    pub fn fault(&self, now: i64) -> Option<TokenFault> {
        let Self {
            token,
            user,
            user_revoked,
            digest: _,
        } = self;
        let revoked = token.revoked.map(TokenFault::Revoked);
        let expired = token.expires.filter(|at| *at <= now).map(TokenFault::Expired);
        let user_revoked = user_revoked
            .filter(|by| token.created.is_none_or(|created| created <= *by))
            .map(TokenFault::UserRevoked);
        revoked.or(expired).or(user_revoked).or(match user {
            None => Some(TokenFault::NoUser),
            Some(user) if !user.active => Some(TokenFault::UserInactive),
            Some(_) => None,
        })
    }
}

/// The records that a JWT needs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JwtQuery<'q> {
    /// Check whether this token is revoked.
    pub jti: Option<&'q str>,
    /// Check whether this key is revoked.
    pub kid: Option<&'q str>,
    /// Look up the revocation of this user's credentials.
    pub revoked_user: Option<&'q UserId>,
    /// Look up this user.
    pub user: Option<UserKey<'q>>,
}

/// The key of a user lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserKey<'q> {
    /// By id.
    Id(&'q UserId),
    /// By login name.
    Name(&'q str),
}

/// What a store holds about a JWT.
#[derive(Debug, Clone, Default)]
pub(crate) struct JwtFacts {
    /// This token was revoked.
    pub jti_revoked: bool,
    /// The key that signed it was revoked.
    pub kid_revoked: bool,
    /// All credentials issued to that user up to this Unix second are revoked.
    pub user_revoked: Option<i64>,
    /// The user, if there is one.
    pub user: Option<UserRecord>,
}

impl Store {
    /// Whether this is a handle on that store.
    pub(super) fn is_of(&self, store: &Arc<SharedStore>) -> bool {
        Arc::ptr_eq(&self.shared, store)
    }

    /// The settings of the store.
    pub(crate) fn settings(&self) -> &StoreSettings {
        &self.shared.settings
    }

    /// Whether changes of the store are reported now. After an interruption, the store as a whole is reported as changed.
    pub(crate) fn reports_changes(&self) -> bool {
        self.shared.kind.is_watched() || self.shared.metrics.is_tracking()
    }

    /// The outages of the store.
    pub(crate) fn outage(&self) -> &Outage {
        &self.shared.outage
    }

    /// The present outage, if look-ups fail in it without being sent.
    pub(crate) fn down(&self) -> Option<&Outage> {
        self.handle.is_down().then_some(&*self.shared.outage)
    }

    /// The deadline for one credential, over all its lookups.
    pub(crate) fn time_limit(&self) -> Duration {
        self.handle.time_limit()
    }

    /// The error for a store that did not answer within [`Store::time_limit`].
    pub(crate) fn timeout_error(&self) -> StoreError {
        StoreError::Timeout(Arc::clone(&self.shared.settings.name))
    }

    /// Looks up an opaque token by its key, and its user.
    ///
    /// # Errors
    /// The store could not answer.
    pub(crate) async fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
        let began = Instant::now();
        let result = self.handle.token(key, lookup).await;
        self.record(began, result)
    }

    /// Looks up an opaque token that `front` does not have, and writes it there for `ttl`. This store is a source.
    ///
    /// # Errors
    /// One of the two could not answer.
    pub(crate) async fn token_behind(
        &self,
        front: &Self,
        ttl: Duration,
        key: &[u8],
        lookup: &mut Lookup,
    ) -> Result<Option<TokenFacts>, StoreError> {
        let Some(django) = self.shared.kind.as_django() else {
            return self.token(key, lookup).await;
        };
        let mut of_source = Lookup::until(lookup.deadline).confirmed_for(lookup.confirmed_for);
        // What is written depends on it, and the decision does not.
        let mut to_write = Dependencies::default();
        let is_kept = django.mark_reporting(&mut to_write);
        let facts = self.token(key, &mut of_source).await?;
        lookup.dependencies.extend(&of_source.dependencies);
        to_write.extend(&of_source.dependencies);
        let Some(mut facts) = facts else { return Ok(None) };
        if let (Some(redis), Some(digest), true) = (front.shared.kind.as_redis(), facts.digest, is_kept) {
            redis.write_soon(SourceRecord {
                digest,
                token: facts.token.clone(),
                user: facts.user.clone(),
                ttl,
                dependencies: to_write,
            });
        }
        // Revocations are in the store in front.
        let query = JwtQuery {
            revoked_user: Some(&facts.token.user),
            ..JwtQuery::default()
        };
        facts.user_revoked = front.jwt(query, lookup).await?.user_revoked;
        Ok(Some(facts))
    }

    /// Looks up what a JWT needs.
    ///
    /// # Errors
    /// The store could not answer.
    pub(crate) async fn jwt(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        let began = Instant::now();
        let result = self.handle.jwt(query, lookup).await;
        self.record(began, result)
    }

    /// Records for `lifetime` that a DPoP proof is used. Returns `false` if it was used before.
    ///
    /// # Errors
    /// The store could not answer, or it is of a kind that records nothing.
    pub(crate) async fn record_proof(
        &self,
        proof: &ProofId,
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let Handle::Redis(redis) = &self.handle else {
            // The configuration check refuses such a store.
            let problem = ErrorReply::other("it cannot record proofs");
            return Err(StoreError::Refused(Arc::clone(&self.shared.settings.name), problem));
        };
        let began = Instant::now();
        let result = redis.record_proof(&hex::encode(proof), lifetime, deadline).await;
        self.record(began, result)
    }

    /// Updates the metrics and the log after a lookup.
    fn record<T>(&self, began: Instant, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.shared.metrics.record_lookup(began.elapsed());
        if let Err(error) = &result {
            self.shared.metrics.record_error(error.label_value());
            if error.unanswered().is_some() {
                self.shared.outage.note_failure();
            }
            match error {
                StoreError::Record(store, problem) => {
                    if let Some(times) = self.bad_records.borrow_mut().note() {
                        error!(%store, reason = %problem, times, "invalid record in the store; requests that need it get 503. Correct or delete the record");
                    }
                }
                StoreError::Seal(store, problem) => {
                    if let Some(times) = self.bad_records.borrow_mut().note() {
                        error!(%store, reason = %problem, times, "a record in the store does not have its seal; requests that need it get 503. Find out which program wrote it");
                    }
                }
                StoreError::Unreachable(_)
                | StoreError::Unreadable(_)
                | StoreError::Timeout(_)
                | StoreError::ReplyCut(_)
                | StoreError::Layout(..)
                | StoreError::Refused(..) => {}
            }
        }
        result
    }
}

/// Chooses among the records found under a key's digests: a revoked one, else the first.
fn effective_record(records: impl IntoIterator<Item = TokenRecord>) -> Option<TokenRecord> {
    records.into_iter().reduce(|first, next| {
        if first.revoked.is_none() && next.revoked.is_some() {
            next
        } else {
            first
        }
    })
}

//! Where tokens, users and revocations are looked up: Redis, or a file.
//!
//! The request path only reads. A store answers what it knows or says that it cannot; nothing here turns "I could not find out"
//! into "no".

pub mod admin;
mod digest;
pub mod embedded;
pub mod redis;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

pub use self::digest::{DigestKind, Digests, TokenDigest};
use super::dependencies::{ChangeCounters, Dependencies};
use super::record::{BadRecord, TokenRecord, UserRecord};
use crate::identity::UserId;
use crate::telemetry::auth::StoreMetrics;
use crate::telemetry::log_throttle::LogThrottle;

/// How long a credential may wait to be judged where no Redis has a say.
pub const NO_STORE: Duration = Duration::from_secs(1);

/// What the configuration says of one store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the file.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of stores.
#[expect(clippy::large_enum_variant, reason = "a handful for each process, made once")]
#[derive(Debug, Clone)]
pub enum Kind {
    /// A Redis server.
    Redis(redis::Settings),
    /// A file of this machine.
    Embedded(embedded::Settings),
}

impl Settings {
    /// What its tokens are named by.
    pub fn digests(&self) -> Digests {
        match &self.kind {
            Kind::Redis(redis) => redis.digests,
            Kind::Embedded(file) => file.digests,
        }
    }
}

/// One store, shared by all workers: what is known of its health, and a file's records.
#[derive(Debug)]
pub struct Shared {
    name: Arc<str>,
    part: Part,
    metrics: StoreMetrics,
}

#[derive(Debug)]
enum Part {
    Redis(Arc<redis::Shared>),
    Embedded(Arc<embedded::Embedded>),
}

impl Shared {
    /// Takes the settings in. Nothing is connected and a file that cannot be read yet is no error: see [`Shared::watch`].
    /// Its changes are counted in `generations`.
    pub fn new(settings: Settings, counters: Arc<ChangeCounters>) -> Arc<Self> {
        let (name, metrics) = (settings.name, StoreMetrics::default());
        let part = match settings.kind {
            Kind::Redis(redis) => {
                let shared = redis::Shared::new(Arc::clone(&name), redis, counters, metrics.clone());
                Part::Redis(Arc::new(shared))
            }
            Kind::Embedded(file) => {
                Part::Embedded(Arc::new(embedded::Embedded::open(Arc::clone(&name), file, counters)))
            }
        };
        Arc::new(Self { name, part, metrics })
    }

    /// What it counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was usable once since the start.
    pub fn was_reached(&self) -> bool {
        match &self.part {
            Part::Redis(shared) => shared.was_reached(),
            Part::Embedded(file) => file.was_reached(),
        }
    }

    /// Whether it is usable now, as far as the last look tells.
    pub fn is_usable(&self) -> bool {
        match &self.part {
            Part::Redis(shared) => shared.is_usable(),
            Part::Embedded(file) => file.is_usable(),
        }
    }

    /// Keeps looking after the store, for ever: Redis is asked for its layout, a file is read again when it changes.
    pub async fn watch(self: Arc<Self>) {
        match &self.part {
            Part::Redis(shared) => redis::watch(shared).await,
            Part::Embedded(file) => file.watch().await,
        }
    }

    /// A handle for one worker, with a connection of its own.
    pub fn open(self: &Arc<Self>) -> Rc<Store> {
        Rc::new(Store {
            name: Arc::clone(&self.name),
            handle: match &self.part {
                Part::Redis(shared) => Handle::Redis(redis::RedisStore::new(Arc::clone(shared))),
                Part::Embedded(file) => Handle::Embedded(Arc::clone(file)),
            },
            metrics: self.metrics.clone(),
            bad_records: RefCell::default(),
        })
    }
}

/// A worker's handle on a store.
#[derive(Debug)]
pub struct Store {
    name: Arc<str>,
    handle: Handle,
    metrics: StoreMetrics,
    bad_records: RefCell<LogThrottle>,
}

#[derive(Debug)]
enum Handle {
    /// Over this worker's connection.
    Redis(redis::RedisStore),
    /// From memory.
    Embedded(Arc<embedded::Embedded>),
}

/// One look at stores for one credential: until when, and what its result rests on.
#[derive(Debug)]
pub struct Lookup {
    /// Later is too late: waiting for a turn counts too.
    pub deadline: Instant,
    /// Marks are added before what they are about is read.
    pub dependencies: Dependencies,
}

impl Lookup {
    /// A look that may take until then.
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            dependencies: Dependencies::default(),
        }
    }
}

/// What a store knows of an opaque token.
#[derive(Debug, Clone)]
pub struct TokenFacts {
    /// The token.
    pub token: TokenRecord,
    /// Its user, if there is one.
    pub user: Option<UserRecord>,
    /// Everything issued to that user by then is revoked.
    pub user_revoked: Option<i64>,
}

/// Why a token that a store knows is refused, in the order in which it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// It was revoked then.
    Revoked(i64),
    /// It expired then.
    Expired(i64),
    /// Everything issued to its user by then is revoked.
    UserRevoked(i64),
    /// Its user is not there.
    NoUser,
    /// Its user may not log in.
    UserInactive,
}

impl TokenFacts {
    /// The first reason to refuse the token at that second.
    pub fn fault(&self, now: i64) -> Option<TokenFault> {
        let Self {
            token,
            user,
            user_revoked,
        } = self;
        let revoked = token.revoked.map(TokenFault::Revoked);
        let expired = token.expires.filter(|at| *at <= now).map(TokenFault::Expired);
        let swept = user_revoked
            .filter(|by| token.created.is_none_or(|created| created <= *by))
            .map(TokenFault::UserRevoked);
        revoked.or(expired).or(swept).or(match user {
            None => Some(TokenFault::NoUser),
            Some(user) if !user.active => Some(TokenFault::UserInactive),
            Some(_) => None,
        })
    }
}

/// What a JWT makes one ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtQuestion<'q> {
    /// Was this token revoked?
    pub jti: Option<&'q str>,
    /// Was this key revoked?
    pub kid: Option<&'q str>,
    /// Was what this user holds revoked, and when?
    pub revoked_user: Option<&'q UserId>,
    /// Who is this?
    pub user: Option<UserKey<'q>>,
}

/// By what a user is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKey<'q> {
    /// By id.
    Id(&'q UserId),
    /// By login name.
    Name(&'q str),
}

/// What a store knows of a JWT.
#[derive(Debug, Clone, Default)]
pub struct JwtFacts {
    /// This token was revoked.
    pub jti_revoked: bool,
    /// The key that signed it was revoked.
    pub kid_revoked: bool,
    /// Everything issued to that user by then is revoked.
    pub user_revoked: Option<i64>,
    /// The user, if there is one.
    pub user: Option<UserRecord>,
}

/// A store could not say.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection to it.
    #[error("store {0} cannot be reached")]
    Unreachable(Arc<str>),
    /// Its file is not there, or cannot be used; the log has said why.
    #[error("the file of store {0} is missing or cannot be used")]
    Unreadable(Arc<str>),
    /// It did not answer in time.
    #[error("store {0} did not answer in time")]
    Timeout(Arc<str>),
    /// Its layout record does not let it be used.
    #[error("store {0}: {1}")]
    Layout(Arc<str>, LayoutProblem),
    /// It answered with an error.
    #[error("store {0} refused: {1}")]
    Refused(Arc<str>, String),
    /// It answered with something that is no record.
    #[error("store {0}: {1}")]
    Record(Arc<str>, BadRecord),
    /// Nobody came to ask: too many credentials wait to be judged.
    #[error("too many credentials wait to be judged")]
    Busy,
}

/// Why a store's layout record does not let it be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutProblem {
    /// There is no record.
    #[error("the layout record is missing: the store was flushed, evicted, never filled, or is another database")]
    Missing,
    /// An import into the empty store is not complete.
    #[error("the store is being filled: its import is not complete")]
    Filling,
    /// It is another record than before, and was never seen to be missing.
    #[error("the layout record has changed while the gateway was running: this is another database")]
    Changed,
    /// Another program has written it.
    #[error("the layout record has version {0}, this program reads {known}", known = super::record::Layout::VERSION)]
    Version(u32),
}

impl StoreError {
    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Unreadable(_) => "store_unreachable",
            Self::Timeout(_) => "store_timeout",
            Self::Layout(..) => "store_layout",
            Self::Refused(..) => "store_refused",
            Self::Record(..) => "store_bad_record",
            Self::Busy => "busy",
        }
    }
}

impl Store {
    /// How long a credential may wait for it in all.
    pub fn time_limit(&self) -> Duration {
        match &self.handle {
            Handle::Redis(redis) => redis.timeout(),
            Handle::Embedded(_) => NO_STORE,
        }
    }

    /// It has not answered within that.
    pub fn too_late(&self) -> StoreError {
        StoreError::Timeout(Arc::clone(&self.name))
    }

    /// Looks up an opaque token by its key, and its user.
    ///
    /// # Errors
    /// The store could not say.
    pub async fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
        let began = Instant::now();
        let told = match &self.handle {
            Handle::Redis(redis) => redis.token(key, lookup).await,
            Handle::Embedded(file) => file.token(key, lookup),
        };
        self.told(began, told)
    }

    /// Looks up what a JWT makes one ask.
    ///
    /// # Errors
    /// The store could not say.
    pub async fn jwt(&self, question: JwtQuestion<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        let began = Instant::now();
        let told = match &self.handle {
            Handle::Redis(redis) => redis.jwt(question, lookup).await,
            Handle::Embedded(file) => file.jwt(question, lookup),
        };
        self.told(began, told)
    }

    fn told<T>(&self, began: Instant, told: Result<T, StoreError>) -> Result<T, StoreError> {
        self.metrics.looked_up(began.elapsed());
        if let Err(error) = &told {
            self.metrics.failed(error.label());
            if let StoreError::Record(store, problem) = error
                && let Some(times) = self.bad_records.borrow_mut().note()
            {
                error!(%store, reason = %problem, times, "a record cannot be used; credentials that need it are answered 503");
            }
        }
        told
    }
}

/// Of the records that a key's digests lead to, the one that decides: a revoked one, else the first.
fn decisive(records: impl IntoIterator<Item = TokenRecord>) -> Option<TokenRecord> {
    records.into_iter().reduce(|first, next| {
        if first.revoked.is_none() && next.revoked.is_some() {
            next
        } else {
            first
        }
    })
}

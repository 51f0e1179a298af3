//! The one folder of the request path that knows Redis: its connection, its deadline, the layout of its keys.
//!
//! Each worker has a multiplexed connection of its own, so a look-up wakes no other thread and shares its writes with its
//! neighbours. Connecting and retrying happen beside the requests: a request waits for the first attempt of a connection, within
//! its deadline, and fails at once while the last attempt has failed.

mod tracking;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, Value,
    cmd,
};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, timeout_at};
use tracing::{debug, error, info, warn};

use super::{JwtFacts, JwtQuestion, Look, StoreError, TokenDigest, TokenFacts, UserKey};
use crate::auth::generations::{Generations, Rests, Thing};
use crate::auth::record::{self, BadRecord, Layout, TokenRecord};
use crate::secret::Secret;
use crate::telemetry::auth::StoreMetrics;

/// How often the store is asked for its layout when nobody else asks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that has answered nothing for this long while it was asked is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

/// How many look-ups of a worker are under way at once; the next ones wait in turn, within their deadline.
const LOOK_UPS: usize = 64;

/// What the configuration says of one Redis.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is, and which database.
    pub endpoint: Endpoint,
    /// Login, if not in the URL.
    pub username: Option<String>,
    /// Password, if not in the URL.
    pub password: Option<Secret<String>>,
    /// Put before every key.
    pub prefix: String,
    /// One deadline for connecting, waiting and answering.
    pub timeout: Duration,
    /// How changes are heard of.
    pub invalidation: Invalidation,
}

/// How changes of a Redis are heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// It tells: `CLIENT TRACKING`, of RESP3.
    Tracking,
    /// Not at all: verdicts live for their `ttl`.
    Off,
}

/// A `redis://`, `rediss://` or `unix://` URL that was understood. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Endpoint(redis::ConnectionInfo);

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        url.into_connection_info().map(Self).map_err(|error| error.to_string())
    }

    /// The socket file, where it is one.
    pub fn socket(&self) -> Option<&PathBuf> {
        match self.0.addr() {
            ConnectionAddr::Unix(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.addr())
    }
}

impl Settings {
    /// A client for this Redis; nothing is connected.
    ///
    /// # Errors
    /// The URL names something that this build cannot reach.
    pub fn client(&self) -> redis::RedisResult<Client> {
        self.client_speaking(self.endpoint.0.redis_settings().protocol())
    }

    fn client_speaking(&self, protocol: ProtocolVersion) -> redis::RedisResult<Client> {
        let mut login = self.endpoint.0.redis_settings().clone().set_protocol(protocol);
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.expose());
        }
        Client::open(self.endpoint.0.clone().set_redis_settings(login))
    }

    /// The names of the keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys { prefix: &self.prefix }
    }
}

/// The names of the keys of the layout.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'p> {
    prefix: &'p str,
}

impl Keys<'_> {
    /// The mark that this is a store of ours.
    pub fn layout(self) -> String {
        format!("{}layout", self.prefix)
    }

    /// One opaque token.
    pub fn token(self, digest: &TokenDigest) -> String {
        format!("{}token:{}", self.prefix, digest.to_hex())
    }

    /// One user.
    pub fn user(self, id: &str) -> String {
        format!("{}user:{id}", self.prefix)
    }

    /// The id of the user of that name.
    pub fn user_by_name(self, name: &str) -> String {
        format!("{}user-by-name:{name}", self.prefix)
    }

    /// The digests of a user's tokens.
    pub fn tokens_of(self, id: &str) -> String {
        format!("{}tokens-of:{id}", self.prefix)
    }

    /// A revoked JWT.
    pub fn revoked_jti(self, jti: &str) -> String {
        format!("{}revoked:jti:{jti}", self.prefix)
    }

    /// A user of whom everything issued by then is revoked.
    pub fn revoked_user(self, id: &str) -> String {
        format!("{}revoked:user:{id}", self.prefix)
    }

    /// A revoked key.
    pub fn revoked_kid(self, kid: &str) -> String {
        format!("{}revoked:kid:{kid}", self.prefix)
    }

    /// What the names of those keys begin with that a verdict can rest on. None of them begins with another, as Redis wants it.
    fn that_verdicts_rest_on(self) -> [String; 5] {
        ["layout", "token:", "user:", "user-by-name:", "revoked:"].map(|name| format!("{}{name}", self.prefix))
    }
}

/// What all workers know of one Redis.
#[derive(Debug)]
pub struct Shared {
    name: Arc<str>,
    settings: Settings,
    /// The epoch that was seen first; another one later is another database.
    epoch: OnceLock<String>,
    reached: AtomicBool,
    health: AtomicU8,
    generations: Arc<Generations>,
    metrics: StoreMetrics,
}

/// How the last look at the store ended; each change is one line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Health {
    NotAsked,
    Usable,
    NotReachable,
    NotOurs,
}

impl Shared {
    pub(super) fn new(
        name: Arc<str>,
        settings: Settings,
        generations: Arc<Generations>,
        metrics: StoreMetrics,
    ) -> Self {
        let (reached, health) = (AtomicBool::new(false), AtomicU8::new(Health::NotAsked as u8));
        Self {
            name,
            settings,
            epoch: OnceLock::new(),
            reached,
            health,
            generations,
            metrics,
        }
    }

    pub(super) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.health.load(Ordering::Relaxed) == Health::Usable as u8
    }

    fn mark(&self, rests: &mut Rests, thing: Thing<'_>) {
        self.generations.mark(rests, &self.name, thing);
    }

    /// Holds a layout record against the one that was seen first.
    fn check_layout(&self, stored: Option<&[u8]>) -> Result<(), StoreError> {
        let wrong = || StoreError::Layout(Arc::clone(&self.name));
        let layout: Layout = record::parse("the layout", stored.ok_or_else(wrong)?)
            .map_err(|problem| StoreError::Record(Arc::clone(&self.name), problem))?;
        if layout.version == Layout::VERSION && *self.epoch.get_or_init(|| layout.epoch.clone()) == layout.epoch {
            Ok(())
        } else {
            Err(wrong())
        }
    }

    fn note(&self, health: Health) {
        if health == Health::Usable {
            self.reached.store(true, Ordering::Relaxed);
        }
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if before == health as u8 {
            return;
        }
        let (store, endpoint) = (&self.name, &self.settings.endpoint);
        match health {
            Health::NotAsked => {}
            Health::Usable => info!(%store, ?endpoint, "the store is usable"),
            Health::NotReachable => warn!(%store, ?endpoint, "the store cannot be reached; its routes answer 503"),
            Health::NotOurs => error!(
                %store, ?endpoint,
                "the store's layout record is missing or has changed: it was flushed, evicted, never filled, or is another \
                 database; its routes answer 503. `authgate user put` or `token import` writes the record"
            ),
        }
    }
}

/// Looks after the store: asks for its layout, and hears of its changes.
pub(super) async fn watch(shared: &Arc<Shared>) {
    match shared.settings.invalidation {
        Invalidation::Tracking => tokio::join!(watch_layout(shared), tracking::track(shared)).0,
        Invalidation::Off => watch_layout(shared).await,
    }
}

/// Asks for the layout now and then, for readiness and for the alarm.
async fn watch_layout(shared: &Arc<Shared>) {
    let mut eviction_checked = false;
    let link = SharedLink::new(Arc::clone(shared));
    loop {
        let looked = link.layout().await;
        shared.note(match &looked {
            Ok(()) => Health::Usable,
            Err(StoreError::Layout(_) | StoreError::Record(..)) => Health::NotOurs,
            Err(StoreError::Unreachable(_) | StoreError::Timeout(_) | StoreError::Refused(..) | StoreError::Busy) => {
                Health::NotReachable
            }
        });
        if looked.is_ok() && !eviction_checked {
            eviction_checked = true;
            link.warn_of_eviction().await;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The watcher's own connection, made anew after each failure. It lives on the control runtime.
struct SharedLink {
    shared: Arc<Shared>,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

impl SharedLink {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            connection: tokio::sync::Mutex::new(None),
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut slot = self.connection.lock().await;
        if slot.is_none() {
            let connected = connect(&self.shared.settings).await;
            *slot = Some(connected.map_err(|problem| store_error(&self.shared.name, &problem))?);
        }
        slot.clone()
            .ok_or_else(|| StoreError::Unreachable(Arc::clone(&self.shared.name)))
    }

    async fn layout(&self) -> Result<(), StoreError> {
        let look = async {
            let mut connection = self.connection().await?;
            let key = self.shared.settings.keys().layout();
            let stored: Option<Vec<u8>> = cmd("GET")
                .arg(key)
                .query_async(&mut connection)
                .await
                .map_err(|problem| store_error(&self.shared.name, &problem))?;
            self.shared.check_layout(stored.as_deref())
        };
        let looked = tokio::time::timeout(self.shared.settings.timeout, look)
            .await
            .unwrap_or_else(|_| Err(StoreError::Timeout(Arc::clone(&self.shared.name))));
        if matches!(looked, Err(StoreError::Unreachable(_) | StoreError::Timeout(_))) {
            *self.connection.lock().await = None;
        }
        looked
    }

    /// An evicted token is a refused user, so a store of ours must never evict. `CONFIG` may be forbidden; then nobody can tell.
    async fn warn_of_eviction(&self) {
        let Ok(mut connection) = self.connection().await else {
            return;
        };
        let asked: redis::RedisResult<Vec<String>> = cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query_async(&mut connection)
            .await;
        if let Ok([_, policy]) = asked.as_deref()
            && policy != "noeviction"
        {
            warn!(store = %self.shared.name, policy, "maxmemory-policy must be noeviction: evicted records are refused users");
        }
    }
}

async fn connect(settings: &Settings) -> Result<MultiplexedConnection, RedisError> {
    settings
        .client()?
        .get_multiplexed_async_connection_with_config(&connection_config())
        .await
}

/// The crate's own deadlines and retries are switched off: there is one deadline, and it is ours.
fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
}

fn store_error(store: &Arc<str>, problem: &RedisError) -> StoreError {
    if problem.is_io_error() || problem.is_connection_dropped() || problem.is_unrecoverable_error() {
        StoreError::Unreachable(Arc::clone(store))
    } else {
        StoreError::Refused(Arc::clone(store), problem.to_string())
    }
}

/// A worker's handle.
#[derive(Debug)]
pub struct RedisStore {
    shared: Arc<Shared>,
    link: Rc<Link>,
    line: Semaphore,
}

struct Link {
    state: watch::Sender<LinkState>,
    connecting: Cell<bool>,
    last_answer: RefCell<Instant>,
}

#[derive(Clone)]
enum LinkState {
    /// Nobody has asked yet, or the first attempt is still under way.
    New,
    Up(MultiplexedConnection),
    /// The last attempt failed.
    Down,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("connecting", &self.connecting)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (state, _) = watch::channel(LinkState::New);
        let link = Link {
            state,
            connecting: Cell::new(false),
            last_answer: RefCell::new(Instant::now()),
        };
        Self {
            shared,
            link: Rc::new(link),
            line: Semaphore::new(LOOK_UPS),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.shared.settings.timeout
    }

    pub(super) async fn token(&self, digest: &TokenDigest, look: &mut Look) -> Result<Option<TokenFacts>, StoreError> {
        let (keys, deadline) = (self.shared.settings.keys(), look.deadline);
        let _turn = self.turn(deadline).await?;
        self.shared.mark(&mut look.rests, Thing::Store);
        self.shared.mark(&mut look.rests, Thing::Token(&digest.to_hex()));
        let [stored] = self.get([keys.token(digest)], deadline).await?;
        let Some(stored) = stored else {
            // "No such token" from a store that was flushed would be a refusal that nobody meant.
            let [layout] = self.get([keys.layout()], deadline).await?;
            return self.shared.check_layout(layout.as_deref()).map(|()| None);
        };
        let token: TokenRecord = self.parsed(record::parse("a token", &stored))?;
        let user = token.user.as_str();
        self.shared.mark(&mut look.rests, Thing::User(user));
        let wanted = [keys.user(user), keys.revoked_user(user), keys.layout()];
        let [user, revoked, layout] = self.get(wanted, deadline).await?;
        self.shared.check_layout(layout.as_deref())?;
        Ok(Some(TokenFacts {
            token,
            user: self.parsed(user.map(|bytes| record::parse("a user", &bytes)).transpose())?,
            user_revoked: self.parsed(revoked.map(|bytes| record::parse_seconds(&bytes)).transpose())?,
        }))
    }

    pub(super) async fn jwt(&self, question: JwtQuestion<'_>, look: &mut Look) -> Result<JwtFacts, StoreError> {
        let (keys, deadline) = (self.shared.settings.keys(), look.deadline);
        let _turn = self.turn(deadline).await?;
        self.shared.mark(&mut look.rests, Thing::Store);
        let by_name;
        let user = match question.user {
            None => None,
            Some(UserKey::Id(id)) => Some(id.as_str()),
            Some(UserKey::Name(name)) => {
                self.shared.mark(&mut look.rests, Thing::Name(name));
                let [id] = self.get([keys.user_by_name(name)], deadline).await?;
                by_name = id.map(|id| String::from_utf8_lossy(&id).into_owned());
                by_name.as_deref()
            }
        };
        let revoked_user = question.revoked_user.map(|id| id.as_str()).or(user);
        if let Some(jti) = question.jti {
            self.shared.mark(&mut look.rests, Thing::Jti(jti));
        }
        for id in user.into_iter().chain(revoked_user.filter(|id| Some(*id) != user)) {
            self.shared.mark(&mut look.rests, Thing::User(id));
        }
        let wanted = [
            question.jti.map(|jti| keys.revoked_jti(jti)),
            question.kid.map(|kid| keys.revoked_kid(kid)),
            revoked_user.map(|id| keys.revoked_user(id)),
            user.map(|id| keys.user(id)),
            Some(keys.layout()),
        ];
        let [jti, kid, revoked, user, layout] = self.get_some(wanted, deadline).await?;
        self.shared.check_layout(layout.as_deref())?;
        Ok(JwtFacts {
            jti_revoked: jti.is_some(),
            kid_revoked: kid.is_some(),
            user_revoked: self.parsed(revoked.map(|bytes| record::parse_seconds(&bytes)).transpose())?,
            user: self.parsed(user.map(|bytes| record::parse("a user", &bytes)).transpose())?,
        })
    }

    fn parsed<T>(&self, parsed: Result<T, BadRecord>) -> Result<T, StoreError> {
        parsed.map_err(|problem| StoreError::Record(Arc::clone(&self.shared.name), problem))
    }

    /// Waits in line, so that a flood of unknown credentials does not fill the connection.
    async fn turn(&self, deadline: tokio::time::Instant) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        timeout_at(deadline, self.line.acquire())
            .await
            // It is never closed.
            .map(Result::ok)
            .map_err(|_| StoreError::Timeout(Arc::clone(&self.shared.name)))
    }

    async fn get<const N: usize>(
        &self,
        keys: [String; N],
        deadline: tokio::time::Instant,
    ) -> Result<[Option<Vec<u8>>; N], StoreError> {
        self.get_some(keys.map(Some), deadline).await
    }

    /// One GET a key, in one write. Not `MGET`: keys of a cluster lie in different slots.
    async fn get_some<const N: usize>(
        &self,
        keys: [Option<String>; N],
        deadline: tokio::time::Instant,
    ) -> Result<[Option<Vec<u8>>; N], StoreError> {
        let mut pipeline = Pipeline::with_capacity(N);
        for key in keys.iter().flatten() {
            pipeline.cmd("GET").arg(key);
        }
        let asked = async {
            let mut connection = self.connection().await?;
            let answer: Result<Vec<Value>, RedisError> = pipeline.query_async(&mut connection).await;
            answer.map_err(|problem| self.failed(&problem))
        };
        let Ok(answer) = timeout_at(deadline, asked).await else {
            if self.link.last_answer.borrow().elapsed() > GIVE_UP_AFTER {
                self.lost();
            }
            return Err(StoreError::Timeout(Arc::clone(&self.shared.name)));
        };
        let mut values = answer?.into_iter();
        *self.link.last_answer.borrow_mut() = Instant::now();
        let mut found = [const { None }; N];
        for (slot, _) in found.iter_mut().zip(&keys).filter(|(_, key)| key.is_some()) {
            *slot = match values.next() {
                Some(Value::BulkString(bytes)) => Some(bytes),
                Some(Value::Nil) => None,
                _ => {
                    return Err(StoreError::Refused(
                        Arc::clone(&self.shared.name),
                        "a reply that is no string".to_owned(),
                    ));
                }
            };
        }
        Ok(found)
    }

    fn failed(&self, problem: &RedisError) -> StoreError {
        debug!(store = %self.shared.name, %problem, "a look-up failed");
        let error = store_error(&self.shared.name, problem);
        if matches!(error, StoreError::Unreachable(_)) {
            self.lost();
        }
        error
    }

    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let state = self.link.state.borrow().clone();
        match state {
            LinkState::Up(connection) => return Ok(connection),
            LinkState::Down => return Err(StoreError::Unreachable(Arc::clone(&self.shared.name))),
            LinkState::New => self.connect_beside(),
        }
        let mut states = self.link.state.subscribe();
        let settled = states
            .wait_for(|state| !matches!(state, LinkState::New))
            .await
            .map(|state| state.clone());
        match settled {
            Ok(LinkState::Up(connection)) => Ok(connection),
            Ok(LinkState::New | LinkState::Down) | Err(_) => {
                Err(StoreError::Unreachable(Arc::clone(&self.shared.name)))
            }
        }
    }

    /// Gives the connection up and has another one made.
    fn lost(&self) {
        if !self.link.connecting.get() {
            self.link.state.send_replace(LinkState::Down);
            self.connect_beside();
        }
    }

    /// Connects in a task of its own, again and again until it succeeds.
    fn connect_beside(&self) {
        if self.link.connecting.replace(true) {
            return;
        }
        let (link, shared) = (Rc::downgrade(&self.link), Arc::clone(&self.shared));
        tokio::task::spawn_local(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let attempt = tokio::time::timeout(shared.settings.timeout, connect(&shared.settings)).await;
                let Some(link) = link.upgrade() else { return };
                if let Ok(Ok(connection)) = attempt {
                    *link.last_answer.borrow_mut() = Instant::now();
                    link.connecting.set(false);
                    link.state.send_replace(LinkState::Up(connection));
                    return;
                }
                link.state.send_replace(LinkState::Down);
                drop(link);
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        });
    }
}

//! Redis on the request path: its connections, the deadline, the layout of the keys.
//!
//! Each worker has its own multiplexed connection to each server: a lookup wakes no other thread, and concurrent lookups share writes. A
//! separate task connects. A request waits, within its deadline, for the first attempt after the start or after a lost connection. Once an
//! attempt has failed, requests of all workers fail at once, until the one task that then tries to connect has succeeded.

mod blocking;
mod breaker;
mod canary;
mod cluster;
mod connections;
mod failure;
mod keys;
mod last_user;
mod layout;
mod link;
mod links;
mod seal;
mod servers;
mod settings;
mod shared;
mod tls;
mod tracking;
mod transport;
mod write_through;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use redis::{Cmd, Pipeline, RedisResult, Value, cmd};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

pub use self::blocking::BlockingConnection;
pub use self::failure::answer;
pub use self::keys::Keys;
use self::link::Link;
use self::links::Links;
pub use self::seal::{BadSeal, InvalidSeal, Seal, SealId};
pub use self::servers::{Discovery, DiscoveryError, MAX_REDIRECTS, Node, Primaries, Redirect};
use self::settings::Role;
pub use self::settings::{Endpoint, Invalidation, Login, RedisSettings, Sentinels, Servers};
pub use self::shared::ChangeReports;
pub(crate) use self::shared::SharedRedis;
pub use self::tls::RedisTls;
use self::transport::Connection;
pub(super) use self::write_through::SourceRecord;
use super::{
    ErrorReply, ErrorReplyKind, JwtFacts, JwtQuery, Lookup, StoreError, TokenFacts, UserKey, effective_record,
};
use crate::dependencies::StoreItem;
use crate::now::milliseconds;
use crate::record::{self, BadRecord, UserRecord};

/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A Redis that is back is found within a second, also by the connection that reports changes.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// On how many connections a lookup is tried, if each of them ends before its answer.
const MAX_ATTEMPTS: u32 = 5;

/// Maximum number of concurrent lookups per worker; further ones queue, within their deadline.
const MAX_LOOKUPS: usize = 64;

/// A worker's handle.
#[derive(Debug)]
pub(crate) struct RedisStore {
    shared: Arc<SharedRedis>,
    links: Links,
    /// For the role that writes, if it is another one.
    writer: Option<Links>,
    permits: Semaphore,
    /// Redis has refused `MGET` to the gateway's role.
    is_mget_refused: Cell<bool>,
}

impl RedisStore {
    pub(super) fn new(shared: Arc<SharedRedis>) -> Self {
        Self {
            links: Links::new(Arc::clone(&shared), Role::Reader),
            writer: shared
                .settings
                .writer
                .is_some()
                .then(|| Links::new(Arc::clone(&shared), Role::Writer)),
            shared,
            permits: Semaphore::new(MAX_LOOKUPS),
            is_mget_refused: Cell::new(false),
        }
    }

    pub(super) fn time_limit(&self) -> Duration {
        self.shared.settings.timeout
    }

    pub(super) fn is_down(&self) -> bool {
        match self.shared.topology.known() {
            Some(primaries) => self.links.are_down(&primaries),
            None => self.shared.topology.has_no_primary(),
        }
    }

    pub(super) async fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
        let (keys, deadline) = (self.shared.settings.keys(), lookup.deadline);
        let digests = self.shared.settings.digests.of(key);
        let digests = digests.map(|digest| digest.map(|digest| keys.digest(&digest)));
        let _permit = self.permit(deadline).await?;
        self.shared.mark(&mut lookup.dependencies, StoreItem::Store);
        for digest in digests.iter().flatten() {
            self.shared
                .mark(&mut lookup.dependencies, StoreItem::Token(&digest.to_hex()));
        }
        if let Some(facts) = self.token_of_last_user(&digests, lookup).await? {
            return Ok(Some(facts));
        }
        let [one, two, three] = digests.map(|digest| digest.map(|digest| keys.token(&digest)));
        let layout_key = self.layout_key(lookup);
        let is_read = layout_key.is_some();
        let [one, two, three, layout] = self.get_some([one, two, three, layout_key], deadline).await?;
        let mut found = Vec::with_capacity(1);
        for (digest, stored) in digests.iter().zip([one, two, three]) {
            if let (Some(digest), Some(stored)) = (digest, stored) {
                found.push(self.parsed(record::parse(format_args!("token {}", digest.to_hex()), &stored))?);
            }
        }
        let Some(token) = effective_record(found) else {
            // Check the layout record first: a flushed store would otherwise refuse every token.
            return self
                .check_layout(is_read.then_some(layout), lookup)
                .await
                .map(|()| None);
        };
        let user = token.user.as_str();
        self.shared.mark(&mut lookup.dependencies, StoreItem::User(user));
        let layout_key = self.layout_key(lookup);
        let is_read = layout_key.is_some();
        let wanted = [Some(keys.user(user)), Some(keys.revoked_user(user)), layout_key];
        let [record, revoked, layout] = self.get_some(wanted, deadline).await?;
        self.check_layout(is_read.then_some(layout), lookup).await?;
        Ok(Some(TokenFacts {
            user: record.map(|record| self.user(user, &record)).transpose()?,
            user_revoked: self.parsed(revoked.map(|bytes| record::parse_seconds(&bytes)).transpose())?,
            token,
            digest: None,
        }))
    }

    /// Parses a user record, and checks it against the id that it is stored under.
    fn user(&self, id: &str, stored: &[u8]) -> Result<UserRecord, StoreError> {
        let user = record::parse::<UserRecord>(format_args!("user {id:?}"), stored);
        self.parsed(user.and_then(|user| user.under(id)))
    }

    pub(super) async fn jwt(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        let _permit = self.permit(lookup.deadline).await?;
        let before = lookup.dependencies;
        let first = self.jwt_facts(query, lookup).await;
        if !matches!(first, Err(StoreError::Record(_, BadRecord::StaleName { .. }))) {
            return first;
        }
        // The user may have been renamed between the two reads of this lookup; look again once.
        lookup.dependencies = before;
        self.jwt_facts(query, lookup).await
    }

    async fn jwt_facts(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        let (keys, deadline) = (self.shared.settings.keys(), lookup.deadline);
        self.shared.mark(&mut lookup.dependencies, StoreItem::Store);
        let by_name;
        let (name, user) = match query.user {
            None => (None, None),
            Some(UserKey::Id(id)) => (None, Some(id.as_str())),
            Some(UserKey::Name(name)) => {
                self.shared.mark(&mut lookup.dependencies, StoreItem::Name(name));
                let [id] = self.get_some([Some(keys.user_by_name(name))], deadline).await?;
                by_name = id.map(|id| String::from_utf8_lossy(&id).into_owned());
                (Some(name), by_name.as_deref())
            }
        };
        let revoked_user = query.revoked_user.map(|id| id.as_str()).or(user);
        if let Some(jti) = query.jti {
            self.shared.mark(&mut lookup.dependencies, StoreItem::Jti(jti));
        }
        for id in user.into_iter().chain(revoked_user.filter(|id| Some(*id) != user)) {
            self.shared.mark(&mut lookup.dependencies, StoreItem::User(id));
        }
        let layout_key = self.layout_key(lookup);
        let is_read = layout_key.is_some();
        let wanted = [
            query.jti.map(|jti| keys.revoked_jti(jti)),
            query.kid.map(|kid| keys.revoked_kid(kid)),
            revoked_user.map(|id| keys.revoked_user(id)),
            user.map(|id| keys.user(id)),
            layout_key,
        ];
        let [jti, kid, revoked, record, layout] = self.get_some(wanted, deadline).await?;
        self.check_layout(is_read.then_some(layout), lookup).await?;
        let record = match (user, record) {
            (Some(id), Some(record)) => Some(self.user(id, &record)?),
            (_, _) => None,
        };
        if let (Some(name), Some(id)) = (name, user)
            && !record.as_ref().is_some_and(|user| user.is_called(name))
        {
            let (name, id) = (name.to_owned(), id.to_owned());
            return self.parsed(Err(BadRecord::StaleName { name, id }));
        }
        Ok(JwtFacts {
            jti_revoked: jti.is_some(),
            kid_revoked: kid.is_some(),
            user_revoked: self.parsed(revoked.map(|bytes| record::parse_seconds(&bytes)).transpose())?,
            user: record,
        })
    }

    /// Records for `lifetime` that a proof is used. Returns `false` if it was used before.
    pub(super) async fn record_proof(
        &self,
        proof: &str,
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let _permit = self.permit(deadline).await?;
        let key = self.shared.settings.keys().proof(proof);
        // The value differs for each use, and shows below which one was recorded.
        let this_use = format!("{:032x}", fastrand::u128(..));
        let mut set = cmd("SET");
        set.arg(&key)
            .arg(&this_use)
            .arg("NX")
            .arg("PX")
            .arg(milliseconds(lifetime));
        let links = self.writer.as_ref().unwrap_or(&self.links);
        let answer = self.send(links, vec![(key.clone(), set)], deadline).await?;
        match answer.values.as_slice() {
            [Value::Okay] => Ok(true),
            // An earlier attempt may have recorded this use before its connection was lost.
            [Value::Nil] if answer.was_repeated => {
                // Not `get_some`, which requires the seal of the store: a proof has none.
                let mut get = cmd("GET");
                get.arg(&key);
                let recorded = self.send(&self.links, vec![(key, get)], deadline).await?.values;
                let is_this_use = |recorded: &Vec<u8>| recorded.as_slice() == this_use.as_bytes();
                Ok(matches!(recorded.as_slice(), [Value::BulkString(recorded)] if is_this_use(recorded)))
            }
            [Value::Nil] => Ok(false),
            _ => Err(StoreError::Refused(
                Arc::clone(&self.shared.name),
                ErrorReply::new(ErrorReplyKind::UnexpectedReply, "a reply to SET that is not OK"),
            )),
        }
    }

    fn parsed<T>(&self, parsed: Result<T, BadRecord>) -> Result<T, StoreError> {
        parsed.map_err(|problem| StoreError::Record(Arc::clone(&self.shared.name), problem))
    }

    /// Waits for a permit, so that a flood of unknown credentials does not fill the connection.
    async fn permit(&self, deadline: Instant) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        timeout_at(deadline, self.permits.acquire())
            .await
            // The semaphore is never closed.
            .map(Result::ok)
            .map_err(|_| StoreError::Timeout(Arc::clone(&self.shared.name)))
    }

    /// The key of the layout record, if this look-up has to read it. In a cluster one server has the record: it would be asked by each
    /// look-up of all gateways, so there the watcher reads it, and what it has confirmed holds for as long as a cached decision.
    fn layout_key(&self, lookup: &Lookup) -> Option<String> {
        let is_known = self.is_cluster() && self.shared.layout_was_confirmed_within(lookup.confirmed_for);
        (!is_known).then(|| self.shared.settings.keys().layout())
    }

    /// Checks the layout record that a look-up has read, if it had to. `None`: it was confirmed before.
    async fn check_layout(&self, read: Option<Option<Vec<u8>>>, lookup: &Lookup) -> Result<(), StoreError> {
        if let Some(stored) = read {
            return self.shared.check_layout(stored.as_deref());
        }
        if self.shared.layout_was_confirmed_within(lookup.confirmed_for) {
            return Ok(());
        }
        // It was reported as changed in the meantime.
        let [stored] = self
            .get_some([Some(self.shared.settings.keys().layout())], lookup.deadline)
            .await?;
        self.shared.check_layout(stored.as_deref())
    }

    fn is_cluster(&self) -> bool {
        matches!(self.shared.settings.servers, Servers::Cluster(_))
    }

    /// One GET per key, in one write to each server. Not `MGET`: in a cluster the keys are in different slots.
    async fn get_some<const N: usize>(
        &self,
        keys: [Option<String>; N],
        deadline: Instant,
    ) -> Result<[Option<Vec<u8>>; N], StoreError> {
        let mut commands = Vec::with_capacity(N);
        for key in keys.iter().flatten() {
            let mut get = cmd("GET");
            get.arg(key);
            commands.push((key.clone(), get));
        }
        let answer = self.send(&self.links, commands, deadline).await?;
        let mut values = answer.values.into_iter();
        let mut found = [const { None }; N];
        for (slot, key) in found.iter_mut().zip(&keys) {
            let Some(key) = key else { continue };
            *slot = match values.next() {
                Some(Value::BulkString(mut stored)) => {
                    let seal = stored.len() - self.shared.value(key, &stored)?.len();
                    stored.drain(..seal);
                    Some(stored)
                }
                Some(Value::Nil) => None,
                _ => {
                    return Err(StoreError::Refused(
                        Arc::clone(&self.shared.name),
                        ErrorReply::new(ErrorReplyKind::UnexpectedReply, "a reply to GET that is not a string"),
                    ));
                }
            };
        }
        Ok(found)
    }

    /// Sends commands to the servers that have their keys.
    async fn send(&self, links: &Links, commands: Vec<(String, Cmd)>, deadline: Instant) -> Result<Answer, StoreError> {
        if self.is_cluster() {
            return self.send_in_cluster(links, commands, deadline).await;
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for (_, command) in commands {
            pipeline.add_command(command);
        }
        self.send_to_only(links, &pipeline, deadline).await
    }

    /// Sends commands to the server that has all keys.
    async fn send_to_only(&self, links: &Links, pipeline: &Pipeline, deadline: Instant) -> Result<Answer, StoreError> {
        let topology = &self.shared.topology;
        let mut was_replaced = false;
        loop {
            let primaries = topology.primaries(&self.shared.name, deadline).await?;
            let Some(node) = primaries.only() else {
                return Err(StoreError::Unreachable(Arc::clone(&self.shared.name)));
            };
            let answer = self.query(&links.to(node, &primaries), pipeline, deadline).await;
            // What a server has answered that was replaced in the meantime may be old.
            if topology.is(&primaries) {
                return answer.map(|answer| Answer {
                    was_repeated: answer.was_repeated || was_replaced,
                    ..answer
                });
            }
            was_replaced = true;
        }
    }

    /// Sends the commands, and sends them again on another connection if one ends before its answer. This is safe: lookups only read, and
    /// the answer says whether a command may have been executed twice. So a server or firewall that closes connections makes no request
    /// fail. A connection that was idle, and does not answer within half of the time, is replaced in the same way.
    async fn query(&self, link: &Rc<Link>, pipeline: &Pipeline, deadline: Instant) -> Result<Answer, StoreError> {
        let (attempts, began) = (Cell::new(0), std::time::Instant::now());
        let asked = async {
            let is_silent = link.is_silent(began);
            let first = self.ask(link, pipeline, &attempts);
            if !is_silent {
                return first.await;
            }
            let halfway = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
            tokio::pin!(first);
            if let Ok(answer) = timeout_at(halfway, &mut first).await {
                return answer;
            }
            link.replace();
            let again = self.ask(link, pipeline, &attempts);
            tokio::pin!(again);
            // Both run until the deadline: the store may be slow, and the connection not dead.
            match select(first, again).await {
                Either::Left((Ok(values), _)) | Either::Right((Ok(values), _)) => Ok(values),
                Either::Left((Err(_), again)) => again.await,
                Either::Right((Err(error), first)) => first.await.map_err(|_| error),
            }
        };
        match timeout_at(deadline, asked).await {
            Ok(values) => values.map(|values| Answer {
                values,
                was_repeated: attempts.get() > 1,
            }),
            Err(_) => {
                link.timed_out(began);
                Err(StoreError::Timeout(Arc::clone(&self.shared.name)))
            }
        }
    }

    async fn ask(&self, link: &Rc<Link>, pipeline: &Pipeline, attempts: &Cell<u32>) -> Result<Vec<Value>, StoreError> {
        loop {
            let connected = link.connection().await?;
            attempts.set(attempts.get() + 1);
            let mut connection = connected.connection.clone();
            let problem = match run(pipeline, &mut connection).await {
                Ok(values) => {
                    link.answered();
                    return Ok(values);
                }
                Err(problem) => problem,
            };
            debug!(store = %self.shared.name, reason = %problem, "a lookup failed");
            if let Some(reply) = answer(&problem) {
                link.answered();
                return Err(StoreError::Refused(Arc::clone(&self.shared.name), reply));
            }
            link.lost(&connected);
            if attempts.get() >= MAX_ATTEMPTS {
                return Err(StoreError::ReplyCut(Arc::clone(&self.shared.name)));
            }
        }
    }
}

/// Sends a pipeline, and returns a value for each command. Where the pipeline ignores errors, an error is a value too.
async fn run(pipeline: &Pipeline, connection: &mut Connection) -> RedisResult<Vec<Value>> {
    match pipeline.query_async(connection).await? {
        Value::Array(values) => Ok(values),
        value => Ok(vec![value]),
    }
}

/// The answer to commands.
struct Answer {
    values: Vec<Value>,
    /// The commands were sent more than once.
    was_repeated: bool,
}

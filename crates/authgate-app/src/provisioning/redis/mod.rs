//! Writes to Redis for the command line: in transactions under `WATCH`, so that no concurrent change is lost. No command names two keys,
//! because in a cluster they may be in different slots. There, each key is replaced in a transaction of its own.

mod bulk;
mod connections;
mod reseal;
mod tokens;
mod transaction;
mod users;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::record::{self, BadRecord, Layout};
use authgate_auth::store::redis::{Node, RedisSettings, Seal, SealId};
use authgate_auth::store::{Digests, TokenDigest};
use authgate_core::identity::UserId;
use redis::{FromRedisValue, Pipeline, cmd};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub(super) use self::bulk::RedisImport;
use self::connections::Connections;
use super::{NameSorter, ProvisioningError, Replication, Revocation, SortedNames};

/// How long to wait for a replica.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(1);
/// How many keys are read in one write.
pub(super) const CHUNK: usize = 500;

/// A connection to a store.
pub struct WritableRedis {
    store: Arc<str>,
    settings: Arc<RedisSettings>,
    connections: Connections,
}

/// What to do about members of a set that do not have the seal of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BadSeals {
    Refused,
    Skipped,
}

impl fmt::Debug for WritableRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritableRedis")
            .field("store", &self.store)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl WritableRedis {
    pub(super) fn open(store: Arc<str>, settings: RedisSettings) -> Result<Self, ProvisioningError> {
        let key = settings.keys().layout();
        let connections = Connections::open(Arc::clone(&store), settings.clone(), &key)?;
        Ok(Self {
            store,
            settings: Arc::new(settings),
            connections,
        })
    }

    pub(super) fn digests(&self) -> Digests {
        self.settings.digests
    }

    pub(super) fn seal_id(&self) -> Option<SealId> {
        self.settings.seal.as_ref().map(Seal::id)
    }

    pub(super) fn digest(&self, digest: &TokenDigest) -> TokenDigest {
        self.settings.keys().digest(digest)
    }

    fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, ProvisioningError> {
        self.connections.ask(command)
    }

    fn ask_all<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, ProvisioningError> {
        let answers = self.connections.ask_each(pipeline.cmd_iter().cloned().collect())?;
        redis::from_redis_value(redis::Value::Array(answers))
            .map_err(|problem| self.connections.failed(&problem.into()))
    }

    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, ProvisioningError> {
        let stored: Option<Vec<u8>> = self.ask(cmd("GET").arg(key))?;
        stored.map(|stored| self.value(key, &stored)).transpose()
    }

    /// The value that is stored under a key, if it has the seal of the store.
    fn value(&self, key: &str, stored: &[u8]) -> Result<Vec<u8>, ProvisioningError> {
        let value = self.settings.keys().value(key, stored);
        value.map(<[u8]>::to_vec).map_err(|problem| ProvisioningError::Seal {
            store: Arc::clone(&self.store),
            problem,
        })
    }

    /// What is stored under keys, sealed or not. One `GET` per key; not `MGET`, which in a cluster requires one slot.
    fn stored_each(&mut self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, ProvisioningError> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for key in chunk {
                pipeline.cmd("GET").arg(key);
            }
            found.append(&mut self.ask_all::<Vec<Option<Vec<u8>>>>(&pipeline)?);
        }
        Ok(found)
    }

    /// The values of keys.
    fn get_each(&mut self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, ProvisioningError> {
        let stored = self.stored_each(keys)?.into_iter().zip(keys);
        let values = stored.map(|(stored, key)| stored.map(|stored| self.value(key, &stored)).transpose());
        values.collect()
    }

    /// Checks the seals of these keys, where the store has one.
    fn check_seals(&mut self, keys: &[String]) -> Result<(), ProvisioningError> {
        match self.settings.seal {
            Some(_) => self.get_each(keys).map(|_| ()),
            None => Ok(()),
        }
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        self.ask(cmd("SET").arg(key).arg(settings.keys().stored(key, value).as_ref()))
    }

    fn read<R: DeserializeOwned>(&self, what: &'static str, key: &str, stored: &[u8]) -> Result<R, ProvisioningError> {
        record::parse(what, stored).map_err(|problem| self.bad_record(key, problem))
    }

    fn bad_record(&self, key: &str, problem: BadRecord) -> ProvisioningError {
        ProvisioningError::Record {
            store: Arc::clone(&self.store),
            what: key.to_owned(),
            problem,
        }
    }

    fn find<R: DeserializeOwned>(&mut self, what: &'static str, key: &str) -> Result<Option<R>, ProvisioningError> {
        self.get(key)?.map(|stored| self.read(what, key, &stored)).transpose()
    }

    /// Changes one member of a stored object and keeps all others, including unknown ones. `becomes` receives the old value and returns the
    /// new one, or `None` for no change. Returns the old value; `None`: the key does not exist.
    fn change_member(
        &mut self,
        (what, key): (&'static str, &str),
        name: &str,
        becomes: impl Fn(&Value) -> Option<Value>,
    ) -> Result<Option<Value>, ProvisioningError> {
        self.transaction(|transaction| {
            let Some(stored) = transaction.get(key)? else {
                return Ok(None);
            };
            let mut object: Map<String, Value> = transaction.redis.read(what, key, &stored)?;
            let before = object.get(name).cloned().unwrap_or(Value::Null);
            if let Some(value) = becomes(&before) {
                object.insert(name.to_owned(), value);
                transaction.set(key.to_owned(), json(&object));
            }
            Ok(Some(before))
        })
    }

    /// All keys with this prefix, without the prefix. `found` receives how many more were found.
    fn scan<E: From<ProvisioningError>>(
        &mut self,
        start: &str,
        mut found: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<SortedNames, E> {
        let mut sorter = NameSorter::default();
        self.scan_pages(start, |_, names| {
            names.iter().try_for_each(|name| sorter.push(name))?;
            found(names.len())
        })?;
        Ok(sorter.finish()?)
    }

    /// The same in pages. A key may occur twice.
    fn scan_pages<E: From<ProvisioningError>>(
        &mut self,
        start: &str,
        mut take: impl FnMut(&mut Self, Vec<String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pattern = String::with_capacity(start.len() + 1);
        for letter in start.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push('*');
        for node in self.connections.nodes() {
            self.scan_node(&node, (start, &pattern), &mut take)?;
        }
        Ok(())
    }

    fn scan_node<E: From<ProvisioningError>>(
        &mut self,
        node: &Node,
        (start, pattern): (&str, &str),
        take: &mut impl FnMut(&mut Self, Vec<String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.connections.ask_at(node, &scan)?;
            let names = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
            let names = names.filter_map(|name| Some(name.strip_prefix(start)?.to_owned()));
            take(self, names.collect())?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// The members of a set, without their seals. `SMEMBERS` of a large set would keep Redis from answering others.
    fn members(&mut self, key: &str, bad_seals: BadSeals) -> Result<SortedNames, ProvisioningError> {
        let (mut sorter, mut cursor) = (NameSorter::default(), 0_u64);
        loop {
            let page = self.ask(cmd("SSCAN").arg(key).arg(cursor).arg("COUNT").arg(1000));
            let (next, members): (u64, Vec<Vec<u8>>) = page?;
            for member in members {
                match (self.value(key, &member), bad_seals) {
                    (Ok(member), _) => sorter.push(&String::from_utf8_lossy(&member))?,
                    (Err(error), BadSeals::Refused) => return Err(error),
                    (Err(_), BadSeals::Skipped) => {}
                }
            }
            cursor = next;
            if cursor == 0 {
                return sorter.finish();
            }
        }
    }

    pub(super) fn begin(&mut self, fresh: &Layout) -> Result<(bool, Layout), ProvisioningError> {
        // A role that may not write the record can use a store that has it.
        match self.layout() {
            Err(ProvisioningError::Empty { .. }) => {}
            found => return found.map(|layout| (false, layout)),
        }
        let key = self.settings.keys().layout();
        let value = json(fresh);
        let value = self.settings.keys().stored(&key, &value).into_owned();
        let made: Option<String> = self.ask(cmd("SET").arg(key).arg(value).arg("NX"))?;
        Ok((made.is_some(), self.layout()?))
    }

    pub(super) fn complete(&mut self, epoch: &str) -> Result<(), ProvisioningError> {
        let key = self.settings.keys().layout();
        self.transaction(|transaction| {
            let stored = transaction.get(&key)?;
            let layout = stored.map(|stored| transaction.redis.read::<Layout>("the layout", &key, &stored));
            match layout.transpose()? {
                Some(mut layout) if layout.epoch == epoch => {
                    layout.filling = false;
                    transaction.set(key.clone(), json(&layout));
                    Ok(())
                }
                Some(_) | None => Err(ProvisioningError::Emptied {
                    store: Arc::clone(&transaction.redis.store),
                }),
            }
        })
    }

    pub(super) fn require_layout(&mut self) -> Result<(), ProvisioningError> {
        self.layout().map(|_| ())
    }

    pub(super) fn is_filling(&mut self) -> Result<bool, ProvisioningError> {
        self.layout().map(|layout| layout.filling)
    }

    fn layout(&mut self) -> Result<Layout, ProvisioningError> {
        let key = self.settings.keys().layout();
        let store = Arc::clone(&self.store);
        match self.find::<Layout>("the layout", &key)? {
            Some(layout) if layout.resealing.is_some() => Err(ProvisioningError::Resealing { store }),
            Some(layout) if layout.version == Layout::VERSION => Ok(layout),
            Some(layout) => Err(ProvisioningError::Version {
                store,
                found: layout.version,
            }),
            None => Err(ProvisioningError::Empty {
                store,
                at: format!("{}, key {key}", connections::endpoints(&self.settings)),
            }),
        }
    }

    pub(super) fn user_revoked(&mut self, id: &UserId) -> Result<Option<i64>, ProvisioningError> {
        let key = self.settings.keys().revoked_user(id.as_str());
        self.find("a user's revocation", &key)
    }

    /// `WAIT` is about the writes of this connection.
    pub(super) fn wait_for_replica(&mut self) -> Replication {
        let Some(node) = self.connections.last_asked() else {
            return Replication::Unknown;
        };
        let Ok(role) = self.connections.ask_at::<redis::Value>(&node, &cmd("ROLE")) else {
            return Replication::Unknown;
        };
        match has_replicas(&role) {
            None => return Replication::Unknown,
            Some(false) => return Replication::NoReplica,
            Some(true) => {}
        }
        let milliseconds = REPLICA_TIMEOUT.as_millis().to_string();
        let confirmed = self
            .connections
            .ask_at::<i64>(&node, cmd("WAIT").arg(1).arg(milliseconds));
        match confirmed {
            Ok(0) => Replication::NotConfirmed,
            Ok(_) => Replication::Confirmed,
            Err(_) => Replication::Unknown,
        }
    }

    pub(super) fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), ProvisioningError> {
        let keys = self.settings.keys();
        match revocation {
            Revocation::User { id, before } => {
                let key = keys.revoked_user(id.as_str());
                self.transaction(|transaction| {
                    let mark = transaction
                        .get(&key)?
                        .map(|stored| transaction.redis.read::<i64>("a user's revocation", &key, &stored))
                        .transpose()?;
                    if mark.is_none_or(|mark| mark < *before) {
                        transaction.set(key.clone(), before.to_string().into_bytes());
                    }
                    Ok(())
                })
            }
            Revocation::Jti { jti, forget: None } => {
                let key = keys.revoked_jti(jti);
                self.set(&key, b"1")
            }
            Revocation::Jti {
                jti,
                forget: Some(forget),
            } => {
                let (key, seconds) = (keys.revoked_jti(jti), (forget - now).max(1));
                self.transaction(|transaction| {
                    let there = transaction.get_replaceable(&key)?.is_some();
                    // -1: it never expires, -2: it does not exist.
                    let left: i64 = transaction.redis.ask(cmd("TTL").arg(&key))?;
                    if !(there && (left == -1 || left >= seconds)) {
                        transaction.set_for(key.clone(), b"1".to_vec(), seconds);
                    }
                    Ok(())
                })
            }
            Revocation::Kid { kid } => {
                let key = keys.revoked_kid(kid);
                self.set(&key, b"1")
            }
        }
    }
}

/// Whether the reply to `ROLE` is that of a primary with replicas; `None`: it is another reply.
fn has_replicas(role: &redis::Value) -> Option<bool> {
    let redis::Value::Array(parts) = role else { return None };
    match parts.as_slice() {
        [_, _, redis::Value::Array(replicas)] => Some(!replicas.is_empty()),
        _ => None,
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are text, numbers and maps with text as keys")
}

//! Redis as the command line changes it: one key at a time, under `WATCH`, so that nobody's change is lost and no command needs two
//! slots of a cluster.

mod bulk;
mod tokens;
mod users;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Connection, FromRedisValue, Pipeline, RedisError, cmd, pipe};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{AdminError, Revocation};
use crate::auth::record::{self, Layout};
use crate::auth::store::redis::Settings;
use crate::identity::UserId;

/// A person waits for this, so it is longer than a request would.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys are asked for in one write.
const CHUNK: usize = 500;

/// A connection to a store.
pub struct RedisAdmin {
    store: Arc<str>,
    settings: Settings,
    connection: Connection,
}

/// What becomes of a key.
enum Change {
    Nothing,
    Set(Vec<u8>),
    /// For so many seconds from now.
    SetFor(Vec<u8>, i64),
    Delete,
}

impl fmt::Debug for RedisAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAdmin")
            .field("store", &self.store)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl RedisAdmin {
    pub(super) fn open(store: Arc<str>, settings: Settings) -> Result<Self, AdminError> {
        let connected = settings
            .client()
            .and_then(|client| client.get_connection_with_timeout(TIMEOUT))
            .and_then(|connection| {
                connection.set_read_timeout(Some(TIMEOUT))?;
                connection.set_write_timeout(Some(TIMEOUT))?;
                Ok(connection)
            });
        match connected {
            Ok(connection) => Ok(Self {
                store,
                settings,
                connection,
            }),
            Err(problem) => Err(failed(&store, &settings, &problem)),
        }
    }

    fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, AdminError> {
        command
            .query(&mut self.connection)
            .map_err(|problem| failed(&self.store, &self.settings, &problem))
    }

    fn ask_all<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, AdminError> {
        pipeline
            .query(&mut self.connection)
            .map_err(|problem| failed(&self.store, &self.settings, &problem))
    }

    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, AdminError> {
        self.ask(cmd("GET").arg(key))
    }

    /// One `GET` a key; not `MGET`, which in a cluster must stay in one slot.
    fn get_each(&mut self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, AdminError> {
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

    fn read<R: DeserializeOwned>(&self, what: &'static str, key: &str, stored: &[u8]) -> Result<R, AdminError> {
        let bad = |problem| AdminError::Record {
            store: Arc::clone(&self.store),
            what: key.to_owned(),
            problem,
        };
        record::parse(what, stored).map_err(bad)
    }

    fn find<R: DeserializeOwned>(&mut self, what: &'static str, key: &str) -> Result<Option<R>, AdminError> {
        self.get(key)?.map(|stored| self.read(what, key, &stored)).transpose()
    }

    /// Changes one key by what is in it, and starts again if somebody else changes it meanwhile.
    fn change<T>(
        &mut self,
        key: &str,
        mut decide: impl FnMut(&mut Self, Option<Vec<u8>>) -> Result<(Change, T), AdminError>,
    ) -> Result<T, AdminError> {
        loop {
            self.ask::<()>(cmd("WATCH").arg(key))?;
            let stored = self.get(key)?;
            let mut transaction = pipe();
            transaction.atomic();
            // A decision that fails ends the command and its connection, and the watch with it.
            let (change, answer) = decide(self, stored)?;
            match change {
                Change::Nothing => {
                    self.ask::<()>(&cmd("UNWATCH"))?;
                    return Ok(answer);
                }
                Change::Set(value) => transaction.cmd("SET").arg(key).arg(value),
                Change::SetFor(value, seconds) => transaction.cmd("SET").arg(key).arg(value).arg("EX").arg(seconds),
                Change::Delete => transaction.cmd("DEL").arg(key),
            };
            if self.ask_all::<Option<Vec<redis::Value>>>(&transaction)?.is_some() {
                return Ok(answer);
            }
        }
    }

    /// Changes one member of a stored object and leaves the others, also those that this program does not know, as they are.
    /// `becomes` is told what the member is and says what it becomes, if anything. Gives back what it was; `None`: there is no such
    /// key.
    fn change_member(
        &mut self,
        (what, key): (&'static str, &str),
        name: &str,
        becomes: impl Fn(&Value) -> Option<Value>,
    ) -> Result<Option<Value>, AdminError> {
        self.change(key, |admin, stored| {
            let Some(stored) = stored else {
                return Ok((Change::Nothing, None));
            };
            let mut object: Map<String, Value> = admin.read(what, key, &stored)?;
            let before = object.get(name).cloned().unwrap_or(Value::Null);
            let Some(value) = becomes(&before) else {
                return Ok((Change::Nothing, Some(before)));
            };
            object.insert(name.to_owned(), value);
            Ok((Change::Set(json(&object)), Some(before)))
        })
    }

    /// All keys that begin like this, without what they begin with.
    fn scan(&mut self, start: &str) -> Result<BTreeSet<String>, AdminError> {
        let mut pattern = String::with_capacity(start.len() + 1);
        for letter in start.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push('*');
        let (mut found, mut cursor) = (BTreeSet::new(), 0_u64);
        loop {
            let page = self.ask(
                cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(&pattern)
                    .arg("COUNT")
                    .arg(1000),
            )?;
            let (next, keys): (u64, Vec<Vec<u8>>) = page;
            let names = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
            found.extend(names.filter_map(|name| Some(name.strip_prefix(start)?.to_owned())));
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    pub(super) fn begin(&mut self, fresh: &Layout) -> Result<(bool, Layout), AdminError> {
        let key = self.settings.keys().layout();
        let made: Option<String> = self.ask(cmd("SET").arg(key).arg(json(fresh)).arg("NX"))?;
        Ok((made.is_some(), self.layout()?))
    }

    pub(super) fn complete(&mut self, epoch: &str) -> Result<(), AdminError> {
        let key = self.settings.keys().layout();
        self.change(&key, |admin, stored| {
            let store = Arc::clone(&admin.store);
            let layout = stored.map(|stored| admin.read::<Layout>("the layout", &key, &stored));
            match layout.transpose()? {
                Some(mut layout) if layout.epoch == epoch && layout.filling => {
                    layout.filling = false;
                    Ok((Change::Set(json(&layout)), ()))
                }
                Some(layout) if layout.epoch == epoch => Ok((Change::Nothing, ())),
                Some(_) | None => Err(AdminError::Emptied { store }),
            }
        })
    }

    pub(super) fn require_layout(&mut self) -> Result<(), AdminError> {
        self.layout().map(|_| ())
    }

    fn layout(&mut self) -> Result<Layout, AdminError> {
        let key = self.settings.keys().layout();
        let store = Arc::clone(&self.store);
        match self.find::<Layout>("the layout", &key)? {
            Some(layout) if layout.version == Layout::VERSION => Ok(layout),
            Some(layout) => Err(AdminError::Version {
                store,
                found: layout.version,
            }),
            None => Err(AdminError::Empty {
                store,
                at: format!("{:?}, key {key}", self.settings.endpoint),
            }),
        }
    }

    pub(super) fn user_revoked(&mut self, id: &UserId) -> Result<Option<i64>, AdminError> {
        let key = self.settings.keys().revoked_user(id.as_str());
        self.find("a user's revocation", &key)
    }

    pub(super) fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), AdminError> {
        let keys = self.settings.keys();
        match revocation {
            Revocation::User { id, before } => {
                let key = keys.revoked_user(id.as_str());
                self.change(&key, |admin, stored| {
                    let mark = stored
                        .map(|stored| admin.read::<i64>("a user's revocation", &key, &stored))
                        .transpose()?;
                    let further = mark.is_none_or(|mark| mark < *before);
                    Ok((
                        if further {
                            Change::Set(before.to_string().into_bytes())
                        } else {
                            Change::Nothing
                        },
                        (),
                    ))
                })
            }
            Revocation::Jti { jti, forget: None } => {
                let key = keys.revoked_jti(jti);
                self.ask(cmd("SET").arg(key).arg(1))
            }
            Revocation::Jti {
                jti,
                forget: Some(forget),
            } => {
                let (key, seconds) = (keys.revoked_jti(jti), (forget - now).max(1));
                self.change(&key, |admin, stored| {
                    // -1: it never ends, -2: there is none.
                    let left: i64 = admin.ask(cmd("TTL").arg(&key))?;
                    let further = stored.is_some() && (left == -1 || left >= seconds);
                    Ok((
                        if further {
                            Change::Nothing
                        } else {
                            Change::SetFor(b"1".to_vec(), seconds)
                        },
                        (),
                    ))
                })
            }
            Revocation::Kid { kid } => {
                let key = keys.revoked_kid(kid);
                self.ask(cmd("SET").arg(key).arg(1))
            }
        }
    }
}

fn failed(store: &Arc<str>, settings: &Settings, problem: &RedisError) -> AdminError {
    let problem = if problem.is_timeout() {
        format!("no answer within {} s", TIMEOUT.as_secs())
    } else {
        problem.to_string()
    };
    AdminError::Redis {
        store: Arc::clone(store),
        endpoint: format!("{:?}", settings.endpoint),
        problem,
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are text, numbers and maps with text as keys")
}

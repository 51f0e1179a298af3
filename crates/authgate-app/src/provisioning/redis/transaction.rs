//! Reads and writes of several keys that take effect together.
//!
//! In a cluster the keys are in different slots, and only the writes of one key take effect together: each key is replaced if it still has
//! the value that was read. The order makes an interruption fail closed: first records that are there, then new ones, then the names that
//! point to users, then the removal of former names. A name that points to a user with another name is an error for gateways, and no user.

use std::collections::HashMap;
use std::sync::Arc;

use authgate_auth::record::{self, TokenRecord, UserRecord};
use authgate_auth::store::redis::Node;
use redis::{Cmd, Pipeline, cmd};

use super::WritableRedis;
use crate::provisioning::ProvisioningError;

/// Reads, and writes that take effect together, unless a key that was read has changed in the meantime.
pub(super) struct Transaction<'a> {
    pub(super) redis: &'a mut WritableRedis,
    /// The only server, whose connection watches the keys that are read. `None` in a cluster.
    watching: Option<Node>,
    /// What is stored, sealed or not.
    seen: HashMap<String, Option<Vec<u8>>>,
    /// Values, which are sealed when they are written.
    written: HashMap<String, Write>,
    /// The keys of `written`, each once.
    order: Vec<String>,
}

enum Write {
    Set(Vec<u8>),
    /// Expires after this many seconds.
    SetFor(Vec<u8>, i64),
    Delete,
}

impl WritableRedis {
    /// Runs `body`, and runs it again if another program changed a key that it read before its writes took effect.
    pub(super) fn transaction<T>(
        &mut self,
        mut body: impl FnMut(&mut Transaction<'_>) -> Result<T, ProvisioningError>,
    ) -> Result<T, ProvisioningError> {
        loop {
            let mut transaction = Transaction {
                watching: self.connections.watch()?,
                redis: self,
                seen: HashMap::new(),
                written: HashMap::new(),
                order: Vec::new(),
            };
            let answer = body(&mut transaction);
            let writes = transaction.writes();
            let done = match (&answer, writes.is_empty()) {
                (Ok(_), false) if self.connections.is_cluster() => self.replace_each(writes),
                (Ok(_), false) => self.connections.execute(writes.into_iter().map(|write| write.command)),
                (Ok(_), true) => self.connections.unwatch().map(|()| true),
                (Err(_), _) => {
                    // Report the error of the body, not a later one.
                    let _ = self.connections.unwatch();
                    Ok(true)
                }
            };
            if done? {
                return answer;
            }
        }
    }

    /// Writes to a cluster. `false`: a key has changed since it was read, and the rest is not written.
    fn replace_each(&mut self, mut writes: Vec<KeyWrite>) -> Result<bool, ProvisioningError> {
        let names = self.settings.keys().user_by_name("");
        let rank = |write: &KeyWrite| match (write.key.starts_with(&names), write.is_deletion, &write.seen) {
            (false, _, Some(_)) | (false, true, None) => 0,
            (false, false, None) => 1,
            (true, false, _) => 2,
            (true, true, _) => 3,
        };
        // Keeps the order of the body otherwise.
        writes.sort_by_key(rank);
        for chunk in writes.chunk_by(|one, other| rank(one) == 1 && rank(other) == 1) {
            if let [write] = chunk {
                if !self
                    .connections
                    .replace(&write.key, write.seen.as_deref(), &write.command)?
                {
                    return Ok(false);
                }
                continue;
            }
            // New records, in few writes.
            let commands = chunk.iter().map(|write| {
                let mut set = write.command.clone();
                set.arg("NX");
                set
            });
            let stored = self.connections.ask_each(commands.collect())?;
            if stored.contains(&redis::Value::Nil) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A write of one key.
struct KeyWrite {
    key: String,
    /// Its value when it was read.
    seen: Option<Vec<u8>>,
    is_deletion: bool,
    command: Cmd,
}

impl Transaction<'_> {
    /// Reads several keys in one write, before [`Transaction::get`] needs them.
    pub(super) fn fetch(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), ProvisioningError> {
        let keys: Vec<String> = keys.into_iter().filter(|key| !self.seen.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let found = match &self.watching {
            None => self.redis.stored_each(&keys)?,
            Some(node) => {
                let mut pipeline = Pipeline::with_capacity(2 * keys.len());
                for key in &keys {
                    pipeline.cmd("WATCH").arg(key).ignore();
                    pipeline.cmd("GET").arg(key);
                }
                self.redis.connections.ask_all_at(node, &pipeline)?
            }
        };
        self.seen.extend(keys.into_iter().zip(found));
        Ok(())
    }

    /// The value of a key, including writes of this transaction.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, ProvisioningError> {
        match self.written.get(key) {
            Some(Write::Set(value) | Write::SetFor(value, _)) => Ok(Some(value.clone())),
            Some(Write::Delete) => Ok(None),
            None => {
                let stored = self.stored(key)?;
                stored.map(|stored| self.redis.value(key, &stored)).transpose()
            }
        }
    }

    /// The same; a value with a bad seal counts as `None`, so that it can be replaced.
    pub(super) fn get_replaceable(&mut self, key: &str) -> Result<Option<Vec<u8>>, ProvisioningError> {
        match self.get(key) {
            Err(ProvisioningError::Seal { .. }) => Ok(None),
            value => value,
        }
    }

    /// What is stored under a key, sealed or not, before the writes of this transaction.
    pub(super) fn stored(&mut self, key: &str) -> Result<Option<Vec<u8>>, ProvisioningError> {
        self.fetch([key.to_owned()])?;
        Ok(self.seen.get(key).cloned().flatten())
    }

    /// The user under a key. An invalid record, and one with a bad seal, count as `None`, so that they can be replaced.
    pub(super) fn user(&mut self, key: &str, id: &str) -> Result<Option<UserRecord>, ProvisioningError> {
        let stored = self.get_replaceable(key)?;
        Ok(stored.and_then(|stored| record::parse::<UserRecord>("a user", &stored).ok()?.under(id).ok()))
    }

    /// The token under a key.
    pub(super) fn token(&mut self, key: &str) -> Result<Option<TokenRecord>, ProvisioningError> {
        let stored = self.get(key)?;
        stored
            .map(|stored| self.redis.read("a token", key, &stored))
            .transpose()
    }

    pub(super) fn set(&mut self, key: String, value: Vec<u8>) {
        self.write(key, Write::Set(value));
    }

    pub(super) fn set_for(&mut self, key: String, value: Vec<u8>, seconds: i64) {
        self.write(key, Write::SetFor(value, seconds));
    }

    pub(super) fn delete(&mut self, key: String) {
        self.write(key, Write::Delete);
    }

    fn write(&mut self, key: String, write: Write) {
        if self.written.insert(key.clone(), write).is_none() {
            self.order.push(key);
        }
    }

    /// All writes that change something.
    fn writes(mut self) -> Vec<KeyWrite> {
        let settings = Arc::clone(&self.redis.settings);
        let (keys, mut writes) = (settings.keys(), Vec::with_capacity(self.order.len()));
        for key in self.order {
            let (Some(write), seen) = (self.written.remove(&key), self.seen.remove(&key)) else {
                continue;
            };
            let (was_seen, seen) = (seen.is_some(), seen.flatten());
            let is_deletion = matches!(write, Write::Delete);
            let write = match write {
                Write::Set(value) => Write::Set(keys.stored(&key, &value).into_owned()),
                Write::SetFor(value, seconds) => Write::SetFor(keys.stored(&key, &value).into_owned(), seconds),
                Write::Delete => Write::Delete,
            };
            let command = match write {
                Write::Set(value) if seen.as_deref() == Some(value.as_slice()) => continue,
                Write::Delete if seen.is_none() && was_seen => continue,
                Write::Set(value) => cmd("SET").arg(&key).arg(value).clone(),
                Write::SetFor(value, seconds) => cmd("SET").arg(&key).arg(value).arg("EX").arg(seconds).clone(),
                Write::Delete => cmd("DEL").arg(&key).clone(),
            };
            writes.push(KeyWrite {
                key,
                seen,
                is_deletion,
                command,
            });
        }
        writes
    }
}

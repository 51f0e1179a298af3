//! Reads and writes of several keys that take effect together.
//!
//! Each command names one key. In a cluster the keys of one transaction would be in different slots.

use std::collections::{BTreeMap, HashMap};

use authgate_auth::record::{self, TokenRecord, UserRecord};
use redis::{Pipeline, cmd, pipe};

use super::WritableRedis;
use crate::provisioning::ProvisioningError;

/// Reads, and writes that take effect together, unless a key that was read has changed in the meantime.
pub(super) struct Transaction<'a> {
    pub(super) redis: &'a mut WritableRedis,
    seen: HashMap<String, Option<Vec<u8>>>,
    written: BTreeMap<String, Write>,
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
            self.refresh()?;
            self.watching = true;
            let (answer, commands) = {
                let mut transaction = Transaction {
                    redis: self,
                    seen: HashMap::new(),
                    written: BTreeMap::new(),
                };
                let answer = body(&mut transaction);
                (answer, transaction.commands())
            };
            let done = match (&answer, commands) {
                (Ok(_), Some(commands)) => self.ask_all::<Option<Vec<redis::Value>>>(&commands),
                (Ok(_), None) => self.ask::<()>(&cmd("UNWATCH")).map(|()| Some(Vec::new())),
                (Err(_), _) => {
                    // Report the error of the body, not a later one.
                    let _ = self.ask::<()>(&cmd("UNWATCH"));
                    Ok(Some(Vec::new()))
                }
            };
            self.watching = false;
            if done?.is_some() {
                return answer;
            }
        }
    }
}

impl Transaction<'_> {
    /// Reads several keys in one write, before [`Transaction::get`] needs them.
    pub(super) fn fetch(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), ProvisioningError> {
        let keys: Vec<String> = keys.into_iter().filter(|key| !self.seen.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(2 * keys.len());
        for key in &keys {
            pipeline.cmd("WATCH").arg(key).ignore();
            pipeline.cmd("GET").arg(key);
        }
        let found: Vec<Option<Vec<u8>>> = self.redis.ask_all(&pipeline)?;
        self.seen.extend(keys.into_iter().zip(found));
        Ok(())
    }

    /// The value of a key, including writes of this transaction.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, ProvisioningError> {
        match self.written.get(key) {
            Some(Write::Set(value) | Write::SetFor(value, _)) => return Ok(Some(value.clone())),
            Some(Write::Delete) => return Ok(None),
            None => self.fetch([key.to_owned()])?,
        }
        Ok(self.seen.get(key).cloned().flatten())
    }

    /// The user under a key. An invalid record counts as `None`, so that it can be replaced.
    pub(super) fn user(&mut self, key: &str, id: &str) -> Result<Option<UserRecord>, ProvisioningError> {
        let stored = self.get(key)?;
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
        self.written.insert(key, Write::Set(value));
    }

    pub(super) fn set_for(&mut self, key: String, value: Vec<u8>, seconds: i64) {
        self.written.insert(key, Write::SetFor(value, seconds));
    }

    pub(super) fn delete(&mut self, key: String) {
        self.written.insert(key, Write::Delete);
    }

    /// All writes as one Redis transaction; `None`: nothing changes.
    fn commands(self) -> Option<Pipeline> {
        let mut commands = pipe();
        commands.atomic();
        let mut changed = false;
        for (key, write) in &self.written {
            let stored = self.seen.get(key).and_then(Option::as_deref);
            match write {
                Write::Set(value) if stored == Some(value.as_slice()) => continue,
                Write::Delete if stored.is_none() && self.seen.contains_key(key) => continue,
                Write::Set(value) => commands.cmd("SET").arg(key).arg(value),
                Write::SetFor(value, seconds) => commands.cmd("SET").arg(key).arg(value).arg("EX").arg(seconds),
                Write::Delete => commands.cmd("DEL").arg(key),
            };
            changed = true;
        }
        changed.then_some(commands)
    }
}

//! Seals the records of a store that has none sealed.
//!
//! The layout record is sealed first, and says so: until all records are sealed, neither gateways nor other commands use the store. An
//! interrupted run is completed by the next one. Without that layout record no unsealed record is accepted: it may be another program's.

use std::sync::Arc;

use authgate_auth::record::{self, Layout, TokenRecord};
use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::{BadSeal, Keys};
use redis::{Pipeline, cmd};

use super::transaction::Transaction;
use super::{CHUNK, WritableRedis, connections, json};
use crate::provisioning::{ProvisioningError, Resealed, Resealing};

/// For how many seconds an interrupted run can be completed. Another program may keep the layout record of that time, and restore it later.
const LONGEST: i64 = 86_400;

type Progress<'p> = &'p mut dyn FnMut(usize, usize);

/// A record that has no seal.
struct Unsealed {
    key: String,
    stored: Vec<u8>,
    /// In seconds; `None`: it never expires.
    left: Option<i64>,
}

impl WritableRedis {
    pub(in crate::provisioning) fn reseal(
        &mut self,
        now: i64,
        progress: Progress<'_>,
    ) -> Result<Resealing, ProvisioningError> {
        if self.settings.seal.is_none() {
            let store = Arc::clone(&self.store);
            return Err(ProvisioningError::NoSeal { store });
        }
        let Some((epoch, total)) = self.begin_resealing(now)? else {
            return Ok(Resealing::Before);
        };
        let resealed = self.seal_all(total, progress)?;
        self.complete_resealing(&epoch)?;
        Ok(Resealing::Now(resealed))
    }

    /// Seals the layout record. Returns the epoch and the number of records; `None`: all records are sealed already.
    fn begin_resealing(&mut self, now: i64) -> Result<Option<(String, usize)>, ProvisioningError> {
        let key = self.settings.keys().layout();
        let (store, stored) = (
            Arc::clone(&self.store),
            self.ask::<Option<Vec<u8>>>(cmd("GET").arg(&key))?,
        );
        let Some(stored) = stored else {
            let at = format!("{}, key {key}", connections::endpoints(&self.settings));
            return Err(ProvisioningError::Empty { store, at });
        };
        let (layout, is_sealed) = match self.value(&key, &stored) {
            Ok(value) => (self.read::<Layout>("the layout", &key, &value)?, true),
            Err(error) if is_unsealed(&error) => (self.read::<Layout>("the layout", &key, &stored)?, false),
            Err(error) => return Err(error),
        };
        let found = layout.version;
        match (is_sealed, layout) {
            _ if found != Layout::VERSION => Err(ProvisioningError::Version { store, found }),
            (true, layout) => match layout.resealing {
                None => Ok(None),
                Some(began) if now - began > LONGEST => Err(ProvisioningError::OldResealing { store }),
                Some(_) => Ok(Some((layout.epoch, self.count(false)?))),
            },
            (false, layout) if layout.filling => Err(ProvisioningError::Filling { store }),
            (false, mut layout) => {
                // Gateways still use the store.
                let total = self.count(true)?;
                (layout.filling, layout.resealing) = (true, Some(now));
                self.transaction(|transaction| {
                    if transaction.stored(&key)?.as_ref() != Some(&stored) {
                        let store = Arc::clone(&store);
                        return Err(ProvisioningError::Emptied { store });
                    }
                    transaction.set(key.clone(), json(&layout));
                    Ok(())
                })?;
                Ok(Some((layout.epoch, total)))
            }
        }
    }

    fn complete_resealing(&mut self, epoch: &str) -> Result<(), ProvisioningError> {
        let key = self.settings.keys().layout();
        self.transaction(|transaction| {
            let value = transaction.get(&key)?;
            let layout = value.map(|value| transaction.redis.read::<Layout>("the layout", &key, &value));
            match layout.transpose()? {
                Some(mut layout) if layout.epoch == epoch => {
                    (layout.filling, layout.resealing) = (false, None);
                    transaction.set(key.clone(), json(&layout));
                    Ok(())
                }
                Some(_) | None => Err(ProvisioningError::Emptied {
                    store: Arc::clone(&transaction.redis.store),
                }),
            }
        })
    }

    /// Counts the records. `check`: none may be sealed.
    fn count(&mut self, check: bool) -> Result<usize, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let mut count = 0;
        for start in values(settings.keys()) {
            self.scan_pages(&start, |redis, names| {
                count += names.len();
                if !check {
                    return Ok(());
                }
                let keys: Vec<_> = names.iter().map(|name| format!("{start}{name}")).collect();
                for (key, stored) in keys.iter().zip(redis.stored_each(&keys)?) {
                    if stored.is_some_and(|stored| settings.keys().value(key, &stored).is_ok()) {
                        return Err(ProvisioningError::PartlySealed {
                            store: Arc::clone(&redis.store),
                            record: key.clone(),
                        });
                    }
                }
                Ok(())
            })?;
        }
        self.scan_pages(&settings.keys().tokens_of(""), |_, names| {
            count += names.len();
            Ok(())
        })?;
        Ok(count)
    }

    fn seal_all(&mut self, total: usize, progress: Progress<'_>) -> Result<Resealed, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let (keys, mut resealed, mut done) = (settings.keys(), Resealed::default(), 0);
        let [jtis, revoked_users, kids, users, names, tokens] = values(keys);
        for start in [&jtis, &revoked_users, &kids] {
            resealed.revocations += self.seal_pages(start, total, &mut done, progress, Self::seal_values)?;
        }
        resealed.users = self.seal_pages(&users, total, &mut done, progress, Self::seal_values)?;
        resealed.names = self.seal_pages(&names, total, &mut done, progress, Self::seal_values)?;
        resealed.tokens = self.seal_pages(&tokens, total, &mut done, progress, Self::seal_tokens)?;
        resealed.lists = self.seal_pages(&keys.tokens_of(""), total, &mut done, progress, Self::seal_lists)?;
        Ok(resealed)
    }

    /// Seals all keys that begin with `start`, and counts those that were not sealed before.
    fn seal_pages(
        &mut self,
        start: &str,
        total: usize,
        done: &mut usize,
        progress: Progress<'_>,
        seal: fn(&mut Self, &[String]) -> Result<usize, ProvisioningError>,
    ) -> Result<usize, ProvisioningError> {
        let mut sealed = 0;
        self.scan_pages(start, |redis, names| {
            let keys: Vec<_> = names.iter().map(|name| format!("{start}{name}")).collect();
            for chunk in keys.chunks(CHUNK) {
                sealed += seal(redis, chunk)?;
                *done += chunk.len();
                progress(*done, total);
            }
            Ok(())
        })?;
        Ok(sealed)
    }

    fn seal_values(&mut self, keys: &[String]) -> Result<usize, ProvisioningError> {
        self.transaction(|transaction| {
            let unsealed = unsealed(transaction, keys)?;
            let count = unsealed.len();
            for record in unsealed {
                set(transaction, record.key, record.stored, record.left);
            }
            Ok(count)
        })
    }

    /// Tokens get other names. The sealed record is written before the other one is deleted.
    fn seal_tokens(&mut self, keys: &[String]) -> Result<usize, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let (start, mut keys, mut count) = (settings.keys().tokens(), keys.to_vec(), 0);
        while !keys.is_empty() {
            let copied = self.transaction(|transaction| {
                let mut copied = Vec::new();
                for record in unsealed(transaction, &keys)? {
                    let digest = record.key.strip_prefix(&start).and_then(TokenDigest::from_hex);
                    // No token has another name.
                    let Some(digest) = digest else { continue };
                    let name = settings.keys().token(&digest);
                    // An interrupted run may have written it.
                    let before = transaction.get(&name)?;
                    let before = before.and_then(|before| record::parse::<TokenRecord>("a token", &before).ok());
                    if before.is_none_or(|before| before.revoked.is_none()) {
                        set(transaction, name, record.stored.clone(), record.left);
                    }
                    copied.push((record.key, record.stored));
                }
                Ok(copied)
            })?;
            // A record that has changed since is copied again.
            keys = self.transaction(|transaction| {
                transaction.fetch(copied.iter().map(|(key, _)| key.clone()))?;
                let mut changed = Vec::new();
                for (key, stored) in &copied {
                    match transaction.stored(key)? {
                        Some(now) if now != *stored => changed.push(key.clone()),
                        Some(_) => transaction.delete(key.clone()),
                        None => {}
                    }
                }
                Ok(changed)
            })?;
            count += copied.len() - keys.len();
        }
        Ok(count)
    }

    fn seal_lists(&mut self, lists: &[String]) -> Result<usize, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        let mut pipeline = Pipeline::with_capacity(lists.len());
        for list in lists {
            pipeline.cmd("SMEMBERS").arg(list);
        }
        let members: Vec<Vec<Vec<u8>>> = self.ask_all(&pipeline)?;
        let (mut changes, mut count) = (Pipeline::new(), 0);
        for (list, members) in lists.iter().zip(members) {
            let mut has_unsealed = false;
            for member in members {
                match self.value(list, &member) {
                    Ok(_) => continue,
                    Err(error) if is_unsealed(&error) => has_unsealed = true,
                    Err(error) => return Err(error),
                }
                let digest = std::str::from_utf8(&member).ok().and_then(TokenDigest::from_hex);
                if let Some(digest) = digest {
                    let hex = keys.digest(&digest).to_hex();
                    let sealed = keys.stored(list, hex.as_bytes());
                    changes.cmd("SADD").arg(list).arg(&*sealed).ignore();
                }
                changes.cmd("SREM").arg(list).arg(member).ignore();
            }
            count += usize::from(has_unsealed);
        }
        if count > 0 {
            self.ask_all::<()>(&changes)?;
        }
        Ok(count)
    }
}

/// The beginnings of all keys with a value: revoked JWTs, users and keys, then users, usernames and tokens.
fn values(keys: Keys<'_>) -> [String; 6] {
    [
        keys.revoked_jti(""),
        keys.revoked_user(""),
        keys.revoked_kid(""),
        keys.user(""),
        keys.user_by_name(""),
        keys.tokens(),
    ]
}

fn is_unsealed(error: &ProvisioningError) -> bool {
    matches!(
        error,
        ProvisioningError::Seal {
            problem: BadSeal::Unsealed(_),
            ..
        }
    )
}

/// Those of these records that have no seal.
fn unsealed(transaction: &mut Transaction<'_>, keys: &[String]) -> Result<Vec<Unsealed>, ProvisioningError> {
    transaction.fetch(keys.iter().cloned())?;
    let mut found = Vec::new();
    for key in keys {
        let Some(stored) = transaction.stored(key)? else {
            continue;
        };
        match transaction.redis.value(key, &stored) {
            Ok(_) => {}
            Err(error) if is_unsealed(&error) => found.push((key.clone(), stored)),
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = Pipeline::with_capacity(found.len());
    for (key, _) in &found {
        pipeline.cmd("TTL").arg(key);
    }
    let left: Vec<i64> = transaction.redis.ask_all(&pipeline)?;
    let found = found.into_iter().zip(left).map(|((key, stored), left)| Unsealed {
        key,
        stored,
        // TTL rounds; a revocation must not end early.
        left: (left >= 0).then_some(left + 1),
    });
    Ok(found.collect())
}

fn set(transaction: &mut Transaction<'_>, key: String, value: Vec<u8>, left: Option<i64>) {
    match left {
        Some(left) => transaction.set_for(key, value, left),
        None => transaction.set(key, value),
    }
}

//! Users, and the index of usernames: the key of a name points to the user that has it.

use std::sync::Arc;

use authgate_auth::record::UserRecord;
use authgate_auth::store::redis::Keys;
use authgate_core::identity::UserId;
use redis::{Pipeline, cmd};
use serde_json::{Map, Value};

use super::transaction::Transaction;
use super::{BadSeals, CHUNK, WritableRedis, json};
use crate::provisioning::{Deleted, NameClash, ProvisioningError, Step, Tombstones, UserUpdate, next_batch};

impl WritableRedis {
    /// Stores users and the username index in one transaction, so that readers never see half of a rename.
    pub(in crate::provisioning) fn put_users(
        &mut self,
        updates: &[UserUpdate],
        clash: NameClash,
    ) -> Result<Vec<Option<UserRecord>>, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        self.transaction(|transaction| {
            transaction.fetch(updates.iter().map(|update| keys.user(update.record.id.as_str())))?;
            let mut names = Vec::with_capacity(updates.len());
            for update in updates {
                let id = update.record.id.as_str();
                let stored = transaction.user(&keys.user(id), id)?;
                let user = update.over(stored.as_ref());
                names.extend(user.username);
                names.extend(stored.and_then(|stored| stored.username));
            }
            transaction.fetch(names.iter().map(|name| keys.user_by_name(name.as_str())))?;
            let put = updates.iter().map(|update| put_user(transaction, keys, update, clash));
            put.collect()
        })
    }

    /// Stores one user, and returns the old record.
    pub(in crate::provisioning) fn put_user(
        &mut self,
        update: &UserUpdate,
        clash: NameClash,
    ) -> Result<Option<UserRecord>, ProvisioningError> {
        let before = self.put_users(std::slice::from_ref(update), clash)?.pop();
        Ok(before.flatten())
    }

    pub(in crate::provisioning) fn find_user(&mut self, id: &UserId) -> Result<Option<UserRecord>, ProvisioningError> {
        let key = self.settings.keys().user(id.as_str());
        let Some(user) = self.find::<UserRecord>("a user", &key)? else {
            return Ok(None);
        };
        user.under(id.as_str())
            .map(Some)
            .map_err(|problem| self.bad_record(&key, problem))
    }

    pub(in crate::provisioning) fn each_user<E: From<ProvisioningError>>(
        &mut self,
        mut take: impl FnMut(Step<UserRecord>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ids = self.scan(&self.settings.keys().user(""), |found| take(Step::Found(found)))?;
        take(Step::Count(ids.count()))?;
        let mut ids = ids.iter()?;
        while let Some(batch) = next_batch(&mut ids, CHUNK)? {
            let keys: Vec<_> = batch.iter().map(|id| self.settings.keys().user(id)).collect();
            for (key, stored) in keys.iter().zip(self.get_each(&keys)?) {
                // The user may have been deleted since its id was found.
                if let Some(stored) = stored {
                    take(Step::Record(self.read("a user", key, &stored)?))?;
                }
            }
        }
        Ok(())
    }

    /// Which of these users exist.
    pub(in crate::provisioning) fn known_users(&mut self, ids: &[&UserId]) -> Result<Vec<bool>, ProvisioningError> {
        let keys: Vec<_> = ids.iter().map(|id| self.settings.keys().user(id.as_str())).collect();
        let mut known = Vec::with_capacity(ids.len());
        for chunk in keys.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for key in chunk {
                pipeline.cmd("EXISTS").arg(key);
            }
            known.append(&mut self.ask_all::<Vec<bool>>(&pipeline)?);
        }
        Ok(known)
    }

    /// An index entry that points to a user with another username is ignored.
    pub(in crate::provisioning) fn find_user_by_name(
        &mut self,
        name: &str,
    ) -> Result<Option<UserRecord>, ProvisioningError> {
        let key = self.settings.keys().user_by_name(name);
        let id = self.get(&key)?.and_then(|id| user_id(&id));
        let user = id.map_or(Ok(None), |id| self.find_user(&id))?;
        Ok(user.filter(|user| user.is_called(name)))
    }

    /// The users with these usernames.
    pub(in crate::provisioning) fn users_by_name(
        &mut self,
        names: &[&str],
    ) -> Result<Vec<Option<UserId>>, ProvisioningError> {
        let pointers: Vec<_> = names
            .iter()
            .map(|name| self.settings.keys().user_by_name(name))
            .collect();
        let pointers = self.get_each(&pointers)?;
        let ids: Vec<_> = pointers.into_iter().map(|stored| user_id(&stored?)).collect();
        let keys: Vec<_> = ids
            .iter()
            .flatten()
            .map(|id| self.settings.keys().user(id.as_str()))
            .collect();
        let mut users = self.get_each(&keys)?.into_iter();
        let mut found = Vec::with_capacity(names.len());
        for (name, id) in names.iter().zip(ids) {
            let Some(id) = id else {
                found.push(None);
                continue;
            };
            let user = match users.next().flatten() {
                Some(stored) => {
                    Some(self.read::<UserRecord>("a user", &self.settings.keys().user(id.as_str()), &stored)?)
                }
                None => None,
            };
            // A pointer to a user with another username is ignored.
            found.push(
                user.filter(|user| user.id == id && user.is_called(name))
                    .map(|user| user.id),
            );
        }
        Ok(found)
    }

    pub(in crate::provisioning) fn set_active(
        &mut self,
        id: &UserId,
        active: bool,
    ) -> Result<Option<bool>, ProvisioningError> {
        let key = self.settings.keys().user(id.as_str());
        let before = self.change_member(("a user", &key), "active", |_| Some(active.into()))?;
        Ok(before.map(|before| before == Value::Bool(true)))
    }

    pub(in crate::provisioning) fn delete_user(
        &mut self,
        id: &UserId,
        tombstones: Tombstones,
    ) -> Result<Deleted, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        let tokens_of = keys.tokens_of(id.as_str());
        // The record first: without it the user's tokens are refused, even if this command is interrupted.
        let user = self.transaction(|transaction| {
            let key = keys.user(id.as_str());
            let there = transaction.stored(&key)?.is_some();
            let user = transaction.user(&key, id.as_str())?;
            if let Some(name) = user.and_then(|user| user.username) {
                release_name(transaction, keys, name.as_str(), id)?;
            }
            transaction.delete(key);
            Ok(there)
        })?;
        // The others are deleted with the set.
        let (names, mut tokens) = (self.members(&tokens_of, BadSeals::Skipped)?, 0);
        let mut names = names.iter()?;
        while let Some(batch) = next_batch(&mut names, CHUNK)? {
            let digests: Vec<_> = batch.iter().filter_map(|hex| keys.parse_digest(hex)).collect();
            tokens += self.delete_tokens(&digests, tombstones, |token| token.user == *id)?;
        }
        if tombstones == Tombstones::Delete {
            self.ask::<()>(cmd("DEL").arg(&tokens_of))?;
        }
        Ok(Deleted { user, tokens })
    }
}

pub(super) fn put_user(
    transaction: &mut Transaction<'_>,
    keys: Keys<'_>,
    update: &UserUpdate,
    clash: NameClash,
) -> Result<Option<UserRecord>, ProvisioningError> {
    let id = &update.record.id;
    let key = keys.user(id.as_str());
    let before = transaction.user(&key, id.as_str())?;
    let user = update.over(before.as_ref());
    if let Some(name) = &user.username {
        claim_name(transaction, keys, name.as_str(), id, clash)?;
    }
    if let Some(old) = before.as_ref().and_then(|before| before.username.as_ref())
        && user.username.as_ref() != Some(old)
    {
        release_name(transaction, keys, old.as_str(), id)?;
    }
    transaction.set(key, json(&user));
    Ok(before)
}

/// Makes the name point to this user.
fn claim_name(
    transaction: &mut Transaction<'_>,
    keys: Keys<'_>,
    name: &str,
    id: &UserId,
    clash: NameClash,
) -> Result<(), ProvisioningError> {
    let pointer = keys.user_by_name(name);
    let stored = transaction.get_replaceable(&pointer)?;
    if stored.as_deref() == Some(id.as_str().as_bytes()) {
        return Ok(());
    }
    if let Some(other) = stored.and_then(|stored| user_id(&stored)) {
        let key = keys.user(other.as_str());
        if transaction
            .user(&key, other.as_str())?
            .is_some_and(|user| user.is_called(name))
        {
            if clash == NameClash::Refuse {
                return Err(ProvisioningError::NameTaken {
                    name: name.to_owned(),
                    holder: other.as_str().to_owned(),
                });
            }
            // Keep unknown members.
            let stored = transaction.get(&key)?.unwrap_or_default();
            let mut object: Map<String, Value> = transaction.redis.read("a user", &key, &stored)?;
            object.insert("username".to_owned(), Value::Null);
            transaction.set(key, json(&object));
        }
    }
    transaction.set(pointer, id.as_str().as_bytes().to_vec());
    Ok(())
}

/// Removes the key of the name if it points to this user.
fn release_name(
    transaction: &mut Transaction<'_>,
    keys: Keys<'_>,
    name: &str,
    id: &UserId,
) -> Result<(), ProvisioningError> {
    let pointer = keys.user_by_name(name);
    if transaction.get_replaceable(&pointer)?.as_deref() == Some(id.as_str().as_bytes()) {
        transaction.delete(pointer);
    }
    Ok(())
}

fn user_id(stored: &[u8]) -> Option<UserId> {
    UserId::new(std::str::from_utf8(stored).ok()?).ok()
}

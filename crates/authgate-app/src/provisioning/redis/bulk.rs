//! Bulk operations: import in batches, and pruning; and the list of revocations.

use std::fmt;
use std::sync::Arc;

use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::Keys;
use authgate_core::identity::UserId;
use redis::Pipeline;

use super::tokens::change_index;
use super::{CHUNK, WritableRedis, json};
use crate::provisioning::{
    Imported, Keep, NameClash, NameSorter, ProvisioningError, Pruned, Revocation, SortedNames, Step, TokenUpdate,
    Tombstones, UserUpdate, next_batch,
};

/// An import into Redis. Each batch takes effect at once.
pub(in crate::provisioning) struct RedisImport<'a>(&'a mut WritableRedis);

impl fmt::Debug for RedisImport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a> RedisImport<'a> {
    pub(in crate::provisioning) fn new(redis: &'a mut WritableRedis) -> Self {
        Self(redis)
    }

    pub(in crate::provisioning) fn revoke(
        &mut self,
        revocation: &Revocation,
        now: i64,
    ) -> Result<(), ProvisioningError> {
        self.0.revoke(revocation, now)
    }

    pub(in crate::provisioning) fn prune(
        &mut self,
        keep: &Keep,
        found: impl FnMut(usize),
    ) -> Result<Pruned, ProvisioningError> {
        self.0.prune(keep, found)
    }

    pub(in crate::provisioning) fn users(&mut self, updates: &[UserUpdate]) -> Result<(), ProvisioningError> {
        self.0.put_users(updates, NameClash::Move).map(|_| ())
    }

    pub(in crate::provisioning) fn tokens(
        &mut self,
        updates: &[(TokenDigest, TokenUpdate)],
        done: &mut Imported,
    ) -> Result<(), ProvisioningError> {
        self.0.import_tokens(updates, done)
    }

    pub(in crate::provisioning) fn known_users(&mut self, ids: &[&UserId]) -> Result<Vec<bool>, ProvisioningError> {
        self.0.known_users(ids)
    }

    pub(in crate::provisioning) fn users_by_name(
        &mut self,
        names: &[&str],
    ) -> Result<Vec<Option<UserId>>, ProvisioningError> {
        self.0.users_by_name(names)
    }

    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "a file is written here")]
    pub(in crate::provisioning) fn finish(self) -> Result<(), ProvisioningError> {
        Ok(())
    }
}

impl WritableRedis {
    /// Stores a batch of tokens, in one transaction. A revoked token is not changed.
    pub(in crate::provisioning) fn import_tokens(
        &mut self,
        updates: &[(TokenDigest, TokenUpdate)],
        done: &mut Imported,
    ) -> Result<(), ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        // The index first: a token that is missing from lists would never be revoked.
        let mut index = Pipeline::with_capacity(updates.len());
        let updates: Vec<_> = updates
            .iter()
            .map(|(digest, update)| (keys.digest(digest), update))
            .collect();
        for (digest, update) in &updates {
            change_index(&mut index, "SADD", keys, &update.record.user, digest);
        }
        self.ask_all::<()>(&index)?;
        let (stored, left, not_of) = self.transaction(|transaction| {
            transaction.fetch(updates.iter().map(|(digest, _)| keys.token(digest)))?;
            let (mut stored, mut left, mut not_of) = (0, 0, Vec::new());
            for (digest, update) in &updates {
                let key = keys.token(digest);
                let before = transaction.token(&key)?;
                let owner = before.as_ref().map(|before| before.user.clone());
                let other = owner.filter(|owner| *owner != update.record.user);
                if before.as_ref().is_some_and(|before| before.revoked.is_some()) {
                    left += 1;
                    not_of.extend(other.map(|_| (*digest, update.record.user.clone())));
                } else {
                    stored += 1;
                    transaction.set(key, json(&update.over(before.as_ref())));
                    not_of.extend(other.map(|other| (*digest, other)));
                }
            }
            Ok((stored, left, not_of))
        })?;
        done.tokens += stored;
        done.left_revoked += left;
        if not_of.is_empty() {
            return Ok(());
        }
        // Remove the token from the index of its former user.
        let mut index = Pipeline::with_capacity(not_of.len());
        for (digest, user) in not_of {
            change_index(&mut index, "SREM", keys, &user, &digest);
        }
        self.ask_all::<()>(&index)
    }

    /// Removes all records that `keep` does not name, except revoked tokens: a later import must not restore them.
    pub(in crate::provisioning) fn prune(
        &mut self,
        keep: &Keep,
        mut found: impl FnMut(usize),
    ) -> Result<Pruned, ProvisioningError> {
        let (mut pruned, mut stored) = (Pruned::default(), NameSorter::default());
        // An interrupted command may have deleted a user, but not yet its tokens.
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        for start in [keys.user(""), keys.tokens_of("")] {
            self.scan_pages::<ProvisioningError>(&start, |_, ids| {
                found(ids.len());
                ids.iter().try_for_each(|id| stored.push(id))
            })?;
        }
        for id in stored.finish()?.without(&keep.users)? {
            let Ok(id) = UserId::new(&id?) else { continue };
            let deleted = self.delete_user(&id, Tombstones::Keep)?;
            pruned.users += usize::from(deleted.user);
            pruned.tokens += deleted.tokens;
        }
        let Some(kept) = &keep.tokens else { return Ok(pruned) };
        let sealed = match settings.seal {
            Some(_) => Some(sealed_names(keys, kept)?),
            None => None,
        };
        let kept = sealed.as_ref().unwrap_or(kept);
        let stored = self.scan::<ProvisioningError>(&keys.tokens(), |more| {
            found(more);
            Ok(())
        })?;
        let mut rest = stored.without(kept)?;
        while let Some(batch) = next_batch(&mut rest, CHUNK)? {
            let digests: Vec<_> = batch.iter().filter_map(|hex| keys.parse_digest(hex)).collect();
            pruned.tokens += self.delete_tokens(&digests, Tombstones::Keep, |_| true)?;
        }
        Ok(pruned)
    }

    pub(in crate::provisioning) fn each_revocation<E: From<ProvisioningError>>(
        &mut self,
        now: i64,
        mut take: impl FnMut(Step<Revocation>) -> Result<(), E>,
    ) -> Result<(), E> {
        let names = self.scan(&self.settings.keys().revoked_user(""), |found| take(Step::Found(found)))?;
        take(Step::Count(names.count()))?;
        for id in names.iter()? {
            let Ok(id) = UserId::new(&id?) else { continue };
            if let Some(before) = self.user_revoked(&id)? {
                take(Step::Record(Revocation::User { id, before }))?;
            }
        }
        let names = self.scan(&self.settings.keys().revoked_jti(""), |found| take(Step::Found(found)))?;
        take(Step::Count(names.count()))?;
        let mut names = names.iter()?;
        while let Some(batch) = next_batch(&mut names, CHUNK)? {
            let mut pipeline = Pipeline::with_capacity(batch.len());
            for jti in &batch {
                pipeline.cmd("TTL").arg(self.settings.keys().revoked_jti(jti));
            }
            let left: Vec<i64> = self.ask_all(&pipeline)?;
            let keys: Vec<_> = batch.iter().map(|jti| self.settings.keys().revoked_jti(jti)).collect();
            self.check_seals(&keys)?;
            for (jti, left) in batch.into_iter().zip(left) {
                // -1: it never expires, -2: it has expired since its name was found.
                if left != -2 {
                    let forget = (left >= 0).then_some(now + left);
                    take(Step::Record(Revocation::Jti { jti, forget }))?;
                }
            }
        }
        let names = self.scan(&self.settings.keys().revoked_kid(""), |found| take(Step::Found(found)))?;
        take(Step::Count(names.count()))?;
        for kid in names.iter()? {
            let kid = kid?;
            self.check_seals(&[self.settings.keys().revoked_kid(&kid)])?;
            take(Step::Record(Revocation::Kid { kid }))?;
        }
        Ok(())
    }
}

/// The names in a sealed store of tokens with these digests.
fn sealed_names(keys: Keys<'_>, digests: &SortedNames) -> Result<SortedNames, ProvisioningError> {
    let mut names = NameSorter::default();
    for digest in digests.iter()? {
        if let Some(digest) = TokenDigest::from_name(&digest?) {
            names.push(&keys.digest(&digest).to_hex())?;
        }
    }
    names.finish()
}

//! Bulk operations: import in batches, pruning, and export.

use std::fmt;

use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::Keys;
use authgate_core::identity::UserId;
use redis::{Pipeline, cmd};

use super::{WritableRedis, json};
use crate::provisioning::{
    Bundle, Imported, Keep, NameClash, ProvisioningError, Pruned, Revocation, TokenUpdate, Tombstones, UserUpdate,
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

    pub(in crate::provisioning) fn prune(&mut self, keep: &Keep) -> Result<Pruned, ProvisioningError> {
        self.0.prune(keep)
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

    pub(in crate::provisioning) fn find_user_by_name(
        &mut self,
        name: &str,
    ) -> Result<Option<UserId>, ProvisioningError> {
        Ok(self.0.find_user_by_name(name)?.map(|user| user.id))
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
        let prefix = self.settings.prefix.clone();
        let keys = Keys::new(&prefix);
        // The index first: a token that is missing from lists would never be revoked.
        let mut index = Pipeline::with_capacity(updates.len());
        for (digest, update) in updates {
            index
                .cmd("SADD")
                .arg(keys.tokens_of(update.record.user.as_str()))
                .arg(digest.to_hex())
                .ignore();
        }
        self.ask_all::<()>(&index)?;
        let (stored, left, not_of) = self.transaction(|transaction| {
            transaction.fetch(updates.iter().map(|(digest, _)| keys.token(digest)))?;
            let (mut stored, mut left, mut not_of) = (0, 0, Vec::new());
            for (digest, update) in updates {
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
            index
                .cmd("SREM")
                .arg(keys.tokens_of(user.as_str()))
                .arg(digest.to_hex())
                .ignore();
        }
        self.ask_all::<()>(&index)
    }

    /// Removes all records that `keep` does not name, except revoked tokens: a later import must not restore them.
    pub(in crate::provisioning) fn prune(&mut self, keep: &Keep) -> Result<Pruned, ProvisioningError> {
        let mut pruned = Pruned::default();
        let start = self.settings.keys().user("");
        self.scan_pages(&start, |redis, ids| {
            for id in ids.iter().filter(|id| !keep.users.contains(id.as_str())) {
                let Ok(id) = UserId::new(id) else { continue };
                let deleted = redis.delete_user(&id, Tombstones::Keep)?;
                pruned.users += usize::from(deleted.user);
                pruned.tokens += deleted.tokens;
            }
            Ok(())
        })?;
        let Some(kept) = &keep.tokens else { return Ok(pruned) };
        let start = self.settings.keys().tokens();
        self.scan_pages(&start, |redis, names| {
            let digests: Vec<_> = names
                .iter()
                .filter_map(|hex| TokenDigest::from_hex(hex))
                .filter(|digest| !kept.contains(digest))
                .collect();
            pruned.tokens += redis.delete_tokens(&digests, Tombstones::Keep, |_| true)?;
            Ok(())
        })?;
        Ok(pruned)
    }

    pub(in crate::provisioning) fn export(&mut self, now: i64) -> Result<Bundle, ProvisioningError> {
        let mut bundle = Bundle {
            tokens: self.list_tokens(None)?,
            ..Bundle::default()
        };
        self.each_user(|user| bundle.users.push(user))?;
        for id in self.scan(&self.settings.keys().revoked_user(""))? {
            let Ok(id) = UserId::new(&id) else { continue };
            if let Some(before) = self.user_revoked(&id)? {
                bundle.revocations.push(Revocation::User { id, before });
            }
        }
        for jti in self.scan(&self.settings.keys().revoked_jti(""))? {
            let key = self.settings.keys().revoked_jti(&jti);
            let left: i64 = self.ask(cmd("TTL").arg(key))?;
            if left != -2 {
                bundle.revocations.push(Revocation::Jti {
                    jti,
                    forget: (left >= 0).then_some(now + left),
                });
            }
        }
        for kid in self.scan(&self.settings.keys().revoked_kid(""))? {
            bundle.revocations.push(Revocation::Kid { kid });
        }
        Ok(bundle)
    }
}

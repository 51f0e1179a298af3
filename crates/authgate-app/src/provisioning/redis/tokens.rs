//! Opaque tokens, and the set of digests of each user.

use std::sync::Arc;

use authgate_auth::record::TokenRecord;
use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::Keys;
use authgate_core::identity::UserId;
use redis::{Pipeline, cmd};
use serde_json::Value;

use super::{BadSeals, CHUNK, WritableRedis, json};
use crate::provisioning::{ProvisioningError, Revoked, Step, Tombstones, next_batch};

impl WritableRedis {
    pub(in crate::provisioning) fn put_token(
        &mut self,
        digest: &TokenDigest,
        token: &TokenRecord,
    ) -> Result<bool, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        let (key, value) = (keys.token(digest), json(token));
        // The index first: a token that is missing from lists would never be revoked.
        let mut index = Pipeline::with_capacity(1);
        change_index(&mut index, "SADD", keys, &token.user, &keys.digest(digest));
        self.ask_all::<()>(&index)?;
        let value = keys.stored(&key, &value);
        let stored: Option<String> = self.ask(cmd("SET").arg(&key).arg(&*value).arg("NX"))?;
        Ok(stored.is_some())
    }

    pub(in crate::provisioning) fn find_token(
        &mut self,
        digest: &TokenDigest,
    ) -> Result<Option<TokenRecord>, ProvisioningError> {
        let key = self.settings.keys().token(digest);
        self.find("a token", &key)
    }

    pub(in crate::provisioning) fn each_token<E: From<ProvisioningError>>(
        &mut self,
        user: Option<&UserId>,
        mut take: impl FnMut(Step<(TokenDigest, TokenRecord)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        let names = match user {
            None => self.scan(&keys.tokens(), |found| take(Step::Found(found)))?,
            Some(user) => self.members(&keys.tokens_of(user.as_str()), BadSeals::Refused)?,
        };
        take(Step::Count(names.count()))?;
        let mut names = names.iter()?;
        while let Some(batch) = next_batch(&mut names, CHUNK)? {
            let digests: Vec<_> = batch.iter().filter_map(|hex| keys.parse_digest(hex)).collect();
            let keys: Vec<_> = digests.iter().map(|digest| keys.token(digest)).collect();
            for ((digest, key), stored) in digests.iter().zip(&keys).zip(self.get_each(&keys)?) {
                // The token may have been deleted since its name was found.
                let Some(stored) = stored else { continue };
                let token: TokenRecord = self.read("a token", key, &stored)?;
                // The set of a user may name a token that has another user now.
                if user.is_none_or(|user| token.user == *user) {
                    take(Step::Record((*digest, token)))?;
                }
            }
        }
        Ok(())
    }

    pub(in crate::provisioning) fn revoke_token(
        &mut self,
        digest: &TokenDigest,
        now: i64,
    ) -> Result<Revoked, ProvisioningError> {
        let key = self.settings.keys().token(digest);
        Ok(
            match self.change_member(("a token", &key), "revoked", |before| {
                before.is_null().then(|| now.into())
            })? {
                None => Revoked::Unknown,
                Some(Value::Null) => Revoked::Now,
                Some(before) => Revoked::Before(before.as_i64().unwrap_or(0)),
            },
        )
    }

    /// Deletes the selected tokens, and counts them.
    pub(super) fn delete_tokens(
        &mut self,
        digests: &[TokenDigest],
        tombstones: Tombstones,
        meant: impl Fn(&TokenRecord) -> bool,
    ) -> Result<usize, ProvisioningError> {
        let settings = Arc::clone(&self.settings);
        let keys = settings.keys();
        let mut deleted = 0;
        for chunk in digests.chunks(CHUNK) {
            let chunk: Vec<_> = chunk.iter().map(|digest| keys.digest(digest)).collect();
            let gone = self.transaction(|transaction| {
                transaction.fetch(chunk.iter().map(|digest| keys.token(digest)))?;
                let mut gone = Vec::new();
                for digest in &chunk {
                    let key = keys.token(digest);
                    let Some(token) = transaction.token(&key)? else {
                        continue;
                    };
                    let kept = tombstones == Tombstones::Keep && token.revoked.is_some();
                    if !kept && meant(&token) {
                        transaction.delete(key);
                        gone.push((*digest, token.user));
                    }
                }
                Ok(gone)
            })?;
            let mut index = Pipeline::with_capacity(gone.len());
            for (digest, user) in &gone {
                change_index(&mut index, "SREM", keys, user, digest);
            }
            if !gone.is_empty() {
                self.ask_all::<()>(&index)?;
            }
            deleted += gone.len();
        }
        Ok(deleted)
    }
}

/// Adds a token to the set of its user's tokens, or removes it: `SADD` or `SREM`. The digest is that of [`Keys::digest`].
pub(super) fn change_index(
    commands: &mut Pipeline,
    command: &'static str,
    keys: Keys<'_>,
    user: &UserId,
    digest: &TokenDigest,
) {
    let key = keys.tokens_of(user.as_str());
    let hex = digest.to_hex();
    let member = keys.stored(&key, hex.as_bytes());
    commands.cmd(command).arg(&key).arg(&*member).ignore();
}

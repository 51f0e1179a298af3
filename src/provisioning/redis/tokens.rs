//! Opaque tokens, and the set of digests of each user.

use std::collections::BTreeSet;

use authgate_auth::record::TokenRecord;
use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::Keys;
use authgate_core::identity::UserId;
use redis::{Pipeline, cmd};
use serde_json::Value;

use super::{CHUNK, WritableRedis, json};
use crate::provisioning::{ProvisioningError, Revoked, Tombstones};

impl WritableRedis {
    pub(in crate::provisioning) fn put_token(
        &mut self,
        digest: &TokenDigest,
        token: &TokenRecord,
    ) -> Result<bool, ProvisioningError> {
        let keys = self.settings.keys();
        let (key, tokens_of) = (keys.token(digest), keys.tokens_of(token.user.as_str()));
        // The index first: a token that is missing from lists would never be revoked.
        self.ask::<()>(cmd("SADD").arg(tokens_of).arg(digest.to_hex()))?;
        let stored: Option<String> = self.ask(cmd("SET").arg(key).arg(json(token)).arg("NX"))?;
        Ok(stored.is_some())
    }

    pub(in crate::provisioning) fn find_token(
        &mut self,
        digest: &TokenDigest,
    ) -> Result<Option<TokenRecord>, ProvisioningError> {
        let key = self.settings.keys().token(digest);
        self.find("a token", &key)
    }

    pub(in crate::provisioning) fn list_tokens(
        &mut self,
        user: Option<&UserId>,
    ) -> Result<Vec<(TokenDigest, TokenRecord)>, ProvisioningError> {
        let mut tokens = Vec::new();
        match user {
            None => self.each_token(|digest, token| tokens.push((digest, token)))?,
            Some(user) => {
                let key = self.settings.keys().tokens_of(user.as_str());
                let names: BTreeSet<String> = self.ask(cmd("SMEMBERS").arg(key))?;
                // The set may name a token that has another user now.
                self.each_named(&names, |digest, token| {
                    if token.user == *user {
                        tokens.push((digest, token));
                    }
                })?;
            }
        }
        Ok(tokens)
    }

    pub(in crate::provisioning) fn each_token(
        &mut self,
        take: impl FnMut(TokenDigest, TokenRecord),
    ) -> Result<(), ProvisioningError> {
        let names = self.scan(&self.settings.keys().tokens())?;
        self.each_named(&names, take)
    }

    /// Passes on the tokens of these names that still exist.
    fn each_named(
        &mut self,
        names: &BTreeSet<String>,
        mut take: impl FnMut(TokenDigest, TokenRecord),
    ) -> Result<(), ProvisioningError> {
        let digests: Vec<_> = names.iter().filter_map(|name| TokenDigest::from_hex(name)).collect();
        for chunk in digests.chunks(CHUNK) {
            let keys: Vec<_> = chunk.iter().map(|digest| self.settings.keys().token(digest)).collect();
            for ((digest, key), stored) in chunk.iter().zip(&keys).zip(self.get_each(&keys)?) {
                if let Some(stored) = stored {
                    take(*digest, self.read("a token", key, &stored)?);
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
        let prefix = self.settings.prefix.clone();
        let keys = Keys::new(&prefix);
        let mut deleted = 0;
        for chunk in digests.chunks(CHUNK) {
            let gone = self.transaction(|transaction| {
                transaction.fetch(chunk.iter().map(|digest| keys.token(digest)))?;
                let mut gone = Vec::new();
                for digest in chunk {
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
                index
                    .cmd("SREM")
                    .arg(keys.tokens_of(user.as_str()))
                    .arg(digest.to_hex())
                    .ignore();
            }
            if !gone.is_empty() {
                self.ask_all::<()>(&index)?;
            }
            deleted += gone.len();
        }
        Ok(deleted)
    }
}

//! Opaque tokens, and the set of each user's digests.

use std::collections::BTreeSet;

use redis::cmd;
use serde_json::Value;

use super::{RedisAdmin, json};
use crate::auth::record::TokenRecord;
use crate::auth::store::TokenDigest;
use crate::auth::store::admin::{AdminError, Revoked};
use crate::identity::UserId;

impl RedisAdmin {
    pub(in crate::auth::store::admin) fn put_token(
        &mut self,
        digest: &TokenDigest,
        token: &TokenRecord,
    ) -> Result<bool, AdminError> {
        let keys = self.settings.keys();
        let (key, tokens_of) = (keys.token(digest), keys.tokens_of(token.user.as_str()));
        // First the index: a token that no list shows would be one that nobody revokes.
        self.ask::<()>(cmd("SADD").arg(tokens_of).arg(digest.to_hex()))?;
        let stored: Option<String> = self.ask(cmd("SET").arg(key).arg(json(token)).arg("NX"))?;
        Ok(stored.is_some())
    }

    pub(in crate::auth::store::admin) fn find_token(
        &mut self,
        digest: &TokenDigest,
    ) -> Result<Option<TokenRecord>, AdminError> {
        let key = self.settings.keys().token(digest);
        self.find("a token", &key)
    }

    pub(in crate::auth::store::admin) fn list_tokens(
        &mut self,
        user: Option<&UserId>,
    ) -> Result<Vec<(TokenDigest, TokenRecord)>, AdminError> {
        let names: BTreeSet<String> = match user {
            Some(user) => {
                let key = self.settings.keys().tokens_of(user.as_str());
                self.ask(cmd("SMEMBERS").arg(key))?
            }
            None => {
                let start = self.token_start();
                self.scan(&start)?
            }
        };
        let digests: Vec<_> = names.iter().filter_map(|name| TokenDigest::from_hex(name)).collect();
        let keys: Vec<_> = digests
            .iter()
            .map(|digest| self.settings.keys().token(digest))
            .collect();
        let stored = self.get_each(&keys)?;
        let mut tokens = Vec::with_capacity(digests.len());
        for ((digest, key), stored) in digests.into_iter().zip(&keys).zip(stored) {
            // The set may name a token that was removed since, or that is somebody else's now.
            let Some(stored) = stored else { continue };
            let token: TokenRecord = self.read("a token", key, &stored)?;
            if user.is_none_or(|user| token.user == *user) {
                tokens.push((digest, token));
            }
        }
        Ok(tokens)
    }

    /// What the keys of tokens begin with.
    fn token_start(&self) -> String {
        let digest = TokenDigest::of(b"");
        let key = self.settings.keys().token(&digest);
        key.strip_suffix(digest.to_hex().as_str())
            .map(str::to_owned)
            .unwrap_or(key)
    }

    pub(in crate::auth::store::admin) fn revoke_token(
        &mut self,
        digest: &TokenDigest,
        now: i64,
    ) -> Result<Revoked, AdminError> {
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
}

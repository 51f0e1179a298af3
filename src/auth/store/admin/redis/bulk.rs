//! Many records at once: an import that is mostly as it was before, and an export.

use redis::{Pipeline, cmd};

use super::{CHUNK, Change, RedisAdmin, json};
use crate::auth::record::{TokenRecord, UserRecord};
use crate::auth::store::TokenDigest;
use crate::auth::store::admin::{AdminError, Bundle, Imported, NameClash, Revocation};
use crate::identity::UserId;

impl RedisAdmin {
    pub(in crate::auth::store::admin) fn import(&mut self, bundle: &Bundle, now: i64) -> Result<Imported, AdminError> {
        // What takes away comes before what gives.
        for revocation in &bundle.revocations {
            self.revoke(revocation, now)?;
        }
        for chunk in bundle.users.chunks(CHUNK) {
            self.import_users(chunk)?;
        }
        let (users, revocations) = (bundle.users.len(), bundle.revocations.len());
        let mut done = Imported {
            users,
            revocations,
            ..Imported::default()
        };
        for chunk in bundle.tokens.chunks(CHUNK) {
            self.import_tokens(chunk, &mut done)?;
        }
        Ok(done)
    }

    /// Most users of an import are as they were; these are only looked at.
    fn import_users(&mut self, users: &[UserRecord]) -> Result<(), AdminError> {
        let keys = self.settings.keys();
        let ids: Vec<_> = users.iter().map(|user| keys.user(user.id.as_str())).collect();
        // Who has no username gets one that nobody can have, so that the two lists stay in step.
        let names = users
            .iter()
            .map(|user| user.username.as_ref().map_or("\0", |name| name.as_str()));
        let names: Vec<_> = names.map(|name| keys.user_by_name(name)).collect();
        let (stored, pointers) = (self.get_each(&ids)?, self.get_each(&names)?);
        for (user, (stored, pointer)) in users.iter().zip(stored.into_iter().zip(pointers)) {
            let named = user.username.is_none() || pointer.as_deref() == Some(user.id.as_str().as_bytes());
            if !named || stored != Some(json(user)) {
                self.put_user(user, NameClash::Move)?;
            }
        }
        Ok(())
    }

    /// Most tokens of an import are new or as they were; these are seen to in three writes, the others one by one.
    fn import_tokens(&mut self, tokens: &[(TokenDigest, TokenRecord)], done: &mut Imported) -> Result<(), AdminError> {
        let (mut index, mut look) = (Pipeline::new(), Vec::with_capacity(tokens.len()));
        for (digest, token) in tokens {
            let keys = self.settings.keys();
            index
                .cmd("SADD")
                .arg(keys.tokens_of(token.user.as_str()))
                .arg(digest.to_hex())
                .ignore();
            look.push(keys.token(digest));
        }
        self.ask_all::<()>(&index)?;
        let stored = self.get_each(&look)?;
        let (mut fresh, mut added, mut others) = (Pipeline::new(), Vec::new(), Vec::new());
        for (each, (key, stored)) in tokens.iter().zip(look.iter().zip(stored)) {
            match stored {
                None => {
                    fresh.cmd("SET").arg(key).arg(json(&each.1)).arg("NX");
                    added.push(each);
                }
                Some(stored) if stored == json(&each.1) && each.1.revoked.is_none() => done.tokens += 1,
                Some(_) => others.push(each),
            }
        }
        if !added.is_empty() {
            let results: Vec<Option<String>> = self.ask_all(&fresh)?;
            for (each, result) in added.into_iter().zip(results) {
                match result {
                    Some(_) => done.tokens += 1,
                    None => others.push(each),
                }
            }
        }
        for (digest, token) in others {
            if self.import_token(digest, token)? {
                done.tokens += 1;
            } else {
                done.left_revoked += 1;
            }
        }
        Ok(())
    }

    /// Replaces a token unless it is revoked; `false`: it is.
    fn import_token(&mut self, digest: &TokenDigest, token: &TokenRecord) -> Result<bool, AdminError> {
        let key = self.settings.keys().token(digest);
        let (replaced, owner) = self.change(&key, |admin, stored| {
            let old = stored
                .map(|stored| admin.read::<TokenRecord>("a token", &key, &stored))
                .transpose()?;
            Ok(match old {
                Some(old) if old.revoked.is_some() => (Change::Nothing, (false, Some(old.user))),
                old => (Change::Set(json(token)), (true, old.map(|old| old.user))),
            })
        })?;
        // The index was told already; it forgets whom the token does not belong to.
        let not_of = if replaced { owner.as_ref() } else { Some(&token.user) };
        let of = if replaced { Some(&token.user) } else { owner.as_ref() };
        if let Some(other) = not_of.filter(|other| Some(*other) != of) {
            let tokens_of = self.settings.keys().tokens_of(other.as_str());
            self.ask::<()>(cmd("SREM").arg(tokens_of).arg(digest.to_hex()))?;
        }
        Ok(replaced)
    }

    pub(in crate::auth::store::admin) fn export(&mut self, now: i64) -> Result<Bundle, AdminError> {
        let mut bundle = Bundle {
            tokens: self.list_tokens(None)?,
            ..Bundle::default()
        };
        let ids = self.scan(&self.settings.keys().user(""))?;
        let keys: Vec<_> = ids.iter().map(|id| self.settings.keys().user(id)).collect();
        for (key, stored) in keys.iter().zip(self.get_each(&keys)?) {
            if let Some(stored) = stored {
                bundle.users.push(self.read("a user", key, &stored)?);
            }
        }
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

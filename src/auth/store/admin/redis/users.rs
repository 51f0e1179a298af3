//! Users, and the index of their names: a name's key points to the one user who has it.

use std::collections::BTreeSet;

use redis::cmd;
use serde_json::Value;

use super::{Change, RedisAdmin, json};
use crate::auth::record::{self, TokenRecord, UserRecord};
use crate::auth::store::TokenDigest;
use crate::auth::store::admin::{AdminError, Deleted, NameClash};
use crate::identity::UserId;

impl RedisAdmin {
    pub(in crate::auth::store::admin) fn put_user(
        &mut self,
        user: &UserRecord,
        clash: NameClash,
    ) -> Result<Option<UserRecord>, AdminError> {
        if let Some(name) = &user.username {
            self.claim_name(name.as_str(), &user.id, clash)?;
        }
        let key = self.settings.keys().user(user.id.as_str());
        let fresh = json(user);
        let before = self.change(&key, |_, stored| {
            let same = stored.as_ref() == Some(&fresh);
            // One that cannot be read is replaced all the same.
            let before = stored.and_then(|stored| record::parse::<UserRecord>("a user", &stored).ok());
            Ok((
                if same {
                    Change::Nothing
                } else {
                    Change::Set(fresh.clone())
                },
                before,
            ))
        })?;
        if let Some(old) = before.as_ref().and_then(|before| before.username.as_ref())
            && user.username.as_ref() != Some(old)
        {
            self.release_name(old.as_str(), &user.id)?;
        }
        Ok(before)
    }

    /// Makes the name point to this user.
    fn claim_name(&mut self, name: &str, id: &UserId, clash: NameClash) -> Result<(), AdminError> {
        let key = self.settings.keys().user_by_name(name);
        let other = self.change(&key, |admin, stored| {
            if stored.as_deref() == Some(id.as_str().as_bytes()) {
                return Ok((Change::Nothing, None));
            }
            let claim = Change::Set(id.as_str().as_bytes().to_vec());
            let other = stored.and_then(|stored| UserId::new(std::str::from_utf8(&stored).ok()?).ok());
            let Some(other) = other else { return Ok((claim, None)) };
            let named = |user: UserRecord| user.username.is_some_and(|username| username.as_str() == name);
            if !admin.find_user(&other)?.is_some_and(named) {
                return Ok((claim, None));
            }
            match clash {
                NameClash::Move => Ok((claim, Some(other))),
                NameClash::Refuse => Err(AdminError::NameTaken {
                    name: name.to_owned(),
                    holder: other.as_str().to_owned(),
                }),
            }
        })?;
        let Some(other) = other else { return Ok(()) };
        let key = self.settings.keys().user(other.as_str());
        self.change_member(("a user", &key), "username", |_| Some(Value::Null))
            .map(|_| ())
    }

    /// Removes the name's key if it points to this user.
    fn release_name(&mut self, name: &str, id: &UserId) -> Result<(), AdminError> {
        let key = self.settings.keys().user_by_name(name);
        self.change(&key, |_, stored| {
            let own = stored.as_deref() == Some(id.as_str().as_bytes());
            Ok((if own { Change::Delete } else { Change::Nothing }, ()))
        })
    }

    pub(in crate::auth::store::admin) fn find_user(&mut self, id: &UserId) -> Result<Option<UserRecord>, AdminError> {
        let key = self.settings.keys().user(id.as_str());
        self.find("a user", &key)
    }

    pub(in crate::auth::store::admin) fn find_user_by_name(
        &mut self,
        name: &str,
    ) -> Result<Option<UserRecord>, AdminError> {
        let key = self.settings.keys().user_by_name(name);
        let id = self
            .get(&key)?
            .and_then(|id| UserId::new(std::str::from_utf8(&id).ok()?).ok());
        id.map_or(Ok(None), |id| self.find_user(&id))
    }

    pub(in crate::auth::store::admin) fn set_active(
        &mut self,
        id: &UserId,
        active: bool,
    ) -> Result<Option<bool>, AdminError> {
        let key = self.settings.keys().user(id.as_str());
        let before = self.change_member(("a user", &key), "active", |_| Some(active.into()))?;
        Ok(before.map(|before| before == Value::Bool(true)))
    }

    pub(in crate::auth::store::admin) fn delete_user(&mut self, id: &UserId) -> Result<Deleted, AdminError> {
        let keys = self.settings.keys();
        let (key, tokens_of) = (keys.user(id.as_str()), keys.tokens_of(id.as_str()));
        // First the record: without it no token of theirs is good, whatever happens next.
        let stored = self.change(&key, |_, stored| Ok((Change::Delete, stored)))?;
        let mut deleted = Deleted {
            user: stored.is_some(),
            tokens: 0,
        };
        let user: Option<UserRecord> = stored.and_then(|stored| record::parse("a user", &stored).ok());
        if let Some(name) = user.and_then(|user| user.username) {
            self.release_name(name.as_str(), id)?;
        }
        let digests: BTreeSet<String> = self.ask(cmd("SMEMBERS").arg(&tokens_of))?;
        for digest in digests.iter().filter_map(|digest| TokenDigest::from_hex(digest)) {
            let key = self.settings.keys().token(&digest);
            deleted.tokens += self.change(&key, |_, stored| {
                let token = stored.and_then(|stored| record::parse::<TokenRecord>("a token", &stored).ok());
                Ok(match token {
                    Some(token) if token.user == *id => (Change::Delete, 1),
                    Some(_) | None => (Change::Nothing, 0),
                })
            })?;
        }
        self.ask::<()>(cmd("DEL").arg(&tokens_of))?;
        Ok(deleted)
    }
}

//! The file as the command line changes it: under a lock of its own, read afresh, and replaced whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{AdminError, Bundle, Deleted, Imported, NameClash, Revocation, Revoked};
use crate::auth::record::{Layout, TokenRecord, UserRecord};
use crate::auth::store::TokenDigest;
use crate::auth::store::embedded::Records;
use crate::identity::UserId;

/// A store's file, and what was in it when it was last read.
#[derive(Debug)]
pub struct FileAdmin {
    store: Arc<str>,
    file: PathBuf,
    /// `None`: there is no file yet.
    records: Option<Records>,
}

impl FileAdmin {
    pub(super) fn open(store: Arc<str>, file: &Path) -> Result<Self, AdminError> {
        // Saving replaces the file; where its name is a link, what it points to is meant.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let mut admin = Self {
            store,
            file,
            records: None,
        };
        admin.records = admin.load()?;
        Ok(admin)
    }

    fn failed(&self, problem: String) -> AdminError {
        AdminError::File {
            store: Arc::clone(&self.store),
            problem,
        }
    }

    fn empty(&self) -> AdminError {
        AdminError::Empty {
            store: Arc::clone(&self.store),
            at: self.file.display().to_string(),
        }
    }

    fn load(&self) -> Result<Option<Records>, AdminError> {
        match fs::exists(&self.file) {
            Ok(false) => Ok(None),
            Ok(true) | Err(_) => Records::load(&self.file)
                .map(Some)
                .map_err(|problem| self.failed(problem)),
        }
    }

    fn records(&self) -> Result<&Records, AdminError> {
        self.records.as_ref().ok_or_else(|| self.empty())
    }

    /// Holds the lock until the file that is given back is dropped. The lock has a file of its own, since the other one is replaced.
    fn lock(&self) -> Result<File, AdminError> {
        let mut name = self.file.clone().into_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| self.failed(format!("{}: {error}", path.display())))
    }

    fn save(&mut self, records: Records) -> Result<(), AdminError> {
        records
            .save(&self.file)
            .map_err(|error| self.failed(format!("{}: {error}", self.file.display())))?;
        self.records = Some(records);
        Ok(())
    }

    /// Changes the records as they are now, not as they were when this program last looked.
    fn change<T>(&mut self, change: impl FnOnce(&mut Records) -> Result<T, AdminError>) -> Result<T, AdminError> {
        let _lock = self.lock()?;
        let before = self.load()?.ok_or_else(|| self.empty())?;
        let mut records = before.clone();
        let answer = change(&mut records)?;
        if records == before {
            self.records = Some(records);
        } else {
            self.save(records)?;
        }
        Ok(answer)
    }

    pub(super) fn begin(&mut self, fresh: &Layout) -> Result<(bool, Layout), AdminError> {
        if let Some(records) = &self.records {
            return Ok((false, records.layout.clone()));
        }
        let _lock = self.lock()?;
        self.records = self.load()?;
        if let Some(records) = &self.records {
            return Ok((false, records.layout.clone()));
        }
        self.save(Records::empty(fresh.clone())).map(|()| (true, fresh.clone()))
    }

    pub(super) fn complete(&mut self, epoch: &str) -> Result<(), AdminError> {
        let store = Arc::clone(&self.store);
        self.change(|records| {
            if records.layout.epoch != epoch {
                return Err(AdminError::Emptied { store });
            }
            records.layout.filling = false;
            Ok(())
        })
    }

    pub(super) fn require_layout(&self) -> Result<(), AdminError> {
        self.records().map(|_| ())
    }

    pub(super) fn put_token(&mut self, digest: &TokenDigest, token: &TokenRecord) -> Result<bool, AdminError> {
        self.change(|records| {
            let digest = digest.to_hex();
            let new = !records.tokens.contains_key(&digest);
            records.tokens.entry(digest).or_insert_with(|| token.clone());
            Ok(new)
        })
    }

    pub(super) fn find_token(&self, digest: &TokenDigest) -> Result<Option<TokenRecord>, AdminError> {
        Ok(self.records()?.tokens.get(&digest.to_hex()).cloned())
    }

    pub(super) fn list_tokens(&self, user: Option<&UserId>) -> Result<Vec<(TokenDigest, TokenRecord)>, AdminError> {
        let tokens = self
            .records()?
            .tokens
            .iter()
            .filter(|(_, token)| user.is_none_or(|user| token.user == *user));
        Ok(tokens
            .filter_map(|(hex, token)| Some((TokenDigest::from_hex(hex)?, token.clone())))
            .collect())
    }

    pub(super) fn revoke_token(&mut self, digest: &TokenDigest, now: i64) -> Result<Revoked, AdminError> {
        self.change(|records| {
            let Some(token) = records.tokens.get_mut(&digest.to_hex()) else {
                return Ok(Revoked::Unknown);
            };
            Ok(match token.revoked {
                Some(before) => Revoked::Before(before),
                None => {
                    token.revoked = Some(now);
                    Revoked::Now
                }
            })
        })
    }

    pub(super) fn put_user(&mut self, user: &UserRecord, clash: NameClash) -> Result<Option<UserRecord>, AdminError> {
        self.change(|records| put_user(records, user, clash))
    }

    pub(super) fn find_user(&self, id: &UserId) -> Result<Option<UserRecord>, AdminError> {
        Ok(self.records()?.users.get(id.as_str()).cloned())
    }

    pub(super) fn find_user_by_name(&self, name: &str) -> Result<Option<UserRecord>, AdminError> {
        Ok(self
            .records()?
            .users
            .values()
            .find(|user| is_named(user, name))
            .cloned())
    }

    pub(super) fn set_active(&mut self, id: &UserId, active: bool) -> Result<Option<bool>, AdminError> {
        self.change(|records| {
            let user = records.users.get_mut(id.as_str());
            Ok(user.map(|user| std::mem::replace(&mut user.active, active)))
        })
    }

    pub(super) fn delete_user(&mut self, id: &UserId) -> Result<Deleted, AdminError> {
        self.change(|records| {
            let (user, tokens) = (records.users.remove(id.as_str()).is_some(), records.tokens.len());
            records.tokens.retain(|_, token| token.user != *id);
            Ok(Deleted {
                user,
                tokens: tokens - records.tokens.len(),
            })
        })
    }

    pub(super) fn user_revoked(&self, id: &UserId) -> Result<Option<i64>, AdminError> {
        Ok(self.records()?.revoked.user.get(id.as_str()).copied())
    }

    pub(super) fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), AdminError> {
        self.change(|records| {
            revoke(records, revocation, now);
            Ok(())
        })
    }

    pub(super) fn import(&mut self, bundle: &Bundle, now: i64) -> Result<Imported, AdminError> {
        self.change(|records| {
            let (users, revocations) = (bundle.users.len(), bundle.revocations.len());
            let mut done = Imported {
                users,
                revocations,
                ..Imported::default()
            };
            for user in &bundle.users {
                put_user(records, user, NameClash::Move)?;
            }
            for (digest, token) in &bundle.tokens {
                let digest = digest.to_hex();
                if records
                    .tokens
                    .get(&digest)
                    .is_some_and(|stored| stored.revoked.is_some())
                {
                    done.left_revoked += 1;
                } else {
                    records.tokens.insert(digest, token.clone());
                    done.tokens += 1;
                }
            }
            bundle
                .revocations
                .iter()
                .for_each(|revocation| revoke(records, revocation, now));
            Ok(done)
        })
    }

    pub(super) fn export(&self) -> Result<Bundle, AdminError> {
        let (records, tokens) = (self.records()?, self.list_tokens(None)?);
        let revoked = &records.revoked;
        let users = revoked.user.iter().filter_map(|(id, before)| {
            Some(Revocation::User {
                id: UserId::new(id).ok()?,
                before: *before,
            })
        });
        let jtis = revoked.jti.iter().map(|(jti, forget)| Revocation::Jti {
            jti: jti.clone(),
            forget: Some(*forget).filter(|forget| *forget != 0),
        });
        let kids = revoked.kid.keys().map(|kid| Revocation::Kid { kid: kid.clone() });
        let revocations = users.chain(jtis).chain(kids).collect();
        Ok(Bundle {
            users: records.users.values().cloned().collect(),
            tokens,
            revocations,
        })
    }
}

fn is_named(user: &UserRecord, name: &str) -> bool {
    user.username.as_ref().is_some_and(|username| username.as_str() == name)
}

fn put_user(records: &mut Records, user: &UserRecord, clash: NameClash) -> Result<Option<UserRecord>, AdminError> {
    if let Some(name) = &user.username {
        let holders = records
            .users
            .values_mut()
            .filter(|other| other.id != user.id && is_named(other, name.as_str()));
        for holder in holders {
            if clash == NameClash::Refuse {
                let (name, holder) = (name.to_string(), holder.id.as_str().to_owned());
                return Err(AdminError::NameTaken { name, holder });
            }
            holder.username = None;
        }
    }
    let mut user = user.clone();
    without_nulls(&mut user.attributes);
    Ok(records.users.insert(user.id.as_str().to_owned(), user))
}

/// Takes the null members out of objects: absent and null mean the same to everybody, and TOML cannot say null.
fn without_nulls(object: &mut Map<String, Value>) {
    fn within(value: &mut Value) {
        match value {
            Value::Object(object) => without_nulls(object),
            Value::Array(elements) => elements.iter_mut().for_each(within),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    object.retain(|_, member| !member.is_null());
    object.values_mut().for_each(within);
}

fn revoke(records: &mut Records, revocation: &Revocation, now: i64) {
    let revoked = &mut records.revoked;
    match revocation {
        Revocation::User { id, before } => {
            let mark = revoked.user.entry(id.as_str().to_owned()).or_insert(*before);
            *mark = (*mark).max(*before);
        }
        Revocation::Jti { jti, forget } => {
            revoked.jti.retain(|_, forget| *forget == 0 || *forget > now);
            let forget = forget.unwrap_or(0);
            let mark = revoked.jti.entry(jti.clone()).or_insert(forget);
            // 0 is for ever, and so further than any second.
            *mark = if *mark == 0 || forget == 0 {
                0
            } else {
                (*mark).max(forget)
            };
        }
        Revocation::Kid { kid } => {
            revoked.kid.entry(kid.clone()).or_insert(now);
        }
    }
}

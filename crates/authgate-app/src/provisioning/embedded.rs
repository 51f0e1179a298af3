//! Writes the file for the command line: takes its lock, reads it again, and replaces it as a whole.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::record::{Layout, TokenRecord, UserRecord};
use authgate_auth::store::Digests;
use authgate_auth::store::TokenDigest;
use authgate_auth::store::embedded::{self, EmbeddedSettings, Records};
use authgate_auth::store::redis::SealId;
use authgate_core::identity::UserId;
use authgate_http::lockfile::LockFile;
use serde_json::{Map, Value};

use super::{
    Deleted, Imported, Keep, NameClash, ProvisioningError, Pruned, Resealing, Revocation, Revoked, SortedNames, Step,
    TokenUpdate, Tombstones, UserUpdate,
};

/// How long to wait for the lock. A writing command holds it for a few seconds at most.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A store's file, and its records when it was last read.
#[derive(Debug)]
pub struct WritableFile {
    store: Arc<str>,
    file: PathBuf,
    digests: Digests,
    /// `None`: the file does not exist yet.
    records: Option<Records>,
}

impl WritableFile {
    pub(super) fn open(store: Arc<str>, settings: &EmbeddedSettings) -> Result<Self, ProvisioningError> {
        let file = &settings.file;
        // Saving replaces the file, so resolve a symbolic link first.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.clone());
        let mut store = Self {
            store,
            file,
            digests: settings.digests,
            records: None,
        };
        store.records = store.load()?;
        Ok(store)
    }

    pub(super) fn digests(&self) -> Digests {
        self.digests
    }

    pub(super) fn size(&self) -> usize {
        self.records.as_ref().map_or(0, Records::size)
    }

    pub(super) fn seal_id(&self) -> Option<SealId> {
        None
    }

    pub(super) fn digest(&self, digest: &TokenDigest) -> TokenDigest {
        *digest
    }

    pub(super) fn reseal(&self, _now: i64, _: &mut dyn FnMut(usize, usize)) -> Result<Resealing, ProvisioningError> {
        Err(self.failed("an embedded store is a private file, and has no seal".to_owned()))
    }

    fn failed(&self, problem: String) -> ProvisioningError {
        ProvisioningError::File {
            store: Arc::clone(&self.store),
            problem,
        }
    }

    fn empty(&self) -> ProvisioningError {
        ProvisioningError::Empty {
            store: Arc::clone(&self.store),
            at: self.file.display().to_string(),
        }
    }

    fn load(&self) -> Result<Option<Records>, ProvisioningError> {
        Records::load(&self.file).map_err(|problem| self.failed(problem))
    }

    fn records(&self) -> Result<&Records, ProvisioningError> {
        self.records.as_ref().ok_or_else(|| self.empty())
    }

    /// Prevents other programs from writing until the lock is dropped. The lock is a separate file, because the store file is replaced.
    fn lock(&self) -> Result<LockFile, ProvisioningError> {
        let mut name = self.file.clone().into_os_string();
        name.push(".lock");
        let folder = || fs::metadata(embedded::folder(&self.file));
        // The lock gets the owner of the store file, or of its folder if the file does not exist yet.
        let owner = fs::metadata(&self.file).or_else(|_| folder());
        owner
            .and_then(|owner| LockFile::acquire(PathBuf::from(name), &owner, LOCK_TIMEOUT))
            .map_err(|error| self.failed(error.to_string()))
    }

    fn save(&mut self, records: Records) -> Result<(), ProvisioningError> {
        records
            .save(&self.file)
            .map_err(|error| self.failed(format!("{}: {error}", self.file.display())))?;
        self.records = Some(records);
        Ok(())
    }

    /// Reads the current records under the lock, changes them and saves them.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Records) -> Result<T, ProvisioningError>,
    ) -> Result<T, ProvisioningError> {
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

    pub(super) fn begin(&mut self, fresh: &Layout) -> Result<(bool, Layout), ProvisioningError> {
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

    pub(super) fn complete(&mut self, epoch: &str) -> Result<(), ProvisioningError> {
        let complete = |layout: &Layout| layout.epoch == epoch && !layout.filling;
        if self.records.as_ref().is_some_and(|records| complete(&records.layout)) {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        self.change(|records| {
            if records.layout.epoch != epoch {
                return Err(ProvisioningError::Emptied { store });
            }
            records.layout.filling = false;
            Ok(())
        })
    }

    pub(super) fn require_layout(&self) -> Result<(), ProvisioningError> {
        self.records().map(|_| ())
    }

    pub(super) fn is_filling(&self) -> Result<bool, ProvisioningError> {
        self.records().map(|records| records.layout.filling)
    }

    pub(super) fn each_user<E: From<ProvisioningError>>(
        &self,
        mut take: impl FnMut(Step<UserRecord>) -> Result<(), E>,
    ) -> Result<(), E> {
        let users = &self.records()?.users;
        take(Step::Count(users.len()))?;
        users.values().try_for_each(|user| take(Step::Record(user.clone())))
    }

    pub(super) fn each_token<E: From<ProvisioningError>>(
        &self,
        user: Option<&UserId>,
        mut take: impl FnMut(Step<(TokenDigest, TokenRecord)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let tokens = &self.records()?.tokens;
        if user.is_none() {
            take(Step::Count(tokens.len()))?;
        }
        for (hex, token) in tokens {
            if user.is_none_or(|user| token.user == *user)
                && let Some(digest) = TokenDigest::from_hex(hex)
            {
                take(Step::Record((digest, token.clone())))?;
            }
        }
        Ok(())
    }

    pub(super) fn each_revocation<E: From<ProvisioningError>>(
        &self,
        _now: i64,
        mut take: impl FnMut(Step<Revocation>) -> Result<(), E>,
    ) -> Result<(), E> {
        let revoked = &self.records()?.revoked;
        take(Step::Count(revoked.user.len() + revoked.jti.len() + revoked.kid.len()))?;
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
        users
            .chain(jtis)
            .chain(kids)
            .try_for_each(|revocation| take(Step::Record(revocation)))
    }

    pub(super) fn put_token(&mut self, digest: &TokenDigest, token: &TokenRecord) -> Result<bool, ProvisioningError> {
        self.change(|records| {
            let digest = digest.to_hex();
            let new = !records.tokens.contains_key(&digest);
            records.tokens.entry(digest).or_insert_with(|| token.clone());
            Ok(new)
        })
    }

    pub(super) fn find_token(&self, digest: &TokenDigest) -> Result<Option<TokenRecord>, ProvisioningError> {
        Ok(self.records()?.tokens.get(&digest.to_hex()).cloned())
    }

    pub(super) fn revoke_token(&mut self, digest: &TokenDigest, now: i64) -> Result<Revoked, ProvisioningError> {
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

    pub(super) fn put_user(
        &mut self,
        update: &UserUpdate,
        clash: NameClash,
    ) -> Result<Option<UserRecord>, ProvisioningError> {
        self.change(|records| put_user(records, &mut name_index(records), update, clash))
    }

    pub(super) fn known_users(&self, ids: &[&UserId]) -> Result<Vec<bool>, ProvisioningError> {
        let users = &self.records()?.users;
        Ok(ids.iter().map(|id| users.contains_key(id.as_str())).collect())
    }

    pub(super) fn find_user(&self, id: &UserId) -> Result<Option<UserRecord>, ProvisioningError> {
        Ok(self.records()?.users.get(id.as_str()).cloned())
    }

    pub(super) fn find_user_by_name(&self, name: &str) -> Result<Option<UserRecord>, ProvisioningError> {
        Ok(self
            .records()?
            .users
            .values()
            .find(|user| user.is_called(name))
            .cloned())
    }

    pub(super) fn users_by_name(&self, names: &[&str]) -> Result<Vec<Option<UserId>>, ProvisioningError> {
        let index = name_index(self.records()?);
        Ok(names.iter().map(|name| index.get(*name).cloned()).collect())
    }

    pub(super) fn set_active(&mut self, id: &UserId, active: bool) -> Result<Option<bool>, ProvisioningError> {
        self.change(|records| {
            let user = records.users.get_mut(id.as_str());
            Ok(user.map(|user| std::mem::replace(&mut user.active, active)))
        })
    }

    pub(super) fn delete_user(&mut self, id: &UserId, tombstones: Tombstones) -> Result<Deleted, ProvisioningError> {
        self.change(|records| {
            let (user, tokens) = (records.users.remove(id.as_str()).is_some(), records.tokens.len());
            records
                .tokens
                .retain(|_, token| token.user != *id || (tombstones == Tombstones::Keep && token.revoked.is_some()));
            Ok(Deleted {
                user,
                tokens: tokens - records.tokens.len(),
            })
        })
    }

    pub(super) fn user_revoked(&self, id: &UserId) -> Result<Option<i64>, ProvisioningError> {
        Ok(self.records()?.revoked.user.get(id.as_str()).copied())
    }

    pub(super) fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), ProvisioningError> {
        self.change(|records| {
            revoke(records, revocation, now);
            Ok(())
        })
    }
}

/// An import into a file, which stays locked until the end.
#[derive(Debug)]
pub(super) struct FileImport<'a> {
    file: &'a mut WritableFile,
    records: Records,
    names: NameIndex,
    _lock: LockFile,
}

impl<'a> FileImport<'a> {
    pub(super) fn new(file: &'a mut WritableFile) -> Result<Self, ProvisioningError> {
        let lock = file.lock()?;
        let records = file.load()?.ok_or_else(|| file.empty())?;
        Ok(Self {
            names: name_index(&records),
            file,
            records,
            _lock: lock,
        })
    }

    pub(super) fn finish(mut self) -> Result<(), ProvisioningError> {
        self.records.layout.filling = false;
        self.file.save(self.records)
    }

    pub(super) fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), ProvisioningError> {
        revoke(&mut self.records, revocation, now);
        Ok(())
    }

    pub(super) fn users(&mut self, updates: &[UserUpdate]) -> Result<(), ProvisioningError> {
        for update in updates {
            put_user(&mut self.records, &mut self.names, update, NameClash::Move)?;
        }
        Ok(())
    }

    pub(super) fn known_users(&self, ids: &[&UserId]) -> Result<Vec<bool>, ProvisioningError> {
        let users = &self.records.users;
        Ok(ids.iter().map(|id| users.contains_key(id.as_str())).collect())
    }

    #[expect(clippy::unnecessary_wraps, reason = "Redis is asked here")]
    pub(super) fn users_by_name(&self, names: &[&str]) -> Result<Vec<Option<UserId>>, ProvisioningError> {
        Ok(names.iter().map(|name| self.names.get(*name).cloned()).collect())
    }

    pub(super) fn tokens(
        &mut self,
        updates: &[(TokenDigest, TokenUpdate)],
        done: &mut Imported,
    ) -> Result<(), ProvisioningError> {
        for (digest, update) in updates {
            let digest = digest.to_hex();
            let stored = self.records.tokens.get(&digest);
            if stored.is_some_and(|stored| stored.revoked.is_some()) {
                done.left_revoked += 1;
                continue;
            }
            let token = update.over(stored);
            self.records.tokens.insert(digest, token);
            done.tokens += 1;
        }
        Ok(())
    }

    pub(super) fn prune(&mut self, keep: &Keep, _found: impl FnMut(usize)) -> Result<Pruned, ProvisioningError> {
        let kept_users = set(&keep.users)?;
        let kept_tokens = keep.tokens.as_ref().map(set).transpose()?;
        let Records { users, tokens, .. } = &mut self.records;
        let before = (users.len(), tokens.len());
        users.retain(|id, _| kept_users.contains(id));
        tokens.retain(|hex, token| {
            let listed = kept_tokens.as_ref().is_none_or(|kept| kept.contains(hex));
            token.revoked.is_some() || (listed && kept_users.contains(token.user.as_str()))
        });
        let pruned = Pruned {
            users: before.0 - users.len(),
            tokens: before.1 - tokens.len(),
        };
        self.names = name_index(&self.records);
        Ok(pruned)
    }
}

/// In memory, as the records of a file are.
fn set(names: &SortedNames) -> Result<HashSet<String>, ProvisioningError> {
    names.iter()?.collect()
}

/// From username to user.
type NameIndex = HashMap<Box<str>, UserId>;

fn name_index(records: &Records) -> NameIndex {
    let named = records.users.values();
    named
        .filter_map(|user| Some((user.username.as_ref()?.as_str().into(), user.id.clone())))
        .collect()
}

fn put_user(
    records: &mut Records,
    names: &mut NameIndex,
    update: &UserUpdate,
    clash: NameClash,
) -> Result<Option<UserRecord>, ProvisioningError> {
    let id = update.record.id.as_str();
    let before = records.users.get(id);
    let mut user = update.over(before);
    if let Some(old) = before.and_then(|before| before.username.as_ref())
        && names.get(old.as_str()).is_some_and(|holder| holder.as_str() == id)
    {
        names.remove(old.as_str());
    }
    if let Some(name) = &user.username
        && let Some(holder) = names.insert(name.as_str().into(), user.id.clone())
        && holder != user.id
    {
        if clash == NameClash::Refuse {
            let (name, holder) = (name.to_string(), holder.as_str().to_owned());
            return Err(ProvisioningError::NameTaken { name, holder });
        }
        if let Some(holder) = records.users.get_mut(holder.as_str()) {
            holder.username = None;
        }
    }
    without_nulls(&mut user.attributes);
    Ok(records.users.insert(user.id.as_str().to_owned(), user))
}

/// Removes null members of objects: TOML has no null, and readers treat absent and null the same.
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
            // 0 means never expires, so it is later than any second.
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

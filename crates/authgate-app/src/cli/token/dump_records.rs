//! The records of an import, collected object by object. Nothing is written before the whole input has been checked.
//!
//! Records and names wait in temporary files: memory does not grow with the number of users, tokens and revocations.

use std::collections::{BTreeMap, HashMap, HashSet};

use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::SealId;
use authgate_core::identity::{Text, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dump_token::{DumpToken, Owner};
use super::lines::{self, Line};
use super::spool::{Next, Spool};
use crate::cli::Failure;
use crate::provisioning::{Import, Keep, NameSorter, Revocation, SortedNames, UserUpdate, WritableStore};

/// How many problems are printed; the others are only counted.
const MAX_SHOWN: usize = 20;

/// The records of a dump.
pub(super) struct DumpRecords {
    users: Spool<DumpUser>,
    tokens: Spool<DumpToken>,
    /// As lines of an export.
    revocations: Spool<Value>,
    ids: NameSorter,
    /// Each username, NUL, and the id of its user. Neither has control characters.
    names: NameSorter,
    groups: HashMap<String, Text>,
    /// Groups that users refer to by key, each with the first object and user that does.
    referenced_groups: BTreeMap<String, (usize, String)>,
    /// The digests of all tokens; only collected for `--prune`.
    digests: Option<NameSorter>,
    /// How many tokens have a SHA-256 and a SHA-512 digest.
    pub(super) digest_counts: (usize, usize),
    /// The seals of sealed digests, with the number of tokens.
    pub(super) seals: BTreeMap<SealId, usize>,
    pub(super) skipped_models: BTreeMap<String, SkippedModel>,
    pub(super) problems: Problems,
}

/// Objects of a model that is not imported.
#[derive(Debug, Default)]
pub(super) struct SkippedModel {
    pub(super) count: usize,
    /// The objects have a `password` field.
    pub(super) like_users: bool,
}

/// The problems of a dump.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) shown: Vec<String>,
    pub(super) more: usize,
}

impl Problems {
    pub(super) fn add(&mut self, problem: String) {
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(problem);
        } else {
            self.more += 1;
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct DumpUser {
    update: UserUpdate,
    groups: Vec<Group>,
}

/// A group of a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Group {
    Name(String),
    Key(String),
}

impl DumpRecords {
    /// Starts empty. `collect_digests` is set for `--prune`.
    pub(super) fn new(collect_digests: bool) -> Result<Self, Failure> {
        Ok(Self {
            users: Spool::new()?,
            tokens: Spool::new()?,
            revocations: Spool::new()?,
            ids: NameSorter::default(),
            names: NameSorter::default(),
            groups: HashMap::new(),
            referenced_groups: BTreeMap::new(),
            digests: collect_digests.then(NameSorter::default),
            digest_counts: (0, 0),
            seals: BTreeMap::new(),
            skipped_models: BTreeMap::new(),
            problems: Problems::default(),
        })
    }

    pub(super) fn group(&mut self, key: Option<String>, name: Text) {
        if let Some(key) = key {
            self.groups.insert(key, name);
        }
    }

    pub(super) fn user(&mut self, at: usize, update: UserUpdate, groups: Vec<Group>) -> Result<(), Failure> {
        let id = update.record.id.as_str();
        self.ids.push(id)?;
        if let Some(name) = &update.record.username {
            self.names.push(&format!("{name}\0{id}"))?;
        }
        for group in &groups {
            if let Group::Key(key) = group {
                self.referenced_groups
                    .entry(key.clone())
                    .or_insert_with(|| (at, id.to_owned()));
            }
        }
        self.users.push(&DumpUser { update, groups })
    }

    pub(super) fn token(&mut self, digest: &TokenDigest, token: &DumpToken) -> Result<(), Failure> {
        match digest {
            TokenDigest::Sha256(_) => self.digest_counts.0 += 1,
            TokenDigest::Sha512(_) => self.digest_counts.1 += 1,
            TokenDigest::Sealed(_) => {}
        }
        if let Some(digests) = &mut self.digests {
            digests.push(&digest.to_name())?;
        }
        self.tokens.push(token)
    }

    pub(super) fn revocation(&mut self, revocation: &Revocation) -> Result<(), Failure> {
        self.revocations.push(&lines::revocation(revocation))
    }

    pub(super) fn skipped(&mut self, model: &str, like_user: bool) {
        let skipped = self.skipped_models.entry(model.to_owned()).or_default();
        skipped.count += 1;
        skipped.like_users |= like_user;
    }

    /// Call after the last object: reports missing groups, and users that are in the dump twice. Returns what `--prune` keeps.
    pub(super) fn check(&mut self) -> Result<Keep, Failure> {
        for (key, (at, id)) in &self.referenced_groups {
            if !self.groups.contains_key(key) {
                self.problems.add(format!(
                    "object {at} (user {id:?}): group {key} is not in the dump; dump auth.group as well"
                ));
            }
        }
        self.referenced_groups.clear();
        let users = std::mem::take(&mut self.ids).finish()?;
        self.check_ids(&users)?;
        let names = std::mem::take(&mut self.names).finish()?;
        self.check_names(&names)?;
        let digests = self.digests.take().map(NameSorter::finish).transpose()?;
        Ok(Keep {
            users,
            // Tokens are not pruned if the dump has none.
            tokens: digests.filter(|digests| digests.count() > 0),
        })
    }

    fn check_ids(&mut self, ids: &SortedNames) -> Result<(), Failure> {
        let mut before: Option<String> = None;
        for id in ids.with_repeats()? {
            let id = id?;
            if before.as_ref() == Some(&id) {
                self.problems.add(format!("user {id} appears twice"));
            }
            before = Some(id);
        }
        Ok(())
    }

    fn check_names(&mut self, names: &SortedNames) -> Result<(), Failure> {
        let mut before: Option<String> = None;
        // A user that appears twice is one name here.
        for entry in names.iter()? {
            let entry = entry?;
            if let (Some((name, id)), Some((other_name, other))) = (
                entry.split_once('\0'),
                before.as_deref().and_then(|before| before.split_once('\0')),
            ) && name == other_name
            {
                self.problems
                    .add(format!("users {other} and {id} both have the username {name}"));
            }
            before = Some(entry);
        }
        Ok(())
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn revocations(&self) -> usize {
        self.revocations.len()
    }

    pub(super) fn each_revocation_batch(
        &mut self,
        mut take: impl FnMut(&[Revocation]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.revocations.batches(Import::BATCH, |batch| {
            let revocations: Result<Vec<_>, _> = batch.into_iter().map(read_back).collect();
            take(&revocations?).map(|()| Next::Continue)
        })
    }

    pub(super) fn each_user_batch(
        &mut self,
        mut take: impl FnMut(Vec<UserUpdate>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let known_groups = &self.groups;
        self.users.batches(Import::BATCH, |batch| {
            let users = batch.into_iter().map(|DumpUser { mut update, groups }| {
                let names = groups.iter().filter_map(|group| match group {
                    Group::Name(name) => Text::new(name).ok(),
                    Group::Key(key) => known_groups.get(key).cloned(),
                });
                update.record.groups.extend(names);
                update
            });
            take(users.collect()).map(|()| Next::Continue)
        })
    }

    /// Writes the tokens whose users exist, and returns the number of the others. Revoked tokens are always written, so that they stay
    /// revoked if their user is imported later. The users of the dump must be in the store.
    pub(super) fn write_tokens(
        &mut self,
        import: &mut Import<'_>,
        mut written: impl FnMut(usize),
    ) -> Result<usize, Failure> {
        let mut without_user = 0;
        self.tokens.batches(Import::BATCH, |batch| {
            let count = batch.len();
            let names: Vec<&str> = batch.iter().filter_map(|token| token.owner.name()).collect();
            let mut named = import.users_by_name(&names)?.into_iter();
            let users: Vec<Option<UserId>> = batch
                .iter()
                .map(|token| match &token.owner {
                    Owner::Id(id) => UserId::new(id).ok(),
                    Owner::Name(_) => named.next().flatten(),
                })
                .collect();
            let asked: HashSet<&UserId> = users.iter().flatten().collect();
            let asked: Vec<&UserId> = asked.into_iter().collect();
            let known = import.known_users(&asked)?;
            let known: HashSet<UserId> = asked
                .into_iter()
                .zip(known)
                .filter(|(_, known)| *known)
                .map(|(user, _)| user.clone())
                .collect();
            let updates: Vec<_> = batch
                .into_iter()
                .zip(users)
                .filter_map(|(token, user)| Some((token, user?)))
                .filter(|(token, user)| token.revoked.is_some() || known.contains(user))
                .filter_map(|(token, user)| token.for_user(user))
                .collect();
            without_user += count - updates.len();
            import.tokens(&updates)?;
            written(count);
            Ok(Next::Continue)
        })?;
        Ok(without_user)
    }

    /// Whether any token is revoked, or has an owner in the store. `None`: an empty store.
    pub(super) fn any_owner_is_in(&mut self, mut store: Option<&mut WritableStore>) -> Result<bool, Failure> {
        let mut found = false;
        self.tokens.batches(Import::BATCH, |batch| {
            let names: Vec<&str> = batch.iter().filter_map(|token| token.owner.name()).collect();
            let ids: Vec<UserId> = batch.iter().filter_map(|token| token.owner.id()).collect();
            let ids: Vec<&UserId> = ids.iter().collect();
            found = batch.iter().any(|token| token.revoked.is_some())
                || match &mut store {
                    None => false,
                    Some(store) => {
                        store.known_users(&ids)?.contains(&true)
                            || store.users_by_name(&names)?.iter().any(Option::is_some)
                    }
                };
            Ok(if found { Next::Stop } else { Next::Continue })
        })?;
        Ok(found)
    }
}

/// A revocation that was written as a line. None is left out: an import without it would grant access.
fn read_back(line: Value) -> Result<Revocation, Failure> {
    let line = match line {
        Value::Object(line) => lines::read(line).ok(),
        _ => None,
    };
    match line {
        Some(Line::Revocation(revocation)) => Ok(revocation),
        Some(Line::User(_) | Line::Token(..)) | None => Err(Failure::Failed(
            "a revocation cannot be read back from the temporary file".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revocation_that_cannot_be_read_back_is_an_error() {
        assert!(read_back(json!({ "revoked_kid": "main" })).is_ok());
        for line in [
            json!({ "revoked_kid": "" }),
            json!({ "user": { "id": "1", "active": true } }),
            json!(7),
        ] {
            assert!(read_back(line.clone()).is_err(), "{line}");
        }
    }
}

//! The records of an import, collected object by object. Nothing is written before the whole input has been checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use authgate_auth::record::TokenRecord;
use authgate_auth::store::TokenDigest;
use authgate_core::identity::{Text, UserId};
use serde::{Deserialize, Serialize};

use super::spool::{Next, Spool};
use crate::cli::Failure;
use crate::provisioning::{Import, Keep, Revocation, TokenMember, TokenUpdate, UserUpdate};

/// How many problems are printed; the others are only counted.
const MAX_SHOWN: usize = 20;

/// The records of a dump.
pub(super) struct DumpRecords {
    users: Spool<DumpUser>,
    tokens: Spool<DumpToken>,
    revocations: Vec<Revocation>,
    ids: HashSet<Rc<str>>,
    names: HashMap<Box<str>, Rc<str>>,
    groups: HashMap<String, Text>,
    /// Groups that users refer to by key, each with the first object and user that does.
    referenced_groups: BTreeMap<String, (usize, String)>,
    /// The digests of all tokens; only collected for `--prune`.
    digests: Option<HashSet<TokenDigest>>,
    /// How many tokens have a SHA-256 and a SHA-512 digest.
    pub(super) digest_counts: (usize, usize),
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

/// A token whose user may come later in the dump.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DumpToken {
    digest: String,
    pub(super) owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keeps: Vec<TokenMember>,
}

/// The user of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Owner {
    Id(String),
    Name(String),
}

impl DumpToken {
    pub(super) fn new(digest: &TokenDigest, owner: Owner) -> Self {
        Self {
            digest: digest.to_hex(),
            owner,
            created: None,
            expires: None,
            scopes: Vec::new(),
            name: None,
            revoked: None,
            keeps: Vec::new(),
        }
    }

    /// The record to write for this user.
    pub(super) fn for_user(self, user: UserId) -> Option<(TokenDigest, TokenUpdate)> {
        let record = TokenRecord {
            user,
            created: self.created,
            expires: self.expires,
            scopes: self
                .scopes
                .iter()
                .map(|scope| Text::new(scope).ok())
                .collect::<Option<_>>()?,
            name: self.name,
            revoked: self.revoked,
        };
        let update = TokenUpdate {
            record,
            keeps: self.keeps,
        };
        Some((TokenDigest::from_hex(&self.digest)?, update))
    }
}

impl DumpRecords {
    /// Starts empty. `collect_digests` is set for `--prune`.
    pub(super) fn new(collect_digests: bool) -> Result<Self, Failure> {
        Ok(Self {
            users: Spool::new()?,
            tokens: Spool::new()?,
            revocations: Vec::new(),
            ids: HashSet::new(),
            names: HashMap::new(),
            groups: HashMap::new(),
            referenced_groups: BTreeMap::new(),
            digests: collect_digests.then(HashSet::new),
            digest_counts: (0, 0),
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
        let id: Rc<str> = update.record.id.as_str().into();
        if !self.ids.insert(Rc::clone(&id)) {
            self.problems.add(format!("user {id} appears twice"));
        } else if let Some(name) = &update.record.username
            && let Some(other) = self.names.insert(name.as_str().into(), Rc::clone(&id))
        {
            self.problems
                .add(format!("users {other} and {id} both have the username {name}"));
        }
        for group in &groups {
            if let Group::Key(key) = group {
                self.referenced_groups
                    .entry(key.clone())
                    .or_insert_with(|| (at, id.as_ref().to_owned()));
            }
        }
        self.users.push(&DumpUser { update, groups })
    }

    pub(super) fn token(&mut self, digest: &TokenDigest, token: &DumpToken) -> Result<(), Failure> {
        match digest {
            TokenDigest::Sha256(_) => self.digest_counts.0 += 1,
            TokenDigest::Sha512(_) => self.digest_counts.1 += 1,
        }
        if let Some(digests) = &mut self.digests {
            digests.insert(*digest);
        }
        self.tokens.push(token)
    }

    pub(super) fn revocation(&mut self, revocation: Revocation) {
        self.revocations.push(revocation);
    }

    pub(super) fn skipped(&mut self, model: &str, like_user: bool) {
        let skipped = self.skipped_models.entry(model.to_owned()).or_default();
        skipped.count += 1;
        skipped.like_users |= like_user;
    }

    /// Call after the last object: reports missing groups as problems.
    pub(super) fn check(&mut self) {
        for (key, (at, id)) in &self.referenced_groups {
            if !self.groups.contains_key(key) {
                self.problems.add(format!(
                    "object {at} (user {id:?}): group {key} is not in the dump; dump auth.group as well"
                ));
            }
        }
        self.referenced_groups.clear();
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn revocations(&self) -> &[Revocation] {
        &self.revocations
    }

    /// The records that `--prune` keeps. Tokens are not pruned if the dump has none.
    pub(super) fn keep(&mut self) -> Keep {
        Keep {
            users: self.ids.clone(),
            tokens: self.digests.take().filter(|digests| !digests.is_empty()),
        }
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
    /// revoked if their user is imported later.
    pub(super) fn write_tokens(
        &mut self,
        import: &mut Import<'_>,
        mut written: impl FnMut(usize),
    ) -> Result<usize, Failure> {
        let (ids, names, mut without_user) = (&self.ids, &self.names, 0);
        self.tokens.batches(Import::BATCH, |batch| {
            let count = batch.len();
            let mut found = Vec::with_capacity(count);
            for token in batch {
                let user = match &token.owner {
                    Owner::Id(id) => UserId::new(id).ok(),
                    Owner::Name(name) => match names.get(name.as_str()) {
                        Some(id) => UserId::new(id).ok(),
                        None => import.find_user_by_name(name)?,
                    },
                };
                found.push(user.map(|user| (token, user)));
            }
            let unknown: Vec<&UserId> = found
                .iter()
                .flatten()
                .filter(|(token, user)| token.revoked.is_none() && !ids.contains(user.as_str()))
                .map(|(_, user)| user)
                .collect();
            let known = import.known_users(&unknown)?;
            let missing: HashSet<UserId> = unknown
                .into_iter()
                .zip(known)
                .filter(|(_, known)| !known)
                .map(|(user, _)| user.clone())
                .collect();
            let updates: Vec<_> = found
                .into_iter()
                .flatten()
                .filter(|(token, user)| token.revoked.is_some() || !missing.contains(user))
                .filter_map(|(token, user)| token.for_user(user))
                .collect();
            without_user += count - updates.len();
            import.tokens(&updates)?;
            written(count);
            Ok(Next::Continue)
        })?;
        Ok(without_user)
    }

    /// Whether any token is revoked or has an owner for which `known` returns true.
    pub(super) fn any_owner(
        &mut self,
        mut known: impl FnMut(&Owner) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let mut found = false;
        self.tokens.batches(Import::BATCH, |batch| {
            for token in &batch {
                if token.revoked.is_some() || known(&token.owner)? {
                    found = true;
                    return Ok(Next::Stop);
                }
            }
            Ok(Next::Continue)
        })?;
        Ok(found)
    }
}

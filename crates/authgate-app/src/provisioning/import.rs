//! [`Import`]: many records at once, and what a pruning import keeps.

use authgate_auth::store::TokenDigest;
use authgate_core::identity::UserId;

use super::embedded::FileImport;
use super::redis::{self, RedisImport};
use super::{ProvisioningError, Revocation, SortedNames, TokenUpdate, UserUpdate};

/// A running import. In Redis each batch takes effect at once; a file changes as a whole, in [`Import::finish`].
///
/// After an interrupted import, running it again writes the missing records.
#[derive(Debug)]
pub struct Import<'a> {
    target: ImportTarget<'a>,
    now: i64,
    done: Imported,
}

#[derive(Debug)]
pub(super) enum ImportTarget<'a> {
    Redis(RedisImport<'a>),
    Embedded(Box<FileImport<'a>>),
}

impl<'a> Import<'a> {
    /// Recommended number of records per batch.
    pub const BATCH: usize = redis::CHUNK;

    pub(super) fn new(target: ImportTarget<'a>, now: i64) -> Self {
        Self {
            target,
            now,
            done: Imported::default(),
        }
    }

    /// Revokes. An existing revocation that covers more is kept. Import revocations before users and tokens, so that access is never
    /// granted for a moment.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke(&mut self, revocations: &[Revocation]) -> Result<(), ProvisioningError> {
        for revocation in revocations {
            dispatch!(ImportTarget: &mut self.target, revoke(revocation, self.now))?;
        }
        self.done.revocations += revocations.len();
        Ok(())
    }

    /// Removes all records that `keep` does not name, except revoked tokens. `found` receives how many more stored names were found.
    ///
    /// # Errors
    /// The store failed.
    pub fn prune(&mut self, keep: &Keep, found: impl FnMut(usize)) -> Result<Pruned, ProvisioningError> {
        dispatch!(ImportTarget: &mut self.target, prune(keep, found))
    }

    /// Stores users. A username that another user has is taken from that user.
    ///
    /// # Errors
    /// The store failed.
    pub fn users(&mut self, updates: &[UserUpdate]) -> Result<(), ProvisioningError> {
        dispatch!(ImportTarget: &mut self.target, users(updates))?;
        self.done.users += updates.len();
        Ok(())
    }

    /// Stores tokens. A revoked token is not changed.
    ///
    /// # Errors
    /// The store failed.
    pub fn tokens(&mut self, updates: &[(TokenDigest, TokenUpdate)]) -> Result<(), ProvisioningError> {
        dispatch!(ImportTarget: &mut self.target, tokens(updates, &mut self.done))
    }

    /// Which of these users exist.
    ///
    /// # Errors
    /// The store failed.
    pub fn known_users(&mut self, ids: &[&UserId]) -> Result<Vec<bool>, ProvisioningError> {
        dispatch!(ImportTarget: &mut self.target, known_users(ids))
    }

    /// Finds the users with these usernames.
    ///
    /// # Errors
    /// The store failed.
    pub fn users_by_name(&mut self, names: &[&str]) -> Result<Vec<Option<UserId>>, ProvisioningError> {
        dispatch!(ImportTarget: &mut self.target, users_by_name(names))
    }

    /// Ends the import.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<Imported, ProvisioningError> {
        dispatch!(ImportTarget: self.target, finish())?;
        Ok(self.done)
    }
}

/// What a pruning import keeps; everything else is removed.
#[derive(Debug)]
pub struct Keep {
    /// Ids of users.
    pub users: SortedNames,
    /// Digests of tokens in hexadecimal digits; `None`: all tokens of the users above.
    pub tokens: Option<SortedNames>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Users.
    pub users: usize,
    /// Tokens, including those of removed users.
    pub tokens: usize,
}

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Users that now match the import.
    pub users: usize,
    /// Tokens that now match the import.
    pub tokens: usize,
    /// Tokens that were not changed because they are revoked.
    pub left_revoked: usize,
    /// Revocations that now cover at least what the import contains.
    pub revocations: usize,
}

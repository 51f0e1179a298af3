//! [`WritableStore`]: the operations on a store of any kind that can be written.

use std::sync::Arc;

use authgate_auth::record::{Layout, TokenRecord, UserRecord};
use authgate_auth::store::redis::SealId;
use authgate_auth::store::{Digests, StoreKind, StoreSettings, TokenDigest};
use authgate_core::identity::UserId;

use super::embedded::{FileImport, WritableFile};
use super::import::ImportTarget;
use super::redis::{RedisImport, WritableRedis};
use super::{
    Deleted, Import, ProvisioningError, Replication, Resealing, Revocation, Revoked, Step, UserUpdate, random_hex,
};

/// A writable store.
#[derive(Debug)]
pub enum WritableStore {
    /// A Redis server.
    Redis(Box<WritableRedis>),
    /// A local file.
    Embedded(Box<WritableFile>),
}

/// When gateways may use a store that is empty now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Gateways may use it at once.
    ToUse,
    /// Gateways may use it after [`WritableStore::complete`].
    ToFill,
}

/// A store that has a layout record: the result of [`WritableStore::begin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    epoch: String,
    /// Its state before.
    pub state: StoreState,
}

/// The state of a store when it was opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// It had no layout record; one was created.
    WasEmpty,
    /// An import into it has begun and is not complete.
    Filling,
    /// Gateways use it.
    Complete,
}

/// What to do if another user already has the username.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameClash {
    /// Fail, and write nothing.
    Refuse,
    /// Take the name from the other user: the import is the authority for usernames.
    Move,
}

/// What happens to the revoked tokens of a deleted user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// Keep them, so that an import that restores the user does not restore the tokens.
    Keep,
    /// Delete them with the user.
    Delete,
}

impl WritableStore {
    /// Connects, or reads the file. A file that does not exist yet is an empty store.
    ///
    /// # Errors
    /// Redis does not answer, or the file does not match the layout.
    pub fn open(settings: &StoreSettings) -> Result<Self, ProvisioningError> {
        let name = Arc::clone(&settings.name);
        Ok(match &settings.kind {
            StoreKind::Redis(redis) => Self::Redis(Box::new(WritableRedis::open(name, redis.clone())?)),
            StoreKind::Embedded(file) => Self::Embedded(Box::new(WritableFile::open(name, file)?)),
            StoreKind::Django(_) => return Err(ProvisioningError::ReadOnly { store: name }),
        })
    }

    /// The kinds of digests that its tokens are stored under.
    pub fn digests(&self) -> Digests {
        dispatch!(WritableStore: self, digests())
    }

    /// The number of tokens and users of an embedded store, as it was last read; `None`: another kind of store.
    pub fn embedded_size(&self) -> Option<usize> {
        match self {
            Self::Redis(_) => None,
            Self::Embedded(file) => Some(file.size()),
        }
    }

    /// Names the seal of its records, if they have one.
    pub fn seal_id(&self) -> Option<SealId> {
        dispatch!(WritableStore: self, seal_id())
    }

    /// The digest that names a token here: with a seal the HMAC of the digest of its key.
    pub fn digest(&self, digest: &TokenDigest) -> TokenDigest {
        dispatch!(WritableStore: self, digest(digest))
    }

    /// Seals all records of a store that has none sealed, or goes on where that was interrupted. `progress` receives the number of
    /// records that are done, and of all.
    ///
    /// # Errors
    /// The store is no Redis or has no seal in the configuration, some of its records have another seal, or it failed.
    pub fn reseal(&mut self, now: i64, progress: &mut dyn FnMut(usize, usize)) -> Result<Resealing, ProvisioningError> {
        dispatch!(WritableStore: self, reseal(now, progress))
    }

    /// Creates the layout record if it does not exist. `how` applies only in this case.
    ///
    /// # Errors
    /// The layout record has an unknown version, or the store failed.
    pub fn begin(&mut self, how: Begin) -> Result<Begun, ProvisioningError> {
        let fresh = Layout {
            version: Layout::VERSION,
            epoch: random_hex::<16>()?,
            filling: how == Begin::ToFill,
            resealing: None,
        };
        let (made, layout) = dispatch!(WritableStore: self, begin(&fresh))?;
        Ok(Begun {
            epoch: layout.epoch,
            state: match (made, layout.filling) {
                (true, _) => StoreState::WasEmpty,
                (false, true) => StoreState::Filling,
                (false, false) => StoreState::Complete,
            },
        })
    }

    /// Marks the store as complete: gateways use it from now on.
    ///
    /// # Errors
    /// The store was emptied since [`WritableStore::begin`], or it failed.
    pub fn complete(&mut self, begun: &Begun) -> Result<(), ProvisioningError> {
        dispatch!(WritableStore: self, complete(&begun.epoch))
    }

    /// Checks the layout record, without creating one.
    ///
    /// # Errors
    /// The layout record is missing or has an unknown version, or the store failed.
    pub fn require_layout(&mut self) -> Result<(), ProvisioningError> {
        dispatch!(WritableStore: self, require_layout())
    }

    /// Whether an import into it has begun and is not complete: gateways do not use it yet.
    ///
    /// # Errors
    /// The layout record is missing or has an unknown version, or the store failed.
    pub fn is_filling(&mut self) -> Result<bool, ProvisioningError> {
        dispatch!(WritableStore: self, is_filling())
    }

    /// Reads all users, by id.
    ///
    /// # Errors
    /// The store failed, a record in it does not match the layout, or `take` failed.
    pub fn each_user<E: From<ProvisioningError>>(
        &mut self,
        take: impl FnMut(Step<UserRecord>) -> Result<(), E>,
    ) -> Result<(), E> {
        dispatch!(WritableStore: self, each_user(take))
    }

    /// Reads all tokens, or those of one user, by digest. Revoked ones are among them.
    ///
    /// # Errors
    /// The store failed, a record in it does not match the layout, or `take` failed.
    pub fn each_token<E: From<ProvisioningError>>(
        &mut self,
        user: Option<&UserId>,
        take: impl FnMut(Step<(TokenDigest, TokenRecord)>) -> Result<(), E>,
    ) -> Result<(), E> {
        dispatch!(WritableStore: self, each_token(user, take))
    }

    /// Reads all revocations.
    ///
    /// # Errors
    /// The store failed, a record in it does not match the layout, or `take` failed.
    pub fn each_revocation<E: From<ProvisioningError>>(
        &mut self,
        now: i64,
        take: impl FnMut(Step<Revocation>) -> Result<(), E>,
    ) -> Result<(), E> {
        dispatch!(WritableStore: self, each_revocation(now, take))
    }

    /// Stores a new token; `false`: a token with that digest exists and was not changed.
    ///
    /// # Errors
    /// The store failed.
    pub fn put_token(&mut self, digest: &TokenDigest, token: &TokenRecord) -> Result<bool, ProvisioningError> {
        dispatch!(WritableStore: self, put_token(digest, token))
    }

    /// Looks one token up.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_token(&mut self, digest: &TokenDigest) -> Result<Option<TokenRecord>, ProvisioningError> {
        dispatch!(WritableStore: self, find_token(digest))
    }

    /// Marks a token as revoked; its record stays, so that no import brings it back.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke_token(&mut self, digest: &TokenDigest, now: i64) -> Result<Revoked, ProvisioningError> {
        dispatch!(WritableStore: self, revoke_token(digest, now))
    }

    /// Stores a user, replacing the record with that id, and returns the old record.
    ///
    /// # Errors
    /// Another user has the username, or the store failed.
    pub fn put_user(&mut self, user: &UserRecord, clash: NameClash) -> Result<Option<UserRecord>, ProvisioningError> {
        let update = UserUpdate::from(user.clone());
        dispatch!(WritableStore: self, put_user(&update, clash))
    }

    /// Which of these users exist.
    ///
    /// # Errors
    /// The store failed.
    pub fn known_users(&mut self, ids: &[&UserId]) -> Result<Vec<bool>, ProvisioningError> {
        dispatch!(WritableStore: self, known_users(ids))
    }

    /// Looks one user up.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_user(&mut self, id: &UserId) -> Result<Option<UserRecord>, ProvisioningError> {
        dispatch!(WritableStore: self, find_user(id))
    }

    /// Finds the users with these usernames.
    ///
    /// # Errors
    /// The store failed.
    pub fn users_by_name(&mut self, names: &[&str]) -> Result<Vec<Option<UserId>>, ProvisioningError> {
        dispatch!(WritableStore: self, users_by_name(names))
    }

    /// Looks one user up by login name.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_user_by_name(&mut self, name: &str) -> Result<Option<UserRecord>, ProvisioningError> {
        dispatch!(WritableStore: self, find_user_by_name(name))
    }

    /// Activates or deactivates a user. Returns the old state; `None`: the user does not exist.
    ///
    /// # Errors
    /// The store failed.
    pub fn set_active(&mut self, id: &UserId, active: bool) -> Result<Option<bool>, ProvisioningError> {
        dispatch!(WritableStore: self, set_active(id, active))
    }

    /// Deletes a user and all their tokens. A [`Revocation::User`] of that user stays in force.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete_user(&mut self, id: &UserId) -> Result<Deleted, ProvisioningError> {
        dispatch!(WritableStore: self, delete_user(id, Tombstones::Delete))
    }

    /// The Unix second up to which the credentials of a user are revoked.
    ///
    /// # Errors
    /// The store failed.
    pub fn user_revoked(&mut self, id: &UserId) -> Result<Option<i64>, ProvisioningError> {
        dispatch!(WritableStore: self, user_revoked(id))
    }

    /// Revokes. An existing revocation that covers more is kept.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), ProvisioningError> {
        dispatch!(WritableStore: self, revoke(revocation, now))
    }

    /// Waits, for a second at most, until a replica has the last change.
    pub fn wait_for_replica(&mut self) -> Replication {
        match self {
            Self::Redis(redis) => redis.wait_for_replica(),
            Self::Embedded(_) => Replication::NoReplica,
        }
    }

    /// Begins an import of many records. A file stays locked until the end.
    ///
    /// # Errors
    /// The store failed.
    pub fn import(&mut self, now: i64) -> Result<Import<'_>, ProvisioningError> {
        let target = match self {
            Self::Redis(redis) => ImportTarget::Redis(RedisImport::new(redis)),
            Self::Embedded(file) => ImportTarget::Embedded(Box::new(FileImport::new(file)?)),
        };
        Ok(Import::new(target, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use authgate_auth::record;
    use authgate_auth::store::embedded::EmbeddedSettings;

    fn empty_store(folder: &tempfile::TempDir) -> WritableStore {
        let kind = StoreKind::Embedded(EmbeddedSettings {
            file: folder.path().join("tokens.toml"),
            digests: Digests::SHA256,
        });
        let mut store = WritableStore::open(&StoreSettings {
            name: "file".into(),
            kind,
        })
        .expect("an empty store");
        assert!(matches!(store.require_layout(), Err(ProvisioningError::Empty { .. })));
        let states = [Begin::ToUse, Begin::ToFill].map(|how| store.begin(how).expect("writable").state);
        assert_eq!(states, [StoreState::WasEmpty, StoreState::Complete]);
        store
    }

    fn user(id: &str, name: &str) -> UserRecord {
        let text =
            format!(r#"{{"id":"{id}","username":"{name}","active":true,"attributes":{{"a":null,"b":{{"c":null}}}}}}"#);
        record::parse("a user", text.as_bytes()).expect("a user")
    }

    #[test]
    fn a_revoked_token_stays_revoked() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = empty_store(&folder);
        let (digest, token) = (
            TokenDigest::of(b"x"),
            record::parse::<TokenRecord>("a token", br#"{"user":"1"}"#).expect("a token"),
        );
        assert!(store.put_token(&digest, &token).expect("writable"));
        assert!(
            !store.put_token(&digest, &token).expect("writable"),
            "there is one already"
        );
        assert_eq!(
            store.revoke_token(&TokenDigest::of(b"y"), 7).expect("writable"),
            Revoked::Unknown
        );
        assert_eq!(store.revoke_token(&digest, 7).expect("writable"), Revoked::Now);
        assert_eq!(store.revoke_token(&digest, 8).expect("writable"), Revoked::Before(7));
        let mut import = store.import(9).expect("writable");
        import.tokens(&[(digest, token.into())]).expect("writable");
        let done = import.finish().expect("writable");
        assert_eq!((done.tokens, done.left_revoked), (0, 1));
        let token = store.find_token(&digest).expect("readable").expect("there");
        assert_eq!(token.revoked, Some(7));
    }

    #[test]
    fn a_username_belongs_to_one_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = empty_store(&folder);
        let (one, two) = (user("1", "ada"), user("2", "ada"));
        assert!(store.put_user(&one, NameClash::Refuse).expect("writable").is_none());
        assert!(matches!(
            store.put_user(&two, NameClash::Refuse),
            Err(ProvisioningError::NameTaken { .. })
        ));
        store.put_user(&two, NameClash::Move).expect("writable");
        let holder = store.find_user_by_name("ada").expect("readable").expect("there");
        assert_eq!(holder.id, two.id);
        assert_eq!(
            store
                .find_user(&one.id)
                .expect("readable")
                .and_then(|user| user.username),
            None
        );
        assert_eq!(store.set_active(&one.id, false).expect("writable"), Some(true));
        assert_eq!(
            store.delete_user(&two.id).expect("writable"),
            Deleted { user: true, tokens: 0 }
        );
        assert_eq!(store.delete_user(&two.id).expect("writable"), Deleted::default());
    }

    #[test]
    fn revocations_are_only_widened() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = empty_store(&folder);
        let id = UserId::new("1").expect("an id");
        let jti = |jti: &str, forget| Revocation::Jti {
            jti: jti.to_owned(),
            forget,
        };
        for before in [5, 9, 3] {
            store
                .revoke(&Revocation::User { id: id.clone(), before }, 10)
                .expect("writable");
        }
        for forget in [Some(20), Some(30), Some(25)] {
            store.revoke(&jti("a", forget), 10).expect("writable");
        }
        for forget in [Some(20), None, Some(25)] {
            store.revoke(&jti("b", forget), 10).expect("writable");
        }
        let revocations = |store: &mut WritableStore| {
            let mut found = Vec::new();
            let read = store.each_revocation::<ProvisioningError>(10, |step| {
                if let Step::Record(revocation) = step {
                    found.push(revocation);
                }
                Ok(())
            });
            read.expect("readable");
            found
        };
        let all = [Revocation::User { id, before: 9 }, jti("a", Some(30)), jti("b", None)];
        assert_eq!(revocations(&mut store), all);
        store.revoke(&jti("c", None), 30).expect("writable");
        assert!(
            !revocations(&mut store).contains(&all[1]),
            "long over and not forgotten"
        );
    }
}

//! The write side of a store, for the command line: it blocks, waits as long as a person does, and no gateway uses it.
//!
//! Every change is right for itself: none of them loses a `revoked` mark that somebody else has just set, and one that is cut off
//! half-way leaves nothing behind that lets somebody in. Doing it again finishes it.

mod embedded;
mod error;
mod redis;
mod update;

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::rand;

use self::embedded::{FileAdmin, FileImport};
pub use self::error::AdminError;
use self::redis::RedisAdmin;
pub use self::update::{TokenMember, TokenUpdate, UserMember, UserUpdate};
use super::{Digests, Kind, Settings, TokenDigest};
use crate::auth::record::{Layout, TokenRecord, UserRecord};
use crate::identity::UserId;

/// A store that can be changed.
#[derive(Debug)]
pub enum Admin {
    /// A Redis server.
    Redis(Box<RedisAdmin>),
    /// A file of this machine.
    Embedded(FileAdmin),
}

/// How an empty store begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Gateways may use it at once.
    ToUse,
    /// Gateways may use it after [`Admin::complete`].
    ToFill,
}

/// A store that has a layout record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    epoch: String,
    /// What it was like before.
    pub state: StoreState,
}

/// What a store was like when it was opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// It had no layout record; one was made.
    WasEmpty,
    /// An import has begun it and has not completed it.
    Filling,
    /// Gateways use it.
    Complete,
}

/// What is to be done about somebody else who has the username already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameClash {
    /// Nothing is written.
    Refuse,
    /// The name is taken from them: the source of the users knows that it is another's now.
    Move,
}

/// A mark that something issued elsewhere is no longer good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// What was issued to this user by then.
    User {
        /// Whose.
        id: UserId,
        /// Unix seconds.
        before: i64,
    },
    /// One JWT.
    Jti {
        /// Its id.
        jti: String,
        /// The Unix second after which the mark may be forgotten; `None`: never.
        forget: Option<i64>,
    },
    /// A key that JWTs are signed with.
    Kid {
        /// Its id, or its thumbprint.
        kid: String,
    },
}

/// All records of a store.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Users.
    pub users: Vec<UserRecord>,
    /// Tokens by digest.
    pub tokens: Vec<(TokenDigest, TokenRecord)>,
    /// Revocations.
    pub revocations: Vec<Revocation>,
}

/// What becomes of the revoked tokens of a user who is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// They stay, so that an import that brings the user back does not bring them back.
    Keep,
    /// They go with the user.
    Delete,
}

/// What an import that prunes keeps; all else is removed.
#[derive(Debug, Default)]
pub struct Keep {
    /// Ids of users.
    pub users: HashSet<Rc<str>>,
    /// Tokens; `None`: those of the users who are kept.
    pub tokens: Option<HashSet<TokenDigest>>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Users.
    pub users: usize,
    /// Tokens, those of removed users too.
    pub tokens: usize,
}

/// What became of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Users that are as the import says.
    pub users: usize,
    /// Tokens that are as the import says.
    pub tokens: usize,
    /// Tokens that were left alone because they are revoked.
    pub left_revoked: usize,
    /// Revocations that are at least as wide as the import says.
    pub revocations: usize,
}

/// What became of a token that was to be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// There is none.
    Unknown,
    /// It was revoked before, at that Unix second.
    Before(i64),
    /// It is revoked now.
    Now,
}

/// What went with a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was a user record.
    pub user: bool,
    /// How many tokens there were.
    pub tokens: usize,
}

/// So many random bytes, in lower-case hexadecimal digits.
///
/// # Errors
/// The operating system has none to give.
pub fn random_hex<const BYTES: usize>() -> Result<String, AdminError> {
    let mut bytes = [0_u8; BYTES];
    rand::fill(&mut bytes).map_err(|_| AdminError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Admin {
    /// What its tokens are named by.
    pub fn digests(&self) -> Digests {
        match self {
            Self::Redis(redis) => redis.digests(),
            Self::Embedded(file) => file.digests(),
        }
    }
}

/// Calls the method of the same name on whichever store it is.
macro_rules! either {
    ($admin:ident.$method:ident($($argument:expr),*)) => {
        match $admin {
            Admin::Redis(redis) => redis.$method($($argument),*),
            Admin::Embedded(file) => file.$method($($argument),*),
        }
    };
}

impl Admin {
    /// Connects, or reads the file. A file that does not exist yet is an empty store.
    ///
    /// # Errors
    /// Redis does not answer; the file is not one of ours.
    pub fn open(settings: &Settings) -> Result<Self, AdminError> {
        let name = Arc::clone(&settings.name);
        Ok(match &settings.kind {
            Kind::Redis(redis) => Self::Redis(Box::new(RedisAdmin::open(name, redis.clone())?)),
            Kind::Embedded(file) => Self::Embedded(FileAdmin::open(name, file)?),
        })
    }

    /// Makes the layout record unless there is one.
    ///
    /// # Errors
    /// There is one of a version that this program does not know, or the store failed.
    pub fn begin(&mut self, how: Begin) -> Result<Begun, AdminError> {
        let fresh = Layout {
            version: Layout::VERSION,
            epoch: random_hex::<16>()?,
            filling: how == Begin::ToFill,
        };
        let (made, layout) = either!(self.begin(&fresh))?;
        Ok(Begun {
            epoch: layout.epoch,
            state: match (made, layout.filling) {
                (true, _) => StoreState::WasEmpty,
                (false, true) => StoreState::Filling,
                (false, false) => StoreState::Complete,
            },
        })
    }

    /// Says that the store holds everything that it is to hold: gateways use it from now on.
    ///
    /// # Errors
    /// It is not the store that was begun: it was emptied meanwhile. Or the store failed.
    pub fn complete(&mut self, begun: &Begun) -> Result<(), AdminError> {
        either!(self.complete(&begun.epoch))
    }

    /// Holds the store to its layout record without making one.
    ///
    /// # Errors
    /// There is none, it is of a version that this program does not know, or the store failed.
    pub fn require_layout(&mut self) -> Result<(), AdminError> {
        either!(self.require_layout())
    }

    /// Stores a new token; `false`: there is one of that digest already, and it stays as it is.
    ///
    /// # Errors
    /// The store failed.
    pub fn put_token(&mut self, digest: &TokenDigest, token: &TokenRecord) -> Result<bool, AdminError> {
        either!(self.put_token(digest, token))
    }

    /// Looks one token up.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_token(&mut self, digest: &TokenDigest) -> Result<Option<TokenRecord>, AdminError> {
        either!(self.find_token(digest))
    }

    /// All tokens, or those of one user, by digest.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_tokens(&mut self, user: Option<&UserId>) -> Result<Vec<(TokenDigest, TokenRecord)>, AdminError> {
        either!(self.list_tokens(user))
    }

    /// Marks a token as revoked; its record stays, so that no import brings it back.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke_token(&mut self, digest: &TokenDigest, now: i64) -> Result<Revoked, AdminError> {
        either!(self.revoke_token(digest, now))
    }

    /// Stores a user in place of what was known under that id, and gives back what was.
    ///
    /// # Errors
    /// The username is another's, or the store failed.
    pub fn put_user(&mut self, user: &UserRecord, clash: NameClash) -> Result<Option<UserRecord>, AdminError> {
        let update = UserUpdate::from(user.clone());
        let before = match self {
            Self::Redis(redis) => redis.put_users(&[update], clash)?.pop(),
            Self::Embedded(file) => Some(file.put_user(&update, clash)?),
        };
        Ok(before.flatten())
    }

    /// Which of these users there are.
    ///
    /// # Errors
    /// The store failed.
    pub fn known_users(&mut self, ids: &[&UserId]) -> Result<Vec<bool>, AdminError> {
        either!(self.known_users(ids))
    }

    /// Looks one user up.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_user(&mut self, id: &UserId) -> Result<Option<UserRecord>, AdminError> {
        either!(self.find_user(id))
    }

    /// Looks one user up by login name.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_user_by_name(&mut self, name: &str) -> Result<Option<UserRecord>, AdminError> {
        either!(self.find_user_by_name(name))
    }

    /// Lets a user in or keeps them out; the answer is what was before, `None`: there is no such user.
    ///
    /// # Errors
    /// The store failed.
    pub fn set_active(&mut self, id: &UserId, active: bool) -> Result<Option<bool>, AdminError> {
        either!(self.set_active(id, active))
    }

    /// Removes a user and all their tokens. What was revoked of them by [`Revocation::User`] stays revoked.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete_user(&mut self, id: &UserId) -> Result<Deleted, AdminError> {
        either!(self.delete_user(id, Tombstones::Delete))
    }

    /// Until when everything that was issued to a user is revoked.
    ///
    /// # Errors
    /// The store failed.
    pub fn user_revoked(&mut self, id: &UserId) -> Result<Option<i64>, AdminError> {
        either!(self.user_revoked(id))
    }

    /// Revokes. A mark that reaches further already stays.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke(&mut self, revocation: &Revocation, now: i64) -> Result<(), AdminError> {
        either!(self.revoke(revocation, now))
    }

    /// Begins to write many records. A file is locked until the end.
    ///
    /// # Errors
    /// The store failed.
    pub fn import(&mut self, now: i64) -> Result<Import<'_>, AdminError> {
        let target = match self {
            Self::Redis(redis) => Target::Redis(redis),
            Self::Embedded(file) => {
                let import = file.begin_import()?;
                Target::Embedded(file, Box::new(import))
            }
        };
        Ok(Import {
            target,
            now,
            done: Imported::default(),
        })
    }

    /// Everything that [`Admin::import`] takes.
    ///
    /// # Errors
    /// The store failed, or a record in it is not as the layout says.
    pub fn export(&mut self, now: i64) -> Result<Bundle, AdminError> {
        match self {
            Self::Redis(redis) => redis.export(now),
            Self::Embedded(file) => file.export(),
        }
    }
}

/// An import under way. In Redis each batch is in force at once; a file changes as a whole, with [`Import::finish`].
///
/// Doing an import again that was cut off writes what is missing.
#[derive(Debug)]
pub struct Import<'a> {
    target: Target<'a>,
    now: i64,
    done: Imported,
}

#[derive(Debug)]
enum Target<'a> {
    Redis(&'a mut RedisAdmin),
    Embedded(&'a mut FileAdmin, Box<FileImport>),
}

impl Import<'_> {
    /// How many records a batch should have.
    pub const BATCH: usize = redis::CHUNK;

    /// Revokes. A mark that reaches further already stays. What takes away is to come before what gives.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke(&mut self, revocations: &[Revocation]) -> Result<(), AdminError> {
        for revocation in revocations {
            match &mut self.target {
                Target::Redis(redis) => redis.revoke(revocation, self.now)?,
                Target::Embedded(_, file) => file.revoke(revocation, self.now),
            }
        }
        self.done.revocations += revocations.len();
        Ok(())
    }

    /// Removes what is not to be kept, but no token that is revoked.
    ///
    /// # Errors
    /// The store failed.
    pub fn prune(&mut self, keep: &Keep) -> Result<Pruned, AdminError> {
        match &mut self.target {
            Target::Redis(redis) => redis.prune(keep),
            Target::Embedded(_, file) => Ok(file.prune(keep)),
        }
    }

    /// Stores users. A username that another user has is taken from them.
    ///
    /// # Errors
    /// The store failed.
    pub fn users(&mut self, updates: &[UserUpdate]) -> Result<(), AdminError> {
        match &mut self.target {
            Target::Redis(redis) => redis.put_users(updates, NameClash::Move).map(|_| ())?,
            Target::Embedded(_, file) => file.users(updates)?,
        }
        self.done.users += updates.len();
        Ok(())
    }

    /// Stores tokens. One that is stored as revoked stays as it is.
    ///
    /// # Errors
    /// The store failed.
    pub fn tokens(&mut self, updates: &[(TokenDigest, TokenUpdate)]) -> Result<(), AdminError> {
        match &mut self.target {
            Target::Redis(redis) => redis.import_tokens(updates, &mut self.done),
            Target::Embedded(_, file) => {
                file.tokens(updates, &mut self.done);
                Ok(())
            }
        }
    }

    /// Which of these users there are by now.
    ///
    /// # Errors
    /// The store failed.
    pub fn known_users(&mut self, ids: &[&UserId]) -> Result<Vec<bool>, AdminError> {
        match &mut self.target {
            Target::Redis(redis) => redis.known_users(ids),
            Target::Embedded(_, file) => Ok(file.known_users(ids)),
        }
    }

    /// Who has a login name by now.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_user_by_name(&mut self, name: &str) -> Result<Option<UserId>, AdminError> {
        match &mut self.target {
            Target::Redis(redis) => Ok(redis.find_user_by_name(name)?.map(|user| user.id)),
            Target::Embedded(_, file) => Ok(file.find_user_by_name(name)),
        }
    }

    /// Ends the import.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<Imported, AdminError> {
        match self.target {
            Target::Redis(_) => {}
            Target::Embedded(file, import) => file.finish_import(*import)?,
        }
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::record;
    use crate::auth::store::{Kind, embedded};

    fn admin(folder: &tempfile::TempDir) -> Admin {
        let kind = Kind::Embedded(embedded::Settings {
            file: folder.path().join("tokens.toml"),
            digests: Default::default(),
        });
        let mut admin = Admin::open(&Settings {
            name: "file".into(),
            kind,
        })
        .expect("an empty store");
        assert!(matches!(admin.require_layout(), Err(AdminError::Empty { .. })));
        let states = [Begin::ToUse, Begin::ToFill].map(|how| admin.begin(how).expect("writable").state);
        assert_eq!(states, [StoreState::WasEmpty, StoreState::Complete]);
        admin
    }

    fn user(id: &str, name: &str) -> UserRecord {
        let text =
            format!(r#"{{"id":"{id}","username":"{name}","active":true,"attributes":{{"a":null,"b":{{"c":null}}}}}}"#);
        record::parse("a user", text.as_bytes()).expect("a user")
    }

    #[test]
    fn a_revoked_token_is_dead_for_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut admin = admin(&folder);
        let (digest, token) = (
            TokenDigest::of(b"x"),
            record::parse::<TokenRecord>("a token", br#"{"user":"1"}"#).expect("a token"),
        );
        assert!(admin.put_token(&digest, &token).expect("writable"));
        assert!(
            !admin.put_token(&digest, &token).expect("writable"),
            "there is one already"
        );
        assert_eq!(
            admin.revoke_token(&TokenDigest::of(b"y"), 7).expect("writable"),
            Revoked::Unknown
        );
        assert_eq!(admin.revoke_token(&digest, 7).expect("writable"), Revoked::Now);
        assert_eq!(admin.revoke_token(&digest, 8).expect("writable"), Revoked::Before(7));
        let mut import = admin.import(9).expect("writable");
        import.tokens(&[(digest, token.into())]).expect("writable");
        let done = import.finish().expect("writable");
        assert_eq!((done.tokens, done.left_revoked), (0, 1));
        let token = admin.find_token(&digest).expect("readable").expect("there");
        assert_eq!(token.revoked, Some(7));
    }

    #[test]
    fn a_username_belongs_to_one_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut admin = admin(&folder);
        let (one, two) = (user("1", "ada"), user("2", "ada"));
        assert!(admin.put_user(&one, NameClash::Refuse).expect("writable").is_none());
        assert!(matches!(
            admin.put_user(&two, NameClash::Refuse),
            Err(AdminError::NameTaken { .. })
        ));
        admin.put_user(&two, NameClash::Move).expect("writable");
        let holder = admin.find_user_by_name("ada").expect("readable").expect("there");
        assert_eq!(holder.id, two.id);
        assert_eq!(
            admin
                .find_user(&one.id)
                .expect("readable")
                .and_then(|user| user.username),
            None
        );
        assert_eq!(admin.set_active(&one.id, false).expect("writable"), Some(true));
        assert_eq!(
            admin.delete_user(&two.id).expect("writable"),
            Deleted { user: true, tokens: 0 }
        );
        assert_eq!(admin.delete_user(&two.id).expect("writable"), Deleted::default());
    }

    #[test]
    fn revocations_are_only_widened() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut admin = admin(&folder);
        let id = UserId::new("1").expect("an id");
        let jti = |jti: &str, forget| Revocation::Jti {
            jti: jti.to_owned(),
            forget,
        };
        for before in [5, 9, 3] {
            admin
                .revoke(&Revocation::User { id: id.clone(), before }, 10)
                .expect("writable");
        }
        for forget in [Some(20), Some(30), Some(25)] {
            admin.revoke(&jti("a", forget), 10).expect("writable");
        }
        for forget in [Some(20), None, Some(25)] {
            admin.revoke(&jti("b", forget), 10).expect("writable");
        }
        let all = [Revocation::User { id, before: 9 }, jti("a", Some(30)), jti("b", None)];
        assert_eq!(admin.export(10).expect("readable").revocations, all);
        admin.revoke(&jti("c", None), 30).expect("writable");
        assert!(
            !admin.export(30).expect("readable").revocations.contains(&all[1]),
            "long over and not forgotten"
        );
    }
}

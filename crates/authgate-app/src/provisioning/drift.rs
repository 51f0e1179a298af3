//! [`Expected`]: the records that an import of all rows of Django would write, and [`Drift`]: where a store differs from them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use authgate_auth::record::{TokenRecord, UserRecord};
use authgate_auth::store::TokenDigest;
use authgate_core::identity::Text;

/// Differences of one kind that are shown; the others are only counted.
const SHOWN: usize = 10;

/// Which members of users are compared: those that Django's tables have. An import keeps the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// `email`.
    pub email: bool,
    /// `groups`.
    pub groups: bool,
    /// `active`.
    pub active: bool,
    /// `password_md5`.
    pub password_md5: bool,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The digest of the token; `None`: it is a user, or a token without a usable digest.
    pub token: Option<TokenDigest>,
    /// The id of the user, where it is known.
    pub user: Option<String>,
    /// The members that differ. Their values may be personal data.
    pub members: Vec<&'static str>,
    /// Why the row cannot be stored.
    pub problem: Option<String>,
}

/// The differences of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// How many there are.
    pub count: usize,
    /// The first ones.
    pub shown: Vec<Difference>,
}

/// The differences of users, or of tokens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// How many rows Django has.
    pub rows: usize,
    /// Rows that cannot be stored: an import refuses them.
    pub unstorable: Kind,
    /// In Django, and not in the store.
    pub missing: Kind,
    /// In both, with other values.
    pub different: Kind,
    /// In the store, and not in Django.
    pub unknown: Kind,
}

/// Where a store differs from Django.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Users.
    pub users: Kinds,
    /// Tokens.
    pub tokens: Kinds,
    /// Tokens that are marked as revoked in the store. They are no difference: no import changes them.
    pub revoked: usize,
}

/// What is kept of one user of Django.
#[derive(Debug)]
struct ExpectedUser {
    // Hashes, because a site may have millions of users.
    username: u64,
    email: u64,
    /// The sum of the hashes of their names: they have no order.
    groups: u64,
    password_md5: u64,
    active: bool,
    found: bool,
}

/// What is kept of one token of Django.
#[derive(Debug)]
struct ExpectedToken {
    user: Rc<str>,
    created: Option<i64>,
    /// `None`: the table has no expiries.
    expires: Option<Option<i64>>,
    found: bool,
}

/// The records that an import would write. First take all rows of Django, then all users of the store, then all its tokens.
#[derive(Debug)]
pub struct Expected {
    compared: Compared,
    hasher: RandomState,
    /// `None`: the row cannot be stored.
    users: HashMap<Rc<str>, Option<ExpectedUser>>,
    /// `None`: the row cannot be stored.
    tokens: HashMap<TokenDigest, Option<ExpectedToken>>,
    /// Users of the store that Django does not have.
    unknown_users: HashSet<Box<str>>,
    drift: Drift,
}

impl Difference {
    fn user(id: &str, members: Vec<&'static str>) -> Self {
        Self {
            token: None,
            user: Some(id.to_owned()),
            members,
            problem: None,
        }
    }

    fn token(digest: TokenDigest, user: &str, members: Vec<&'static str>) -> Self {
        Self {
            token: Some(digest),
            ..Self::user(user, members)
        }
    }
}

impl Kind {
    fn add(&mut self, difference: impl FnOnce() -> Difference) {
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(difference());
        }
    }
}

impl Kinds {
    /// How many differences there are.
    pub fn count(&self) -> usize {
        self.unstorable.count + self.missing.count + self.different.count + self.unknown.count
    }
}

impl Drift {
    /// How many differences there are.
    pub fn count(&self) -> usize {
        self.users.count() + self.tokens.count()
    }
}

impl Expected {
    /// Without any row.
    pub fn new(compared: Compared) -> Self {
        Self {
            compared,
            hasher: RandomState::new(),
            users: HashMap::new(),
            tokens: HashMap::new(),
            unknown_users: HashSet::new(),
            drift: Drift::default(),
        }
    }

    /// A user of Django, without groups.
    pub fn user(&mut self, user: &UserRecord) {
        let expected = ExpectedUser {
            username: self.hash(user.username.as_ref().map(Text::as_str)),
            email: self.hash(user.email.as_ref().map(Text::as_str)),
            groups: 0,
            password_md5: self.hash(user.password_md5.as_deref()),
            active: user.active,
            found: false,
        };
        self.drift.users.rows += 1;
        self.users.insert(user.id.as_str().into(), Some(expected));
    }

    /// A user of Django that cannot be stored.
    pub fn unstorable_user(&mut self, id: &str, problem: &str) {
        self.drift.users.rows += 1;
        self.users.insert(id.into(), None);
        self.add_unstorable_user(id, problem);
    }

    /// A group of a user of Django; `Err`: it cannot be stored.
    pub fn member(&mut self, id: &str, group: Result<&str, &str>) {
        let hash = group.map(|group| self.hash(Some(group)));
        let Some(user) = self.users.get_mut(id) else { return };
        match (hash, user) {
            (Ok(hash), Some(user)) => user.groups = user.groups.wrapping_add(hash),
            (Err(problem), user @ Some(_)) => {
                *user = None;
                self.add_unstorable_user(id, problem);
            }
            (_, None) => {}
        }
    }

    fn add_unstorable_user(&mut self, id: &str, problem: &str) {
        self.drift.users.unstorable.add(|| Difference {
            problem: Some(problem.to_owned()),
            ..Difference::user(id, Vec::new())
        });
    }

    /// A token of Django. `has_expiry`: its table has expiries.
    pub fn token(&mut self, digest: TokenDigest, token: &TokenRecord, has_expiry: bool) {
        let id = token.user.as_str();
        let expected = ExpectedToken {
            user: match self.users.get_key_value(id) {
                Some((id, _)) => Rc::clone(id),
                None => id.into(),
            },
            created: token.created,
            expires: has_expiry.then_some(token.expires),
            found: false,
        };
        self.drift.tokens.rows += 1;
        self.tokens.insert(digest, Some(expected));
    }

    /// A token of Django that cannot be stored.
    pub fn unstorable_token(&mut self, digest: Option<TokenDigest>, problem: &str) {
        self.drift.tokens.rows += 1;
        if let Some(digest) = digest {
            self.tokens.insert(digest, None);
        }
        self.drift.tokens.unstorable.add(|| Difference {
            token: digest,
            user: None,
            members: Vec::new(),
            problem: Some(problem.to_owned()),
        });
    }

    /// A user of the store.
    pub fn compare_user(&mut self, stored: &UserRecord) {
        let id = stored.id.as_str();
        // A group that is listed twice is one group.
        let groups: BTreeSet<&str> = stored.groups.iter().map(Text::as_str).collect();
        let groups = groups.into_iter().map(|group| self.hash(Some(group)));
        let groups = groups.fold(0_u64, u64::wrapping_add);
        let username = self.hash(stored.username.as_ref().map(Text::as_str));
        let email = self.hash(stored.email.as_ref().map(Text::as_str));
        let password_md5 = self.hash(stored.password_md5.as_deref());
        let compared = self.compared;
        match self.users.get_mut(id) {
            None => {
                self.unknown_users.insert(id.into());
                self.drift.users.unknown.add(|| Difference::user(id, Vec::new()));
            }
            Some(None) => {}
            Some(Some(user)) => {
                user.found = true;
                let members: Vec<&'static str> = [
                    ("username", user.username != username),
                    ("email", compared.email && user.email != email),
                    ("groups", compared.groups && user.groups != groups),
                    ("active", compared.active && user.active != stored.active),
                    (
                        "password_md5",
                        compared.password_md5 && user.password_md5 != password_md5,
                    ),
                ]
                .into_iter()
                .filter_map(|(name, differs)| differs.then_some(name))
                .collect();
                if !members.is_empty() {
                    self.drift.users.different.add(|| Difference::user(id, members));
                }
            }
        }
    }

    /// A token of the store.
    pub fn compare_token(&mut self, digest: TokenDigest, stored: &TokenRecord) {
        let (id, kinds) = (stored.user.as_str(), &mut self.drift.tokens);
        let expected = self.tokens.get_mut(&digest);
        if stored.revoked.is_some() {
            self.drift.revoked += 1;
            if let Some(Some(token)) = expected {
                token.found = true;
            }
            return;
        }
        match expected {
            None => kinds.unknown.add(|| Difference::token(digest, id, Vec::new())),
            Some(None) => {}
            Some(Some(token)) => {
                token.found = true;
                let members: Vec<&'static str> = [
                    ("user", &*token.user != id),
                    ("created", token.created.is_some() && token.created != stored.created),
                    (
                        "expires",
                        token.expires.is_some_and(|expires| expires != stored.expires),
                    ),
                ]
                .into_iter()
                .filter_map(|(name, differs)| differs.then_some(name))
                .collect();
                if !members.is_empty() {
                    kinds.different.add(|| Difference::token(digest, id, members));
                }
            }
        }
    }

    /// All records were taken.
    pub fn finish(self) -> Drift {
        let Self {
            users,
            tokens,
            unknown_users,
            mut drift,
            ..
        } = self;
        let is_missing = |user: &Option<ExpectedUser>| user.as_ref().is_some_and(|user| !user.found);
        let mut missing: Vec<&str> = users
            .iter()
            .filter_map(|(id, user)| is_missing(user).then_some(&**id))
            .collect();
        missing.sort_unstable();
        for id in missing {
            drift.users.missing.add(|| Difference::user(id, Vec::new()));
        }
        // An import skips tokens of users that are neither in the dump nor in the store.
        let mut missing: Vec<(TokenDigest, &str)> = tokens
            .iter()
            .filter_map(|(digest, token)| Some((*digest, token.as_ref().filter(|token| !token.found)?)))
            .map(|(digest, token)| (digest, &*token.user))
            .filter(|(_, user)| users.contains_key(*user) || unknown_users.contains(*user))
            .collect();
        missing.sort_unstable();
        for (digest, user) in missing {
            drift.tokens.missing.add(|| Difference::token(digest, user, Vec::new()));
        }
        drift
    }

    fn hash(&self, text: Option<&str>) -> u64 {
        self.hasher.hash_one(text)
    }
}

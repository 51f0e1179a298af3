//! What operations on a store report: their results, and the steps of reading many records.

/// The result of revoking a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The token does not exist.
    Unknown,
    /// It was already revoked, at this Unix second.
    Before(i64),
    /// It is revoked now.
    Now,
}

/// Whether a replica of the store has received the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// The store has no replicas.
    NoReplica,
    /// At least one has.
    Confirmed,
    /// None has confirmed it in time. If the primary is lost now, the change may be lost too.
    NotConfirmed,
    /// The role may not ask, or the server does not answer.
    Unknown,
}

/// The result of sealing a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resealing {
    /// All records have the seal of the configuration already.
    Before,
    /// All records have it now.
    Now(Resealed),
}

/// What was sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Users.
    pub users: usize,
    /// Usernames.
    pub names: usize,
    /// Tokens.
    pub tokens: usize,
    /// Revocations.
    pub revocations: usize,
    /// Lists of a user's tokens.
    pub lists: usize,
}

/// What was deleted with a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was a user record.
    pub user: bool,
    /// Number of tokens.
    pub tokens: usize,
}

/// An event while all records of one kind are read.
#[derive(Debug)]
pub enum Step<R> {
    /// This many more names were found. The records are read when all names are found.
    Found(usize),
    /// About this many records are read from now on.
    Count(usize),
    /// A record.
    Record(R),
}

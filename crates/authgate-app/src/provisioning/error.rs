//! [`ProvisioningError`]: why a store could not be read or changed, for messages of the command line.

use std::sync::Arc;

use authgate_auth::record::{BadRecord, Layout};
use authgate_auth::store::redis::BadSeal;

/// A store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProvisioningError {
    /// Redis cannot be reached, or answered with an error.
    #[error("store {store} at {endpoint}: {problem}")]
    Redis {
        /// Its name.
        store: Arc<str>,
        /// Where it is.
        endpoint: String,
        /// Its answer.
        problem: String,
    },
    /// The file cannot be read or written.
    #[error("store {store}: {problem}")]
    File {
        /// Its name.
        store: Arc<str>,
        /// What is wrong, with the file's name.
        problem: String,
    },
    /// It is the database of an application, which this program only reads.
    #[error(
        "store {store} is the database of a Django application, which is only read; use Django, or name another store with --store"
    )]
    ReadOnly {
        /// Its name.
        store: Arc<str>,
    },
    /// It has no records yet.
    #[error(
        "store {store} at {at} holds no records yet; create the first with `authgate user put` or `authgate token import`"
    )]
    Empty {
        /// Its name.
        store: Arc<str>,
        /// Its address or path.
        at: String,
    },
    /// The store was replaced while the command ran.
    #[error("store {store} was emptied while this command wrote to it; run the command again")]
    Emptied {
        /// Its name.
        store: Arc<str>,
    },
    /// It has a newer layout.
    #[error("store {store} has layout version {found}, this program knows {}", Layout::VERSION)]
    Version {
        /// Its name.
        store: Arc<str>,
        /// The version found.
        found: u32,
    },
    /// A record does not match the layout.
    #[error("store {store}, {what}: {problem}")]
    Record {
        /// Its name.
        store: Arc<str>,
        /// Which record.
        what: String,
        /// What is wrong with it.
        #[source]
        problem: BadRecord,
    },
    /// A record does not have the seal of the store.
    #[error("store {store}: {problem}. {}", remedy(problem))]
    Seal {
        /// Its name.
        store: Arc<str>,
        /// Which record, and what is wrong with its seal.
        #[source]
        problem: BadSeal,
    },
    /// `authgate token reseal` was interrupted, or is still running.
    #[error(
        "store {store} is being sealed, and gateways answer 503 until that is complete: run `authgate token reseal`"
    )]
    Resealing {
        /// Its name.
        store: Arc<str>,
    },
    /// An interrupted `authgate token reseal` is too old to be completed.
    #[error(
        "store {store}: `authgate token reseal` was begun more than a day ago and never completed, or another program has restored the \
         layout record of that time. Fill the store again"
    )]
    OldResealing {
        /// Its name.
        store: Arc<str>,
    },
    /// A seal is needed in the configuration.
    #[error("store {store} has no seal in the configuration; add `seal = {{ file = \"seal.key\" }}` to its table")]
    NoSeal {
        /// Its name.
        store: Arc<str>,
    },
    /// A store without a seal was expected.
    #[error(
        "store {store}: the layout record is not sealed, and {record:?} is. Another program has replaced the layout record of a sealed \
         store: find out which, and fill the store again"
    )]
    PartlySealed {
        /// Its name.
        store: Arc<str>,
        /// A sealed record.
        record: String,
    },
    /// An import into it has begun and is not complete.
    #[error("store {store} is being filled: complete the import first")]
    Filling {
        /// Its name.
        store: Arc<str>,
    },
    /// Usernames are unique.
    #[error("the username {name} belongs to user {holder}; change or delete that one first")]
    NameTaken {
        /// The name.
        name: String,
        /// The id of the user that has it.
        holder: String,
    },
    /// Names and records wait in temporary files, so that they need little memory.
    #[error("cannot use a temporary file in {} (set TMPDIR to use another directory): {_0}", std::env::temp_dir().display())]
    TemporaryFile(#[source] std::io::Error),
    /// The operating system returned no random numbers.
    #[error("the operating system returned no random numbers")]
    Random,
}

impl ProvisioningError {
    /// The message without keys of records, for the log of a gateway.
    pub fn without_keys(&self) -> String {
        match self {
            Self::Redis {
                store,
                endpoint,
                problem,
            } => {
                // A server that does not know a command repeats its arguments.
                let problem = problem.split(", with args beginning").next().unwrap_or_default();
                format!("store {store} at {endpoint}: {problem}")
            }
            Self::Record { store, .. } => format!("store {store} has a record that does not match the layout"),
            Self::Seal { store, .. } => format!("store {store} has a record that does not have its seal"),
            Self::PartlySealed { store, .. } => {
                format!("the layout record of store {store} is not sealed, and other records are")
            }
            Self::NameTaken { .. } => "the username belongs to another user".to_owned(),
            Self::File { .. }
            | Self::ReadOnly { .. }
            | Self::Empty { .. }
            | Self::Emptied { .. }
            | Self::Version { .. }
            | Self::Resealing { .. }
            | Self::OldResealing { .. }
            | Self::NoSeal { .. }
            | Self::Filling { .. }
            | Self::TemporaryFile(_)
            | Self::Random => self.to_string(),
        }
    }
}

/// What to do about a bad seal.
fn remedy(problem: &BadSeal) -> &'static str {
    match problem {
        BadSeal::Unsealed(_) => {
            "If `seal` is new, run `authgate token reseal`. If the store was sealed before, another program has written this: find out \
             which, and delete or replace the record"
        }
        BadSeal::Mismatch(_) => {
            "If `seal` names the wrong file, correct it. Else another program has written this: find out which, and delete or replace \
             the record"
        }
        BadSeal::NoKey(_) => "Add `seal = { file = \"…\" }` to its table",
    }
}

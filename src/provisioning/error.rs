//! [`ProvisioningError`]: why a store could not be read or changed, for messages of the command line.

use std::sync::Arc;

use authgate_auth::record::{BadRecord, Layout};

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
            Self::NameTaken { .. } => "the username belongs to another user".to_owned(),
            Self::File { .. }
            | Self::ReadOnly { .. }
            | Self::Empty { .. }
            | Self::Emptied { .. }
            | Self::Version { .. }
            | Self::TemporaryFile(_)
            | Self::Random => self.to_string(),
        }
    }
}

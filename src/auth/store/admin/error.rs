//! [`AdminError`]: why a store could not be read or changed, in words for the person at the terminal.

use std::sync::Arc;

use crate::auth::record::{BadRecord, Layout};

/// A store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Redis cannot be reached, or answered with an error.
    #[error("store {store} at {endpoint}: {problem}")]
    Redis {
        /// Its name.
        store: Arc<str>,
        /// Where it is.
        endpoint: String,
        /// What it said.
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
    /// Nobody has written to it yet.
    #[error("store {store} at {at} holds no records yet; begin it with `authgate user put` or `authgate token import`")]
    Empty {
        /// Its name.
        store: Arc<str>,
        /// Where it was looked for.
        at: String,
    },
    /// It is another store than when the command began.
    #[error("store {store} was emptied while this command wrote to it; do it again")]
    Emptied {
        /// Its name.
        store: Arc<str>,
    },
    /// Somebody newer has written to it.
    #[error("store {store} has layout version {found}, this program knows {}", Layout::VERSION)]
    Version {
        /// Its name.
        store: Arc<str>,
        /// What it has.
        found: u32,
    },
    /// Something in it is not as the layout says.
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
        /// Who has it.
        holder: String,
    },
    /// The operating system has none.
    #[error("no random numbers are to be had")]
    Random,
}

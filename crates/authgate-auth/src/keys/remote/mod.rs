//! Keys that an identity provider publishes at a URL, and changes without notice.
//!
//! A [`SharedKeySource`] fetches them, and all workers read what it has. `state` says what it has at a moment, and `refresh` when it
//! fetches.

mod documents;
mod error;
mod refresh;
mod settings;
mod source;
mod state;

pub use self::error::{FetchProblem, KeysError};
pub use self::settings::{KeyLocation, RemoteKeys};
pub use self::source::SharedKeySource;
pub use self::state::KeySourceStatus;
pub(crate) use self::state::KnownKeys;

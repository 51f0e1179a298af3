//! [`KeyState`]: what a source has at a moment.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::error::FetchProblem;
use crate::keys::{SkippedKey, VerificationKey};

/// What a source has, and how its last fetch has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyState {
    /// The keys of the last fetch that has succeeded. `None`: there was none, or it is too long ago.
    pub(super) known: Option<Arc<KnownKeys>>,
    /// When a fetch has last succeeded.
    pub(super) confirmed: Option<Confirmed>,
    /// When the last fetch has begun.
    pub(super) began: Option<Instant>,
    /// Whether that fetch has not ended yet.
    pub(super) is_fetching: bool,
    /// Why the last fetch that has ended has failed. `None`: it has succeeded.
    pub(super) problem: Option<FetchProblem>,
    /// How many fetches in a row have failed.
    pub(super) failures: u32,
    /// When the next fetch begins, unless a token asks for one before.
    pub(super) next: Option<Instant>,
}

/// The moment of a fetch that has succeeded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmed {
    pub(super) at: Instant,
    pub(super) wall_clock: SystemTime,
}

/// The keys of one set. It has at least one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownKeys {
    /// Each has a `kid`.
    pub(crate) keys: Vec<VerificationKey>,
    /// The keys that were left out, with the reason.
    pub(super) left_out: Vec<SkippedKey>,
}

/// The state of a source, for reports.
#[derive(Debug, Clone)]
pub struct KeySourceStatus {
    /// The name of its authenticator.
    pub authenticator: Arc<str>,
    /// The URL in the configuration.
    pub location: String,
    /// The `kid` and algorithm of each key in use.
    pub keys: Vec<(String, &'static str)>,
    /// The keys that are left out, with the reason.
    pub left_out: Vec<String>,
    /// When a fetch has last succeeded.
    pub last_success: Option<SystemTime>,
    /// When the next fetch begins.
    pub next_fetch: Option<SystemTime>,
    /// How many fetches in a row have failed.
    pub failures: u32,
    /// Why the last fetch has failed. `None`: it has succeeded, or there was none.
    pub error: Option<String>,
}

//! [`HeldCredential`]: a credential that was accepted when a stream began, kept to be checked again. [`Standing`]: the decision about it,
//! and what can end that decision. [`HeldCredentials`]: those of all streams of a worker.

mod index;
mod queues;

use std::fmt;
use std::sync::Arc;

use authgate_core::identity::Identity;
use authgate_core::secret::Secret;

pub use self::index::{HeldCredentials, Question, Settled};
pub use self::queues::CredentialId;
use crate::cache;
use crate::dependencies::{ChangeCounters, Dependencies};
use crate::now::Now;
use crate::validity::Validity;

/// A credential that was accepted when a stream began.
pub struct HeldCredential {
    pub(crate) digest: cache::Key,
    pub(crate) credential: Secret<Box<[u8]>>,
}

impl HeldCredential {
    pub(crate) fn new(credential: &[u8]) -> Self {
        Self {
            digest: cache::key(credential),
            credential: Secret::new(credential.into()),
        }
    }
}

impl fmt::Debug for HeldCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldCredential").finish_non_exhaustive()
    }
}

/// A decision that accepts a held credential. It stands until its time is over, or until an item changes that it depends on.
#[derive(Debug, Clone)]
pub struct Standing {
    pub(crate) identity: Arc<Identity>,
    pub(crate) validity: Validity,
    /// Until when it may be used although changes are not reported, on the clock of [`Now::uptime_ms`].
    pub(crate) confirmed_until: u64,
    pub(crate) dependencies: Dependencies,
}

impl Standing {
    /// The user.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// When the credential expires, in milliseconds of Unix time. `None`: never.
    fn expires_ms(&self) -> Option<i64> {
        (self.validity.until_ms < i64::MAX).then_some(self.validity.until_ms)
    }

    /// Whether the credential has expired.
    pub fn has_expired(&self, now: Now) -> bool {
        now.unix_ms >= self.validity.until_ms
    }

    /// The counters of the items that it depends on, as in [`Changed::Slots`](crate::dependencies::Changed::Slots).
    fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.dependencies.slots()
    }

    /// Whether it has all its dependencies. Otherwise, changes cannot end it.
    fn is_complete(&self) -> bool {
        !self.dependencies.forbids_caching()
    }

    /// Whether an item that it depends on has changed.
    pub fn is_outdated(&self, counters: &ChangeCounters) -> bool {
        self.is_complete() && !counters.are_unchanged(&self.dependencies)
    }
}

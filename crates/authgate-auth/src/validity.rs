//! [`Validity`]: when a credential is valid.

use crate::now::Now;

/// When a credential is valid, in milliseconds of Unix time: `from_ms <= now < until_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Start, inclusive.
    pub from_ms: i64,
    /// End, exclusive.
    pub until_ms: i64,
}

impl Validity {
    /// Valid at any time.
    pub const ALWAYS: Self = Self {
        from_ms: i64::MIN,
        until_ms: i64::MAX,
    };

    pub(crate) fn contains(self, now: Now) -> bool {
        self.from_ms <= now.unix_ms && now.unix_ms < self.until_ms
    }
}

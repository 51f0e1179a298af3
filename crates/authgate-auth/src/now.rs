//! [`Now`]: both clocks, read once per request.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The current time, read once per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Unix time in milliseconds, for the dates of credentials.
    pub unix_ms: i64,
    /// Milliseconds since the first call of [`Now::read`], for cache lifetimes. Monotonic.
    pub uptime_ms: u64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let uptime = START.get_or_init(Instant::now).elapsed();
        Self {
            unix_ms: i64::try_from(milliseconds(unix)).unwrap_or(i64::MAX),
            uptime_ms: milliseconds(uptime),
        }
    }

    /// The time so much later.
    #[must_use]
    pub(crate) fn later(self, by: Duration) -> Self {
        let ms = by.as_millis();
        Self {
            unix_ms: self.unix_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)),
            uptime_ms: self.uptime_ms.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX)),
        }
    }

    /// Unix time in whole seconds.
    pub fn unix_seconds(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

/// As [`Duration::as_millis`], in half the width.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1000);
    seconds.saturating_add(u64::from(duration.subsec_millis()))
}

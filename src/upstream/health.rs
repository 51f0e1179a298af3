//! What a worker has seen of a server: one that cannot be reached is left alone for a while, and longer each time.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row before a server is left alone.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One server's record.
#[derive(Debug)]
pub(super) struct Health {
    failures: Cell<u32>,
    until: Cell<Option<Instant>>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            failures: Cell::new(0),
            until: Cell::new(None),
        }
    }

    /// Whether it may be asked. A server that was left alone long enough may be tried again.
    pub(super) fn is_usable(&self) -> bool {
        self.until.get().is_none_or(|until| until <= Instant::now())
    }

    /// It has answered.
    pub(super) fn worked(&self) {
        if self.failures.get() != 0 {
            self.failures.set(0);
            self.until.set(None);
        }
    }

    /// It could not be connected to, or ended a connection without an answer.
    pub(super) fn failed(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if let Some(times) = failures.checked_sub(FAILURES) {
            let pause = FIRST_PAUSE.saturating_mul(1 << times.min(10)).min(LONGEST_PAUSE);
            self.until.set(Some(Instant::now() + pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_is_left_alone_and_longer_each_time() {
        let health = Health::new();
        for _ in 1..FAILURES {
            health.failed();
        }
        assert!(health.is_usable(), "a few failures are nothing");
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            health.failed();
            assert!(!health.is_usable());
            tokio::time::advance(Duration::from_secs(pause)).await;
            assert!(health.is_usable(), "after {pause} s");
        }
        health.worked();
        health.failed();
        assert!(health.is_usable(), "success wipes the record");
    }
}

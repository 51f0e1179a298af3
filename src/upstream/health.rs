//! What a worker has observed of a server. A server that cannot be reached is not used for a pause, which grows with each failure. A server that
//! fails its health checks is not used until it passes them again.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures before a server is not used for a pause.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Consecutive checks before a server counts as down, and as up again.
const CHECKS_DOWN: u32 = 3;
const CHECKS_UP: u32 = 2;

/// The record of one server.
#[derive(Debug)]
pub(super) struct Health {
    failures: Cell<u32>,
    until: Cell<Option<Instant>>,
    /// The health checks have failed; the field below counts consecutive checks with the opposite result.
    down: Cell<bool>,
    otherwise: Cell<u32>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            failures: Cell::new(0),
            until: Cell::new(None),
            down: Cell::new(false),
            otherwise: Cell::new(0),
        }
    }

    /// Whether the server may be used. After a pause it may be tried again.
    pub(super) fn is_usable(&self) -> bool {
        !self.down.get() && self.until.get().is_none_or(|until| until <= Instant::now())
    }

    /// Records the result of a check. `Some`: the server has changed to up (`true`) or down (`false`).
    pub(super) fn checked(&self, passed: bool) -> Option<bool> {
        if passed != self.down.get() {
            self.otherwise.set(0);
            return None;
        }
        let otherwise = self.otherwise.get() + 1;
        self.otherwise.set(otherwise);
        let enough = if passed { CHECKS_UP } else { CHECKS_DOWN };
        if otherwise < enough {
            return None;
        }
        self.otherwise.set(0);
        self.down.set(!passed);
        if passed {
            self.worked();
        }
        Some(passed)
    }

    /// The server has answered.
    pub(super) fn worked(&self) {
        if self.failures.get() != 0 {
            self.failures.set(0);
            self.until.set(None);
        }
    }

    /// The connection to the server failed, or ended without an answer.
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

    #[test]
    fn checks_count_once_several_agree() {
        let health = Health::new();
        assert_eq!(
            [false, false, true, false, false].map(|passed| health.checked(passed)),
            [None; 5]
        );
        assert!(health.is_usable());
        assert_eq!(health.checked(false), Some(false));
        assert!(!health.is_usable());
        assert_eq!(
            [false, true, false, true].map(|passed| health.checked(passed)),
            [None; 4]
        );
        assert_eq!(health.checked(true), Some(true));
        assert!(health.is_usable());
    }

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

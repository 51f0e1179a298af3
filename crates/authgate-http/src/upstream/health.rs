//! What a worker has observed of a server. A server that cannot be reached is not used for a pause, which grows with each failure. A server that
//! fails its health checks is not used until it passes them again.

use std::cell::Cell;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health_reports::HealthReport;

/// Consecutive failures before a server is not used for a pause.
const EJECT_AFTER: u32 = 3;
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const MAX_EJECTION: Duration = Duration::from_secs(30);

/// Consecutive checks before a server counts as down, and as up again.
const UNHEALTHY_THRESHOLD: u32 = 3;
const HEALTHY_THRESHOLD: u32 = 2;

/// The record of one server.
#[derive(Debug)]
pub(super) struct Health {
    failures: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    /// The health checks have failed; the field below counts consecutive checks with the opposite result.
    checks_fail: Cell<bool>,
    opposite_checks: Cell<u32>,
    /// What operators see of it.
    report: Arc<HealthReport>,
}

impl Health {
    /// A server without failures. Its faults are reported to `report`.
    pub(super) fn new(report: Arc<HealthReport>) -> Self {
        Self {
            report,
            failures: Cell::new(0),
            ejected_until: Cell::new(None),
            checks_fail: Cell::new(false),
            opposite_checks: Cell::new(0),
        }
    }

    /// Whether the server may be used. After a pause it may be tried again.
    pub(super) fn is_usable(&self) -> bool {
        !self.checks_fail.get()
            && self
                .ejected_until
                .get()
                .is_none_or(|ejected_until| ejected_until <= Instant::now())
    }

    /// Records the result of a check: `None`, or why it has failed. `Some`: the server has changed to up (`true`) or down (`false`).
    pub(super) fn record_check(&self, failed: Option<&dyn Display>) -> Option<bool> {
        let passed = failed.is_none();
        if passed != self.checks_fail.get() {
            self.opposite_checks.set(0);
            if let Some(reason) = failed {
                self.report.set_checks_fail(reason);
            }
            return None;
        }
        let opposite_checks = self.opposite_checks.get() + 1;
        self.opposite_checks.set(opposite_checks);
        let threshold = if passed { HEALTHY_THRESHOLD } else { UNHEALTHY_THRESHOLD };
        if opposite_checks < threshold {
            return None;
        }
        self.opposite_checks.set(0);
        self.checks_fail.set(!passed);
        match failed {
            None => {
                self.report.clear_checks();
                self.record_success();
            }
            Some(reason) => self.report.set_checks_fail(reason),
        }
        Some(passed)
    }

    /// Health checks were turned off: their last results no longer count.
    pub(super) fn forget_checks(&self) {
        self.checks_fail.set(false);
        self.opposite_checks.set(0);
        self.report.clear_checks();
    }

    /// The server has answered.
    pub(super) fn record_success(&self) {
        if self.failures.get() != 0 {
            self.failures.set(0);
            if self.ejected_until.take().is_some() {
                self.report.clear_ejected();
            }
        }
    }

    /// The connection to the server failed, or ended without an answer, for this reason.
    pub(super) fn record_failure(&self, reason: &dyn Display) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if let Some(times) = failures.checked_sub(EJECT_AFTER) {
            let ejection = FIRST_EJECTION.saturating_mul(1 << times.min(10)).min(MAX_EJECTION);
            self.ejected_until.set(Some(Instant::now() + ejection));
            self.report.set_ejected(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(health: &Health, passed: bool) -> Option<bool> {
        health.record_check((!passed).then_some(&"status 500"))
    }

    #[test]
    fn several_equal_checks_change_the_state() {
        let health = Health::new(Arc::default());
        assert_eq!(
            [false, false, true, false, false].map(|passed| check(&health, passed)),
            [None; 5]
        );
        assert!(health.is_usable());
        assert_eq!(check(&health, false), Some(false));
        assert!(!health.is_usable());
        assert_eq!(
            [false, true, false, true].map(|passed| check(&health, passed)),
            [None; 4]
        );
        assert_eq!(check(&health, true), Some(true));
        assert!(health.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_failures_eject_a_server_for_longer_each_time() {
        let health = Health::new(Arc::default());
        for _ in 1..EJECT_AFTER {
            health.record_failure(&"refused");
        }
        assert!(health.is_usable(), "a few failures are nothing");
        for ejection in [1, 2, 4, 8, 16, 30, 30] {
            health.record_failure(&"refused");
            assert!(!health.is_usable());
            tokio::time::advance(Duration::from_secs(ejection)).await;
            assert!(health.is_usable(), "after {ejection} s");
        }
        health.record_success();
        health.record_failure(&"refused");
        assert!(health.is_usable(), "success wipes the record");
    }
}

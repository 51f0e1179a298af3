//! [`Breaker`]: while a server does not answer, look-ups fail at once, and one task tries to reach it again.

use std::sync::{Arc, Mutex, PoisonError};

use super::failure::Failure;

/// Whether one server answers, for all workers. It is open from the first failed attempt to connect until an attempt succeeds.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Why it is open. A [`Probe`] exists exactly while this is `Some`.
    open: Mutex<Option<Failure>>,
}

/// The right to connect while the breaker is open. There is one at a time. Dropping it closes the breaker, because the attempt has
/// succeeded or its worker is gone: then the next look-up connects.
#[derive(Debug)]
pub(super) struct Probe(Arc<Breaker>);

impl Breaker {
    /// Why look-ups fail at once. `None`: it is closed.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.lock().clone()
    }

    /// Opens it after a failed attempt. `None`: it is open, and another task has the probe.
    pub(super) fn open(self: &Arc<Self>, failure: Failure) -> Option<Probe> {
        let mut open = self.lock();
        if open.is_some() {
            return None;
        }
        *open = Some(failure);
        Some(Probe(Arc::clone(self)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Failure>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    /// The attempt has failed.
    pub(super) fn failed(&self, failure: Failure) {
        *self.0.lock() = Some(failure);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_probe_and_its_end_closes_the_breaker() {
        let breaker = Arc::new(Breaker::default());
        assert!(breaker.failure().is_none());
        let probe = breaker.open(Failure::Unreachable).expect("it was closed");
        assert!(breaker.open(Failure::Timeout).is_none());
        assert!(matches!(breaker.failure(), Some(Failure::Unreachable)));
        probe.failed(Failure::Timeout);
        assert!(matches!(breaker.failure(), Some(Failure::Timeout)));
        drop(probe);
        assert!(breaker.failure().is_none());
        assert!(breaker.open(Failure::Timeout).is_some());
    }
}

//! [`ConcurrencyLimit`]: a limit on the number of concurrent operations, across all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit that all its clones share.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    max: usize,
    in_use: Arc<AtomicUsize>,
}

impl ConcurrencyLimit {
    /// A limit of `max` permits. With 0 there is no limit, and permits are not counted.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            in_use: Arc::default(),
        }
    }

    /// Another limit for the same operations: both share one count.
    #[must_use]
    pub fn with_max(&self, max: usize) -> Self {
        Self {
            max,
            in_use: Arc::clone(&self.in_use),
        }
    }

    /// The permits in use, and their limit. `None`: there is no limit.
    pub fn usage(&self) -> Option<(usize, usize)> {
        (self.max > 0).then(|| (self.in_use.load(Ordering::Relaxed).min(self.max), self.max))
    }

    /// Takes a permit, if one is left. It never waits.
    pub fn try_acquire(&self) -> Option<ConcurrencyPermit> {
        if self.max == 0 {
            return Some(ConcurrencyPermit(None));
        }
        let permit = ConcurrencyPermit(Some(Arc::clone(&self.in_use)));
        let before = self.in_use.fetch_add(1, Ordering::Relaxed);
        // If the limit is reached, dropping the permit corrects the count.
        (before < self.max).then_some(permit)
    }
}

/// Counts against its limit until it is dropped.
#[derive(Debug)]
pub struct ConcurrencyPermit(Option<Arc<AtomicUsize>>);

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        if let Some(in_use) = &self.0 {
            in_use.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_bounds_the_permits_in_use() {
        let limit = ConcurrencyLimit::new(2);
        let (one, two) = (limit.try_acquire(), limit.clone().try_acquire());
        assert!(one.is_some() && two.is_some() && limit.try_acquire().is_none() && limit.try_acquire().is_none());
        drop(one);
        assert!(limit.try_acquire().is_some());
        assert!(limit.with_max(1).try_acquire().is_none() && limit.with_max(3).try_acquire().is_some());
        assert!((0..10).all(|_| ConcurrencyLimit::new(0).try_acquire().is_some()));
    }
}

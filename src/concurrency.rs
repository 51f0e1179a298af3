//! [`ConcurrencyLimit`]: a limit on the number of concurrent operations, across all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit that all its clones share.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    most: usize,
    taken: Arc<AtomicUsize>,
}

impl ConcurrencyLimit {
    /// A limit of `most` permits. With 0 there is no limit, and permits are not counted.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// Takes a permit, if one is left. It never waits.
    pub fn take(&self) -> Option<ConcurrencyPermit> {
        if self.most == 0 {
            return Some(ConcurrencyPermit(None));
        }
        let slot = ConcurrencyPermit(Some(Arc::clone(&self.taken)));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        // If the limit is reached, dropping the permit corrects the count.
        (before < self.most).then_some(slot)
    }
}

/// Counts against its limit until it is dropped.
#[derive(Debug)]
pub struct ConcurrencyPermit(Option<Arc<AtomicUsize>>);

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_the_limit() {
        let slots = ConcurrencyLimit::new(2);
        let (one, two) = (slots.take(), slots.clone().take());
        assert!(one.is_some() && two.is_some() && slots.take().is_none() && slots.take().is_none());
        drop(one);
        assert!(slots.take().is_some());
        assert!((0..10).all(|_| ConcurrencyLimit::new(0).take().is_some()));
    }
}

//! [`Slots`]: how many may do something at once, of all workers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound, shared by all its clones.
#[derive(Debug, Clone)]
pub struct Slots {
    most: usize,
    taken: Arc<AtomicUsize>,
}

impl Slots {
    /// So many at once; 0: no bound, and nothing is counted.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// One of them, if one is left. Nobody waits.
    pub fn take(&self) -> Option<Slot> {
        if self.most == 0 {
            return Some(Slot(None));
        }
        let slot = Slot(Some(Arc::clone(&self.taken)));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        // Dropped, it is given back.
        (before < self.most).then_some(slot)
    }
}

/// Held while it is done.
#[derive(Debug)]
pub struct Slot(Option<Arc<AtomicUsize>>);

impl Drop for Slot {
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
    fn as_many_as_there_are() {
        let slots = Slots::new(2);
        let (one, two) = (slots.take(), slots.clone().take());
        assert!(one.is_some() && two.is_some() && slots.take().is_none() && slots.take().is_none());
        drop(one);
        assert!(slots.take().is_some());
        assert!((0..10).all(|_| Slots::new(0).take().is_some()));
    }
}

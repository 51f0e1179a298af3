//! [`CounterSeries`]: a family of counters that can be read one by one. The family of prometheus-client can only be written as text.

use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Counters by labels.
pub struct CounterSeries<L> {
    family: Family<L, Counter>,
    /// Every counter of `family`, in the order in which they were made. It only grows, so that a counter keeps its position.
    counters: Mutex<Vec<(L, Counter)>>,
}

impl<L: Clone + Eq + Hash> Default for CounterSeries<L> {
    fn default() -> Self {
        Self {
            family: Family::default(),
            counters: Mutex::default(),
        }
    }
}

impl<L> fmt::Debug for CounterSeries<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterSeries").finish_non_exhaustive()
    }
}

impl<L: Clone + Eq + Hash> CounterSeries<L> {
    /// The counter with these labels. It takes locks: keep the result.
    pub fn counter(&self, labels: &L) -> Counter {
        let mut counters = self.lock();
        if let Some(counter) = self.family.get(labels) {
            return counter.clone();
        }
        let counter = self.family.get_or_create(labels).clone();
        counters.push((labels.clone(), counter.clone()));
        counter
    }

    /// The labels and the value of each counter. The position of a counter does not change.
    pub fn values(&self) -> Vec<(L, u64)> {
        let counters = self.lock();
        counters
            .iter()
            .map(|(labels, counter)| (labels.clone(), counter.get()))
            .collect()
    }

    /// Calls `read` with each counter, in the order of [`Self::values`].
    pub fn for_each(&self, mut read: impl FnMut(&L, u64)) {
        for (labels, counter) in &*self.lock() {
            read(labels, counter.get());
        }
    }

    /// The family, for a registry.
    pub fn family(&self) -> &Family<L, Counter> {
        &self.family
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(L, Counter)>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

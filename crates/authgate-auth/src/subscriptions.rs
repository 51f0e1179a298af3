//! [`Subscriptions`]: the subscriptions of one store, and until when each of them has confirmed what was read from the store.
//!
//! A store that reports its changes does so over a connection: its subscription. While a subscription works, whatever was read under it is
//! confirmed. When the next subscription begins, changes may have been missed in between, so cached decisions are not used any more. But they
//! were confirmed until the earlier subscription was lost, which `on_outage = "serve-cached"` needs to know.
//!
//! So the counter of a whole store counts two kinds of events: the begin of a subscription, after which earlier decisions are confirmed
//! until the end of their own subscription, and a change of the store itself, after which earlier decisions are of no use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// How many subscriptions of a store are remembered. Of earlier ones it is not known when they ended.
const REMEMBERED: usize = 64;

/// The subscriptions of one store. The counter of the store tells under which of them something was read.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    periods: ArcSwap<Periods>,
    /// Locked while an event is counted.
    counting: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Periods {
    /// The counter after the last change of the whole store. What was read with a lower one is of no use.
    replaced: u32,
    /// Oldest first. Before the first one, there was no subscription.
    recent: Vec<Arc<Period>>,
}

/// The time of one subscription, until the next one begins.
#[derive(Debug)]
struct Period {
    /// The counter when it began.
    first: u32,
    /// The changes until this time are counted, on the clock of [`Now::uptime_ms`].
    confirmed: AtomicU64,
}

impl Subscriptions {
    /// There was none. What was read with a counter before `counted` is of no use.
    pub(crate) fn new(counted: u32) -> Self {
        Self {
            periods: ArcSwap::from_pointee(Periods {
                replaced: counted,
                recent: Vec::new(),
            }),
            counting: Mutex::default(),
        }
    }

    /// A subscription begins. `count` increments the counter of the store, and returns the new value.
    pub(crate) fn begin(&self, count: impl FnOnce() -> u32) {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = count();
        let mut periods = Periods::clone(&self.periods.load());
        if periods.recent.len() == REMEMBERED {
            periods.recent.remove(0);
        }
        periods.recent.push(Arc::new(Period {
            first,
            confirmed: AtomicU64::new(0),
        }));
        self.periods.store(Arc::new(periods));
    }

    /// The whole store has changed. `count` is that of [`begin`](Self::begin).
    pub(crate) fn replaced(&self, count: impl FnOnce() -> u32) {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut periods = Periods::clone(&self.periods.load());
        periods.replaced = count();
        self.periods.store(Arc::new(periods));
    }

    /// All changes until `at` were reported by the present subscription, and are counted.
    pub(crate) fn confirmed(&self, at: u64) {
        if let Some(period) = self.periods.load().recent.last() {
            period.confirmed.fetch_max(at, Ordering::Relaxed);
        }
    }

    /// When something that was read at `read` was last confirmed; `counted` is the counter from before it was read. `None`: it is of no use.
    pub(crate) fn last_confirmed(&self, counted: u32, read: u64) -> Option<u64> {
        let periods = self.periods.load();
        if is_before(counted, periods.replaced) {
            return None;
        }
        let mut latest_first = periods.recent.iter().rev();
        let period = latest_first.find(|period| !is_before(counted, period.first));
        let confirmed = period.map_or(0, |period| period.confirmed.load(Ordering::Relaxed));
        Some(confirmed.max(read))
    }
}

/// Compares two values of a counter that may have wrapped around.
fn is_before(counted: u32, other: u32) -> bool {
    let ahead = other.wrapping_sub(counted);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_subscription_is_forgotten_after_many_others() {
        let subscriptions = Subscriptions::new(0);
        subscriptions.begin(|| 1);
        subscriptions.confirmed(100);
        for counted in 2..=64 {
            subscriptions.begin(|| counted);
        }
        assert_eq!(subscriptions.last_confirmed(1, 10), Some(100));
        subscriptions.begin(|| 65);
        subscriptions.confirmed(900);
        assert_eq!(
            subscriptions.last_confirmed(1, 10),
            Some(10),
            "only the look-up is known"
        );
        assert_eq!(subscriptions.last_confirmed(65, 10), Some(900));
        assert_eq!(subscriptions.periods.load().recent.len(), REMEMBERED);
    }

    #[test]
    fn counters_that_wrap_around_are_compared() {
        assert!(is_before(1, 2) && is_before(u32::MAX, 0) && is_before(u32::MAX - 5, 7));
        assert!(!is_before(2, 1) && !is_before(0, u32::MAX) && !is_before(7, 7));
    }
}

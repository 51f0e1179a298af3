//! [`ConnectionPermits`]: bounds the open connections of all workers. The limit can change while connections are open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limit of open connections.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    semaphore: Arc<Semaphore>,
    limit: Mutex<usize>,
    /// How many permits are out beyond the limit, because it was lowered. So many do not return.
    excess: AtomicUsize,
}

impl ConnectionPermits {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            semaphore: Arc::new(Semaphore::new(limit)),
            limit: Mutex::new(limit),
            excess: AtomicUsize::new(0),
        })
    }

    /// Waits for a permit. `None`: the workers end.
    pub(super) async fn acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.semaphore).acquire_owned().await.ok()?;
        Some(ConnectionPermit {
            permit: Some(permit),
            permits: Arc::clone(self),
        })
    }

    /// Open connections stay open. If there are more than `limit`, new ones wait until enough have closed.
    pub(super) fn set_limit(&self, limit: usize) {
        let mut current = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, limit) = (std::mem::replace(&mut *current, limit), limit);
        if let Some(fewer) = before.checked_sub(limit) {
            let unused = self.semaphore.forget_permits(fewer);
            self.excess.fetch_add(fewer - unused, Ordering::Relaxed);
        } else {
            let more = limit - before;
            let mut repaid = 0;
            while repaid < more && self.repay() {
                repaid += 1;
            }
            self.semaphore.add_permits(more - repaid);
        }
    }

    /// Takes one from the excess, if there is one.
    fn repay(&self) -> bool {
        let less = |excess: usize| excess.checked_sub(1);
        self.excess
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// Held while a connection is open.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    /// Taken when it is dropped.
    permit: Option<OwnedSemaphorePermit>,
    permits: Arc<ConnectionPermits>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.permits.repay()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn acquire(permits: &Arc<ConnectionPermits>) -> Option<ConnectionPermit> {
        permits.acquire().now_or_never().flatten()
    }

    #[test]
    fn a_lower_limit_waits_for_open_connections() {
        let permits = ConnectionPermits::new(3);
        let mut open: Vec<_> = (0..3).filter_map(|_| acquire(&permits)).collect();
        assert!(acquire(&permits).is_none());
        permits.set_limit(1);
        for _ in 0..2 {
            open.pop();
            assert!(acquire(&permits).is_none(), "{} are open", open.len());
        }
        open.pop();
        let one = acquire(&permits).expect("none is open");
        assert!(acquire(&permits).is_none());
        permits.set_limit(2);
        let two = acquire(&permits).expect("one more");
        assert!(acquire(&permits).is_none());
        drop((one, two));
    }

    #[test]
    fn a_limit_that_is_raised_again_counts_the_connections_that_stayed_open() {
        let permits = ConnectionPermits::new(4);
        let open: Vec<_> = (0..4).filter_map(|_| acquire(&permits)).collect();
        permits.set_limit(1);
        permits.set_limit(5);
        let fifth = acquire(&permits).expect("a fifth");
        assert!(acquire(&permits).is_none());
        drop((open, fifth));
        let again: Vec<_> = (0..6).filter_map(|_| acquire(&permits)).collect();
        assert_eq!(again.len(), 5);
    }
}

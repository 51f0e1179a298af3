//! Single flight: concurrent requests with the same credential share one lookup. And a queue for work that occupies the worker's thread.
//! Each worker has its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::yield_now;

use crate::cache::Key;

/// The lookups under way, by credential. A request with the same credential waits for the lookup that another one has begun.
///
/// The first request does the work. If it fails or is cancelled, the next waiter does the work again for itself: a failure is never
/// shared.
pub(crate) struct SingleFlight<V> {
    under_way: RefCell<HashMap<Key, Rc<OnceCell<V>>>>,
}

impl<V> fmt::Debug for SingleFlight<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("under_way", &self.under_way.borrow().len())
            .finish()
    }
}

impl<V> Default for SingleFlight<V> {
    fn default() -> Self {
        Self {
            under_way: RefCell::default(),
        }
    }
}

impl<V: Clone> SingleFlight<V> {
    /// Returns the result of `work`, done by this request or by another one with the same key. The result of another request is used only
    /// if `is_valid` accepts it.
    ///
    /// # Errors
    /// The error of `work`, if this request did the work.
    pub(crate) async fn share<E, F: Future<Output = Result<V, E>>>(
        &self,
        key: Key,
        work: impl Fn() -> F,
        is_valid: impl Fn(&V) -> bool,
    ) -> Result<V, E> {
        loop {
            let flight = Rc::clone(self.under_way.borrow_mut().entry(key).or_default());
            let waiter = Waiter {
                single_flight: self,
                key,
                flight,
            };
            let did_work = Cell::new(false);
            let value = waiter
                .flight
                .get_or_try_init(|| {
                    did_work.set(true);
                    work()
                })
                .await?
                .clone();
            // Remove the entry first, so that later callers start a new lookup.
            waiter.finish();
            if did_work.get() || is_valid(&value) {
                return Ok(value);
            }
        }
    }
}

/// A request that waits for a lookup. The last waiter to leave removes the entry, however it leaves.
struct Waiter<'f, V> {
    single_flight: &'f SingleFlight<V>,
    key: Key,
    flight: Rc<OnceCell<V>>,
}

impl<V> Waiter<'_, V> {
    fn finish(&self) {
        let mut under_way = self.single_flight.under_way.borrow_mut();
        if under_way
            .get(&self.key)
            .is_some_and(|flight| Rc::ptr_eq(flight, &self.flight))
        {
            under_way.remove(&self.key);
        }
    }
}

impl<V> Drop for Waiter<'_, V> {
    fn drop(&mut self) {
        // Two handles are left: the one of this waiter and the one of the map.
        if Rc::strong_count(&self.flight) <= 2 {
            self.finish();
        }
    }
}

/// How many signatures are verified in a row before other requests run: about half a millisecond with the slowest algorithm.
const MAX_IN_A_ROW: u32 = 4;

/// A queue for work that blocks the worker's thread. First in, first out; after a few items in a row, requests without such work run.
#[derive(Debug)]
pub(crate) struct WorkQueue {
    permit: Semaphore,
    in_a_row: Cell<u32>,
}

impl Default for WorkQueue {
    fn default() -> Self {
        Self {
            permit: Semaphore::new(1),
            in_a_row: Cell::new(0),
        }
    }
}

impl WorkQueue {
    /// Waits for this caller's turn. Do the work before the next `.await`.
    pub(crate) async fn next(&self) {
        // The semaphore is never closed.
        let _permit = self.permit.acquire().await;
        if self.in_a_row.get() >= MAX_IN_A_ROW {
            // Later callers wait behind the one that yields.
            yield_now().await;
            self.in_a_row.set(0);
        }
        self.in_a_row.set(self.in_a_row.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::{join, join_all};
    use tokio::time::{sleep, timeout};

    use super::*;

    const KEY: Key = [7; 32];
    const SOON: Duration = Duration::from_millis(10);

    fn always<V>(_: &V) -> bool {
        true
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_with_one_key_share_one_lookup() {
        let (single_flight, done) = (SingleFlight::default(), Cell::new(0));
        let ask = |key| {
            single_flight.share(
                key,
                || async {
                    sleep(SOON).await;
                    done.set(done.get() + 1);
                    Ok::<_, ()>(done.get())
                },
                always,
            )
        };
        let all = join_all((0..100).map(|_| ask(KEY))).await;
        assert!(all.iter().all(|found| *found == Ok(1)), "{all:?}");
        assert_eq!(ask([8; 32]).await, Ok(2), "another key is another lookup");
        assert_eq!(ask(KEY).await, Ok(3), "nothing is kept");
        assert!(single_flight.under_way.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_or_a_cancellation_is_not_shared() {
        let (single_flight, begun) = (SingleFlight::default(), Cell::new(0));
        let ask = || {
            single_flight.share(
                KEY,
                || async {
                    begun.set(begun.get() + 1);
                    let which = begun.get();
                    sleep(SOON).await;
                    if which == 2 { Err(which) } else { Ok(which) }
                },
                always,
            )
        };
        let gives_up = timeout(SOON / 2, ask());
        let (given_up, all) = join(gives_up, join_all((0..10).map(|_| ask()))).await;
        assert!(given_up.is_err());
        assert_eq!(all[0], Err(2));
        assert!(all[1..].iter().all(|found| *found == Ok(3)), "{all:?}");
        assert!(single_flight.under_way.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outdated_result_of_another_request_is_not_used() {
        let (single_flight, done) = (SingleFlight::default(), Cell::new(0));
        let ask = || {
            single_flight.share(
                KEY,
                || async {
                    sleep(SOON).await;
                    done.set(done.get() + 1);
                    Ok::<_, ()>(done.get())
                },
                |found| *found > 1,
            )
        };
        let all = join_all((0..10).map(|_| ask())).await;
        assert_eq!(all[0], Ok(1), "its own is its own");
        assert!(all[1..].iter().all(|found| *found == Ok(2)), "{all:?}");
    }

    #[tokio::test]
    async fn other_requests_run_between_queued_work() {
        let (queue, order) = (WorkQueue::default(), RefCell::new(Vec::new()));
        let heavy = join_all((0..20).map(|at| {
            let (queue, order) = (&queue, &order);
            async move {
                queue.next().await;
                order.borrow_mut().push(at);
            }
        }));
        let light = async {
            for _ in 0..4 {
                yield_now().await;
                order.borrow_mut().push(100);
            }
        };
        join(heavy, light).await;
        let order = order.into_inner();
        let heavy: Vec<_> = order.iter().filter(|at| **at < 100).copied().collect();
        assert_eq!(heavy, (0..20).collect::<Vec<_>>(), "first come, first served");
        let rows = order.split(|at| *at == 100);
        let longest = rows.map(<[_]>::len).max().unwrap_or_default();
        // The first two rows may follow on each other: the light one begins by waiting.
        assert!(longest <= 2 * MAX_IN_A_ROW as usize, "{order:?}");
    }
}

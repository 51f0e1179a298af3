//! Single flight: concurrent requests with the same credential share one lookup. And a queue for work that occupies the worker's thread:
//! each worker has its own.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::yield_now;

use crate::cache::Key;

/// The lookups under way, by credential. A request with the same credential waits for the lookup that another one has begun.
///
/// Those of one worker, or of all: a lookup runs on the worker that has begun it.
///
/// The first request does the work. If it fails or is cancelled, the next waiter does the work again for itself: a failure is never
/// shared.
pub(crate) struct SingleFlight<V> {
    under_way: Mutex<HashMap<Key, Arc<OnceCell<V>>>>,
}

impl<V> fmt::Debug for SingleFlight<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("under_way", &self.lock().len())
            .finish()
    }
}

impl<V> Default for SingleFlight<V> {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
        }
    }
}

impl<V> SingleFlight<V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<OnceCell<V>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
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
            let waiter = Waiter {
                flight: Some(Arc::clone(self.lock().entry(key).or_default())),
                single_flight: self,
                key,
            };
            let flight = waiter.flight.as_ref().expect("it is taken by drop only");
            let did_work = Cell::new(false);
            let value = flight
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
    /// `None` only within `drop`.
    flight: Option<Arc<OnceCell<V>>>,
}

impl<V> Waiter<'_, V> {
    /// Removes the entry, unless it is that of a later lookup.
    fn finish(&self) {
        let mut under_way = self.single_flight.lock();
        let is_own = |kept: &Arc<OnceCell<V>>| self.flight.as_ref().is_some_and(|own| Arc::ptr_eq(kept, own));
        if under_way.get(&self.key).is_some_and(is_own) {
            under_way.remove(&self.key);
        }
    }
}

impl<V> Drop for Waiter<'_, V> {
    fn drop(&mut self) {
        // Waiters join and leave under the lock, so that the last one knows that it is the last.
        let mut under_way = self.single_flight.lock();
        let Some(flight) = self.flight.take() else { return };
        let own = Arc::as_ptr(&flight);
        drop(flight);
        let is_left = |kept: &Arc<OnceCell<V>>| Arc::as_ptr(kept) == own && Arc::strong_count(kept) == 1;
        if under_way.get(&self.key).is_some_and(is_left) {
            under_way.remove(&self.key);
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
    use std::cell::RefCell;
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
        assert!(single_flight.lock().is_empty());
    }

    #[test]
    fn workers_share_lookups_and_leave_no_entry() {
        let single_flight = SingleFlight::default();
        let done = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for worker in 0..4_u32 {
                let (single_flight, done) = (&single_flight, &done);
                threads.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                    let ask = |number: u32| {
                        let key = [u8::try_from(number % 7).expect("small"); 32];
                        let work = move || async move {
                            sleep(Duration::from_micros(100)).await;
                            Ok::<_, ()>(number % 7)
                        };
                        let asked = single_flight.share(key, work, always);
                        async move {
                            let gives_up =
                                Duration::from_micros(if number % 3 == worker % 3 { 50 } else { 50_000_000 });
                            if let Ok(found) = timeout(gives_up, asked).await {
                                assert_eq!(found, Ok(number % 7));
                                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                        }
                    };
                    runtime.expect("a runtime").block_on(async {
                        for round in 0..50 {
                            join_all((0..20).map(|number| ask(round + number))).await;
                        }
                    });
                });
            }
        });
        assert!(done.into_inner() > 0);
        assert!(single_flight.lock().is_empty());
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
        assert!(single_flight.lock().is_empty());
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

//! One look-up for all who wait for it, and turns for what costs a worker time. Both belong to one worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::yield_now;

use super::cache::Key;

/// Credentials that are being judged: who brings the same one meanwhile waits for the same verdict.
///
/// Whoever came first does the work. If that fails or is given up, the next in line does it again for itself; nobody is refused for
/// somebody else's failure.
pub struct Flights<V> {
    under_way: RefCell<HashMap<Key, Rc<OnceCell<V>>>>,
}

impl<V> fmt::Debug for Flights<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("under_way", &self.under_way.borrow().len())
            .finish()
    }
}

impl<V> Default for Flights<V> {
    fn default() -> Self {
        Self {
            under_way: RefCell::default(),
        }
    }
}

impl<V: Clone> Flights<V> {
    /// The result of `work`, done here or by whoever began it before. A result of others that is not `good` (any more) is not taken.
    ///
    /// # Errors
    /// Those of `work`, where it was done here.
    pub async fn share<E, F: Future<Output = Result<V, E>>>(
        &self,
        key: Key,
        work: impl Fn() -> F,
        good: impl Fn(&V) -> bool,
    ) -> Result<V, E> {
        loop {
            let flight = Rc::clone(self.under_way.borrow_mut().entry(key).or_default());
            let seat = Seat {
                flights: self,
                key,
                flight,
            };
            let led = Cell::new(false);
            let value = seat
                .flight
                .get_or_try_init(|| {
                    led.set(true);
                    work()
                })
                .await?
                .clone();
            // Who comes from now on is not answered with what was found out before.
            seat.land();
            if led.get() || good(&value) {
                return Ok(value);
            }
        }
    }
}

/// A place among those who wait for one verdict. The last one to leave takes the flight off the list, however it leaves.
struct Seat<'f, V> {
    flights: &'f Flights<V>,
    key: Key,
    flight: Rc<OnceCell<V>>,
}

impl<V> Seat<'_, V> {
    fn land(&self) {
        let mut under_way = self.flights.under_way.borrow_mut();
        if under_way
            .get(&self.key)
            .is_some_and(|flight| Rc::ptr_eq(flight, &self.flight))
        {
            under_way.remove(&self.key);
        }
    }
}

impl<V> Drop for Seat<'_, V> {
    fn drop(&mut self) {
        // This seat's own handle, and the list's.
        if Rc::strong_count(&self.flight) <= 2 {
            self.land();
        }
    }
}

/// How many signatures are verified before others have their turn: about half a millisecond of the slowest kind.
const IN_A_ROW: u32 = 4;

/// Turns for work that holds the worker's thread: first come, first served, a few in a row, and then the requests that need none of it.
#[derive(Debug)]
pub struct Turns {
    line: Semaphore,
    taken: Cell<u32>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            line: Semaphore::new(1),
            taken: Cell::new(0),
        }
    }
}

impl Turns {
    /// Waits until it is this caller's turn; the work is to be done before anything else is waited for.
    pub async fn next(&self) {
        // It is never closed.
        let _first = self.line.acquire().await;
        if self.taken.get() >= IN_A_ROW {
            // All who come later wait behind the one who lets others pass.
            yield_now().await;
            self.taken.set(0);
        }
        self.taken.set(self.taken.get() + 1);
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
    async fn many_who_ask_the_same_make_one_look_up() {
        let (flights, done) = (Flights::default(), Cell::new(0));
        let ask = |key| {
            flights.share(
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
        assert_eq!(ask([8; 32]).await, Ok(2), "another key is another look-up");
        assert_eq!(ask(KEY).await, Ok(3), "nothing is kept");
        assert!(flights.under_way.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_or_gives_up_fails_alone() {
        let (flights, begun) = (Flights::default(), Cell::new(0));
        let ask = || {
            flights.share(
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
        assert!(flights.under_way.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_is_not_good_any_more_is_not_taken_from_others() {
        let (flights, done) = (Flights::default(), Cell::new(0));
        let ask = || {
            flights.share(
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
    async fn others_are_served_between_turns() {
        let (turns, order) = (Turns::default(), RefCell::new(Vec::new()));
        let heavy = join_all((0..20).map(|at| {
            let (turns, order) = (&turns, &order);
            async move {
                turns.next().await;
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
        assert!(longest <= 2 * IN_A_ROW as usize, "{order:?}");
    }
}

//! A connection limit that evicts. When all places are taken, the connection without a request for the longest time is closed, so that
//! silent or slow connections never block a probe.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// A connection keeps its place at least this long; reading a request takes less.
const LEAST: Duration = Duration::from_millis(20);

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Connections in the order of their last use.
    by_use: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    used: Instant,
    /// Dropping it tells the connection to close.
    _holds: oneshot::Sender<Infallible>,
}

/// A place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: AtomicU64,
}

/// Resolves when the connection must close because its place is needed.
pub(super) type Evicted = oneshot::Receiver<Infallible>;

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            taken: Mutex::default(),
        })
    }

    /// Takes a free place, or else the place of the least recently used connection.
    pub(super) async fn take(self: &Arc<Self>) -> (Place, Evicted) {
        loop {
            let until = match self.try_take() {
                Ok(place) => return place,
                Err(until) => until,
            };
            sleep_until(until).await;
        }
    }

    /// A place, or the time when one can be freed.
    fn try_take(self: &Arc<Self>) -> Result<(Place, Evicted), Instant> {
        let (mut taken, now) = (self.lock(), Instant::now());
        if taken.by_use.len() >= self.most
            && let Some(oldest) = taken.by_use.first_entry()
        {
            let until = oldest.get().used + LEAST;
            if until > now {
                return Err(until);
            }
            oldest.remove();
        }
        let (holds, evicted) = oneshot::channel();
        let number = taken.put(Holder {
            used: now,
            _holds: holds,
        });
        let place = Place {
            places: Arc::clone(self),
            number: AtomicU64::new(number),
        };
        Ok((place, evicted))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // No code panics while it holds the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn put(&mut self, holder: Holder) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_use.insert(number, holder);
        number
    }
}

impl Place {
    /// The connection has sent a whole request.
    pub(super) fn used(&self) {
        let mut taken = self.places.lock();
        if let Some(mut holder) = taken.by_use.remove(&self.number.load(Ordering::Relaxed)) {
            holder.used = Instant::now();
            let number = taken.put(holder);
            self.number.store(number, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.number.load(Ordering::Relaxed);
        drop(self.places.lock().by_use.remove(&number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_was_used_least_recently_makes_room() {
        let places = Places::new(2);
        let (first, mut first_evicted) = places.take().await;
        let (_second, mut second_evicted) = places.take().await;
        let open = |evicted: &mut Evicted| evicted.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        first.used();
        let began = Instant::now();
        let (third, mut third_evicted) = places.take().await;
        assert!(
            began.elapsed() >= LEAST,
            "no connection is closed before it could send a request"
        );
        assert!(open(&mut first_evicted) && !open(&mut second_evicted) && open(&mut third_evicted));
        drop(third);
        let began = Instant::now();
        let _fourth = places.take().await;
        assert!(
            began.elapsed().is_zero() && open(&mut first_evicted),
            "there was a place"
        );
    }
}

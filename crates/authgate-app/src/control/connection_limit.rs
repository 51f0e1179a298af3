//! A connection limit that evicts. A connection beyond the limit closes the one that has not sent a request for the longest time, so
//! silent or slow connections never block a probe. A connection whose request is being answered is not closed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// A connection is not evicted before this age; reading a request takes less.
const MIN_AGE: Duration = Duration::from_millis(20);

/// The connection limit of one listener.
#[derive(Debug)]
pub(super) struct EvictingLimit {
    max: usize,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// Connections that wait for a request, in the order of their last use.
    by_use: BTreeMap<u64, OpenConnection>,
    /// The number of connections whose request is being answered. `active + by_use.len() <= max`.
    active: usize,
}

#[derive(Debug)]
struct OpenConnection {
    last_used: Instant,
    /// Dropping it evicts the connection.
    _evict: oneshot::Sender<Infallible>,
}

/// Counts as one connection until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limit: Arc<EvictingLimit>,
    number: AtomicU64,
}

/// Resolves when the connection is evicted: it must close.
pub(super) type Evicted = oneshot::Receiver<Infallible>;

impl EvictingLimit {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            connections: Mutex::default(),
        })
    }

    /// Waits for a permit. At the limit, the least recently used connection is evicted.
    pub(super) async fn acquire(self: &Arc<Self>) -> (ConnectionPermit, Evicted) {
        loop {
            let until = match self.try_acquire() {
                Ok(permit) => return permit,
                Err(until) => until,
            };
            sleep_until(until).await;
        }
    }

    /// A permit, or the time when a connection can be evicted.
    fn try_acquire(self: &Arc<Self>) -> Result<(ConnectionPermit, Evicted), Instant> {
        let (mut connections, now) = (self.lock(), Instant::now());
        if connections.active + connections.by_use.len() >= self.max {
            let Some(oldest) = connections.by_use.first_entry() else {
                return Err(now + MIN_AGE);
            };
            let until = oldest.get().last_used + MIN_AGE;
            if until > now {
                return Err(until);
            }
            oldest.remove();
        }
        let (evict, evicted) = oneshot::channel();
        let number = connections.put(OpenConnection {
            last_used: now,
            _evict: evict,
        });
        let permit = ConnectionPermit {
            limit: Arc::clone(self),
            number: AtomicU64::new(number),
        };
        Ok((permit, evicted))
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // No code panics while it holds the lock.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn put(&mut self, connection: OpenConnection) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_use.insert(number, connection);
        number
    }
}

impl ConnectionPermit {
    /// The connection has sent a request, which is answered until the result is dropped.
    pub(super) fn begin_answer(&self) -> Answering<'_> {
        let mut connections = self.limit.lock();
        let connection = connections.by_use.remove(&self.number.load(Ordering::Relaxed));
        connections.active += usize::from(connection.is_some());
        Answering {
            permit: self,
            connection,
        }
    }
}

/// A request is being answered. Dropping it means that the connection waits for its next request.
#[derive(Debug)]
pub(super) struct Answering<'p> {
    permit: &'p ConnectionPermit,
    /// `None` if the connection was evicted before its request was read.
    connection: Option<OpenConnection>,
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let mut connections = self.permit.limit.lock();
            connections.active -= 1;
            connection.last_used = Instant::now();
            let number = connections.put(connection);
            self.permit.number.store(number, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let number = self.number.load(Ordering::Relaxed);
        drop(self.limit.lock().by_use.remove(&number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(evicted: &mut Evicted) -> bool {
        evicted.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_connection_is_evicted() {
        let limit = EvictingLimit::new(2);
        let (first, mut first_evicted) = limit.acquire().await;
        let (_second, mut second_evicted) = limit.acquire().await;
        drop(first.begin_answer());
        let began = Instant::now();
        let (third, mut third_evicted) = limit.acquire().await;
        assert!(
            began.elapsed() >= MIN_AGE,
            "no connection is closed before it could send a request"
        );
        assert!(open(&mut first_evicted) && !open(&mut second_evicted) && open(&mut third_evicted));
        drop(third);
        let began = Instant::now();
        let _fourth = limit.acquire().await;
        assert!(
            began.elapsed().is_zero() && open(&mut first_evicted),
            "the number of connections was below the limit"
        );
    }
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_evicted_while_its_request_is_answered() {
        let limit = EvictingLimit::new(2);
        let (first, mut first_evicted) = limit.acquire().await;
        let answering = first.begin_answer();
        let (second, mut second_evicted) = limit.acquire().await;
        let (third, _) = limit.acquire().await;
        assert!(open(&mut first_evicted) && !open(&mut second_evicted));
        drop(second);
        let answering_third = third.begin_answer();
        let waiting = tokio::time::timeout(Duration::from_secs(1), limit.acquire());
        assert!(waiting.await.is_err(), "both connections are in use");
        drop(answering);
        let (_fourth, _) = limit.acquire().await;
        assert!(!open(&mut first_evicted));
        drop(answering_third);
        assert_eq!(limit.lock().active, 0);
    }
}

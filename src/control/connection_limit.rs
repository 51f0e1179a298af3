//! A connection limit that evicts. A connection beyond the limit closes the one that has not sent a request for the longest time, so
//! silent or slow connections never block a probe.

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
    /// Connections in the order of their last use.
    by_use: BTreeMap<u64, OpenConnection>,
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
        if connections.by_use.len() >= self.max
            && let Some(oldest) = connections.by_use.first_entry()
        {
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
    /// The connection has sent a whole request.
    pub(super) fn touch(&self) {
        let mut connections = self.limit.lock();
        if let Some(mut connection) = connections.by_use.remove(&self.number.load(Ordering::Relaxed)) {
            connection.last_used = Instant::now();
            let number = connections.put(connection);
            self.number.store(number, Ordering::Relaxed);
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

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_connection_is_evicted() {
        let limit = EvictingLimit::new(2);
        let (first, mut first_evicted) = limit.acquire().await;
        let (_second, mut second_evicted) = limit.acquire().await;
        let open = |evicted: &mut Evicted| evicted.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        first.touch();
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
}

//! The phase of an HTTP/2 connection, and its timeouts.
//!
//! The connection records when requests begin and end, and whether its writes make progress. One lazily armed timer reads these records.
//! A busy connection needs no timer operation.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::DeadlineTimer;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request is under way, since this time.
    Idle(Instant),
    /// Requests are under way, and writes make progress.
    Busy,
    /// The client has read nothing of what is to be sent, since this time.
    Blocked(Instant),
}

/// The records of one connection.
#[derive(Debug)]
pub(super) struct Clock {
    /// When `requests` last became 0; the start of the connection before that.
    idle_since: Cell<Instant>,
    /// Requests that are under way.
    requests: Cell<usize>,
    /// `Some` from a flush that was pending to a flush that completes; `moved` sets it to the current time.
    blocked_since: Cell<Option<Instant>>,
    patience: Duration,
    /// Counts the polls of the connection that ended with everything written.
    turns: Cell<u64>,
    /// Tasks that wait until their data is written: at most one for each request, and one more.
    waiting: RefCell<Vec<Waker>>,
}

impl Clock {
    /// `patience`: the timeout for a client that does not read.
    pub(super) fn new(patience: Duration) -> Rc<Self> {
        Rc::new(Self {
            patience,
            idle_since: Cell::new(Instant::now()),
            requests: Cell::new(0),
            blocked_since: Cell::new(None),
            turns: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        })
    }

    fn phase(&self) -> Phase {
        if let Some(since) = self.blocked_since.get() {
            return Phase::Blocked(since);
        }
        match self.requests.get() {
            0 => Phase::Idle(self.idle_since.get()),
            _ => Phase::Busy,
        }
    }

    /// Records the outcome of a flush at the end of a poll. The poll that ends a blocked phase is not counted in `turns`: h2 may now have more to write.
    pub(super) fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        match (&outcome, self.blocked_since.get()) {
            (Poll::Pending, Some(_)) => {}
            (Poll::Pending, None) => self.blocked_since.set(Some(Instant::now())),
            (Poll::Ready(_), Some(_)) => {
                self.blocked_since.set(None);
                self.wake();
            }
            (Poll::Ready(_), None) => {
                self.turns.set(self.turns.get().wrapping_add(1));
                self.wake();
            }
        }
        outcome
    }

    /// The client has read something, but not all: a blocked phase begins again.
    pub(super) fn moved(&self) {
        if self.blocked_since.get().is_some() {
            self.blocked_since.set(Some(Instant::now()));
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Records the start of a request. Dropping the guard records its end.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        Busy {
            clock: Rc::clone(self),
            asked: None,
            timer: DeadlineTimer::default(),
        }
    }
}

/// A guard that lives as long as a request and its response.
#[derive(Debug)]
pub(super) struct Busy {
    clock: Rc<Clock>,
    /// `turns` and the time at the first poll.
    asked: Option<(u64, Instant)>,
    timer: DeadlineTimer,
}

impl Busy {
    /// The timeout for a client that does not read.
    pub(super) fn patience(&self) -> Duration {
        self.clock.patience
    }
}

/// Ready when all data that was handed to h2 before the first poll is written: at the end of a counted poll of the connection. If other streams
/// keep the connection blocked, that may never be known, so it is also ready after `patience`.
///
/// Wake-up: [`Clock::wrote`] wakes all waiting tasks when a flush completes; the timer wakes the task after `patience`.
impl Future for Busy {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let turns = self.clock.turns.get();
        let (asked, since) = *self.asked.get_or_insert_with(|| (turns, Instant::now()));
        if asked != turns {
            return Poll::Ready(());
        }
        self.clock.wait(cx);
        let end = since + self.clock.patience;
        self.timer.poll_until(end, cx)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.clock.requests.get().saturating_sub(1);
        self.clock.requests.set(left);
        if left == 0 {
            self.clock.idle_since.set(Instant::now());
        }
    }
}

/// Ready when the connection was in one phase for too long. The alarm is its only waker: a change of phase wakes nothing.
/// Poll it on every poll of the connection.
#[derive(Debug)]
pub(super) struct Overdue {
    clock: Rc<Clock>,
    idle: Duration,
    timer: DeadlineTimer,
}

impl Overdue {
    /// `idle`: the timeout of an idle connection.
    pub(super) fn new(clock: Rc<Clock>, idle: Duration) -> Self {
        Self {
            clock,
            idle,
            timer: DeadlineTimer::default(),
        }
    }

    /// The phase of the connection.
    pub(super) fn phase(&self) -> Phase {
        self.clock.phase()
    }
}

impl Future for Overdue {
    type Output = Phase;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Phase> {
        let phase = self.clock.phase();
        let end = match phase {
            Phase::Busy => return Poll::Pending,
            Phase::Idle(since) => since + self.idle,
            Phase::Blocked(since) => since + self.clock.patience,
        };
        self.timer.poll_until(end, cx).map(|()| phase)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const PATIENCE: Duration = Duration::from_secs(3);

    fn clock() -> Rc<Clock> {
        Clock::new(PATIENCE)
    }

    #[tokio::test]
    async fn all_who_wait_for_a_client_are_woken() {
        let clock = clock();
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Counts(AtomicUsize::new(0)))).collect();
        let mut busy: Vec<_> = counts.iter().map(|_| clock.begin()).collect();
        let _ = clock.wrote(Poll::<()>::Pending);
        for (count, busy) in counts.iter().zip(&mut busy) {
            let waker = Waker::from(Arc::clone(count));
            for _ in 0..2 {
                assert!(Pin::new(&mut *busy).poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        let _ = clock.wrote(Poll::Ready(()));
        // h2 may have more to write by now, so this flush does not count.
        for (count, busy) in counts.iter().zip(&mut busy) {
            let waker = Waker::from(Arc::clone(count));
            assert!(Pin::new(busy).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let _ = clock.wrote(Poll::Ready(()));
        let woken = counts.iter().map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken.collect::<Vec<_>>(), [2, 2, 2]);
        let waker = Waker::noop();
        assert!(Pin::new(&mut busy[0]).poll(&mut Context::from_waker(waker)).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_others_for_ever() {
        let clock = clock();
        let busy = clock.begin();
        let _ = clock.wrote(Poll::<()>::Pending);
        let asked = Instant::now();
        busy.await;
        assert_eq!(asked.elapsed(), PATIENCE);
    }
}

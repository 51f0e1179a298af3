//! The phase of an HTTP/2 connection, and its timeouts.
//!
//! The connection records when requests begin and end, and whether its writes make progress. One lazily armed timer reads these records.
//! A connection with requests under way needs no timer operation.

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
    Active,
    /// The client has read nothing since this time, although there is data for it.
    Blocked(Instant),
}

/// The records of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    /// When `requests` last became 0; the start of the connection before that.
    idle_since: Cell<Instant>,
    /// Requests that are under way.
    requests: Cell<usize>,
    /// `Some` from a flush that is pending to a flush that completes; `record_progress` sets it to the current time.
    blocked_since: Cell<Option<Instant>>,
    send_timeout: Duration,
    /// Counts the polls of the connection that ended with everything written.
    completed_flushes: Cell<u64>,
    /// Tasks that wait until their data is written: at most one for each request, and one more.
    waiting: RefCell<Vec<Waker>>,
}

impl Activity {
    /// `send_timeout`: the timeout for a client that does not read.
    pub(super) fn new(send_timeout: Duration) -> Rc<Self> {
        Rc::new(Self {
            send_timeout,
            idle_since: Cell::new(Instant::now()),
            requests: Cell::new(0),
            blocked_since: Cell::new(None),
            completed_flushes: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        })
    }

    fn phase(&self) -> Phase {
        if let Some(since) = self.blocked_since.get() {
            return Phase::Blocked(since);
        }
        match self.requests.get() {
            0 => Phase::Idle(self.idle_since.get()),
            _ => Phase::Active,
        }
    }

    /// Records the result of a flush at the end of a poll. The poll that ends a blocked phase is not counted in `completed_flushes`:
    /// h2 may now have more to write.
    pub(super) fn record_flush<T>(&self, outcome: Poll<T>) -> Poll<T> {
        match (&outcome, self.blocked_since.get()) {
            (Poll::Pending, Some(_)) => {}
            (Poll::Pending, None) => self.blocked_since.set(Some(Instant::now())),
            (Poll::Ready(_), Some(_)) => {
                self.blocked_since.set(None);
                self.wake_all();
            }
            (Poll::Ready(_), None) => {
                self.completed_flushes.set(self.completed_flushes.get().wrapping_add(1));
                self.wake_all();
            }
        }
        outcome
    }

    /// The client has read something, but not all: a blocked phase begins again.
    pub(super) fn record_progress(&self) {
        if self.blocked_since.get().is_some() {
            self.blocked_since.set(Some(Instant::now()));
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    fn wake_all(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Records the start of a request. Dropping the guard records its end.
    pub(super) fn begin(self: &Rc<Self>) -> ActiveRequest {
        self.requests.set(self.requests.get() + 1);
        ActiveRequest {
            activity: Rc::clone(self),
            first_poll: None,
            timer: DeadlineTimer::default(),
        }
    }
}

/// A guard that lives as long as a request and its response.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    activity: Rc<Activity>,
    /// `completed_flushes` and the time at the first poll.
    first_poll: Option<(u64, Instant)>,
    timer: DeadlineTimer,
}

impl ActiveRequest {
    /// The timeout for a client that does not read.
    pub(super) fn send_timeout(&self) -> Duration {
        self.activity.send_timeout
    }
}

/// Ready when all data that was handed to h2 before the first poll is written: at the end of a counted poll of the connection. If other streams
/// keep the connection blocked, that may never be known, so it is also ready after `send_timeout`.
///
/// Wake-up: [`Activity::record_flush`] wakes every waiting task when a flush completes; the timer wakes the task after `send_timeout`.
impl Future for ActiveRequest {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let completed_flushes = self.activity.completed_flushes.get();
        let (flushes_before, since) = *self
            .first_poll
            .get_or_insert_with(|| (completed_flushes, Instant::now()));
        if flushes_before != completed_flushes {
            return Poll::Ready(());
        }
        self.activity.register(cx);
        let end = since + self.activity.send_timeout;
        self.timer.poll_until(end, cx)
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let remaining = self.activity.requests.get().saturating_sub(1);
        self.activity.requests.set(remaining);
        if remaining == 0 {
            self.activity.idle_since.set(Instant::now());
        }
    }
}

/// Ready when the connection was in one phase for too long. The timer is its only waker: a change of phase wakes nothing.
/// Poll it on every poll of the connection.
#[derive(Debug)]
pub(super) struct PhaseTimeout {
    activity: Rc<Activity>,
    idle: Duration,
    timer: DeadlineTimer,
}

impl PhaseTimeout {
    /// `idle`: the timeout of an idle connection.
    pub(super) fn new(activity: Rc<Activity>, idle: Duration) -> Self {
        Self {
            activity,
            idle,
            timer: DeadlineTimer::default(),
        }
    }

    /// The phase of the connection.
    pub(super) fn phase(&self) -> Phase {
        self.activity.phase()
    }
}

impl Future for PhaseTimeout {
    type Output = Phase;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Phase> {
        let phase = self.activity.phase();
        let end = match phase {
            Phase::Active => return Poll::Pending,
            Phase::Idle(since) => since + self.idle,
            Phase::Blocked(since) => since + self.activity.send_timeout,
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

    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const SEND_TIMEOUT: Duration = Duration::from_secs(3);

    fn activity() -> Rc<Activity> {
        Activity::new(SEND_TIMEOUT)
    }

    #[tokio::test]
    async fn every_waiting_request_is_woken_by_a_completed_flush() {
        let activity = activity();
        let counters: Vec<_> = (0..3).map(|_| Arc::new(WakeCounter(AtomicUsize::new(0)))).collect();
        let mut active: Vec<_> = counters.iter().map(|_| activity.begin()).collect();
        let _ = activity.record_flush(Poll::<()>::Pending);
        for (count, active) in counters.iter().zip(&mut active) {
            let waker = Waker::from(Arc::clone(count));
            for _ in 0..2 {
                assert!(
                    Pin::new(&mut *active)
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
            }
        }
        let _ = activity.record_flush(Poll::Ready(()));
        // h2 may have more to write by now, so this flush does not count.
        for (count, active) in counters.iter().zip(&mut active) {
            let waker = Waker::from(Arc::clone(count));
            assert!(Pin::new(active).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let _ = activity.record_flush(Poll::Ready(()));
        let woken = counters.iter().map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken.collect::<Vec<_>>(), [2, 2, 2]);
        let waker = Waker::noop();
        assert!(
            Pin::new(&mut active[0])
                .poll(&mut Context::from_waker(waker))
                .is_ready()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_the_send_timeout_for_other_streams() {
        let activity = activity();
        let active = activity.begin();
        let _ = activity.record_flush(Poll::<()>::Pending);
        let first_poll = Instant::now();
        active.await;
        assert_eq!(first_poll.elapsed(), SEND_TIMEOUT);
    }
}

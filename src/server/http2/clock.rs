//! What an HTTP/2 connection is doing, and when it has done so for too long.
//!
//! The connection notes when requests begin and end and what becomes of what it writes, and one lazily armed timer looks at the notes. A busy
//! connection costs no timer operation at all.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::Alarm;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing, since then.
    Idle(Instant),
    /// Requests are under way.
    Busy,
    /// Requests are under way, and their client has taken nothing of what is to be sent, since then.
    Blocked(Instant),
}

/// The notes of one connection.
#[derive(Debug)]
pub(super) struct Clock {
    idle_since: Cell<Instant>,
    requests: Cell<usize>,
    blocked_since: Cell<Option<Instant>>,
    patience: Duration,
    /// Turns at whose end all was out that there was to say.
    turns: Cell<u64>,
    /// Whoever waits for answers to be out: no more than there are requests, and one besides.
    waiting: RefCell<Vec<Waker>>,
}

impl Clock {
    /// `patience`: how long anybody waits for the client to take something.
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

    /// A turn ends with what came of sending all that there was to say. After one in which the client did not take it, there may be more to say.
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

    /// The client has taken something, if not all.
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

    /// A request has begun; it ends with the guard.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        Busy {
            clock: Rc::clone(self),
            asked: None,
            alarm: Alarm::default(),
        }
    }
}

/// Lives as long as a request and its response.
#[derive(Debug)]
pub(super) struct Busy {
    clock: Rc<Clock>,
    /// In which turn it was asked first, and when.
    asked: Option<(u64, Instant)>,
    alarm: Alarm,
}

impl Busy {
    /// How long anybody waits for the client to take something.
    pub(super) fn patience(&self) -> Duration {
        self.clock.patience
    }
}

/// Ready once all that was handed on before it was asked is out: at the end of a turn. Where others keep the client from taking all, that may
/// never be known; then it is ready after a while.
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
        self.alarm.poll_until(end, cx)
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

/// Ends when the connection has been in one phase for too long. It must be polled with the connection, which it is told by no one.
#[derive(Debug)]
pub(super) struct Overdue {
    clock: Rc<Clock>,
    idle: Duration,
    alarm: Alarm,
}

impl Overdue {
    /// `idle`: how long nothing may be under way.
    pub(super) fn new(clock: Rc<Clock>, idle: Duration) -> Self {
        Self {
            clock,
            idle,
            alarm: Alarm::default(),
        }
    }

    /// What the connection is doing.
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
        self.alarm.poll_until(end, cx).map(|()| phase)
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
        // There may be more to say by now.
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

//! Feeds the watchdog of the service manager, but only while every worker answers.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use super::process::Process;

/// Asks every worker for an answer, in rounds. A worker answers on its own runtime: if a task blocks that, there is no answer.
#[derive(Debug)]
pub(super) struct Heartbeats {
    /// The number of the last round.
    round: watch::Sender<u64>,
    /// The last round that each worker has answered. Workers that have ended have the highest number.
    answered: watch::Sender<Box<[u64]>>,
}

impl Heartbeats {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            round: watch::Sender::new(0),
            answered: watch::Sender::new(vec![0; workers].into()),
        }
    }

    /// Answers for a worker. It must not be a separate thread: it proves that this worker polls its tasks.
    pub(super) async fn answer(&self, worker: usize) -> Infallible {
        let mut rounds = self.round.subscribe();
        loop {
            let round = *rounds.borrow_and_update();
            self.answered.send_modify(|answered| answered[worker] = round);
            if rounds.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// The worker has ended: no answer of it is waited for.
    pub(super) fn end(&self, worker: usize) {
        self.answered.send_modify(|answered| answered[worker] = u64::MAX);
    }

    /// Asks all workers, and waits until the last one has answered.
    async fn all_answer(&self) {
        let mut round = 0;
        self.round.send_modify(|last| {
            *last += 1;
            round = *last;
        });
        let mut answers = self.answered.subscribe();
        let all = answers.wait_for(|answered| answered.iter().all(|last| *last >= round));
        let _ = all.await.expect("`self` is a sender of this channel");
    }

    /// The workers that have not answered the last round.
    fn silent(&self) -> Vec<String> {
        let (round, answered) = (*self.round.borrow(), self.answered.borrow());
        let silent = answered.iter().enumerate().filter(|(_, last)| **last < round);
        silent.map(|(worker, _)| format!("worker-{worker}")).collect()
    }
}

/// Asks the workers twice in each `limit`, and calls `feed` whenever all of them have answered.
async fn run(heartbeats: &Heartbeats, limit: Duration, feed: impl Fn()) -> Infallible {
    let pause = limit / 2;
    loop {
        sleep(pause).await;
        let mut answers = std::pin::pin!(heartbeats.all_answer());
        if timeout(pause, &mut answers).await.is_err() {
            let workers = heartbeats.silent().join(", ");
            error!(
                workers,
                ?limit,
                "workers hang, so the watchdog of the service manager is not fed"
            );
            answers.await;
            info!("all workers answer again");
        }
        feed();
    }
}

/// Feeds the watchdog of the service manager, if it has one, until the process ends.
pub(super) async fn feed(process: Arc<Process>, heartbeats: Arc<Heartbeats>) {
    let manager = &process.service_manager;
    if let Some(limit) = manager.watchdog() {
        match run(&heartbeats, limit, || manager.feed_watchdog()).await {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Runs the watchdog for this many seconds of its limit of 2 s.
    async fn fed(heartbeats: &Heartbeats, seconds: u64) -> usize {
        let count = AtomicUsize::new(0);
        let feed = || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let limit = Duration::from_secs(2);
        let _ = timeout(
            Duration::from_millis(1000 * seconds + 500),
            run(heartbeats, limit, feed),
        )
        .await;
        count.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_every_worker_answers() {
        let heartbeats = Arc::new(Heartbeats::new(2));
        let worker = |index| {
            let heartbeats = Arc::clone(&heartbeats);
            tokio::spawn(async move { heartbeats.answer(index).await })
        };
        let first = worker(0);
        assert_eq!(fed(&heartbeats, 4).await, 0, "one of two workers answers");
        assert_eq!(heartbeats.silent(), ["worker-1"]);
        let second = worker(1);
        assert_eq!(fed(&heartbeats, 4).await, 4);
        first.abort();
        assert_eq!(fed(&heartbeats, 4).await, 0, "the first one has stopped");
        assert_eq!(heartbeats.silent(), ["worker-0"]);
        heartbeats.end(0);
        assert_eq!(fed(&heartbeats, 4).await, 4, "a worker that has ended is not asked");
        drop(second);
    }
}

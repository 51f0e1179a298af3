//! One worker: a thread with its own runtime, its listeners, and all connections that they accept.
//!
//! The kernel distributes TCP connections to the listeners of the workers by hash, not by load. A worker that has many more connections than the
//! least loaded worker hands the next one over. So long connections do not pile up on one core. A socket file has one listener
//! for all workers, and the fastest worker accepts. There each connection goes to the worker with the fewest connections.

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::warn;

use super::context::WorkerContext;
use super::handler::{ConnectionEvent, Handler};
use super::http2::windows;
use super::socket::{BoundListener, DetachedStream, Listener, Stream};
use super::stage::Stage;
use super::{closing, connection};
use crate::concurrency::ConcurrencyLimit;
use crate::log_throttle::LogThrottle;

/// How many more connections than the least loaded worker (plus a quarter) a worker may have before it hands one over.
const MAX_IMBALANCE: usize = 16;
/// The pause after an accept error that may pass: no free descriptors or memory.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What the workers of a gateway share.
#[derive(Debug)]
pub struct WorkerPool {
    /// The stage of the shutdown.
    pub stage: watch::Receiver<Stage>,
    /// During a drain, a connection that was used within this time is kept for one more request.
    drain_grace: Duration,
    /// The budget of buffered HTTP/2 bodies above the normal windows.
    window_budget: ConcurrencyLimit,
    /// One permit for each open connection.
    permits: Arc<Semaphore>,
    /// The number of connections of each worker.
    loads: Box<[AtomicUsize]>,
    /// The sender to the inbox of each worker.
    inboxes: Box<[mpsc::Sender<HandedOver>]>,
}

type HandedOver = (DetachedStream, OwnedSemaphorePermit);

/// Receives the connections that other workers hand over.
pub type Inbox = mpsc::Receiver<HandedOver>;

impl WorkerPool {
    /// Creates the shared part, and the inbox of each worker. `connections`: the limit of concurrent connections of all workers.
    pub fn new(
        workers: usize,
        connections: usize,
        drain_timeout: Duration,
        stage: watch::Receiver<Stage>,
    ) -> (Arc<Self>, Vec<Inbox>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(64)).unzip();
        let pool = Self {
            stage,
            // Also in a short drain, connections are closed in order and not cut.
            drain_grace: closing::DRAIN_GRACE.min(drain_timeout / 4),
            window_budget: ConcurrencyLimit::new(windows::MAX_STEPS),
            permits: Arc::new(Semaphore::new(connections)),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            inboxes: senders.into(),
        };
        (Arc::new(pool), inboxes)
    }
}

/// One worker.
pub struct Worker<H> {
    index: usize,
    pool: Arc<WorkerPool>,
    /// The connections own it too.
    context: Rc<WorkerContext<H>>,
    /// Notified when the last connection has closed.
    all_closed: Notify,
}

impl<H> fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl<H: Handler> Worker<H> {
    /// Creates the worker with this index.
    pub fn new(index: usize, pool: Arc<WorkerPool>, handler: H) -> Rc<Self> {
        let (stage, window_budget) = (pool.stage.clone(), pool.window_budget.clone());
        Rc::new(Self {
            index,
            context: Rc::new(WorkerContext::new(handler, stage, pool.drain_grace, window_budget)),
            pool,
            all_closed: Notify::new(),
        })
    }

    fn stage(&self) -> watch::Receiver<Stage> {
        self.pool.stage.clone()
    }

    fn load(&self) -> &AtomicUsize {
        &self.pool.loads[self.index]
    }

    /// Serves until drained: ends after the last connection, or when the drain timeout has passed.
    ///
    /// # Errors
    /// The runtime cannot use a listener.
    pub async fn run(self: Rc<Self>, listeners: Vec<BoundListener>, inbox: Inbox) -> io::Result<()> {
        let mut stage = self.stage();
        tokio::select! {
            served = self.serve(listeners, inbox) => served,
            _ = stage.wait_for(|stage| *stage == Stage::Aborting) => Ok(()),
        }
    }

    async fn serve(self: Rc<Self>, listeners: Vec<BoundListener>, mut inbox: Inbox) -> io::Result<()> {
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| Ok(spawn_local(Rc::clone(&self).accept_all(Listener::new(listener)?))))
            .collect::<io::Result<_>>()?;
        let mut stage = self.stage();
        loop {
            tokio::select! {
                handed = inbox.recv() => match handed {
                    Some(handed) => self.spawn_detached(handed),
                    None => break,
                },
                _ = stage.wait_for(|stage| *stage >= Stage::Draining) => break,
            }
        }
        // Connections that are already in the inbox are served. From here on, other workers keep theirs.
        inbox.close();
        while let Some(handed) = inbox.recv().await {
            self.spawn_detached(handed);
        }
        for task in accepting {
            // A panic in this task has closed its listener. The panic is passed on, so that the process ends.
            if let Err(failed) = task.await
                && failed.is_panic()
            {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        while self.load().load(Ordering::Relaxed) > 0 {
            self.all_closed.notified().await;
        }
        Ok(())
    }

    async fn accept_all(self: Rc<Self>, listener: Listener) {
        let max_imbalance = if listener.is_shared() { 0 } else { MAX_IMBALANCE };
        let mut stage = self.stage();
        let mut draining = std::pin::pin!(async move {
            let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
        });
        let mut failures = LogThrottle::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut draining => break,
            };
            match accepted {
                Ok(stream) => {
                    // Without a permit, the next connections wait in the kernel's queue.
                    let Some(permit) = self.acquire_permit().await else {
                        return;
                    };
                    self.assign(stream, permit, max_imbalance);
                }
                Err(problem) if problem.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(problem) => {
                    if let Some(times) = failures.note() {
                        warn!(reason = %problem, times, "accepting a connection failed; trying again");
                    }
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
        match listener.close() {
            Ok(queued) => {
                for detached in queued {
                    let Some(permit) = self.acquire_permit().await else {
                        return;
                    };
                    self.spawn_detached((detached, permit));
                }
            }
            Err(problem) => warn!(reason = %problem, "queued connections could not be accepted and are lost"),
        }
    }

    async fn acquire_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pool.permits).acquire_owned().await.ok()
    }

    /// Keeps the connection, or hands it to a worker that has more than `max_imbalance` fewer.
    fn assign(self: &Rc<Self>, stream: Stream, permit: OwnedSemaphorePermit, max_imbalance: usize) {
        let load = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        let own = load(self.load());
        let least = self.pool.loads.iter().enumerate().min_by_key(|(_, of)| load(of));
        if let Some((other, of)) = least
            && own > load(of) + max_imbalance + load(of) / 4
            && let Ok(inbox) = self.pool.inboxes[other].try_reserve()
        {
            match stream.detach() {
                Ok(detached) => inbox.send((detached, permit)),
                Err(problem) => warn!(reason = %problem, "a connection could not be handed over"),
            }
            return;
        }
        self.spawn(stream, permit);
    }

    fn spawn_detached(self: &Rc<Self>, (detached, permit): HandedOver) {
        match Stream::new(detached) {
            Ok(stream) => self.spawn(stream, permit),
            Err(problem) => warn!(reason = %problem, "a connection that was handed over is lost"),
        }
    }

    fn spawn(self: &Rc<Self>, stream: Stream, permit: OwnedSemaphorePermit) {
        let open = OpenConnection::new(self);
        let context = Rc::clone(&self.context);
        spawn_local(async move {
            connection::serve(stream, context).await;
            drop((open, permit));
        });
    }
}

/// Counts a connection of a worker until it is dropped.
struct OpenConnection<H: Handler>(Rc<Worker<H>>);

impl<H: Handler> OpenConnection<H> {
    fn new(worker: &Rc<Worker<H>>) -> Self {
        worker.load().fetch_add(1, Ordering::Relaxed);
        worker.context.handler().count(ConnectionEvent::Opened);
        Self(Rc::clone(worker))
    }
}

impl<H: Handler> Drop for OpenConnection<H> {
    fn drop(&mut self) {
        self.0.context.handler().count(ConnectionEvent::Closed);
        if self.0.load().fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.all_closed.notify_one();
        }
    }
}

/// Runs a worker on the current thread until it is drained.
///
/// # Errors
/// The runtime could not be created, or a listener does not work on it.
pub fn run_on_this_thread<F>(serve: impl FnOnce() -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async { serve().await })
}

//! One worker: a thread with its own runtime, its listeners, and all connections that they accept.
//!
//! The kernel distributes TCP connections to the listeners of the workers by hash, not by load. A worker that has many more connections than the
//! least loaded worker hands the next one over. So long connections do not pile up on one core. A socket file has one listener
//! for all workers, and so may an inherited socket: the fastest worker accepts. There each connection goes to the worker with the fewest connections.

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet, spawn_local};
use tokio::time::sleep;
use tracing::warn;

use super::connection;
use super::connection_permits::{ConnectionPermit, ConnectionPermits};
use super::context::{DrainGrace, WorkerContext};
use super::handler::{ConnectionEvent, Handler};
use super::http2::windows;
use super::listener_handle::{ListenerHandle, WorkerListener};
use super::socket::{BoundListener, DetachedStream, Listener, Stream};
use super::stage::Stage;
use crate::concurrency::ConcurrencyLimit;
use crate::log_throttle::LogThrottle;

/// How many more connections than the least loaded worker (plus a quarter) a worker may have before it hands one over.
const MAX_IMBALANCE: usize = 16;
/// How long a worker may take to receive a listener while others wait for it.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after an accept error that may pass: no free descriptors or memory.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What the workers of a gateway share.
#[derive(Debug)]
pub struct WorkerPool {
    /// The stage of the shutdown.
    pub stage: watch::Receiver<Stage>,
    drain_grace: DrainGrace,
    /// The budget of buffered HTTP/2 bodies above the normal windows.
    window_budget: ConcurrencyLimit,
    /// One permit for each open connection.
    permits: Arc<ConnectionPermits>,
    /// The number of connections of each worker.
    loads: Box<[AtomicUsize]>,
    /// The sender to the inbox of each worker.
    inboxes: Box<[mpsc::Sender<HandedOver>]>,
    /// The senders of listeners that open while the workers run.
    listeners: Box<[mpsc::Sender<WorkerListener>]>,
}

/// A connection that another worker has accepted, with its permit and its stage.
type HandedOver = (DetachedStream, ConnectionPermit, watch::Receiver<Stage>);

/// Receives what a worker gets while it runs.
#[derive(Debug)]
pub struct Inbox {
    /// Connections that other workers hand over.
    connections: mpsc::Receiver<HandedOver>,
    /// Listeners of further addresses.
    listeners: mpsc::Receiver<WorkerListener>,
}

impl WorkerPool {
    /// Creates the shared part, and the inbox of each worker. `max_connections`: the limit of concurrent connections of all workers.
    pub fn new(
        workers: usize,
        max_connections: usize,
        drain_timeout: Duration,
        stage: watch::Receiver<Stage>,
    ) -> (Arc<Self>, Vec<Inbox>) {
        let (inbox_senders, connections): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(64)).unzip();
        let (listener_senders, listeners): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(16)).unzip();
        let inboxes = connections.into_iter().zip(listeners);
        let inboxes = inboxes.map(|(connections, listeners)| Inbox { connections, listeners });
        let pool = Self {
            stage,
            drain_grace: DrainGrace::new(drain_timeout),
            window_budget: ConcurrencyLimit::new(windows::MAX_STEPS),
            permits: ConnectionPermits::new(max_connections),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            inboxes: inbox_senders.into(),
            listeners: listener_senders.into(),
        };
        (Arc::new(pool), inboxes.collect())
    }

    /// Accepts connections of a further address. The workers get the listeners in turn.
    pub async fn listen(&self, listeners: Vec<BoundListener>, handle: &ListenerHandle) {
        for (worker, bound) in self.listeners.iter().cycle().zip(listeners) {
            let handle = handle.clone();
            let sent = worker
                .send_timeout(WorkerListener { bound, handle }, LISTENER_TIMEOUT)
                .await;
            // A worker that has ended ends the process.
            if let Err(SendTimeoutError::Timeout(_)) = sent {
                warn!("a worker hangs, so it does not accept connections of a further address");
            }
        }
    }

    /// Changes the limit of concurrent connections. Open connections stay open.
    pub fn set_max_connections(&self, max_connections: usize) {
        self.permits.set_limit(max_connections);
    }

    /// Changes the timeout of drains that begin from now on.
    pub fn set_drain_timeout(&self, drain_timeout: Duration) {
        self.drain_grace.set(drain_timeout);
    }
}

/// One worker.
pub struct Worker<H> {
    index: usize,
    pool: Arc<WorkerPool>,
    handler: H,
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

impl<H> Worker<H> {
    fn load(&self) -> &AtomicUsize {
        &self.pool.loads[self.index]
    }
}

impl<H: Handler + Clone> Worker<H> {
    /// Creates the worker with this index.
    pub fn new(index: usize, pool: Arc<WorkerPool>, handler: H) -> Rc<Self> {
        Rc::new(Self {
            index,
            handler,
            pool,
            all_closed: Notify::new(),
        })
    }

    /// The context of connections with this stage.
    fn context(&self, stage: watch::Receiver<Stage>) -> Rc<WorkerContext<H>> {
        let (grace, window_budget) = (self.pool.drain_grace.clone(), self.pool.window_budget.clone());
        Rc::new(WorkerContext::new(self.handler.clone(), stage, grace, window_budget))
    }

    fn stage(&self) -> watch::Receiver<Stage> {
        self.pool.stage.clone()
    }

    /// Serves until drained: ends after the last connection, or when the drain timeout has passed.
    ///
    /// # Errors
    /// The runtime cannot use a listener.
    pub async fn run(self: Rc<Self>, listeners: Vec<WorkerListener>, inbox: Inbox) -> io::Result<()> {
        let mut stage = self.stage();
        tokio::select! {
            served = self.serve(listeners, inbox) => served,
            _ = stage.wait_for(|stage| *stage == Stage::Aborting) => Ok(()),
        }
    }

    async fn serve(self: Rc<Self>, listeners: Vec<WorkerListener>, mut inbox: Inbox) -> io::Result<()> {
        let mut accepting = JoinSet::new();
        let mut handles = Vec::new();
        let mut accept = |accepting: &mut JoinSet<()>, WorkerListener { bound, handle }| -> io::Result<()> {
            let listener = Listener::new(bound)?;
            handles.retain(|handle: &ListenerHandle| !handle.is_closed());
            handles.push(handle.clone());
            accepting.spawn_local(Rc::clone(&self).accept_all(listener, handle));
            Ok(())
        };
        for listener in listeners {
            accept(&mut accepting, listener)?;
        }
        let report_unused = |problem: io::Error| {
            warn!(reason = %problem, "this worker cannot use the listener of a further address");
        };
        let mut stage = self.stage();
        loop {
            tokio::select! {
                handed = inbox.connections.recv() => match handed {
                    Some(handed) => self.spawn_detached(handed),
                    None => break,
                },
                Some(listener) = inbox.listeners.recv() => {
                    if let Err(problem) = accept(&mut accepting, listener) {
                        report_unused(problem);
                    }
                }
                Some(ended) = accepting.join_next() => pass_panic(ended),
                _ = stage.wait_for(|stage| *stage >= Stage::Draining) => break,
            }
        }
        // Clients may wait in the queues of listeners that are already in the inbox. They are served too.
        inbox.listeners.close();
        while let Some(listener) = inbox.listeners.recv().await {
            if let Err(problem) = accept(&mut accepting, listener) {
                report_unused(problem);
            }
        }
        for handle in handles {
            handle.close();
        }
        // Connections that are already in the inbox are served. From here on, other workers keep theirs.
        inbox.connections.close();
        while let Some(handed) = inbox.connections.recv().await {
            self.spawn_detached(handed);
        }
        while let Some(ended) = accepting.join_next().await {
            pass_panic(ended);
        }
        while self.load().load(Ordering::Relaxed) > 0 {
            self.all_closed.notified().await;
        }
        Ok(())
    }

    async fn accept_all(self: Rc<Self>, listener: Listener, handle: ListenerHandle) {
        let max_imbalance = if listener.is_shared() { 0 } else { MAX_IMBALANCE };
        let mut stage = handle.listener_stage();
        let mut context = self.context(handle.connection_stage());
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
                    let stage = handle.connection_stage();
                    if !context.has_stage(&stage) {
                        context = self.context(stage);
                    }
                    self.assign(stream, permit, max_imbalance, &context);
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
                    self.spawn_detached((detached, permit, handle.connection_stage()));
                }
            }
            Err(problem) => warn!(reason = %problem, "queued connections could not be accepted and are lost"),
        }
    }

    async fn acquire_permit(&self) -> Option<ConnectionPermit> {
        self.pool.permits.acquire().await
    }

    /// Keeps the connection, or hands it to a worker that has more than `max_imbalance` fewer.
    fn assign(
        self: &Rc<Self>,
        stream: Stream,
        permit: ConnectionPermit,
        max_imbalance: usize,
        context: &Rc<WorkerContext<H>>,
    ) {
        let load = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        let own = load(self.load());
        let least = self.pool.loads.iter().enumerate().min_by_key(|(_, of)| load(of));
        if let Some((other, of)) = least
            && own > load(of) + max_imbalance + load(of) / 4
            && let Ok(inbox) = self.pool.inboxes[other].try_reserve()
        {
            match stream.detach() {
                Ok(detached) => inbox.send((detached, permit, context.stage())),
                Err(problem) => warn!(reason = %problem, "a connection could not be handed over"),
            }
            return;
        }
        self.spawn(stream, permit, Rc::clone(context));
    }

    fn spawn_detached(self: &Rc<Self>, (detached, permit, stage): HandedOver) {
        match Stream::new(detached) {
            Ok(stream) => self.spawn(stream, permit, self.context(stage)),
            Err(problem) => warn!(reason = %problem, "a connection that was handed over is lost"),
        }
    }

    fn spawn(self: &Rc<Self>, stream: Stream, permit: ConnectionPermit, context: Rc<WorkerContext<H>>) {
        let open = OpenConnection::new(self);
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
        worker.handler.count(ConnectionEvent::Opened);
        Self(Rc::clone(worker))
    }
}

impl<H: Handler> Drop for OpenConnection<H> {
    fn drop(&mut self) {
        self.0.handler.count(ConnectionEvent::Closed);
        if self.0.load().fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.all_closed.notify_one();
        }
    }
}

/// A panic in the task of a listener has closed it. The panic is passed on, so that the process ends.
fn pass_panic(ended: Result<(), JoinError>) {
    if let Err(failed) = ended
        && failed.is_panic()
    {
        std::panic::resume_unwind(failed.into_panic());
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::server::listen;
    use crate::server::socket::AcceptQueue;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hangs_keeps_no_listener_from_the_others() {
        const ADDRESSES: usize = 40;
        let (_stage, stages) = watch::channel(Stage::Serving);
        let (pool, mut inboxes) = WorkerPool::new(2, 8, Duration::ZERO, stages);
        let mut works = inboxes.pop().expect("two workers");
        let received = async { while works.listeners.recv().await.is_some() {} };
        let opened = async {
            for _ in 0..ADDRESSES {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let listeners = listen::bind(any, 2).expect("a free port").into_iter();
                let listeners = listeners.map(|listener| BoundListener::Tcp(listener, AcceptQueue::OfOneWorker));
                pool.listen(listeners.collect(), &ListenerHandle::default()).await;
            }
        };
        tokio::select! {
            () = received => panic!("the pool sends"),
            () = opened => {}
        }
        // The other inbox is full, and nothing was lost of this one.
        assert_eq!(inboxes[0].listeners.len(), 16);
    }
}

//! [`WorkerContext`]: what the connections of a worker need of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::handler::Handler;
use super::stage::{DRAIN_GRACE, Stage};
use crate::concurrency::ConcurrencyLimit;

/// During a drain, a connection that was used within this time is kept for one more request. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct DrainGrace(Arc<AtomicU64>);

impl DrainGrace {
    pub(super) fn new(drain_timeout: Duration) -> Self {
        let grace = Self(Arc::default());
        grace.set(drain_timeout);
        grace
    }

    /// Also in a short drain, connections are closed in order and not cut.
    pub(super) fn set(&self, drain_timeout: Duration) {
        let grace = DRAIN_GRACE.min(drain_timeout / 4).as_millis();
        self.0
            .store(u64::try_from(grace).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// What a connection needs of its worker. Connections that drain together share one. It does not know the worker, its listeners or other connections.
#[derive(Debug)]
pub(super) struct WorkerContext<H> {
    handler: H,
    stage: watch::Receiver<Stage>,
    drain_grace: DrainGrace,
    window_budget: ConcurrencyLimit,
}

impl<H: Handler> WorkerContext<H> {
    pub(super) fn new(
        handler: H,
        stage: watch::Receiver<Stage>,
        drain_grace: DrainGrace,
        window_budget: ConcurrencyLimit,
    ) -> Self {
        Self {
            handler,
            stage,
            drain_grace,
            window_budget,
        }
    }

    /// Answers the requests.
    pub(super) fn handler(&self) -> &H {
        &self.handler
    }

    /// The stage of the connection: that of the shutdown, or of its own drain.
    pub(super) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.clone()
    }

    /// Whether it is the context of connections with this stage.
    pub(super) fn has_stage(&self, stage: &watch::Receiver<Stage>) -> bool {
        self.stage.same_channel(stage)
    }

    /// During a drain, a connection that was used within this time is kept for one more request.
    pub(super) fn drain_grace(&self) -> Duration {
        self.drain_grace.get()
    }

    /// The budget of buffered HTTP/2 bodies above the normal windows. All workers share it.
    pub(super) fn window_budget(&self) -> &ConcurrencyLimit {
        &self.window_budget
    }
}

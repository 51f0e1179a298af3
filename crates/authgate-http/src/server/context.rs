//! [`WorkerContext`]: what the connections of a worker need of it.

use std::time::Duration;

use tokio::sync::watch;

use super::handler::Handler;
use super::stage::Stage;
use crate::concurrency::ConcurrencyLimit;

/// What a connection needs of its worker. It does not know the worker, its listeners or other connections.
#[derive(Debug)]
pub(super) struct WorkerContext<H> {
    handler: H,
    stage: watch::Receiver<Stage>,
    drain_grace: Duration,
    window_budget: ConcurrencyLimit,
}

impl<H: Handler> WorkerContext<H> {
    pub(super) fn new(
        handler: H,
        stage: watch::Receiver<Stage>,
        drain_grace: Duration,
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

    /// The stage of the shutdown.
    pub(super) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.clone()
    }

    /// During a drain, a connection that was used within this time is kept for one more request.
    pub(super) fn drain_grace(&self) -> Duration {
        self.drain_grace
    }

    /// The budget of buffered HTTP/2 bodies above the normal windows. All workers share it.
    pub(super) fn window_budget(&self) -> &ConcurrencyLimit {
        &self.window_budget
    }
}

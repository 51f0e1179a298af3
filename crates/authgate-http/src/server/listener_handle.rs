//! [`ListenerHandle`]: closes an address on all workers, and drains its connections, while the other addresses serve on.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::socket::BoundListener;
use super::stage::Stage;

/// One address on all workers; clones are the same address.
#[derive(Debug, Clone)]
pub struct ListenerHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `Draining`: the workers close their listeners of the address.
    listener: watch::Sender<Stage>,
    /// The stage of the connections that are accepted now. Those that were accepted before a drain have a sender of their own.
    connections: Mutex<watch::Sender<Stage>>,
}

impl Default for ListenerHandle {
    fn default() -> Self {
        Self(Arc::new(Inner {
            listener: watch::Sender::new(Stage::Serving),
            connections: Mutex::new(watch::Sender::new(Stage::Serving)),
        }))
    }
}

impl ListenerHandle {
    /// The workers close their listeners of this address, and its connections drain.
    pub fn close(&self) {
        // The listener first: a connection that is accepted later drains too.
        self.0.listener.send_replace(Stage::Draining);
        self.connections().send_replace(Stage::Draining);
    }

    /// The open connections of this address drain. The listeners stay open, and connections that are accepted from now on are served.
    pub fn drain_connections(&self) {
        let mut connections = self.connections();
        if *self.0.listener.borrow() == Stage::Serving {
            let drained = std::mem::replace(&mut *connections, watch::Sender::new(Stage::Serving));
            drained.send_replace(Stage::Draining);
        }
    }

    /// Whether [`Self::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        *self.0.listener.borrow() != Stage::Serving
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, watch::Sender<Stage>> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage of the listeners.
    pub(super) fn listener_stage(&self) -> watch::Receiver<Stage> {
        self.0.listener.subscribe()
    }

    /// The stage of a connection that is accepted now.
    pub(super) fn connection_stage(&self) -> watch::Receiver<Stage> {
        self.connections().subscribe()
    }
}

/// One worker's listener of an address.
#[derive(Debug)]
pub struct WorkerListener {
    /// The socket.
    pub bound: BoundListener,
    /// The address.
    pub handle: ListenerHandle,
}

impl From<BoundListener> for WorkerListener {
    fn from(bound: BoundListener) -> Self {
        Self {
            bound,
            handle: ListenerHandle::default(),
        }
    }
}

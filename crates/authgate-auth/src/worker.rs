//! [`WorkerResources`]: what the authenticators of one worker share.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::replay::ReplayMemory;
use crate::single_flight::WorkQueue;
use crate::store::{SharedStore, Store};

/// What the authenticators of one worker share: its handles on stores, and its queue for work that occupies the thread.
#[derive(Debug, Default)]
pub struct WorkerResources {
    stores: BTreeMap<Arc<str>, Rc<Store>>,
    queue: Rc<WorkQueue>,
    /// The memory of the process.
    replays: Arc<ReplayMemory>,
}

impl WorkerResources {
    /// Opens these stores for one worker. `replays` is the memory of the process.
    pub fn open(stores: &[Arc<SharedStore>], replays: &Arc<ReplayMemory>) -> Self {
        Self {
            stores: stores
                .iter()
                .map(|store| (Arc::clone(store.name()), store.open()))
                .collect(),
            queue: Rc::default(),
            replays: Arc::clone(replays),
        }
    }

    /// The handles for these stores, in place of the present ones. A handle on a store that both have is kept.
    #[must_use]
    pub fn next(&self, stores: &[Arc<SharedStore>]) -> Self {
        let handle = |store: &Arc<SharedStore>| match self.stores.get(store.name()) {
            Some(handle) if handle.is_of(store) => Rc::clone(handle),
            Some(_) | None => store.open(),
        };
        Self {
            stores: stores
                .iter()
                .map(|store| (Arc::clone(store.name()), handle(store)))
                .collect(),
            queue: Rc::clone(&self.queue),
            replays: Arc::clone(&self.replays),
        }
    }

    /// The handle on a store. It exists: the configuration check refuses names of unknown stores.
    pub(crate) fn store(&self, name: &str) -> Rc<Store> {
        Rc::clone(&self.stores[name])
    }

    /// The proofs that clients of this process have used.
    pub(crate) fn replays(&self) -> Arc<ReplayMemory> {
        Arc::clone(&self.replays)
    }

    /// The queue for verifying signatures.
    pub(crate) fn queue(&self) -> Rc<WorkQueue> {
        Rc::clone(&self.queue)
    }
}

//! The servers that have the records, as the whole process knows them, and the task that follows them.

use std::io;
use std::mem::{self, Discriminant};
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::discovery::{Discovery, DiscoveryError};
use super::node::Node;
use super::primaries::Primaries;
use crate::store::StoreError;
use crate::store::redis::SharedRedis;
use crate::store::redis::settings::Servers;

/// How often the servers are asked without another reason.
const SENTINELS_EVERY: Duration = Duration::from_secs(1);
const CLUSTER_EVERY: Duration = Duration::from_millis(500);
/// How often they are asked while something is wrong.
const SOON: Duration = Duration::from_millis(100);

/// The servers that have the records. Each change is sent to those that subscribe.
#[derive(Debug)]
pub(in crate::store::redis) struct Topology {
    known: watch::Sender<Known>,
    /// Something has changed: ask now.
    look_again: Notify,
}

#[derive(Debug, Clone)]
enum Known {
    /// No attempt to find them has succeeded.
    NotYet,
    Primaries(Arc<Primaries>),
    /// The one that was known is no longer a primary, and no other one is known.
    NoPrimary,
}

impl Topology {
    pub(in crate::store::redis) fn new(servers: &Servers) -> Self {
        let known = match servers {
            Servers::Single(_) => Known::Primaries(Arc::new(Primaries::single(Node::Configured))),
            Servers::Sentinel(_) | Servers::Cluster(_) => Known::NotYet,
        };
        Self {
            known: watch::channel(known).0,
            look_again: Notify::new(),
        }
    }

    /// The servers, if they are known.
    pub(in crate::store::redis) fn known(&self) -> Option<Arc<Primaries>> {
        match &*self.known.borrow() {
            Known::Primaries(primaries) => Some(Arc::clone(primaries)),
            Known::NotYet | Known::NoPrimary => None,
        }
    }

    /// Whether the primary was replaced, and the new one is not known.
    pub(in crate::store::redis) fn has_no_primary(&self) -> bool {
        matches!(&*self.known.borrow(), Known::NoPrimary)
    }

    /// Whether these are still the servers.
    pub(in crate::store::redis) fn is(&self, primaries: &Arc<Primaries>) -> bool {
        matches!(&*self.known.borrow(), Known::Primaries(known) if Arc::ptr_eq(known, primaries))
    }

    /// The servers. Waits for the first answer after the start.
    pub(in crate::store::redis) async fn primaries(
        &self,
        store: &Arc<str>,
        deadline: Instant,
    ) -> Result<Arc<Primaries>, StoreError> {
        if let Some(primaries) = self.known() {
            return Ok(primaries);
        }
        let mut known = self.known.subscribe();
        let found = timeout_at(deadline, known.wait_for(|known| !matches!(known, Known::NotYet))).await;
        match found {
            Ok(Ok(known)) => match &*known {
                Known::Primaries(primaries) => Ok(Arc::clone(primaries)),
                Known::NotYet | Known::NoPrimary => Err(StoreError::Unreachable(Arc::clone(store))),
            },
            Ok(Err(_)) | Err(_) => Err(StoreError::Unreachable(Arc::clone(store))),
        }
    }

    /// The server that has this key.
    pub(in crate::store::redis) fn node_of(&self, key: &str) -> RedisResult<Node> {
        let node = self.known().and_then(|primaries| primaries.of(key.as_bytes()).cloned());
        node.ok_or_else(|| RedisError::from(io::Error::new(io::ErrorKind::NotConnected, "no primary has this key")))
    }

    /// Returns when the servers are others than these.
    pub(in crate::store::redis) async fn changed(&self, since: Option<&Arc<Primaries>>) {
        let mut known = self.known.subscribe();
        let is_other = |known: &Known| match (known, since) {
            (Known::Primaries(known), Some(since)) => !Arc::ptr_eq(known, since),
            (Known::Primaries(_), None) => true,
            (Known::NotYet | Known::NoPrimary, since) => since.is_some(),
        };
        // The sender lives in `self`.
        let _ = known.wait_for(is_other).await;
    }

    /// A connection was lost, or a server has redirected a command: asks now.
    pub(in crate::store::redis) fn look_again(&self) {
        self.look_again.notify_one();
    }
}

/// Follows the servers; never returns.
pub(in crate::store::redis) async fn watch(shared: &Arc<SharedRedis>) {
    let every = match shared.settings.servers {
        Servers::Single(_) => return std::future::pending().await,
        Servers::Sentinel(_) => SENTINELS_EVERY,
        Servers::Cluster(_) => CLUSTER_EVERY,
    };
    let mut discovery = Discovery::new(shared.settings.clone());
    // The kinds of problems that are in the log, since the primaries were last found.
    let mut reported: Vec<Discriminant<DiscoveryError>> = Vec::new();
    loop {
        let current = shared.topology.known();
        let pause = match discovery.primaries(current.as_deref()).await {
            Ok(primaries) => {
                let is_same = current.as_deref() == Some(&primaries);
                let are_same_nodes = current
                    .as_ref()
                    .is_some_and(|current| current.nodes() == primaries.nodes());
                if !are_same_nodes || !reported.is_empty() {
                    let nodes: Vec<String> = primaries.nodes().iter().map(Node::to_string).collect();
                    info!(store = %shared.name, primaries = nodes.join(", "), "the primaries of the store are known");
                }
                reported.clear();
                if !is_same {
                    shared.replace_primaries(Known::Primaries(Arc::new(primaries)));
                }
                every
            }
            Err(problem) => {
                let kind = mem::discriminant(&problem);
                if !reported.contains(&kind) {
                    warn!(store = %shared.name, reason = %problem, "the primaries of the store cannot be found out");
                    reported.push(kind);
                }
                let is_replaced = match &current {
                    Some(current) => is_replaced(&mut discovery, current, &problem).await,
                    None => true,
                };
                if is_replaced && current.is_some() {
                    shared.replace_primaries(Known::NoPrimary);
                }
                match problem {
                    // The primary is used as before.
                    DiscoveryError::NoAnswer(_) | DiscoveryError::Disagreement(_) if !is_replaced => every,
                    _ => SOON,
                }
            }
        };
        if timeout(pause, shared.topology.look_again.notified()).await.is_ok() {
            // A server that is gone is noticed by many connections.
            sleep(SOON / 4).await;
        }
    }
}

/// Whether the server that was the primary must not be used any more. Without an answer of the sentinels it is used as long as it says that
/// it is one.
async fn is_replaced(discovery: &mut Discovery, current: &Primaries, problem: &DiscoveryError) -> bool {
    let Some(current) = current.only() else { return false };
    match problem {
        DiscoveryError::NotPrimary(..) => true,
        DiscoveryError::PrimaryUnreachable(named, _) => named != current,
        DiscoveryError::NoAnswer(_)
        | DiscoveryError::UnknownService(_)
        | DiscoveryError::Disagreement(_)
        | DiscoveryError::NotCluster(..) => {
            matches!(discovery.check_role(current).await, Err(DiscoveryError::NotPrimary(..)))
        }
    }
}

impl SharedRedis {
    fn replace_primaries(&self, known: Known) {
        let key = self.settings.keys().layout();
        let node = || self.topology.node_of(&key).ok();
        let before = node();
        self.topology.known.send_replace(known);
        if node() != before {
            // The layout record may be another one there.
            self.layout_was_confirmed(false);
            self.check_now.notify_one();
        }
    }
}

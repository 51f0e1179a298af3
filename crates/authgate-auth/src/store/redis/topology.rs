//! The servers that have the records, as the whole process knows them, and the task that follows them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::SharedRedis;
use super::connection::{Node, Primaries};
use super::discovery::{Discovery, DiscoveryError};
use super::settings::Servers;
use crate::store::StoreError;

/// How often the servers are asked without another reason.
const SENTINELS_EVERY: Duration = Duration::from_secs(1);
const CLUSTER_EVERY: Duration = Duration::from_millis(500);
/// How often they are asked while something is wrong.
const SOON: Duration = Duration::from_millis(100);

/// The servers that have the records. Each change is sent to those that subscribe.
#[derive(Debug)]
pub(super) struct Topology {
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
    pub(super) fn new(servers: &Servers) -> Self {
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
    pub(super) fn known(&self) -> Option<Arc<Primaries>> {
        match &*self.known.borrow() {
            Known::Primaries(primaries) => Some(Arc::clone(primaries)),
            Known::NotYet | Known::NoPrimary => None,
        }
    }

    /// Whether the primary was replaced, and the new one is not known.
    pub(super) fn has_no_primary(&self) -> bool {
        matches!(&*self.known.borrow(), Known::NoPrimary)
    }

    /// Whether these are still the servers.
    pub(super) fn is(&self, primaries: &Arc<Primaries>) -> bool {
        matches!(&*self.known.borrow(), Known::Primaries(known) if Arc::ptr_eq(known, primaries))
    }

    /// The servers. Waits for the first answer after the start.
    pub(super) async fn primaries(&self, store: &Arc<str>, deadline: Instant) -> Result<Arc<Primaries>, StoreError> {
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
    pub(super) fn node_of(&self, key: &str) -> RedisResult<Node> {
        let node = self.known().and_then(|primaries| primaries.of(key.as_bytes()).cloned());
        node.ok_or_else(|| RedisError::from(io::Error::new(io::ErrorKind::NotConnected, "no primary has this key")))
    }

    /// Receives each change.
    pub(super) async fn changed(&self, since: Option<&Arc<Primaries>>) -> Option<Arc<Primaries>> {
        let mut known = self.known.subscribe();
        let is_other = |known: &Known| match (known, since) {
            (Known::Primaries(known), Some(since)) => !Arc::ptr_eq(known, since),
            (Known::Primaries(_), None) => true,
            (Known::NotYet | Known::NoPrimary, since) => since.is_some(),
        };
        // The sender lives in `self`.
        let _ = known.wait_for(is_other).await;
        self.known()
    }

    /// A connection was lost, or a server has redirected a command: asks now.
    pub(super) fn look_again(&self) {
        self.look_again.notify_one();
    }
}

/// Follows the servers; never returns.
pub(super) async fn watch(shared: &Arc<SharedRedis>) {
    let every = match shared.settings.servers {
        Servers::Single(_) => return std::future::pending().await,
        Servers::Sentinel(_) => SENTINELS_EVERY,
        Servers::Cluster(_) => CLUSTER_EVERY,
    };
    let mut discovery = Discovery::new(shared.settings.clone());
    let mut reported: Option<DiscoveryError> = None;
    loop {
        let current = shared.topology.known();
        let found = discovery.primaries(current.as_deref()).await;
        let is_found = found.is_ok();
        match found {
            Ok(primaries) => {
                if reported.take().is_some() || current.as_deref() != Some(&primaries) {
                    let nodes = primaries
                        .nodes()
                        .iter()
                        .map(Node::to_string)
                        .collect::<Vec<_>>()
                        .join(", ");
                    info!(store = %shared.name, primaries = nodes, "the primaries of the store are known");
                }
                if current.as_deref() != Some(&primaries) {
                    shared.replace_primaries(Known::Primaries(Arc::new(primaries)));
                }
            }
            Err(problem) => {
                if reported.as_ref() != Some(&problem) {
                    warn!(store = %shared.name, reason = %problem, "the primaries of the store cannot be found out");
                }
                if let Some(current) = &current
                    && is_replaced(&mut discovery, current, &problem).await
                {
                    shared.replace_primaries(Known::NoPrimary);
                }
                reported = Some(problem);
            }
        }
        let pause = if is_found { every } else { SOON };
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
        self.topology.known.send_replace(known);
        // The layout record may be another one there.
        self.layout_was_confirmed(false);
        self.check_now.notify_one();
    }
}

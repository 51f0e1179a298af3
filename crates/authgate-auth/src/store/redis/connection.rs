//! Which server has a key, and connections to servers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use redis::{RedisError, RedisResult};
use tokio::time::timeout;

use super::settings::RedisSettings;
use super::transport::Connection;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// The server that the configuration names.
    Configured,
}

/// The servers that have the records, at one moment.
#[derive(Debug)]
pub(super) struct Primaries {
    nodes: Vec<Node>,
}

impl Primaries {
    /// One server has all records.
    pub(super) fn single(node: Node) -> Self {
        Self { nodes: vec![node] }
    }

    /// Each server once.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The server that has this key. `None`: no server has it at the moment.
    pub(super) fn of(&self, _key: &str) -> Option<&Node> {
        self.nodes.first()
    }
}

/// The connections of one task, each opened when it is first needed. No other task uses them, so nothing comes between the commands of a
/// transaction.
#[derive(Default)]
pub(super) struct Connections {
    open: HashMap<Node, Connection>,
}

impl Connections {
    /// The connection to the server that has this key.
    pub(super) async fn of(
        &mut self,
        settings: &RedisSettings,
        primaries: &Arc<Primaries>,
        key: &str,
    ) -> RedisResult<&mut Connection> {
        match primaries.of(key) {
            Some(node) => self.to(settings, node).await,
            None => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        }
    }

    /// The connection to a server, opened within the deadline of the store.
    pub(super) async fn to(&mut self, settings: &RedisSettings, node: &Node) -> RedisResult<&mut Connection> {
        match self.open.entry(node.clone()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let connected = timeout(settings.timeout, settings.connect(node)).await;
                let timed_out = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
                Ok(place.insert(connected.map_err(timed_out)??))
            }
        }
    }

    /// Closes all connections: the next use opens new ones.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }
}

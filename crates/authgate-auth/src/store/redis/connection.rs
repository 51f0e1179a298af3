//! Which server has a key, and connections to servers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd, pipe};
use tokio::time::timeout;

use super::SharedRedis;
use super::node::{Node, SlotRange};
use super::settings::{Role, Servers};
use super::slots::{self, slot};
use super::transport::Connection;

/// How often a command follows a redirect to another server of a cluster.
pub const MAX_REDIRECTS: usize = 5;

/// The servers that have the records, at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Primaries {
    /// Each once.
    nodes: Vec<Node>,
    /// In their order. `None`: the only server has all keys.
    slots: Option<Vec<SlotRange>>,
}

impl Primaries {
    /// One server has all records.
    pub(super) fn single(node: Node) -> Self {
        Self {
            nodes: vec![node],
            slots: None,
        }
    }

    /// The servers of a cluster; `others` have no slots yet.
    pub(super) fn cluster(mut slots: Vec<SlotRange>, others: Vec<Node>) -> Self {
        slots.sort_by_key(|range| range.last);
        let mut nodes: Vec<Node> = slots.iter().map(|range| range.node.clone()).chain(others).collect();
        nodes.sort();
        nodes.dedup();
        Self {
            nodes,
            slots: Some(slots),
        }
    }

    /// Each server once.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The server that has all keys; `None` in a cluster.
    pub(super) fn only(&self) -> Option<&Node> {
        match self.slots {
            None => self.nodes.first(),
            Some(_) => None,
        }
    }

    /// The server that has this key. `None`: no server has it at the moment.
    pub fn of(&self, key: &[u8]) -> Option<&Node> {
        let Some(slots) = &self.slots else {
            return self.nodes.first();
        };
        let slot = slot(key);
        let at = slots.partition_point(|range| range.last < slot);
        slots
            .get(at)
            .filter(|range| range.first <= slot)
            .map(|range| &range.node)
    }
}

/// Where a server of a cluster sends a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// The slot has another server now.
    Moved(Node),
    /// The slot is being moved, and this key is there already: for this command alone.
    Ask(Node),
}

impl Redirect {
    /// Reads an error reply of `asked`.
    pub(super) fn of(kind: ServerErrorKind, details: Option<&str>, asked: &Node) -> Option<Self> {
        let node = || slots::redirect(details, asked.address());
        match kind {
            ServerErrorKind::Moved => node().map(Self::Moved),
            ServerErrorKind::Ask => node().map(Self::Ask),
            _ => None,
        }
    }

    /// Reads an error.
    pub fn of_error(problem: &RedisError, asked: &Node) -> Option<Self> {
        match problem.kind() {
            ErrorKind::Server(kind) => Self::of(kind, problem.detail(), asked),
            _ => None,
        }
    }

    /// The server that it names.
    pub fn node(&self) -> &Node {
        let (Self::Moved(node) | Self::Ask(node)) = self;
        node
    }
}

/// The connections of one task in one role, each opened when it is first needed. No other task uses them, so nothing comes between the commands of a
/// transaction.
pub(super) struct Connections {
    role: Role,
    open: HashMap<Node, Connection>,
}

impl Connections {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            open: HashMap::new(),
        }
    }

    /// The connection to the server that has this key.
    pub(super) async fn of(&mut self, shared: &SharedRedis, key: &str) -> RedisResult<&mut Connection> {
        let node = shared.topology.node_of(key)?;
        if self.open.len() > 1 {
            let primaries = shared.topology.known();
            self.open.retain(|open, _| {
                *open == node
                    || primaries
                        .as_ref()
                        .is_some_and(|primaries| primaries.nodes().contains(open))
            });
        }
        self.to(shared, &node).await
    }

    /// The connection to a server, opened within the deadline of the store.
    pub(super) async fn to(&mut self, shared: &SharedRedis, node: &Node) -> RedisResult<&mut Connection> {
        let settings = shared.settings_of(self.role);
        match self.open.entry(node.clone()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let connected = timeout(settings.timeout, settings.connect(node)).await;
                let timed_out = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
                Ok(place.insert(connected.map_err(timed_out)??))
            }
        }
    }

    /// Sends a command to the server that has this key, and follows redirects.
    pub(super) async fn send(&mut self, shared: &SharedRedis, key: &str, command: &Cmd) -> RedisResult<Value> {
        let mut redirect: Option<Redirect> = None;
        for _ in 0..MAX_REDIRECTS {
            let (connection, node) = match &redirect {
                None => {
                    let node = shared.topology.node_of(key)?;
                    (self.of(shared, key).await?, node)
                }
                Some(redirect) => (self.to(shared, redirect.node()).await?, redirect.node().clone()),
            };
            let answer = match &redirect {
                Some(Redirect::Ask(_)) => {
                    let mut asking = pipe();
                    asking.add_command(cmd("ASKING")).ignore().add_command(command.clone());
                    match asking.query_async::<Vec<Value>>(connection).await {
                        Ok(values) => Ok(values.into_iter().next().unwrap_or(Value::Nil)),
                        Err(problem) => Err(problem),
                    }
                }
                Some(Redirect::Moved(_)) | None => command.query_async(connection).await,
            };
            match answer {
                // Look-ups follow the servers of a cluster alone, and this must not find a store usable that they do not.
                Err(problem) if !matches!(shared.settings.servers, Servers::Cluster(_)) => return Err(problem),
                Err(problem) => {
                    shared.topology.look_again();
                    redirect = Some(Redirect::of_error(&problem, &node).ok_or(problem)?);
                }
                Ok(value) => return Ok(value),
            }
        }
        Err(io::Error::other("too many redirects").into())
    }

    /// Closes all connections: the next use opens new ones.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Node {
        Node::At(redis::cluster::NodeAddress::new("h", port))
    }

    #[test]
    fn a_key_belongs_to_the_server_of_its_slot_or_to_none() {
        let range = |first, last, port| SlotRange {
            first,
            last,
            node: at(port),
        };
        // foo is in slot 12182, bar in slot 5061.
        let primaries = Primaries::cluster(vec![range(12182, 12182, 2), range(0, 5060, 1)], vec![at(3), at(1)]);
        assert_eq!(primaries.of(b"foo"), Some(&at(2)));
        assert_eq!(primaries.of(b"bar"), None);
        assert_eq!(primaries.of(b""), Some(&at(1)));
        assert_eq!(primaries.nodes(), [at(1), at(2), at(3)]);
        assert_eq!(primaries.only(), None);
        let single = Primaries::single(Node::Configured);
        assert_eq!(
            (single.of(b"bar"), single.only()),
            (Some(&Node::Configured), Some(&Node::Configured))
        );
    }
}

//! [`Connections`]: the connections of one task to the servers that have the records.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use redis::{Cmd, RedisError, RedisResult, Value, cmd, pipe};
use tokio::time::timeout;

use super::SharedRedis;
use super::servers::{MAX_REDIRECTS, Node, Redirect};
use super::settings::{Role, Servers};
use super::transport::Connection;

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

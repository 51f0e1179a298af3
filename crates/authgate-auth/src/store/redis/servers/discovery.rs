//! Finds the servers that have the records: asks sentinels for the primary, or the servers of a cluster for the primaries of all slots.
//!
//! A sentinel or a server may be wrong or partitioned. All sentinels are asked side by side, the address that most of them name is taken, and
//! its server must say in `ROLE` that it is a primary. Of a cluster, a few servers are asked side by side, and the one with the highest
//! epoch is believed.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::cluster::NodeAddress;
use redis::{Pipeline, RedisError, RedisResult, Value, pipe};
use tokio::time::timeout;

use super::node::Node;
use super::primaries::Primaries;
use super::role::is_primary;
use super::slots;
use crate::store::error_reply::without_arguments;
use crate::store::redis::Endpoint;
use crate::store::redis::settings::{RedisSettings, Servers};
use crate::store::redis::transport::Connection;

/// How many servers of a cluster are asked side by side.
const ASKED: usize = 3;
/// How long the other sentinels are waited for after most of them agree. The connection to one without an answer is closed.
const LATE: Duration = Duration::from_millis(50);

/// Why the primaries are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// None of the servers in `urls` has answered.
    #[error("none of the servers in `urls` answers ({0})")]
    NoAnswer(String),
    /// The sentinels do not know `service`.
    #[error("the sentinels know no primary by the name {0:?}: check `service`")]
    UnknownService(String),
    /// As many sentinels name one address as another.
    #[error("the sentinels name different primaries: {0}")]
    Disagreement(String),
    /// The address that the sentinels name is not that of a primary.
    #[error("the sentinels name {0}, and it is not a primary: {1}")]
    NotPrimary(Node, String),
    /// The address that the sentinels name does not answer.
    #[error("the sentinels name {0}, which does not answer ({1})")]
    PrimaryUnreachable(Node, String),
    /// The servers are not those of a cluster.
    #[error("{0} is not a server of a cluster: {1}")]
    NotCluster(Node, String),
}

/// Asks where the primaries are, on connections that are kept.
pub struct Discovery {
    settings: RedisSettings,
    /// Sentinels, or the servers of `urls`.
    configured: Vec<Asked>,
    /// The primary that the sentinels have named, or servers of the cluster.
    found: Vec<Asked>,
    /// Which of `found` is asked next.
    turn: usize,
}

/// A server or sentinel that is asked for the primaries.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Peer {
    /// A sentinel, by its position in `urls`.
    Sentinel(usize),
    Server(Node),
}

impl Peer {
    fn is(&self, node: &Node) -> bool {
        matches!(self, Self::Server(server) if server == node)
    }
}

struct Asked {
    peer: Peer,
    connection: Option<Connection>,
}

impl Discovery {
    /// Nothing is asked yet.
    pub fn new(settings: RedisSettings) -> Self {
        let configured = match &settings.servers {
            Servers::Single(_) => Vec::new(),
            Servers::Sentinel(sentinels) => (0..sentinels.endpoints.len())
                .map(Peer::Sentinel)
                .map(Asked::new)
                .collect(),
            Servers::Cluster(endpoints) => {
                let nodes = endpoints.iter().map(Endpoint::node);
                nodes.map(Peer::Server).map(Asked::new).collect()
            }
        };
        Self {
            settings,
            configured,
            found: Vec::new(),
            turn: 0,
        }
    }

    /// Finds the primaries. `current` are those that were found before.
    ///
    /// # Errors
    /// They are not known.
    pub async fn primaries(&mut self, current: Option<&Primaries>) -> Result<Primaries, DiscoveryError> {
        match self.settings.servers {
            Servers::Single(_) => Ok(Primaries::single(Node::Configured)),
            Servers::Sentinel(_) => {
                let node = self.ask_sentinels(current.and_then(Primaries::only)).await?;
                self.check_role(&node).await?;
                Ok(Primaries::single(node))
            }
            Servers::Cluster(_) => self.ask_cluster(current).await,
        }
    }

    /// Asks all sentinels side by side.
    async fn ask_sentinels(&mut self, current: Option<&Node>) -> Result<Node, DiscoveryError> {
        let Servers::Sentinel(sentinels) = &self.settings.servers else {
            return Err(DiscoveryError::NoAnswer("no sentinel".to_owned()));
        };
        let mut question = pipe();
        question
            .cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&sentinels.service);
        let (settings, count) = (&self.settings, self.configured.len());
        let asked = self.configured.iter_mut();
        let mut answers: FuturesUnordered<_> = asked.map(|sentinel| sentinel.ask(settings, &question)).collect();
        let mut votes: BTreeMap<Option<Node>, usize> = BTreeMap::new();
        let mut problem = String::new();
        while let Some(answer) = answers.next().await {
            match answer.map(|values| values.into_iter().next().unwrap_or(Value::Nil)) {
                Ok(Value::ServerError(error)) => problem = text(&RedisError::from(error)),
                Ok(value) => {
                    let node = named_primary(&value);
                    let votes = votes.entry(node).or_default();
                    *votes += 1;
                    // The others cannot outvote it.
                    if *votes > count / 2 {
                        let _ = timeout(LATE, answers.by_ref().for_each(async |_| {})).await;
                        break;
                    }
                }
                Err(error) => problem = text(&error),
            }
        }
        let most = votes.values().max().copied().unwrap_or(0);
        let leading: Vec<_> = votes
            .iter()
            .filter(|(_, votes)| **votes == most)
            .map(|(node, _)| node)
            .collect();
        match leading.as_slice() {
            [] => Err(DiscoveryError::NoAnswer(problem)),
            [None] => Err(DiscoveryError::UnknownService(sentinels.service.clone())),
            [Some(node)] => Ok(node.clone()),
            several => match current.filter(|current| several.iter().any(|node| node.as_ref() == Some(*current))) {
                Some(current) => Ok(current.clone()),
                None => Err(DiscoveryError::Disagreement(
                    several
                        .iter()
                        .flat_map(|node| node.as_ref())
                        .map(Node::to_string)
                        .collect::<Vec<_>>()
                        .join(", "),
                )),
            },
        }
    }

    /// Asks a server whether it is still a primary.
    pub(super) async fn check_role(&mut self, node: &Node) -> Result<(), DiscoveryError> {
        let known = self.found.pop().filter(|found| found.peer.is(node));
        let mut primary = known.unwrap_or_else(|| Asked::new(Peer::Server(node.clone())));
        let mut question = pipe();
        question.cmd("ROLE");
        let answer = primary.ask(&self.settings, &question).await;
        self.found = vec![primary];
        match answer {
            Ok(values) => is_primary(values.first().unwrap_or(&Value::Nil))
                .map_err(|problem| DiscoveryError::NotPrimary(node.clone(), problem)),
            Err(problem) => Err(DiscoveryError::PrimaryUnreachable(node.clone(), text(&problem))),
        }
    }

    /// Asks some servers of the cluster, and those of `urls` if none of them answers.
    async fn ask_cluster(&mut self, current: Option<&Primaries>) -> Result<Primaries, DiscoveryError> {
        let nodes = current.map_or(&[][..], Primaries::nodes);
        self.found.retain(|found| nodes.iter().any(|node| found.peer.is(node)));
        for node in nodes {
            if self.found.iter().all(|found| !found.peer.is(node)) {
                self.found.push(Asked::new(Peer::Server(node.clone())));
            }
        }
        let (count, turn) = (self.found.len(), self.turn);
        self.turn = self.turn.wrapping_add(1);
        let chosen = |index: usize| (index + count - turn % count.max(1)) % count.max(1) < ASKED;
        let some = self.found.iter_mut().enumerate().filter(|(index, _)| chosen(*index));
        match ask_views(&self.settings, some.map(|(_, asked)| asked)).await {
            Ok(primaries) => Ok(primaries),
            Err(_) => ask_views(&self.settings, self.configured.iter_mut()).await,
        }
    }
}

/// Asks these servers side by side, and takes the answer with the highest epoch.
async fn ask_views(
    settings: &RedisSettings,
    servers: impl Iterator<Item = &mut Asked>,
) -> Result<Primaries, DiscoveryError> {
    let mut question = pipe();
    question.cmd("CLUSTER").arg("INFO");
    question.cmd("CLUSTER").arg("SLOTS");
    // Redis 6 does not know it.
    question.cmd("CLUSTER").arg("SHARDS");
    let answers = servers.map(|server| async {
        let node = match &server.peer {
            Peer::Server(node) => node.clone(),
            Peer::Sentinel(_) => Node::Configured,
        };
        (server.ask(settings, &question).await, node)
    });
    let mut best: Option<((bool, u64), Primaries)> = None;
    let mut problem = DiscoveryError::NoAnswer("no server".to_owned());
    for (answer, node) in join_all(answers).await {
        match answer.map(|values| view(&values, &node, settings)) {
            Ok(Ok((rank, primaries))) => {
                if best.as_ref().is_none_or(|(best, _)| *best < rank) {
                    best = Some((rank, primaries));
                }
            }
            Ok(Err(wrong)) => problem = wrong,
            Err(error) if matches!(problem, DiscoveryError::NoAnswer(_)) => {
                problem = DiscoveryError::NoAnswer(format!("{node}: {}", text(&error)));
            }
            Err(_) => {}
        }
    }
    best.map(|(_, primaries)| primaries).ok_or(problem)
}

/// What a server of a cluster says of it, and how far it is to be believed: whether it can reach most of the others, and its epoch.
fn view(values: &[Value], node: &Node, settings: &RedisSettings) -> Result<((bool, u64), Primaries), DiscoveryError> {
    let (Some(address), [info, slots, shards]) = (node.address(), values) else {
        return Err(DiscoveryError::NoAnswer(node.to_string()));
    };
    for value in [info, slots] {
        if let Value::ServerError(error) = value {
            let problem = text(&RedisError::from(error.clone()));
            return Err(DiscoveryError::NotCluster(node.clone(), problem));
        }
    }
    let Some(ranges) = slots::ranges(slots, address) else {
        let problem = "its reply to CLUSTER SLOTS is not a list".to_owned();
        return Err(DiscoveryError::NotCluster(node.clone(), problem));
    };
    let info: String = redis::from_redis_value(info.clone()).unwrap_or_default();
    let member = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let epoch = member("cluster_current_epoch").and_then(|epoch| epoch.parse().ok());
    let others = slots::primaries_without_slots(shards, address, settings.has_tls());
    Ok((
        (member("cluster_state") == Some("ok"), epoch.unwrap_or(0)),
        Primaries::cluster(ranges, others),
    ))
}

/// Reads a reply of a sentinel: host and port, or nil for a service that it does not know.
fn named_primary(reply: &Value) -> Option<Node> {
    let (host, port): (String, u16) = redis::from_redis_value(reply.clone()).ok()?;
    Some(Node::At(NodeAddress::new(host, port)))
}

/// The text of an error, without a password that the server may repeat.
fn text(problem: &RedisError) -> String {
    without_arguments(&problem.to_string()).to_owned()
}

impl Asked {
    fn new(peer: Peer) -> Self {
        Self { peer, connection: None }
    }

    async fn open(&self, settings: &RedisSettings) -> RedisResult<Connection> {
        match (&self.peer, &settings.servers) {
            (Peer::Sentinel(index), Servers::Sentinel(sentinels)) => settings.open_sentinel(sentinels, *index).await,
            (Peer::Sentinel(_), _) => Err(io::Error::other("no sentinel").into()),
            (Peer::Server(node), _) => settings.open_to_ask(node).await,
        }
    }

    /// Asks on the open connection, and on a new one if that one turns out to be closed. Each has the time limit of the store.
    async fn ask(&mut self, settings: &RedisSettings, question: &Pipeline) -> RedisResult<Vec<Value>> {
        if self.connection.is_some()
            && let Ok(values) = self.try_ask(settings, question).await
        {
            return Ok(values);
        }
        self.try_ask(settings, question).await
    }

    async fn try_ask(&mut self, settings: &RedisSettings, question: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.take();
        let asked = async {
            let open = match &mut connection {
                Some(open) => open,
                closed => closed.insert(self.open(settings).await?),
            };
            question.clone().ignore_errors().query_async::<Value>(open).await
        };
        match timeout(settings.timeout, asked).await {
            Ok(Ok(Value::Array(values))) => {
                self.connection = connection;
                Ok(values)
            }
            Ok(Ok(_)) => Err(io::Error::other("a reply that is not a list").into()),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::store::Digests;
    use crate::store::redis::{Invalidation, Sentinels};

    /// Answers as a sentinel that names the server on this port, and as that server.
    async fn answer(mut client: TcpStream, port: u16) {
        let mut buffer = [0; 4096];
        let mut received = String::new();
        while let Ok(length @ 1..) = client.read(&mut buffer).await {
            received.push_str(&String::from_utf8_lossy(&buffer[..length]));
            let address = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.to_string().len());
            let mut replies = String::new();
            for line in received.lines() {
                replies.push_str(match line {
                    "SENTINEL" => &address,
                    "ROLE" => "*1\r\n$6\r\nmaster\r\n",
                    "PING" => "+PONG\r\n",
                    "SETNAME" => "+OK\r\n",
                    _ => "",
                });
            }
            received.clear();
            if client.write_all(replies.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn sentinels_are_asked_on_connections_that_are_kept() {
        let accepted = Arc::new(AtomicUsize::new(0));
        let primary = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = primary.local_addr().expect("an address").port();
        let mut endpoints = Vec::new();
        let mut listeners = vec![primary];
        for _ in 0..3 {
            let sentinel = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("redis://{}", sentinel.local_addr().expect("an address"));
            endpoints.push(Endpoint::parse(&url).expect("a URL"));
            listeners.push(sentinel);
        }
        for listener in listeners {
            let accepted = Arc::clone(&accepted);
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(answer(client, port));
                }
            });
        }
        let mut discovery = Discovery::new(RedisSettings {
            servers: Servers::Sentinel(Sentinels {
                endpoints,
                service: "main".to_owned(),
                username: None,
                password: None,
                tls: None,
            }),
            username: None,
            password: None,
            writer: None,
            tls: None,
            prefix: "authgate:".to_owned(),
            timeout: Duration::from_secs(5),
            invalidation: Invalidation::Off,
            digests: Digests::SHA256,
            seal: None,
        });
        let rounds = 30;
        for _ in 0..rounds {
            let primaries = discovery.primaries(None).await.expect("a primary");
            assert_eq!(primaries.only(), Some(&Node::At(NodeAddress::new("127.0.0.1", port))));
        }
        let accepted = accepted.load(Ordering::Relaxed);
        assert!((4..rounds / 2).contains(&accepted), "{accepted} connections");
    }
}

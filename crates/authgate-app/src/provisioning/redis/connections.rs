//! The connections of the command line: one to each server that has records, opened when it is first needed.
//!
//! In a cluster a command goes to the server that has its key, the first argument. MOVED and ASK are followed; commands of a transaction
//! are not, because their connection watches a key.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authgate_auth::store::redis::{
    BlockingConnection, Discovery, MAX_REDIRECTS, Node, Primaries, Redirect, RedisSettings, Servers, answer,
};
use redis::{Arg, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value, cmd, pipe};

use crate::provisioning::ProvisioningError;

/// For interactive use, so it is longer than for a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer may be closed.
const IDLE: Duration = Duration::from_millis(500);
/// How long a command waits while a slot of a cluster is being moved, or has no primary.
const SETTLING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The connections to a store.
pub(super) struct Connections {
    store: Arc<str>,
    settings: RedisSettings,
    /// The same servers, with the login of the role that writes. The primaries are found with the other one.
    writer: RedisSettings,
    primaries: Primaries,
    open: HashMap<Node, Open>,
    /// A connection watches keys, and must not be replaced.
    is_watching: bool,
    /// The server that was last asked.
    last_asked: Option<Node>,
}

struct Open {
    connection: BlockingConnection,
    /// The time of the last reply.
    answered: Instant,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("store", &self.store)
            .field("settings", &self.settings)
            .field("primaries", &self.primaries)
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// Finds the primaries, and connects to the one of `key`.
    pub(super) fn open(store: Arc<str>, settings: RedisSettings, key: &str) -> Result<Self, ProvisioningError> {
        let primaries = find(&store, &settings)?;
        let mut connections = Self {
            store,
            writer: settings.for_writing(),
            settings,
            primaries,
            open: HashMap::new(),
            is_watching: false,
            last_asked: None,
        };
        let node = connections.node_of(key.as_bytes())?;
        let connected = connections.to(&node).map(|_| ());
        connected.map_err(|problem| connections.failed(&problem))?;
        Ok(connections)
    }

    /// Each server that has records.
    pub(super) fn nodes(&self) -> Vec<Node> {
        self.primaries.nodes().to_vec()
    }

    /// The server that has got the last command.
    pub(super) fn last_asked(&self) -> Option<Node> {
        self.last_asked.clone()
    }

    /// Whether keys may be on different servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.settings.servers, Servers::Cluster(_))
    }

    pub(super) fn node_of(&self, key: &[u8]) -> Result<Node, ProvisioningError> {
        self.primaries.of(key).cloned().ok_or_else(|| {
            let problem = "no server of the cluster has the slot of this key at the moment".to_owned();
            self.error(problem)
        })
    }

    /// The connection to a server. One that was closed while it was idle is replaced, unless it watches a key.
    fn to(&mut self, node: &Node) -> RedisResult<&mut BlockingConnection> {
        if let Some(open) = self.open.get_mut(node)
            && !self.is_watching
            && open.answered.elapsed() >= IDLE
            && cmd("PING").query::<Value>(&mut open.connection).is_err()
        {
            self.open.remove(node);
        }
        if !self.open.contains_key(node) {
            let connection = connect(&self.writer, node)?;
            let answered = Instant::now();
            self.open.insert(node.clone(), Open { connection, answered });
        }
        let open = self
            .open
            .get_mut(node)
            .ok_or_else(|| RedisError::from(std::io::Error::other("no connection")))?;
        open.answered = Instant::now();
        self.last_asked = Some(node.clone());
        Ok(&mut open.connection)
    }

    /// Sends a command to one server.
    pub(super) fn ask_at<T: FromRedisValue>(&mut self, node: &Node, command: &Cmd) -> Result<T, ProvisioningError> {
        let answer = self.to(node).and_then(|connection| command.query(connection));
        answer.map_err(|problem| self.failed(&problem))
    }

    /// Sends a command to the server that has its key.
    pub(super) fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ProvisioningError> {
        let mut answers = self.ask_each(vec![command.clone()])?;
        let answer = answers.pop().unwrap_or(Value::Nil);
        redis::from_redis_value(answer).map_err(|problem| self.failed(&problem.into()))
    }

    /// Sends commands to the servers that have their keys, in one write to each. Returns an answer for each.
    pub(super) fn ask_each(&mut self, commands: Vec<Cmd>) -> Result<Vec<Value>, ProvisioningError> {
        let mut answers = vec![Value::Nil; commands.len()];
        let mut pending: Vec<(usize, Cmd)> = commands.into_iter().enumerate().collect();
        let began = Instant::now();
        loop {
            let mut batches: HashMap<Node, Vec<(usize, Cmd)>> = HashMap::new();
            for (index, command) in std::mem::take(&mut pending) {
                let node = self.node_of(key_of(&command))?;
                batches.entry(node).or_default().push((index, command));
            }
            for (node, batch) in batches {
                let mut pipeline = Pipeline::with_capacity(batch.len());
                pipeline.ignore_errors();
                for (_, command) in &batch {
                    pipeline.add_command(command.clone());
                }
                let answered = self.to(&node).and_then(|connection| values(&pipeline, connection));
                let answered = answered.map_err(|problem| self.failed(&problem))?;
                for ((index, command), value) in batch.into_iter().zip(answered) {
                    let Value::ServerError(error) = value else {
                        answers[index] = value;
                        continue;
                    };
                    let problem = RedisError::from(error);
                    match Redirect::of_error(&problem, &node) {
                        Some(Redirect::Ask(other)) => answers[index] = self.ask_for_once(other, &command)?,
                        Some(Redirect::Moved(_)) => pending.push((index, command)),
                        None if is_unsettled(&problem) => pending.push((index, command)),
                        None => return Err(self.failed(&problem)),
                    }
                }
            }
            if pending.is_empty() {
                return Ok(answers);
            }
            self.settle(began)?;
        }
    }

    /// Sends a command to the server that a slot is being moved to.
    fn ask_for_once(&mut self, mut node: Node, command: &Cmd) -> Result<Value, ProvisioningError> {
        let mut problem = None;
        for _ in 0..MAX_REDIRECTS {
            let mut asking = pipe();
            asking
                .ignore_errors()
                .cmd("ASKING")
                .ignore()
                .add_command(command.clone());
            let answered = self.to(&node).and_then(|connection| values(&asking, connection));
            match answered.map_err(|problem| self.failed(&problem))?.pop() {
                Some(Value::ServerError(error)) => {
                    let error = RedisError::from(error);
                    match Redirect::of_error(&error, &node) {
                        Some(redirect) => node = redirect.node().clone(),
                        None => return Err(self.failed(&error)),
                    }
                    problem = Some(error);
                }
                value => return Ok(value.unwrap_or(Value::Nil)),
            }
        }
        let problem = problem.unwrap_or_else(|| std::io::Error::other("too many redirects").into());
        Err(self.failed(&problem))
    }

    /// Waits a moment while the cluster changes, and finds its primaries again.
    fn settle(&mut self, began: Instant) -> Result<(), ProvisioningError> {
        if began.elapsed() > SETTLING {
            let seconds = SETTLING.as_secs();
            return Err(self.error(format!(
                "the slot of a key has had no server for {seconds} s: the cluster is down or is moving it"
            )));
        }
        std::thread::sleep(PAUSE);
        self.primaries = find(&self.store, &self.settings)?;
        Ok(())
    }

    /// Sends a pipeline to one server.
    pub(super) fn ask_all_at<T: FromRedisValue>(
        &mut self,
        node: &Node,
        pipeline: &Pipeline,
    ) -> Result<T, ProvisioningError> {
        let answer = self.to(node).and_then(|connection| pipeline.query(connection));
        answer.map_err(|problem| self.failed(&problem))
    }

    /// The next commands watch keys. Returns the server; `None` in a cluster, where [`Connections::replace`] watches each key.
    pub(super) fn watch(&mut self) -> Result<Option<Node>, ProvisioningError> {
        if self.is_cluster() {
            return Ok(None);
        }
        let node = self.node_of(b"")?;
        self.to(&node).map(|_| ()).map_err(|problem| self.failed(&problem))?;
        self.is_watching = true;
        Ok(Some(node))
    }

    /// Watches no key any more.
    pub(super) fn unwatch(&mut self) -> Result<(), ProvisioningError> {
        if !self.is_watching {
            return Ok(());
        }
        let node = self.node_of(b"")?;
        let answer = self.ask_at(&node, &cmd("UNWATCH"));
        self.is_watching = false;
        answer
    }

    /// Executes the commands together on the only server, unless a watched key has changed. Returns whether they were executed.
    pub(super) fn execute(&mut self, commands: impl Iterator<Item = Cmd>) -> Result<bool, ProvisioningError> {
        let mut transaction = pipe();
        transaction.atomic();
        for command in commands {
            transaction.add_command(command);
        }
        let node = self.node_of(b"")?;
        let answer = self.ask_all_at::<Option<Vec<Value>>>(&node, &transaction);
        self.is_watching = false;
        answer.map(|answer| answer.is_some())
    }

    /// Stores a value under a key of a cluster, or deletes the key, if it still has the value `seen`. Returns whether it had.
    pub(super) fn replace(&mut self, key: &str, seen: Option<&[u8]>, write: &Cmd) -> Result<bool, ProvisioningError> {
        let began = Instant::now();
        loop {
            let node = self.node_of(key.as_bytes())?;
            let replaced = self.to(&node).and_then(|connection| {
                let mut read = pipe();
                read.cmd("WATCH").arg(key).ignore().cmd("GET").arg(key);
                let (stored,): (Option<Vec<u8>>,) = read.query(connection)?;
                if stored.as_deref() != seen {
                    cmd("UNWATCH").query::<()>(connection)?;
                    return Ok(false);
                }
                let mut transaction = pipe();
                transaction.atomic().add_command(write.clone());
                Ok(transaction.query::<Option<Vec<Value>>>(connection)?.is_some())
            });
            match replaced {
                Ok(replaced) => return Ok(replaced),
                Err(problem) if is_unsettled(&problem) || Redirect::of_error(&problem, &node).is_some() => {
                    // The key may be watched there.
                    self.open.remove(&node);
                    self.settle(began)?;
                }
                Err(problem) => return Err(self.failed(&problem)),
            }
        }
    }

    pub(super) fn failed(&self, problem: &RedisError) -> ProvisioningError {
        self.error(if problem.is_timeout() {
            format!("no answer within {} s", TIMEOUT.as_secs())
        } else {
            answer(problem).map_or_else(|| problem.to_string(), |reply| reply.to_string())
        })
    }

    fn error(&self, problem: String) -> ProvisioningError {
        ProvisioningError::Redis {
            store: Arc::clone(&self.store),
            endpoint: endpoints(&self.settings),
            problem,
        }
    }
}

/// Whether a server of a cluster answers so only for a moment.
fn is_unsettled(problem: &RedisError) -> bool {
    let is_of_a_moment = |code: &str| matches!(code, "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN");
    problem.code().is_some_and(is_of_a_moment)
        || problem
            .clone()
            .into_server_errors()
            .is_some_and(|errors| errors.iter().any(|(_, error)| is_of_a_moment(error.code())))
}

/// The key of a command: its first argument.
fn key_of(command: &Cmd) -> &[u8] {
    let Some(Arg::Simple(key)) = command.args_iter().nth(1) else {
        return b"";
    };
    key
}

/// An answer for each command that is not ignored.
fn values(pipeline: &Pipeline, connection: &mut BlockingConnection) -> RedisResult<Vec<Value>> {
    match pipeline.query(connection)? {
        Value::Array(values) => Ok(values),
        value => Ok(vec![value]),
    }
}

fn connect(settings: &RedisSettings, node: &Node) -> RedisResult<BlockingConnection> {
    settings.connect_blocking(node, TIMEOUT)
}

/// Finds the primaries. This is done as the gateway does it, on a runtime of its own.
fn find(store: &Arc<str>, settings: &RedisSettings) -> Result<Primaries, ProvisioningError> {
    let mut patient = settings.clone();
    patient.timeout = patient.timeout.max(TIMEOUT / 5);
    let find = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|problem| problem.to_string())?;
        let found = runtime.block_on(async { Discovery::new(patient).primaries(None).await });
        found.map_err(|problem| problem.to_string())
    };
    // The caller may be on a runtime.
    let found = std::thread::spawn(find)
        .join()
        .unwrap_or_else(|_| Err("the search has failed".to_owned()));
    found.map_err(|problem| ProvisioningError::Redis {
        store: Arc::clone(store),
        endpoint: endpoints(settings),
        problem,
    })
}

/// The addresses in the configuration.
pub(super) fn endpoints(settings: &RedisSettings) -> String {
    let endpoints = settings.servers.endpoints().iter();
    endpoints
        .map(|endpoint| format!("{endpoint:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

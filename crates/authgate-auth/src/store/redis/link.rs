//! A worker's connection to one server, opened and reopened by a separate task.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::breaker::{Breaker, Probe};
use super::failure::Failure;
use super::servers::Node;
use super::settings::Role;
use super::shared::SharedRedis;
use super::transport::Connection;
use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::store::StoreError;

/// A connection without a reply for this long may be dead unnoticed: firewalls drop the state of idle connections.
const SILENCE: Duration = Duration::from_secs(1);
/// After this many connections in a row that have answered no look-up in time, the server counts as silent although it answers PING.
const SILENT_CONNECTIONS: u32 = 3;

pub(super) struct Link {
    shared: Arc<SharedRedis>,
    node: Node,
    role: Role,
    breaker: Arc<Breaker>,
    state: watch::Sender<State>,
    connecting: Cell<bool>,
    last_answer: Cell<Instant>,
    /// How many connections in a row have answered no look-up in time.
    silent_connections: Cell<u32>,
    /// The number of the latest connection.
    number: Cell<u64>,
}

/// A connection, and its number within this link.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: Connection,
    number: u64,
}

#[derive(Clone)]
enum State {
    /// No attempt has finished since the start or since the connection was lost. The next lookup starts one, or one is under way.
    New,
    Up(Connected),
    /// The last attempt has failed. Once the breaker is closed, the next lookup starts another one.
    Failed(Failure),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("node", &self.node)
            .field("connecting", &self.connecting)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(shared: Arc<SharedRedis>, node: Node, role: Role) -> Rc<Self> {
        Rc::new(Self {
            breaker: shared.breaker(&node, role),
            shared,
            node,
            role,
            state: watch::channel(State::New).0,
            connecting: Cell::new(false),
            last_answer: Cell::new(Instant::now()),
            silent_connections: Cell::new(0),
            number: Cell::new(0),
        })
    }

    /// A lookup was answered.
    pub(super) fn answered(&self) {
        self.last_answer.set(Instant::now());
        self.silent_connections.set(0);
    }

    /// Whether the last reply is so old that the connection may be dead.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_answer.get()) > SILENCE
    }

    /// Whether lookups fail at once, because the breaker is open.
    pub(super) fn is_down(&self) -> bool {
        !matches!(&*self.state.borrow(), State::Up(_)) && self.breaker.failure().is_some()
    }

    /// Returns the connection. Waits for an attempt that is under way; fails at once while the breaker is open.
    pub(super) async fn connection(self: &Rc<Self>) -> Result<Connected, StoreError> {
        if let State::Up(connected) = &*self.state.borrow() {
            return Ok(connected.clone());
        }
        if let Some(failure) = self.breaker.failure() {
            return Err(failure.error(&self.shared.name));
        }
        self.connect_in_background();
        let mut states = self.state.subscribe();
        let settled = states
            .wait_for(|state| !matches!(state, State::New))
            .await
            .map(|state| state.clone());
        match settled {
            Ok(State::Up(connected)) => Ok(connected),
            Ok(State::Failed(failure)) => Err(failure.error(&self.shared.name)),
            Ok(State::New) | Err(_) => Err(Failure::Unreachable.error(&self.shared.name)),
        }
    }

    /// Drops a connection and starts to open another one, unless it was replaced already.
    pub(super) fn lost(self: &Rc<Self>, connected: &Connected) {
        let is_current = matches!(&*self.state.borrow(), State::Up(current) if current.number == connected.number);
        if is_current {
            self.replace();
        }
    }

    /// A lookup that began at this time has got no answer in time.
    pub(super) fn timed_out(self: &Rc<Self>, began: Instant) {
        let answers_others = self.last_answer.get() > began;
        let had_no_time = began.elapsed() < self.shared.settings.timeout / 2;
        if answers_others || had_no_time || !matches!(&*self.state.borrow(), State::Up(_)) {
            return;
        }
        self.silent_connections.set(self.silent_connections.get() + 1);
        self.replace();
    }

    /// Drops the current connection, if there is one, and starts to open another one. Lookups that wait for its answer keep it.
    pub(super) fn replace(self: &Rc<Self>) {
        let is_up = matches!(&*self.state.borrow(), State::Up(_));
        if is_up {
            self.shared.topology.look_again();
            self.connect_in_background();
        }
    }

    fn opened(&self, connection: Connection) {
        let number = self.number.get() + 1;
        self.number.set(number);
        self.last_answer.set(Instant::now());
        self.connecting.set(false);
        self.state.send_replace(State::Up(Connected { connection, number }));
    }

    /// Connects in a separate task, unless one does. If the attempt fails, the task of the worker that opens the breaker retries until it
    /// succeeds; those of other workers end.
    fn connect_in_background(self: &Rc<Self>) {
        if self.connecting.replace(true) {
            return;
        }
        self.state.send_replace(State::New);
        let (link, shared, node) = (Rc::downgrade(self), Arc::clone(&self.shared), self.node.clone());
        let role = self.role;
        let is_silent = self.silent_connections.get() >= SILENT_CONNECTIONS;
        tokio::task::spawn_local(async move {
            let (mut failure, mut pause) = match is_silent {
                true => (Some(Failure::Timeout), LONGEST_PAUSE),
                false => (None, FIRST_PAUSE),
            };
            let mut probe = None;
            loop {
                if let Some(failure) = failure {
                    let Some(link) = link.upgrade() else { return };
                    match &probe {
                        Some(probe) => Probe::failed(probe, failure.clone()),
                        None => probe = link.breaker.open(failure.clone()),
                    }
                    link.state.send_replace(State::Failed(failure));
                    shared.topology.look_again();
                    if probe.is_none() {
                        return link.connecting.set(false);
                    }
                    drop(link);
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                let settings = shared.settings_of(role);
                let attempt = tokio::time::timeout(settings.timeout, settings.connect(&node)).await;
                let Some(link) = link.upgrade() else { return };
                failure = match attempt {
                    Ok(Ok(connection)) => return link.opened(connection),
                    Ok(Err(problem)) => Some(Failure::of(&problem)),
                    Err(_) => Some(Failure::Timeout),
                };
            }
        });
    }
}

//! A worker's connection to one server, opened and reopened by a separate task.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::sleep;

use super::connection::Node;
use super::shared::{SharedRedis, answer};
use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::store::StoreError;

/// A connection without a reply for this long may be dead unnoticed: firewalls drop the state of idle connections.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) struct Link {
    shared: Arc<SharedRedis>,
    node: Node,
    state: watch::Sender<State>,
    connecting: Cell<bool>,
    last_answer: Cell<Instant>,
    /// The number of the latest connection.
    number: Cell<u64>,
}

/// A connection, and its number within this link.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    number: u64,
}

#[derive(Clone)]
enum State {
    /// No attempt has finished since the start or since the connection was lost. The next lookup starts one, or one is under way.
    New,
    Up(Connected),
    /// The last attempt failed; holds the answer of the server, if there was one.
    Down(Option<Arc<str>>),
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
    pub(super) fn new(shared: Arc<SharedRedis>, node: Node) -> Rc<Self> {
        Rc::new(Self {
            shared,
            node,
            state: watch::channel(State::New).0,
            connecting: Cell::new(false),
            last_answer: Cell::new(Instant::now()),
            number: Cell::new(0),
        })
    }

    /// A lookup was answered.
    pub(super) fn answered(&self) {
        self.last_answer.set(Instant::now());
    }

    /// Whether the last reply is so old that the connection may be dead.
    pub(super) fn is_silent(&self) -> bool {
        self.last_answer.get().elapsed() > SILENCE
    }

    /// Why there is no connection. A server that answers with an error such as WRONGPASS counts as reached.
    fn failed(&self, answer: Option<Arc<str>>) -> StoreError {
        let name = Arc::clone(&self.shared.name);
        match answer {
            Some(answer) => StoreError::Refused(name, answer.to_string()),
            None => StoreError::Unreachable(name),
        }
    }

    /// Returns the connection. Waits for the first attempt after the start or after a lost connection; fails at once while the last attempt
    /// has failed.
    pub(super) async fn connection(self: &Rc<Self>) -> Result<Connected, StoreError> {
        let state = self.state.borrow().clone();
        match state {
            State::Up(connected) => return Ok(connected),
            State::Down(answer) => return Err(self.failed(answer)),
            State::New => self.connect_in_background(),
        }
        let mut states = self.state.subscribe();
        let settled = states
            .wait_for(|state| !matches!(state, State::New))
            .await
            .map(|state| state.clone());
        match settled {
            Ok(State::Up(connected)) => Ok(connected),
            Ok(State::Down(answer)) => Err(self.failed(answer)),
            Ok(State::New) | Err(_) => Err(self.failed(None)),
        }
    }

    /// Drops a connection and starts to open another one, unless it was replaced already.
    pub(super) fn lost(self: &Rc<Self>, connected: &Connected) {
        if matches!(&*self.state.borrow(), State::Up(current) if current.number == connected.number) {
            self.state.send_replace(State::New);
            self.connect_in_background();
        }
    }

    /// Connects in a separate task, and retries until it succeeds.
    fn connect_in_background(self: &Rc<Self>) {
        if self.connecting.replace(true) {
            return;
        }
        let (link, shared, node) = (Rc::downgrade(self), Arc::clone(&self.shared), self.node.clone());
        tokio::task::spawn_local(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let attempt = tokio::time::timeout(shared.settings.timeout, shared.settings.connect(&node)).await;
                let Some(link) = link.upgrade() else { return };
                let answer = match attempt {
                    Ok(Ok(connection)) => {
                        let number = link.number.get() + 1;
                        link.number.set(number);
                        link.answered();
                        link.connecting.set(false);
                        link.state.send_replace(State::Up(Connected { connection, number }));
                        return;
                    }
                    Ok(Err(problem)) => answer(&problem).map(Arc::from),
                    Err(Elapsed { .. }) => None,
                };
                link.state.send_replace(State::Down(answer));
                drop(link);
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        });
    }
}

//! A worker's connection, which is made and made again beside its requests.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::sleep;

use super::shared::Shared;
use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::auth::store::StoreError;

/// A connection that has answered nothing for this long while it was asked is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Link {
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    connecting: Cell<bool>,
    last_answer: Cell<Instant>,
}

#[derive(Clone)]
enum State {
    /// Nobody has asked yet, or the first attempt is still under way.
    New,
    Up(MultiplexedConnection),
    /// The last attempt failed.
    Down,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("connecting", &self.connecting)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            state: watch::channel(State::New).0,
            connecting: Cell::new(false),
            last_answer: Cell::new(Instant::now()),
        })
    }

    /// Something was answered.
    pub(super) fn answered(&self) {
        self.last_answer.set(Instant::now());
    }

    /// Something was not answered in time: a connection that has been silent for long is given up.
    pub(super) fn silent(self: &Rc<Self>) {
        if self.last_answer.get().elapsed() > GIVE_UP_AFTER {
            self.lost();
        }
    }

    fn unreachable(&self) -> StoreError {
        StoreError::Unreachable(Arc::clone(&self.shared.name))
    }

    /// The connection; it waits where the first attempt is under way, and only there.
    pub(super) async fn connection(self: &Rc<Self>) -> Result<MultiplexedConnection, StoreError> {
        let state = self.state.borrow().clone();
        match state {
            State::Up(connection) => return Ok(connection),
            State::Down => return Err(self.unreachable()),
            State::New => self.connect_beside(),
        }
        let mut states = self.state.subscribe();
        let settled = states
            .wait_for(|state| !matches!(state, State::New))
            .await
            .map(|state| state.clone());
        match settled {
            Ok(State::Up(connection)) => Ok(connection),
            Ok(State::New | State::Down) | Err(_) => Err(self.unreachable()),
        }
    }

    /// Gives the connection up and has another one made.
    pub(super) fn lost(self: &Rc<Self>) {
        if !self.connecting.get() {
            self.state.send_replace(State::Down);
            self.connect_beside();
        }
    }

    /// Connects in a task of its own, again and again until it succeeds.
    fn connect_beside(self: &Rc<Self>) {
        if self.connecting.replace(true) {
            return;
        }
        let (link, shared) = (Rc::downgrade(self), Arc::clone(&self.shared));
        tokio::task::spawn_local(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let attempt = tokio::time::timeout(shared.settings.timeout, shared.settings.connect()).await;
                let Some(link) = link.upgrade() else { return };
                if let Ok(Ok(connection)) = attempt {
                    link.answered();
                    link.connecting.set(false);
                    link.state.send_replace(State::Up(connection));
                    return;
                }
                link.state.send_replace(State::Down);
                drop(link);
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        });
    }
}

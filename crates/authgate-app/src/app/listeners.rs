//! [`Listeners`]: the open addresses of the process. A reload adds some and removes others, and keeps those that stay.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use authgate_http::server::address::Address;
use authgate_http::server::inherited::{InheritedError, InheritedSockets};
use authgate_http::server::listen::{self, OpenAddress};
use authgate_http::server::listener_handle::ListenerHandle;
use authgate_http::server::socket::{BoundListener, Listener};
use authgate_http::server::socket_file::{SocketAccess, SocketFile};
use authgate_http::server::stage::Stage;
use authgate_http::server::worker::WorkerPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::error::AppError;
use super::process::Process;
use crate::config::Config;
use crate::control::admin::{self, Admin};
use crate::control::redirect::Redirect;
use crate::control::status::{ListenerPurpose, ListenerStatus};

/// An address in a configuration. Port 0 stands for any free port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) purpose: ListenerPurpose,
    pub(super) address: Address,
}

impl Configured {
    /// All addresses of a configuration.
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let clients = config.server.listen.iter().cloned();
        let admin = config.admin.listen.iter().cloned();
        let probes = config.probes.iter().map(|address| Address::Tcp(*address));
        let redirects = config.redirects.iter().map(|address| Address::Tcp(*address));
        let with = |purpose| move |address| Self { purpose, address };
        clients
            .map(with(ListenerPurpose::Clients))
            .chain(admin.map(with(ListenerPurpose::Admin)))
            .chain(probes.map(with(ListenerPurpose::Probes)))
            .chain(redirects.map(with(ListenerPurpose::Redirects)))
            .collect()
    }
}

/// An address that is open, and not served yet.
#[derive(Debug)]
pub(super) struct Bound {
    configured: Configured,
    pub(super) open: OpenAddress,
}

impl Bound {
    /// Opens an address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(super) fn open(configured: Configured, workers: usize, inherited: &InheritedSockets) -> Result<Self, AppError> {
        let (access, listeners) = match configured.purpose {
            ListenerPurpose::Clients => (SocketAccess::OwnerAndGroup, workers),
            ListenerPurpose::Redirects | ListenerPurpose::Probes => (SocketAccess::OwnerAndGroup, 1),
            ListenerPurpose::Admin => (SocketAccess::Owner, 1),
        };
        let open =
            listen::open(&configured.address, listeners, access, inherited).map_err(|source| AppError::Bind {
                address: configured.address.clone(),
                key: configured.purpose.key(),
                source,
            })?;
        Ok(Self { configured, open })
    }

    pub(super) fn purpose(&self) -> ListenerPurpose {
        self.configured.purpose
    }

    /// Registers its listeners with the control runtime, if they are served there. Call it on that runtime.
    ///
    /// # Errors
    /// The runtime cannot watch a listener.
    pub(super) fn register(self) -> Result<Registered, AppError> {
        let Self { configured, open } = self;
        let listeners = match configured.purpose {
            ListenerPurpose::Clients => OpenListeners::Workers(open.listeners),
            ListenerPurpose::Admin | ListenerPurpose::Probes | ListenerPurpose::Redirects => {
                let listeners = open.listeners.into_iter().map(Listener::new).collect::<io::Result<_>>();
                OpenListeners::Control(listeners.map_err(|source| AppError::Bind {
                    address: open.address.clone(),
                    key: configured.purpose.key(),
                    source,
                })?)
            }
        };
        Ok(Registered {
            configured,
            address: open.address,
            file: open.file,
            is_inherited: open.is_inherited,
            listeners,
        })
    }
}

/// An address that can be served without a further error. Dropping it closes it.
pub(super) struct Registered {
    configured: Configured,
    /// With the real port.
    address: Address,
    file: Option<SocketFile>,
    is_inherited: bool,
    listeners: OpenListeners,
}

/// The listeners of an address, by the runtime that accepts from them.
enum OpenListeners {
    Workers(Vec<BoundListener>),
    Control(Vec<Listener>),
}

/// Checks that a configuration has the addresses of all inherited sockets.
///
/// # Errors
/// It lacks one, or has one for two purposes.
pub(super) fn check(wanted: &[Configured], inherited: &InheritedSockets) -> Result<(), InheritedError> {
    let addresses = wanted.iter().map(|one| (one.purpose.key(), one.address.clone()));
    inherited.check(&addresses.collect::<Vec<_>>())
}

/// The open addresses.
pub(super) struct Listeners {
    process: Arc<Process>,
    workers: usize,
    pool: Arc<WorkerPool>,
    admin: Arc<Admin>,
    redirect: Arc<Redirect>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of the configuration.
    served: Vec<Served>,
    /// A shutdown has closed the addresses. No further one is served.
    is_closed: bool,
    /// The tasks that a shutdown waits for: those of redirects, and of control listeners on inherited sockets. They end after their last
    /// connection.
    tasks: JoinSet<()>,
}

/// An address that is served.
struct Served {
    configured: Configured,
    /// With the real port.
    address: Address,
    /// Removed when it is dropped.
    file: Option<SocketFile>,
    /// Another process keeps the address open.
    is_inherited: bool,
    stop: Stop,
}

/// Ends a listener.
enum Stop {
    Clients(ListenerHandle),
    Control(watch::Sender<Stage>),
}

impl Stop {
    fn close(&self) {
        match self {
            Self::Clients(handle) => handle.close(),
            Self::Control(stage) => {
                stage.send_replace(Stage::Draining);
            }
        }
    }
}

/// Addresses that a reload opens. Without [`Listeners::replace`], they close again.
pub(super) struct Prepared {
    wanted: Vec<Configured>,
    opened: Vec<Registered>,
}

impl Listeners {
    /// Without addresses.
    pub(super) fn new(
        process: Arc<Process>,
        workers: usize,
        pool: Arc<WorkerPool>,
        admin: Arc<Admin>,
        redirect: Arc<Redirect>,
    ) -> Self {
        Self {
            process,
            workers,
            pool,
            admin,
            redirect,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves an address. Returns the listeners of the workers, for an address of clients. After [`Self::close_all`], the address is closed.
    pub(super) fn serve(&self, registered: Registered) -> Option<(Vec<BoundListener>, ListenerHandle)> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        let Registered {
            configured,
            address,
            file,
            is_inherited,
            listeners,
        } = registered;
        let (stop, for_workers) = match listeners {
            OpenListeners::Workers(listeners) => {
                let handle = ListenerHandle::default();
                (Stop::Clients(handle.clone()), Some((listeners, handle)))
            }
            OpenListeners::Control(listeners) => {
                let purpose = configured.purpose;
                let (stop, stage) = watch::channel(Stage::Serving);
                match purpose {
                    ListenerPurpose::Probes => info!(listen = %address, "serving probes"),
                    ListenerPurpose::Redirects => info!(listen = %address, "redirecting clients to https"),
                    ListenerPurpose::Admin | ListenerPurpose::Clients => {}
                }
                for listener in listeners {
                    let task = self.serve_control(purpose, listener, stage.clone());
                    if ends_with_shutdown(purpose, is_inherited) {
                        state.tasks.spawn(task);
                    } else {
                        tokio::spawn(task);
                    }
                }
                (Stop::Control(stop), None)
            }
        };
        state.served.push(Served {
            configured,
            address,
            file,
            is_inherited,
            stop,
        });
        for_workers
    }

    fn serve_control(
        &self,
        purpose: ListenerPurpose,
        listener: Listener,
        stage: watch::Receiver<Stage>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match purpose {
            ListenerPurpose::Admin => Box::pin(admin::serve(listener, stage, Arc::clone(&self.admin))),
            ListenerPurpose::Probes => Box::pin(admin::serve_probes(listener, stage, Arc::clone(&self.admin))),
            ListenerPurpose::Redirects | ListenerPurpose::Clients => {
                Box::pin(Arc::clone(&self.redirect).serve(listener, stage))
            }
        }
    }

    /// Opens the addresses that are not open yet. Call it on the control runtime.
    ///
    /// # Errors
    /// An address cannot be opened, that of an inherited socket is missing, or the process stops. Then all that were opened close again.
    pub(super) fn prepare(&self, wanted: Vec<Configured>) -> Result<Prepared, AppError> {
        let inherited = &self.process.service_manager.sockets;
        check(&wanted, inherited)?;
        let mut open: Vec<Configured> = {
            let state = self.state();
            if state.is_closed {
                return Err(AppError::Stopping);
            }
            state.served.iter().map(|served| served.configured.clone()).collect()
        };
        let new = wanted.iter().filter(|wanted| {
            let at = open.iter().position(|open| open == *wanted);
            at.map(|at| open.swap_remove(at)).is_none()
        });
        let opened = new.map(|new| Bound::open(new.clone(), self.workers, inherited)?.register());
        let opened = opened.collect::<Result<_, _>>()?;
        Ok(Prepared { wanted, opened })
    }

    /// Serves the new addresses, and then closes those that are not wanted any more. Their connections drain.
    pub(super) async fn replace(&self, prepared: Prepared) {
        let Prepared { wanted, opened } = prepared;
        for registered in opened {
            if let Some((listeners, handle)) = self.serve(registered) {
                self.pool.listen(listeners, &handle).await;
            }
        }
        let mut state = self.state();
        while state.tasks.try_join_next().is_some() {}
        let mut before = std::mem::take(&mut state.served);
        for wanted in wanted {
            if let Some(at) = before.iter().position(|served| served.configured == wanted) {
                let served = before.remove(at);
                state.served.push(served);
            }
        }
        for mut served in before {
            info!(listen = %served.address, key = served.configured.purpose.key(), "an address is closed, and its connections drain");
            // Before the listeners close, so that no client finds a file without a listener.
            served.file = None;
            served.stop.close();
        }
    }

    /// The open connections of clients end in order: each one after the request that is under way. New ones are accepted.
    pub(super) fn drain_connections(&self) {
        for served in &self.state().served {
            match &served.stop {
                Stop::Clients(handle) => handle.drain_connections(),
                Stop::Control(_) => {}
            }
        }
    }

    /// Closes all addresses but those of operators and probes, for a shutdown. Those are closed too if they were inherited: the next gateway
    /// answers there. The workers close theirs. Returns the tasks to wait for.
    pub(super) fn close_all(&self) -> JoinSet<()> {
        // The listeners are duplicates. If these sockets stayed open, clients would wait in a queue that this process does not accept from.
        self.process.service_manager.sockets.close();
        let mut state = self.state();
        state.is_closed = true;
        for served in &mut state.served {
            let purpose = served.configured.purpose;
            if purpose == ListenerPurpose::Clients {
                served.file = None;
            } else if ends_with_shutdown(purpose, served.is_inherited) {
                served.file = None;
                served.stop.close();
            }
        }
        std::mem::take(&mut state.tasks)
    }

    /// The open addresses, for `/status.json`.
    pub(super) fn status(&self, clients_use_tls: bool, admin_uses_tls: bool) -> Vec<ListenerStatus> {
        let state = self.state();
        let served = state.served.iter().map(|served| ListenerStatus {
            purpose: served.configured.purpose,
            address: served.address.clone(),
            tls: match served.configured.purpose {
                ListenerPurpose::Clients => clients_use_tls,
                ListenerPurpose::Admin => admin_uses_tls && served.address.tcp().is_some(),
                ListenerPurpose::Probes | ListenerPurpose::Redirects => false,
            },
        });
        let mut status: Vec<ListenerStatus> = served.collect();
        // Stable: the addresses of a key stay in the order of the configuration.
        status.sort_by_key(|listener| listener.purpose);
        status
    }
}

/// Whether a control listener closes when a drain begins. The others serve until the process ends.
fn ends_with_shutdown(purpose: ListenerPurpose, is_inherited: bool) -> bool {
    match purpose {
        ListenerPurpose::Redirects | ListenerPurpose::Clients => true,
        ListenerPurpose::Admin | ListenerPurpose::Probes => is_inherited,
    }
}

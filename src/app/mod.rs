//! Builds an `App` from a `Config`: builds every part once, binds, spawns, drains. The only module that wires parts together.

pub mod dry_run;
mod error;
mod process;
mod reload;
mod reloader;
mod snapshot;
mod worker;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use authgate_http::server::listen::{self, Address, OpenAddress};
use authgate_http::server::socket::{BoundListener, Listener};
use authgate_http::server::socket_file::{SocketAccess, SocketFile};
use authgate_http::server::stage::Stage;
use authgate_http::server::worker::{Inbox, Worker, WorkerPool, run_on_this_thread};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

pub use self::error::AppError;
use self::process::Process;
use self::reload::Fixed;
pub use self::reload::{ConfigFile, ExampleKeys, NotReloaded, Reloaded, Trigger, list_changes};
pub use self::reloader::Reloader;
use self::reloader::{Progress, admin_view, redirect_rules};
use self::snapshot::Snapshot;
use self::worker::WorkerParts;
use crate::config::Config;
use crate::control::admin::{self, Admin};
use crate::control::redirect::{self, Redirect};
use crate::control::reload::ReloadHook;
use crate::control::status::{ConfigurationStatus, ListenerPurpose, ListenerStatus, ProcessFacts};
use crate::gateway::{Drain, Gateway, ServerSettings};
use crate::signal::{Event, Signals};

/// File descriptors reserved for everything except client connections, their upstream connections, and the control listeners.
const SPARE_DESCRIPTORS: usize = 256;

/// How long workers may take to drop their requests after the drain timeout.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A gateway with all parts built and all listeners bound, before it serves.
pub struct App {
    process: Arc<Process>,
    snapshot: Arc<Snapshot>,
    server: ServerSettings,
    /// The listeners of each worker.
    listeners: Vec<Vec<BoundListener>>,
    addresses: Vec<Address>,
    files: Vec<SocketFile>,
    control: Vec<ControlListener>,
    file: Option<ConfigFile>,
    fixed: Fixed,
}

/// A listener of the control runtime.
struct ControlListener {
    purpose: ListenerPurpose,
    listener: BoundListener,
    address: Address,
    file: Option<SocketFile>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Builds all parts and binds all listeners.
    ///
    /// # Errors
    /// An address cannot be bound, or TLS cannot be set up.
    pub fn bind(config: Config) -> Result<Self, AppError> {
        let (fixed, mut server) = (Fixed::new(&config), config.server.clone());
        // Reserve descriptors for probes, so that client connections cannot use them up.
        let control_connections = admin::CONNECTIONS * (config.admin.listen.len() + config.probes.iter().len())
            + redirect::CONNECTIONS * config.redirects.len();
        server.limits.connections =
            affordable_connections(server.limits.connections, SPARE_DESCRIPTORS + control_connections);
        let mut listeners: Vec<Vec<BoundListener>> = (0..server.workers).map(|_| Vec::new()).collect();
        let (mut addresses, mut files) = (Vec::new(), Vec::new());
        for address in &server.listen {
            let open = open(address, server.workers, ListenerPurpose::Clients)?;
            for (own, listener) in listeners.iter_mut().zip(open.listeners) {
                own.push(listener);
            }
            addresses.push(open.address);
            files.extend(open.file);
        }
        let control = control_addresses(&config).into_iter();
        let control = control.map(|(purpose, address)| ControlListener::open(purpose, &address));
        let control = control.collect::<Result<_, _>>()?;
        let process = Arc::new(Process::default());
        let snapshot = Snapshot::new(config, &process, None)?;
        Ok(Self {
            process,
            snapshot: Arc::new(snapshot),
            server,
            listeners,
            addresses,
            files,
            control,
            file: None,
            fixed,
        })
    }

    /// Reads the configuration again from this file, when asked.
    #[must_use]
    pub fn reload_from(self, file: ConfigFile) -> Self {
        Self {
            file: Some(file),
            ..self
        }
    }

    /// The addresses of the client listeners, with the actual ports where the configuration has 0.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The same for the admin listener.
    pub fn admin_addresses(&self) -> impl Iterator<Item = &Address> {
        let admin = |control: &&ControlListener| control.purpose == ListenerPurpose::Admin;
        self.control.iter().filter(admin).map(|control| &control.address)
    }

    /// Serves until SIGTERM or SIGINT, then drains. Calls `started` once all workers run, with the means to replace the configuration.
    ///
    /// # Errors
    /// A worker stopped unexpectedly, or a thread cannot be started.
    pub fn run(self, started: impl FnOnce(Reloader)) -> Result<(), AppError> {
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let done = control.block_on(self.serve(started));
        control.shutdown_background();
        done
    }

    async fn serve(self, started: impl FnOnce(Reloader)) -> Result<(), AppError> {
        let mut signals = Signals::new()?;
        let operators = joined(self.admin_addresses());
        let Self {
            process,
            snapshot,
            server,
            listeners,
            addresses,
            files,
            control,
            file,
            fixed,
        } = self;
        let tls = snapshot.tls.is_some();
        let (stage, stages) = watch::channel(Stage::Serving);
        snapshot.watch_stores();
        snapshot.start_acme();
        process.metrics.observe(snapshot.observed());
        let admin = Arc::new(Admin {
            metrics: Arc::clone(&process.metrics),
            view: ArcSwap::from_pointee(admin_view(&snapshot)),
            stage: stages.clone(),
            process: ProcessFacts::now(server.workers),
            configuration: ConfigurationStatus::applied_now(snapshot.file.clone()),
            listeners: ArcSwap::from_pointee(listeners_status(&addresses, &control, &snapshot)),
            reload: ReloadHook::default(),
            refused: Mutex::default(),
        });
        let port = addresses
            .iter()
            .find_map(Address::tcp)
            .map_or(443, |address| address.port());
        let redirect = Arc::new(Redirect::new(redirect_rules(&snapshot), port));
        let mut redirect_tasks = JoinSet::new();
        // Removed when this function returns: the admin listener serves until the process ends.
        let mut admin_files = Vec::new();
        for control in control {
            let listener = Listener::new(control.listener)?;
            match control.purpose {
                ListenerPurpose::Admin => {
                    admin_files.extend(control.file);
                    tokio::spawn(admin::serve(listener, Arc::clone(&admin)));
                }
                ListenerPurpose::Probes => {
                    info!(listen = %control.address, "serving probes");
                    tokio::spawn(admin::serve_probes(listener, Arc::clone(&admin)));
                }
                ListenerPurpose::Redirects => {
                    info!(listen = %control.address, "redirecting clients to https");
                    redirect_tasks.spawn(Arc::clone(&redirect).serve(listener, stages.clone()));
                }
                ListenerPurpose::Clients => {}
            }
        }

        let (common, inboxes) =
            WorkerPool::new(server.workers, server.limits.connections, server.drain.timeout, stages);
        let (snapshots, followed) = watch::channel(snapshot);
        let progress = Progress::new(server.workers);
        let reloader = Reloader::new(
            Arc::clone(&process),
            snapshots,
            admin,
            redirect,
            progress.clone(),
            file,
            fixed,
        );
        reloader.answer_commands();
        let (result_sender, mut worker_results) = mpsc::unbounded_channel();
        for (index, (listeners, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
            let (process, common) = (Arc::clone(&process), Arc::clone(&common));
            let (followed, progress, result_sender) = (followed.clone(), progress.clone(), result_sender.clone());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                // Sent after a panic too: `run_worker` catches it.
                let _ = result_sender.send(run_worker(
                    index, &process, common, listeners, inbox, followed, &progress,
                ));
            })?;
        }
        drop(result_sender);
        info!(
            listen = joined(&addresses),
            admin = operators,
            workers = server.workers,
            tls,
            "serving"
        );
        let hangup = Arc::new(Notify::new());
        tokio::spawn(reload_after_signals(reloader.clone(), Arc::clone(&hangup)));
        started(reloader);

        loop {
            tokio::select! {
                event = signals.next() => match event {
                    Event::Drain => break,
                    Event::Reload => hangup.notify_one(),
                },
                result = worker_results.recv() => {
                    let reason = result.and_then(Result::err).unwrap_or_else(|| "it stopped".to_owned());
                    error!(reason, "a worker has stopped unexpectedly; the gateway stops");
                    return Err(AppError::Worker(reason));
                }
            }
        }
        drain(server.drain, &stage, &mut worker_results, redirect_tasks, files).await;
        Ok(())
    }
}

/// Signals that come during a reload cause one more.
async fn reload_after_signals(reloader: Reloader, hangup: Arc<Notify>) {
    loop {
        hangup.notified().await;
        if reloader.reload(Trigger::Signal).await.is_err() {
            warn!("SIGHUP is ignored: this process was started without a configuration file that can be read again");
        }
    }
}

/// The addresses of the control listeners.
fn control_addresses(config: &Config) -> Vec<(ListenerPurpose, Address)> {
    let admin = config.admin.listen.iter().cloned();
    let probes = config.probes.iter().map(|address| Address::Tcp(*address));
    let redirects = config.redirects.iter().map(|address| Address::Tcp(*address));
    admin
        .map(|address| (ListenerPurpose::Admin, address))
        .chain(probes.map(|address| (ListenerPurpose::Probes, address)))
        .chain(redirects.map(|address| (ListenerPurpose::Redirects, address)))
        .collect()
}

impl ControlListener {
    fn open(purpose: ListenerPurpose, address: &Address) -> Result<Self, AppError> {
        let mut open = open(address, 1, purpose)?;
        Ok(Self {
            purpose,
            listener: open.listeners.remove(0),
            address: open.address,
            file: open.file,
        })
    }
}

fn open(address: &Address, workers: usize, purpose: ListenerPurpose) -> Result<OpenAddress, AppError> {
    let access = match purpose {
        ListenerPurpose::Clients | ListenerPurpose::Redirects | ListenerPurpose::Probes => SocketAccess::OwnerAndGroup,
        ListenerPurpose::Admin => SocketAccess::Owner,
    };
    listen::open(address, workers, access).map_err(|source| AppError::Bind {
        address: address.clone(),
        key: purpose.key(),
        source,
    })
}

fn listeners_status(clients: &[Address], control: &[ControlListener], snapshot: &Snapshot) -> Vec<ListenerStatus> {
    let clients = clients.iter().map(|address| (ListenerPurpose::Clients, address));
    let control = control.iter().map(|control| (control.purpose, &control.address));
    let status = |(purpose, address): (ListenerPurpose, &Address)| ListenerStatus {
        purpose,
        address: address.clone(),
        tls: match purpose {
            ListenerPurpose::Clients => snapshot.tls.is_some(),
            ListenerPurpose::Admin => snapshot.admin.tls.is_some() && address.tcp().is_some(),
            ListenerPurpose::Probes | ListenerPurpose::Redirects => false,
        },
    };
    clients.chain(control).map(status).collect()
}

fn joined<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> String {
    let addresses: Vec<String> = addresses.into_iter().map(Address::to_string).collect();
    addresses.join(", ")
}

type WorkerResult = Result<(), String>;

async fn drain(
    settings: Drain,
    stage: &watch::Sender<Stage>,
    worker_results: &mut mpsc::UnboundedReceiver<WorkerResult>,
    mut redirect_tasks: JoinSet<()>,
    files: Vec<SocketFile>,
) {
    info!(delay = ?settings.delay, timeout = ?settings.timeout, "draining");
    if !settings.delay.is_zero() {
        stage.send_replace(Stage::NotReady);
        sleep(settings.delay).await;
    }
    // Remove socket files before their listeners close, so that no client finds a file without a listener.
    drop(files);
    stage.send_replace(Stage::Draining);
    let all = async {
        while worker_results.recv().await.is_some() {}
        while redirect_tasks.join_next().await.is_some() {}
    };
    let drained = timeout(settings.timeout, all).await;
    if drained.is_ok() {
        info!("drained");
        return;
    }
    warn!("drain timeout reached; closing the remaining connections");
    // Workers drop their requests, so that each is logged. CUT_TIMEOUT bounds the wait for a worker that is stuck.
    stage.send_replace(Stage::Aborting);
    let _ = timeout(CUT_TIMEOUT, async { while worker_results.recv().await.is_some() {} }).await;
}

fn run_worker(
    index: usize,
    process: &Arc<Process>,
    common: Arc<WorkerPool>,
    listeners: Vec<BoundListener>,
    inbox: Inbox,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    progress: &Progress,
) -> WorkerResult {
    let serve = std::panic::AssertUnwindSafe(|| {
        run_on_this_thread(|| async {
            let parts = WorkerParts::new(process, Arc::clone(&snapshots.borrow_and_update()));
            let gateway = Gateway::new(parts.serving(), Arc::clone(&process.metrics));
            let worker = Worker::new(index, common, gateway.clone());
            tokio::select! {
                served = worker.run(listeners, inbox) => served,
                never = worker::follow(parts, snapshots, gateway, |serving| progress.report(index, serving)) => match never {},
            }
        })
    });
    match std::panic::catch_unwind(serve) {
        Ok(result) => result.map_err(|problem| problem.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// Raises the soft limit of open files to the hard limit. Caps `wanted`: each connection may need a second descriptor to an upstream.
fn affordable_connections(wanted: usize, spare: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let affordable = (limit.saturating_sub(spare) / 2).max(1);
    if wanted > affordable {
        warn!(
            wanted,
            affordable,
            open_files = limit,
            "server.limits.connections exceeds the limit of open files and is capped; raise the hard limit \
             (systemd: LimitNOFILE=) to twice the connections plus {spare}"
        );
    }
    wanted.min(affordable)
}

//! Builds an `App` from a `Config`: builds every part once, binds, spawns, drains. The only module that wires parts together.

mod config_file;
pub mod dry_run;
mod error;
mod fixed;
mod listeners;
mod memory;
mod process;
mod reload;
mod reloader;
mod snapshot;
mod watchdog;
mod watched_files;
mod worker;

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use authgate_auth::dependencies::ChangeWatch;
use authgate_dataplane::gateway::{Gateway, ServerSettings};
use authgate_http::server::address::Address;
use authgate_http::server::listener_handle::WorkerListener;
use authgate_http::server::stage::Stage;
use authgate_http::server::worker::{Inbox, WorkerPool, run_on_this_thread};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

pub use self::config_file::{ConfigFile, ExampleKeys};
pub use self::error::AppError;
use self::fixed::Fixed;
use self::listeners::{Bound, Configured, Listeners};
pub use self::memory::on_own_thread;
use self::process::Process;
pub use self::reload::{NotReloaded, Reloaded, Trigger, list_changes};
pub use self::reloader::Reloader;
use self::reloader::{Progress, Running, admin_view, redirect_rules};
use self::snapshot::Snapshot;
use self::watchdog::Heartbeats;
pub use self::watched_files::WatchedFiles;
use self::worker::WorkerParts;
use crate::config::Config;
use crate::control::admin::{self, Admin};
use crate::control::redirect::{self, Redirect};
use crate::control::reload::ReloadHook;
use crate::control::revoke::RevocationTurns;
use crate::control::status::{ConfigurationStatus, ListenerPurpose, ProcessFacts, Viewers};
use crate::service_manager::ServiceManager;
use crate::signal::{Event, Signals};

/// File descriptors reserved for everything except client connections, their upstream connections, and the control listeners.
const SPARE_DESCRIPTORS: usize = 256;

/// How long workers may take to drop their requests after the drain timeout.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the rest of the end may take, such as writing the log.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A gateway with all parts built and all listeners bound, before it serves.
pub struct App {
    process: Arc<Process>,
    snapshot: Arc<Snapshot>,
    server: ServerSettings,
    max_connections: usize,
    bound: Vec<Bound>,
    file: Option<ConfigFile>,
    fixed: Fixed,
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
    /// An address cannot be bound, TLS cannot be set up, or the configuration does not have the address of a socket that the service manager has
    /// passed.
    pub fn bind(config: Config, service_manager: ServiceManager) -> Result<Self, AppError> {
        let (fixed, server, max_connections) = (Fixed::new(&config), config.server.clone(), max_connections(&config));
        let (configured, inherited) = (Configured::all(&config), &service_manager.sockets);
        listeners::check(&configured, inherited)?;
        let bound = configured.into_iter();
        let bound = bound.map(|configured| Bound::open(configured, server.workers, inherited));
        let bound = bound.collect::<Result<_, _>>()?;
        let process = Arc::new(Process {
            service_manager,
            ..Process::default()
        });
        let snapshot = Snapshot::new(config, &process, None)?;
        Ok(Self {
            process,
            snapshot: Arc::new(snapshot),
            server,
            max_connections,
            bound,
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
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses_for(ListenerPurpose::Clients)
    }

    /// The same for the admin listener.
    pub fn admin_addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses_for(ListenerPurpose::Admin)
    }

    fn addresses_for(&self, purpose: ListenerPurpose) -> impl Iterator<Item = &Address> {
        let bound = self.bound.iter().filter(move |bound| bound.purpose() == purpose);
        bound.map(|bound| &bound.open.address)
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
        // Its tasks are dropped before the process ends: what they hold, such as the lock of the ACME folder, is released.
        control.shutdown_timeout(CUT_TIMEOUT);
        done
    }

    async fn serve(self, started: impl FnOnce(Reloader)) -> Result<(), AppError> {
        let mut signals = Signals::new()?;
        let (clients, operators) = (joined(self.addresses()), joined(self.admin_addresses()));
        let port = https_port(self.addresses());
        let Self {
            process,
            snapshot,
            server,
            max_connections,
            bound,
            file,
            fixed,
        } = self;
        let tls = snapshot.tls.is_some();
        let (stage, stages) = watch::channel(Stage::Serving);
        snapshot.watch_stores();
        snapshot.start_acme();
        process.metrics.observe(snapshot.observed());
        let view = admin_view(&snapshot);
        let admin = Arc::new(Admin {
            metrics: Arc::clone(&process.metrics),
            recent: view.recent(&process.metrics),
            viewers: Viewers::default(),
            view: ArcSwap::from_pointee(view),
            stage: stages.clone(),
            process: ProcessFacts::now(server.workers),
            configuration: ConfigurationStatus::applied_now(snapshot.file.clone()),
            listeners: ArcSwap::default(),
            reload: ReloadHook::default(),
            revocation_turns: RevocationTurns::default(),
            refused: Mutex::default(),
        });
        let sampled = Arc::clone(&admin);
        tokio::spawn(async move { sampled.sample().await });
        let redirect = Arc::new(Redirect::new(redirect_rules(&snapshot, port)));
        let (common, inboxes) = WorkerPool::new(server.workers, max_connections, server.drain.timeout, stages);
        let listeners = Listeners::new(
            Arc::clone(&process),
            server.workers,
            Arc::clone(&common),
            Arc::clone(&admin),
            Arc::clone(&redirect),
        );
        // The listeners of each worker.
        let mut workers: Vec<Vec<WorkerListener>> = (0..server.workers).map(|_| Vec::new()).collect();
        for bound in bound {
            if let Some((listeners, handle)) = listeners.serve(bound.register()?) {
                for (index, bound) in listeners.into_iter().enumerate() {
                    let handle = handle.clone();
                    workers[index % server.workers].push(WorkerListener { bound, handle });
                }
            }
        }
        let (snapshots, followed) = watch::channel(snapshot);
        let progress = Progress::new(server.workers);
        let heartbeats = Arc::new(Heartbeats::new(server.workers));
        let reloader = Reloader::new(Running {
            process: Arc::clone(&process),
            snapshots,
            admin,
            redirect,
            progress: progress.clone(),
            listeners,
            pool: Arc::clone(&common),
            file,
            fixed,
        });
        reloader.report_listeners();
        reloader.answer_commands();
        let reports = WorkerReports {
            progress,
            heartbeats: Arc::clone(&heartbeats),
        };
        let (result_sender, mut worker_results) = mpsc::unbounded_channel();
        for (index, (listeners, inbox)) in workers.into_iter().zip(inboxes).enumerate() {
            let (process, common) = (Arc::clone(&process), Arc::clone(&common));
            let (followed, reports, result_sender) = (followed.clone(), reports.clone(), result_sender.clone());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let result = run_worker(index, &process, common, listeners, inbox, followed, &reports);
                reports.heartbeats.end(index);
                // Sent after a panic too: `run_worker` catches it.
                let _ = result_sender.send(result);
            })?;
        }
        drop(result_sender);
        let inherited = process.service_manager.sockets.addresses();
        if !inherited.is_empty() {
            info!(
                sockets = joined(&inherited),
                "listening on sockets that the service manager has passed"
            );
        }
        info!(
            listen = clients,
            admin = operators,
            workers = server.workers,
            tls,
            "serving"
        );
        let hangup = Arc::new(Notify::new());
        tokio::spawn(reloader.clone().reload_when(Arc::clone(&hangup), Trigger::Signal));
        reloader.watch_files()?;
        memory::release_soon();
        let mut all_serve = pin!(reloader.wait_for_workers());
        let mut is_ready = false;
        started(reloader.clone());

        loop {
            tokio::select! {
                () = &mut all_serve, if !is_ready => {
                    is_ready = true;
                    process.service_manager.ready(&format!("serving on {clients}"));
                    tokio::spawn(watchdog::feed(Arc::clone(&process), Arc::clone(&heartbeats)));
                }
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
        drain(&reloader, &stage, &mut worker_results).await;
        reloader.flush_recording();
        Ok(())
    }
}

/// The port that clients are redirected to.
fn https_port<'a>(clients: impl IntoIterator<Item = &'a Address>) -> u16 {
    let mut clients = clients.into_iter();
    clients.find_map(Address::tcp).map_or(443, |address| address.port())
}

fn joined<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> String {
    let addresses: Vec<String> = addresses.into_iter().map(Address::to_string).collect();
    addresses.join(", ")
}

type WorkerResult = Result<(), String>;

/// Where the workers report what they do.
#[derive(Clone)]
struct WorkerReports {
    progress: Progress,
    heartbeats: Arc<Heartbeats>,
}

async fn drain(
    reloader: &Reloader,
    stage: &watch::Sender<Stage>,
    worker_results: &mut mpsc::UnboundedReceiver<WorkerResult>,
) {
    // No reload begins from here on. One that is under way may end first, but a drain waits no longer than this.
    stage.send_replace(Stage::NotReady);
    let _turn = timeout(CUT_TIMEOUT, reloader.0.turn.lock()).await;
    let settings = reloader.drain_times();
    info!(delay = ?settings.delay, timeout = ?settings.timeout, "draining");
    let within = settings.delay + settings.timeout + CUT_TIMEOUT + EXIT_TIMEOUT;
    let service_manager = &reloader.0.process.service_manager;
    service_manager.stopping("draining: requests under way are finished", within);
    sleep(settings.delay).await;
    // Socket files are removed before their listeners close, so that no client finds a file without a listener.
    let mut tasks = reloader.0.listeners.close_all();
    stage.send_replace(Stage::Draining);
    let all = async {
        while worker_results.recv().await.is_some() {}
        while tasks.join_next().await.is_some() {}
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
    listeners: Vec<WorkerListener>,
    inbox: Inbox,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: &WorkerReports,
) -> WorkerResult {
    let serve = std::panic::AssertUnwindSafe(|| {
        run_on_this_thread(|| async {
            let parts = WorkerParts::new(process, Arc::clone(&snapshots.borrow_and_update()));
            let serving = parts.serving();
            serving.proxy.put_in_force();
            let gateway = Gateway::new(serving, Arc::clone(&process.metrics));
            let (streams, changes) = (parts.streams(), ChangeWatch::new(&process.counters));
            tokio::select! {
                served = gateway.run(index, common, listeners, inbox) => served,
                never = reports.heartbeats.answer(index) => match never {},
                never = streams.check_credentials(changes) => match never {},
                never = worker::follow(parts, snapshots, gateway, |serving| reports.progress.report(index, serving)) => match never {},
            }
        })
    });
    match std::panic::catch_unwind(serve) {
        Ok(result) => result.map_err(|problem| problem.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// The limit of client connections that this process can afford.
fn max_connections(config: &Config) -> usize {
    // Reserve descriptors for probes, so that client connections cannot use them up.
    let control = admin::CONNECTIONS * (config.admin.listen.len() + config.probes.iter().len())
        + redirect::CONNECTIONS * config.redirects.len();
    affordable_connections(config.server.limits.connections, SPARE_DESCRIPTORS + control)
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

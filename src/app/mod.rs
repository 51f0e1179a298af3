//! Config to App: builds every part once, binds, spawns, drains. The only place that knows how the parts are wired.

pub mod dry_run;
mod parts;

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::HeaderName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use self::parts::Parts;
use crate::config::Config;
use crate::control::admin::{self, Admin};
use crate::control::redirect::{self, Redirect};
use crate::server;
use crate::server::listen::{self, Address};
use crate::server::socket::Bound;
use crate::server::socket_file::SocketFile;
use crate::server::worker::{self, Common, Inbox, Stage, Worker};
use crate::signal::{Event, Signals};
use crate::tls::server::Acceptor;

/// Descriptors that are kept for everything that is not a client's connection or its way to an upstream, the listeners beside the workers aside.
const SPARE_DESCRIPTORS: usize = 256;

/// How long workers may take to drop what a drain cuts.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Why a gateway does not start, or ends without being asked.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {source}{}", remedy(address, source))]
    Bind {
        /// Which.
        address: Address,
        /// Where it is written.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Cryptography does not work.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The system does not give what a process needs.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A worker is gone.
    #[error("a worker has ended: {0}")]
    Worker(String),
}

/// A gateway that listens: every part is built and bound, nothing is served yet.
pub struct App {
    parts: Arc<Parts>,
    server: server::Settings,
    tls: Option<Acceptor>,
    /// Those of each worker.
    listeners: Vec<Vec<Bound>>,
    addresses: Vec<Address>,
    files: Vec<SocketFile>,
    admin: TcpListener,
    /// Further names that the admin listener answers to.
    admin_hosts: Vec<String>,
    probes: Option<TcpListener>,
    redirects: Vec<TcpListener>,
    /// What the listeners of `redirects` send on.
    hosts: HashSet<String>,
    credentials: Vec<HeaderName>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Builds and binds.
    ///
    /// # Errors
    /// An address is taken, or TLS cannot be set up.
    pub fn bind(config: Config) -> Result<Self, AppError> {
        let mut server = config.server.clone();
        // Probes must not wait for descriptors that strangers hold.
        let beside =
            admin::CONNECTIONS * (1 + config.probes.iter().len()) + redirect::CONNECTIONS * config.redirects.len();
        server.limits.connections = affordable_connections(server.limits.connections, SPARE_DESCRIPTORS + beside);
        let tls = match &config.tls {
            None => None,
            Some(settings) => Some(Acceptor::new(settings)?),
        };
        let mut listeners: Vec<Vec<Bound>> = (0..server.workers).map(|_| Vec::new()).collect();
        let (mut addresses, mut files) = (Vec::new(), Vec::new());
        for address in &server.listen {
            let open = listen::open(address, server.workers).map_err(|source| AppError::Bind {
                address: address.clone(),
                key: "server.listen",
                source,
            })?;
            for (own, listener) in listeners.iter_mut().zip(open.listeners) {
                own.push(listener);
            }
            addresses.push(open.address);
            files.extend(open.file);
        }
        let admin = bind_one(config.admin.listen, "admin.listen")?;
        let admin_hosts = config.admin.hosts.clone();
        let probes = config
            .probes
            .map(|address| bind_one(address, "probes.listen"))
            .transpose()?;
        let redirects = config
            .redirects
            .iter()
            .map(|address| bind_one(*address, "server.redirect_http"));
        let redirects = redirects.collect::<Result<_, _>>()?;
        let (hosts, credentials) = (config.hosts(), config.credential_headers());
        let parts = Parts::new(config, server.limits);
        Ok(Self {
            parts: Arc::new(parts),
            server,
            tls,
            listeners,
            addresses,
            files,
            admin,
            admin_hosts,
            probes,
            redirects,
            hosts,
            credentials,
        })
    }

    /// Where it listens for clients, and where for operators; ports that were 0 are known here.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> io::Result<(&[Address], SocketAddr)> {
        Ok((&self.addresses, self.admin.local_addr()?))
    }

    /// Serves until SIGTERM or SIGINT, then drains. `started` is called once everything runs.
    ///
    /// # Errors
    /// A worker ended by itself, or the system does not give a thread.
    pub fn run(self, started: impl FnOnce()) -> Result<(), AppError> {
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let done = control.block_on(self.serve(started));
        control.shutdown_background();
        done
    }

    async fn serve(self, started: impl FnOnce()) -> Result<(), AppError> {
        let mut signals = Signals::new()?;
        let operators = self.admin.local_addr()?;
        let Self {
            parts,
            server,
            tls,
            listeners,
            addresses,
            files,
            admin,
            admin_hosts,
            probes,
            redirects,
            hosts,
            credentials,
        } = self;
        let (stage, stages) = watch::channel(Stage::Serving);
        for store in &parts.stores {
            tokio::spawn(Arc::clone(store).watch());
        }
        let told = Arc::new(Admin {
            metrics: Arc::clone(&parts.metrics),
            stores: parts.stores.clone(),
            hosts: admin_hosts,
            stage: stages.clone(),
        });
        let listener = tokio::net::TcpListener::from_std;
        tokio::spawn(admin::serve(listener(admin)?, Arc::clone(&told)));
        if let Some(probes) = probes {
            info!(listen = %probes.local_addr()?, "probes are answered");
            tokio::spawn(admin::serve_probes(listener(probes)?, told));
        }
        let port = addresses
            .iter()
            .find_map(Address::tcp)
            .map_or(443, |address| address.port());
        let mut beside = JoinSet::new();
        for redirects in redirects {
            info!(listen = %redirects.local_addr()?, "clients are sent to https");
            let redirect = Redirect::new(hosts.clone(), credentials.clone(), port);
            beside.spawn(redirect.serve(listener(redirects)?, stages.clone()));
        }

        let (common, inboxes) = Common::new(&server, Arc::clone(&parts.metrics), stages);
        let (ended, mut endings) = mpsc::unbounded_channel();
        for (index, (listeners, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
            let (parts, common, tls, ended) = (Arc::clone(&parts), Arc::clone(&common), tls.clone(), ended.clone());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                // However the thread ends, somebody hears of it.
                let _ = ended.send(run_worker(index, &parts, common, tls, listeners, inbox));
            })?;
        }
        drop(ended);
        let listen: Vec<String> = addresses.iter().map(Address::to_string).collect();
        info!(listen = listen.join(", "), admin = %operators, workers = server.workers, tls = tls.is_some(), "serving");
        started();

        loop {
            tokio::select! {
                event = signals.next() => match event {
                    Event::Drain => break,
                    Event::Reload => warn!("SIGHUP: reload is not built yet; restart to read the configuration again"),
                },
                ending = endings.recv() => {
                    let why = ending.and_then(Result::err).unwrap_or_else(|| "it stopped".to_owned());
                    error!(reason = why, "a worker has ended without being asked; so does the gateway");
                    return Err(AppError::Worker(why));
                }
            }
        }
        drain(server.drain, &stage, &mut endings, beside, files).await;
        Ok(())
    }
}

fn bind_one(address: SocketAddr, key: &'static str) -> Result<TcpListener, AppError> {
    listen::bind(address, 1)
        .map(|mut bound| bound.remove(0))
        .map_err(|source| AppError::Bind {
            address: Address::Tcp(address),
            key,
            source,
        })
}

/// What to do about an address that cannot be listened on, where that is known.
fn remedy(address: &Address, problem: &io::Error) -> String {
    match address.tcp() {
        Some(tcp) if problem.kind() == io::ErrorKind::PermissionDenied && listen::lacks_right(tcp) => {
            format!("; {}", listen::HOW_TO_BIND)
        }
        Some(_) | None => String::new(),
    }
}

type Ending = Result<(), String>;

async fn drain(
    settings: server::Drain,
    stage: &watch::Sender<Stage>,
    endings: &mut mpsc::UnboundedReceiver<Ending>,
    mut beside: JoinSet<()>,
    files: Vec<SocketFile>,
) {
    info!(delay = ?settings.delay, timeout = ?settings.timeout, "draining");
    if !settings.delay.is_zero() {
        stage.send_replace(Stage::Leaving);
        sleep(settings.delay).await;
    }
    // First the files, then their listeners: nobody finds a file that leads nowhere.
    drop(files);
    stage.send_replace(Stage::Draining);
    let all = async {
        while endings.recv().await.is_some() {}
        while beside.join_next().await.is_some() {}
    };
    let drained = timeout(settings.timeout, all).await;
    if drained.is_ok() {
        info!("drained");
        return;
    }
    warn!("the drain's time is over; connections that are left are cut");
    // Workers drop their requests, so that each has its event in the log. A worker that is stuck is not waited for.
    stage.send_replace(Stage::Cutting);
    let _ = timeout(LAST_EVENTS, async { while endings.recv().await.is_some() {} }).await;
}

fn run_worker(
    index: usize,
    parts: &Arc<Parts>,
    common: Arc<Common>,
    tls: Option<Acceptor>,
    listeners: Vec<Bound>,
    inbox: Inbox,
) -> Ending {
    let serve = std::panic::AssertUnwindSafe(|| {
        worker::run_on_this_thread(|| {
            Worker::new(index, common, parts.proxy(&parts.authenticators()), tls).run(listeners, inbox)
        })
    });
    match std::panic::catch_unwind(serve) {
        Ok(ended) => ended.map_err(|problem| problem.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// Raises the soft limit of open files to the hard one; each connection may need a second one to an upstream.
fn affordable_connections(wanted: usize, spare: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let affordable = (limit.saturating_sub(spare) / 2).max(1);
    if wanted > affordable {
        warn!(
            wanted,
            affordable,
            open_files = limit,
            "server.limits.connections is more than the limit of open files allows and is capped; raise the hard limit \
             (systemd: LimitNOFILE=) to twice the connections and {spare} more"
        );
    }
    wanted.min(affordable)
}

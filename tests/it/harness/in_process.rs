//! [`InProcess`]: a gateway in the process of the test, whose configuration the test replaces. Each test runs in a process of its own, and
//! stops its gateway by sending SIGTERM to itself.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use authgate_app::app::{App, AppError, ConfigFile, ExampleKeys, Reloader, WatchedFiles};
use authgate_app::config::Loaded;
use authgate_app::service_manager::ServiceManager;
use authgate_dataplane::telemetry;
use authgate_http::server::address::Address;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::client::{Conn, get};
use super::config::Config;
use super::gate::{TRACKING, ask_admin};
use super::{signal, wait_until};

/// How long a start, a replacement or an end may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

pub struct InProcess {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub reloader: Reloader,
    folder: TempDir,
    runtime: Runtime,
    thread: JoinHandle<Result<(), AppError>>,
}

impl InProcess {
    /// Started, and all workers serve.
    pub fn start(config: &Config) -> Self {
        let folder = TempDir::new().expect("a folder");
        let app = App::bind(load(config, &folder).config, ServiceManager::default()).expect("free ports");
        Self::run(app, folder)
    }

    /// The same, and it is subscribed to the changes of `[stores.redis]`.
    pub fn subscribed(config: &Config) -> Self {
        let gate = Self::start(config);
        wait_until("the gateway is subscribed", TIMEOUT, || gate.metric(TRACKING) == 1.0);
        gate
    }

    /// Started as by [`start`](Self::start), and it reads its file again when it is asked to.
    pub fn with_file(config: &Config) -> Self {
        let folder = TempDir::new().expect("a folder");
        let loaded = load(config, &folder);
        let (path, log) = (folder.path().join("gateway.toml"), telemetry::start(loaded.config.log));
        let watched = WatchedFiles::new(&path, &loaded);
        let file = ConfigFile::new(path, loaded.source, watched, ExampleKeys::Refused, log.control.clone());
        let app = App::bind(loaded.config, ServiceManager::default()).expect("free ports");
        Self::run(app.reload_from(file), folder)
    }

    fn run(app: App, folder: TempDir) -> Self {
        let address = app.addresses().find_map(Address::tcp).expect("a TCP address");
        let admin = app.admin_addresses().find_map(Address::tcp).expect("a TCP address");
        let (sender, started) = mpsc::channel();
        let run = move || app.run(|reloader| sender.send(reloader).expect("the test waits"));
        let thread = std::thread::spawn(run);
        let gate = Self {
            reloader: started.recv_timeout(TIMEOUT).expect("it starts"),
            address,
            admin,
            folder,
            runtime: Runtime::new().expect("a runtime"),
            thread,
        };
        gate.wait_for_workers();
        gate
    }

    /// Replaces the configuration, and waits until all workers serve it.
    pub fn apply(&self, config: &Config) {
        self.reloader
            .apply(load(config, &self.folder).config)
            .expect("it is applied");
        self.wait_for_workers();
    }

    pub fn wait_for_workers(&self) {
        let all = self.reloader.wait_for_workers();
        self.runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, all).await })
            .expect("no worker hangs");
    }

    /// A configuration, loaded in the folder of this gateway.
    pub fn load(&self, config: &Config) -> authgate_app::config::Config {
        load(config, &self.folder).config
    }

    pub fn connect(&self) -> Conn {
        Conn::plain(self.address)
    }

    /// The sum of all values of `/metrics` whose line begins so.
    pub fn metric(&self, begin: &str) -> f64 {
        let metrics = ask_admin(self.admin, &get("/metrics").host("127.0.0.1")).text();
        let lines = metrics.lines().filter(|line| line.starts_with(begin));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Stops it with SIGTERM, and checks how it ended.
    pub fn stop(self) {
        signal(std::process::id(), "TERM");
        let ended = self.thread.join().expect("no panic");
        assert!(ended.is_ok(), "{ended:?}");
    }
}

fn load(config: &Config, folder: &TempDir) -> Loaded {
    config.write(folder.path());
    match authgate_app::config::load(&folder.path().join("gateway.toml")) {
        Ok(loaded) => loaded,
        Err(error) => panic!("{error}\n{}", config.text()),
    }
}

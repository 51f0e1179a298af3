//! [`Gate`]: the built program, running with a gateway.toml of the test. Dropping it stops it with SIGTERM,
//! and fails the test if it ends badly, has panicked, or has logged a credential.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authgate_app::reference::log::FIELDS;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Call, Conn, Reply, get};
use super::config::Config;
use super::pki::Pki;
use super::program::program;
use super::wire::{Wire, WithoutLength};
use super::{signal, wait_until};

/// How long a metric may follow what it measures on a busy machine.
const METRICS: Duration = Duration::from_secs(10);

/// 1 while the gateway is subscribed to the changes of `[stores.redis]`.
pub const TRACKING: &str = "authgate_store_tracking{store=\"redis\"}";

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Gate {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub folder: TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pki: Option<Arc<Pki>>,
    ended: bool,
}

impl Gate {
    /// Started, and ready.
    pub fn start(config: &Config) -> Self {
        let gate = Self::spawn(config);
        wait_until("the gateway is ready", PATIENCE, || gate.probe("/readyz").status == 200);
        let text = config.text();
        if text.contains("kind = \"redis\"") && !text.contains("invalidation = \"off\"") {
            gate.expect_subscription();
        }
        gate
    }

    /// Waits a while for the first subscription to a Redis: it invalidates what was cached before it. Not every Redis of a test permits it.
    fn expect_subscription(&self) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            let metrics = self.probe("/metrics").text();
            let mut stores = metrics
                .lines()
                .filter(|line| line.starts_with("authgate_store_tracking{"));
            if stores.any(|line| line.ends_with(" 1")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Started, and subscribed to the changes of `[stores.redis]`. The subscription invalidates what was cached before it, so tests of
    /// cached decisions begin after it.
    pub fn subscribed(config: &Config) -> Self {
        let gate = Self::start(config);
        wait_until("the gateway is subscribed", PATIENCE, || gate.metric(TRACKING) == 1.0);
        gate
    }

    /// Started; it listens, but may not be ready.
    pub fn spawn(config: &Config) -> Self {
        let folder = TempDir::new().expect("a folder");
        config.write(folder.path());
        let mut command = program();
        command
            .arg("run")
            .args(&config.arguments)
            .arg("--config")
            .arg(folder.path().join("gateway.toml"));
        Self::of(command, folder, config.pki.clone())
    }

    /// Any command that ends in a gateway that serves.
    pub fn of(mut command: Command, folder: TempDir, pki: Option<Arc<Pki>>) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program is built");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let line = String::from_utf8_lossy(&line.unwrap_or_default()).into_owned();
                lines.lock().expect("no test fails inside").push(line);
            }
        });
        let mut gate = Self {
            child,
            log,
            folder,
            address: ([0; 4], 0).into(),
            admin: ([0; 4], 0).into(),
            pki,
            ended: false,
        };
        let started = Instant::now();
        let line = loop {
            if let Some(line) = gate
                .lines()
                .into_iter()
                .find(|line| line.contains("serving") && line.contains("admin"))
            {
                break line;
            }
            let code = gate.child.try_wait().expect("a child");
            assert!(
                code.is_none() && started.elapsed() < PATIENCE,
                "the gateway does not serve (exit {code:?}):\n{}",
                gate.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let digits = |text: &str| -> String {
            let text = text.trim_start_matches(|c: char| !c.is_ascii_digit());
            text.chars()
                .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
                .collect()
        };
        // One that listens on socket files alone has none.
        let address = |word: &str| digits(line.split_once(word)?.1).trim_end_matches(':').parse().ok();
        gate.address = address("listen").unwrap_or(gate.address);
        gate.admin = address("\"admin\"").or(address("admin=")).unwrap_or(gate.admin);
        gate
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn lines(&self) -> Vec<String> {
        self.log.lock().expect("no test fails inside").clone()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// The first line that has all these words, as soon as it is there.
    pub fn logged(&self, words: &[&str]) -> String {
        let find = || {
            self.lines()
                .into_iter()
                .find(|line| words.iter().all(|word| line.contains(word)))
        };
        wait_until(
            &format!("the log says {words:?}; it says\n{}", self.log()),
            Duration::from_secs(5),
            || find().is_some(),
        );
        find().expect("it was there a moment ago")
    }

    /// Events of requests, parsed, in their order.
    pub fn requests(&self, count: usize) -> Vec<Value> {
        let find = || -> Vec<Value> {
            let events = self
                .lines()
                .into_iter()
                .filter_map(|line| serde_json::from_str(&line).ok());
            events.filter(|event: &Value| event["message"] == "request").collect()
        };
        wait_until("requests are logged", Duration::from_secs(5), || find().len() >= count);
        find()
    }

    /// A new connection, with TLS if the gateway has it; the server's name is `localhost`.
    pub fn connect(&self) -> Conn {
        match &self.pki {
            None => Conn::plain(self.address),
            Some(pki) => Conn::tls(
                self.address,
                "localhost",
                pki.client(&["http/1.1"], rustls::ALL_VERSIONS),
            )
            .expect("a handshake"),
        }
    }

    /// A new connection over a socket file of its folder.
    pub fn connect_over(&self, file: &str) -> Conn {
        Conn::unix(&self.folder.path().join(file))
    }

    pub fn pki(&self) -> &Arc<Pki> {
        self.pki.as_ref().expect("a gateway with TLS")
    }

    pub fn has_tls(&self) -> bool {
        self.pki.is_some()
    }

    /// Sends a request over a connection of its own.
    pub fn call(&self, call: &Call) -> Reply {
        self.connect().call(call)
    }

    pub fn get(&self, target: &str) -> Reply {
        self.call(&get(target))
    }

    /// Asks the admin listener.
    pub fn probe(&self, path: &str) -> Reply {
        self.ask_admin(&get(path).host("127.0.0.1"))
    }

    pub fn ask_admin(&self, call: &Call) -> Reply {
        ask_admin(self.admin, call)
    }

    /// One value of `/metrics`, 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.probe("/metrics").text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until a value of `/metrics` is this one. Metrics of a request are written after its response.
    pub fn metric_becomes(&self, name: &str, value: f64) {
        wait_until(
            &format!("{name} is {value}; it is {}", self.metric(name)),
            METRICS,
            || self.metric(name) == value,
        );
    }

    /// Waits until a value of `/metrics` is at least this one.
    pub fn metric_reaches(&self, name: &str, value: f64) {
        wait_until(
            &format!("{name} reaches {value}; it is {}", self.metric(name)),
            METRICS,
            || self.metric(name) >= value,
        );
    }

    /// Bytes of memory that are its own now.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .expect("a line of RssAnon");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// Sockets that it has open, each counted once: runtimes hold copies of one that brings them signals.
    pub fn sockets(&self) -> usize {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let sockets: HashSet<_> = links
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .collect();
        sockets.len()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Ends it with SIGTERM, checks how it ended, and hands its log out.
    pub fn stop(mut self) -> String {
        self.end();
        self.log()
    }

    fn end(&mut self) {
        self.ended = true;
        self.signal("TERM");
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if asked.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("the gateway does not end on SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // The thread that reads the log ends with the pipe; it holds one of the two handles on it.
        wait_until("the log is read to its end", Duration::from_secs(5), || {
            Arc::strong_count(&self.log) == 1
        });
        let log = self.log();
        assert_eq!(status.code(), Some(0), "the gateway ended so:\n{log}");
        assert!(!log.contains("panicked"), "the gateway panicked:\n{log}");
        assert!(!log.contains("canary"), "a credential is in the log:\n{log}");
        log.lines().for_each(expect_described);
    }
}

/// Fails if an event at `info` or above has a field that the reference does not have. Lines that are not JSON are not looked at.
fn expect_described(line: &str) {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else {
        return;
    };
    if !matches!(event["level"].as_str(), Some("INFO" | "WARN" | "ERROR")) {
        return;
    }
    for name in event.keys() {
        let is_described =
            ["timestamp", "level", "message"].contains(&name.as_str()) || FIELDS.iter().any(|field| field.name == name);
        assert!(is_described, "the field {name} is not in docs/reference/log.md: {line}");
    }
}

/// Asks the admin listener at this address.
pub fn ask_admin(admin: SocketAddr, call: &Call) -> Reply {
    let Ok(tcp) = std::net::TcpStream::connect(admin) else {
        return Reply::default();
    };
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    exchange(&mut Wire::new(tcp), &call.clone().header("Connection", "close")).unwrap_or_default()
}

/// Asks a control listener over a connection. `None`: the connection ends without a response.
pub fn exchange<S: Read + Write>(wire: &mut Wire<S>, call: &Call) -> Option<Reply> {
    let _ = wire.write(&call.bytes());
    let head = wire.head().ok().flatten()?;
    let status = head
        .first
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    let body = wire.body(&head, WithoutLength::Close).expect("a body");
    Some(Reply {
        status,
        head,
        body,
        interim: Vec::new(),
    })
}

impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("the gateway's log:\n{}", self.log());
        } else if !self.ended {
            self.end();
        }
    }
}

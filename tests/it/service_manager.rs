//! Under a service manager such as systemd: sockets that it passes, messages that it receives, and gateways that replace each other.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, SockAddr};
use tempfile::TempDir;

use crate::harness::gate::ask_admin;
use crate::harness::load::Barrier;
use crate::harness::pki::Pki;
use crate::harness::program::run;
use crate::harness::restart_load::{more, under_load};
use crate::harness::service_manager::{ServiceManager, listening};
use crate::harness::{Config, Conn, Gate, RecordingUpstream, config, get, post};
use crate::reload_listeners::free_port;

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

fn listen(address: SocketAddr) -> String {
    format!("listen = [\"{address}\"]")
}

#[test]
fn sockets_are_used_for_the_keys_that_have_their_address() {
    let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
    let (clients, admin) = (folder.path().join("gate.sock"), folder.path().join("admin.sock"));
    let mut manager = ServiceManager::default();
    let address = manager.listen("web");
    manager.listen_on("web", &clients);
    let redirects = manager.listen("redirect");
    let probes = manager.listen("probes");
    manager.listen_on("admin", &admin);
    fs::set_permissions(&admin, Permissions::from_mode(0o600)).unwrap();
    let config = public(&upstream)
        .tls(&Pki::new(), &[&["localhost"]])
        .server(&format!("listen = [\"{address}\", \"unix:{}\"]", clients.display()))
        .server(&format!("redirect_http = [\"{redirects}\"]"))
        .admin(&format!("listen = \"unix:{}\"", admin.display()))
        .tables(&format!("[probes]\nlisten = \"{probes}\""));
    let gate = manager.start(&config);
    gate.logged(&["listening on sockets", &address.to_string(), "gate.sock"]);
    assert_eq!(gate.address, address);
    assert_eq!(gate.get("/x").status, 200);
    assert_eq!(ask_admin(redirects, &get("/x").host("localhost")).status, 308);
    assert_eq!(ask_admin(probes, &get("/livez")).status, 200);
    let mut operator = Conn::unix(&admin);
    operator.send(get("/metrics").host("localhost").bytes());
    assert_eq!(operator.wire.head().unwrap().unwrap().first, "HTTP/1.1 200 OK");
    for number in 3..8 {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", gate.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(
            flags & 0o2_000_000,
            0o2_000_000,
            "descriptor {number} is closed on exec"
        );
    }
    drop(operator);
    gate.stop();
    assert!(
        clients.exists() && admin.exists(),
        "the files belong to the service manager"
    );
    UnixStream::connect(&clients).expect("the socket is open");
    TcpStream::connect(address).expect("the socket is open");
}

#[test]
fn a_socket_that_cannot_be_used_is_an_error_that_names_it() {
    let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
    let refused = |manager: &ServiceManager, config: &Config, words: &[&str]| {
        let ended = run(manager.command(folder.path(), config), b"");
        assert_eq!(ended.code, 1, "{ended:?}");
        for word in words {
            assert!(ended.err.contains(word), "{word:?} is not in {}", ended.err);
        }
    };
    let mut manager = ServiceManager::default();
    let address = manager.listen("web");
    let other = manager.listen("other.socket");
    refused(
        &manager,
        &public(&upstream).server(&listen(address)),
        &[
            "descriptor 4 (other.socket)",
            &other.to_string(),
            "write",
            "server.listen",
        ],
    );
    manager = ServiceManager::default();
    manager.pass("dns", UdpSocket::bind("127.0.0.1:0").unwrap());
    let words = ["descriptor 3 (dns)", "not a listening stream socket", "ListenStream="];
    refused(&manager, &public(&upstream), &words);
    manager = ServiceManager::default();
    let name = SockAddr::unix("\0authgate-test-of-an-abstract-listener").unwrap();
    manager.pass("abstract", listening(Domain::UNIX, &name));
    refused(
        &manager,
        &public(&upstream),
        &["descriptor 3 (abstract)", "socket file"],
    );
    manager = ServiceManager::default();
    let file = folder.path().join("admin.sock");
    manager.listen_on("admin", &file);
    fs::set_permissions(&file, Permissions::from_mode(0o660)).unwrap();
    refused(
        &manager,
        &public(&upstream).admin("listen = \"unix:admin.sock\""),
        &["admin.sock", "admin.listen", "SocketMode=0600"],
    );
    manager = ServiceManager::default();
    manager.set("LISTEN_FDS", "1000000");
    manager.set("LISTEN_PID", "$$");
    refused(&manager, &public(&upstream), &["LISTEN_FDS"]);
    manager = ServiceManager::default();
    manager.set("NOTIFY_SOCKET", "relative/path");
    refused(&manager, &public(&upstream), &["NOTIFY_SOCKET", "relative/path"]);
}

#[test]
fn sockets_for_another_process_are_ignored() {
    let upstream = RecordingUpstream::start();
    let mut manager = ServiceManager::default();
    let address = manager.listen("web");
    manager.set("LISTEN_PID", "1");
    let gate = manager.start(&public(&upstream));
    assert_ne!(gate.address, address);
    assert_eq!(gate.get("/x").status, 200);
}

fn loaded(manager: &mut ServiceManager, folder: &Path, upstream: &RecordingUpstream) -> (SocketAddr, Config) {
    let address = manager.listen("web");
    let file = folder.join("gate.sock");
    manager.listen_on("web", &file);
    let config = public(upstream).server(&format!("listen = [\"{address}\", \"unix:{}\"]", file.display()));
    (address, config)
}

#[test]
fn a_restart_on_the_same_sockets_fails_no_request() {
    let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
    let mut manager = ServiceManager::default();
    let (address, config) = loaded(&mut manager, folder.path(), &upstream);
    let (first, mut last) = (manager.start(&config), None);
    under_load(address, &folder.path().join("gate.sock"), |answered| {
        let mut gate = first;
        for _ in 0..3 {
            more(answered);
            gate.stop();
            // Now clients wait in the queues of the sockets.
            gate = manager.start(&config);
        }
        more(answered);
        // The clients end before the gateway.
        last = Some(gate);
    });
}

#[test]
fn a_gateway_that_replaces_another_on_the_same_sockets_fails_no_request() {
    let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
    let mut manager = ServiceManager::default();
    let (address, config) = loaded(&mut manager, folder.path(), &upstream);
    let mut gate = manager.start(&config);
    under_load(address, &folder.path().join("gate.sock"), |answered| {
        for _ in 0..3 {
            more(answered);
            let next = manager.start(&config);
            // Both accept from the same queues.
            more(answered);
            let old = std::mem::replace(&mut gate, next);
            let log = old.stop();
            assert!(log.contains("drained"), "{log}");
            more(answered);
        }
    });
}

/// All gateways share the flag of a socket that says whether an accept waits. Several workers are woken for one connection, and one gets it.
#[test]
fn workers_go_on_when_the_sockets_become_blocking() {
    let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
    let mut manager = ServiceManager::default();
    let (address, config) = loaded(&mut manager, folder.path(), &upstream);
    let gates = [manager.start(&config), manager.start(&config)];
    manager.block();
    let queue = folder.path().join("gate.sock");
    under_load(address, &queue, |answered| (0..10).for_each(|_| more(answered)));
    for gate in gates {
        let mut idle = Conn::plain(gate.admin);
        idle.send(get("/livez").host("localhost").bytes());
        assert_eq!(idle.wire.head().unwrap().unwrap().first, "HTTP/1.1 200 OK");
        drop(idle);
        let log = gate.stop();
        assert!(log.contains("drained"), "{log}");
    }
}

#[test]
fn the_service_manager_is_notified_of_the_start_and_the_end() {
    let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
    let mut at_file = ServiceManager::default();
    at_file.receive_at(&folder.path().join("notify.sock"));
    let mut at_abstract = ServiceManager::default();
    at_abstract.receive_at_abstract(&format!("authgate-test-{}", std::process::id()));
    for manager in [at_file, at_abstract] {
        let gate = manager.start(&public(&upstream).drain("delay = \"100ms\""));
        let serving = format!("STATUS=serving on {}", gate.address);
        assert_eq!(manager.message(), ["READY=1", serving.as_str()]);
        gate.stop();
        let stopping = manager.message();
        // 5 s for requests, 0.1 s before that, and 6 s for the rest.
        assert_eq!(stopping[..2], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=11100000"]);
        assert!(stopping[2].starts_with("STATUS=draining"), "{stopping:?}");
    }
}

#[test]
fn the_service_manager_is_notified_of_reloads() {
    let upstream = RecordingUpstream::start();
    let mut manager = ServiceManager::default();
    manager.receive_at_abstract(&format!("authgate-test-{}", std::process::id()));
    let gate = manager.start(&public(&upstream));
    assert_eq!(manager.message()[0], "READY=1");
    let mut last = 0;
    for (config, status) in [
        (Some(public(&upstream).log("level = \"debug\"")), "that was read again"),
        (None, "cannot be used"),
    ] {
        match config {
            Some(config) => config.write(gate.folder.path()),
            None => fs::write(gate.folder.path().join("gateway.toml"), "").unwrap(),
        }
        gate.signal("HUP");
        let reloading = manager.message();
        assert_eq!(reloading[0], "RELOADING=1");
        let at = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("the time");
        let at: u64 = at.parse().expect("a number");
        assert!(at > last);
        last = at;
        let ready = manager.message();
        assert!(ready[0] == "READY=1" && ready[1].contains(status), "{ready:?}");
    }
    gate.stop();
}

/// Stops one thread of a process, as a debugger does, until its input ends.
const STOP_THREAD: &str = r#"
import ctypes, os, sys
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
libc, thread = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
for request in PTRACE_SEIZE, PTRACE_INTERRUPT:
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, None):
        print(os.strerror(ctypes.get_errno()), flush=True)
        sys.exit()
os.waitpid(thread, WALL)
print("stopped", flush=True)
sys.stdin.read()
"#;

/// A thread of a gateway that does not run.
struct StoppedThread(Child);

impl StoppedThread {
    /// `None`: this machine does not permit a debugger.
    fn stop(gate: &Gate, name: &str) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{}/task", gate.pid())).unwrap();
        let thread = threads.map(|thread| thread.unwrap()).find(|thread| {
            let found = fs::read_to_string(thread.path().join("comm"));
            found.is_ok_and(|found| found.trim_end() == name)
        });
        let mut python = Command::new("python3")
            .args(["-c", STOP_THREAD])
            .arg(thread.expect("a thread of this name").file_name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut answer = String::new();
        let mut output = BufReader::new(python.stdout.take().unwrap());
        output.read_line(&mut answer).unwrap();
        if answer.trim() == "Operation not permitted" {
            eprintln!("this machine does not permit a debugger: the test of a hanging worker is left out");
            python.wait().unwrap();
            return None;
        }
        assert_eq!(answer.trim(), "stopped");
        Some(Self(python))
    }

    /// It runs again.
    fn release(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_shutdown_during_a_reload_drains_and_ready_is_not_sent_after_stopping() {
    let upstream = RecordingUpstream::start();
    let barrier = Barrier::default();
    let held = barrier.clone();
    upstream.answers(move |exchange| {
        held.wait();
        exchange.ok()
    });
    let mut manager = ServiceManager::default();
    manager.receive_at_abstract(&format!("authgate-test-{}", std::process::id()));
    let gate = manager.start(&public(&upstream));
    assert_eq!(manager.message()[0], "READY=1");
    let mut under_way = gate.connect();
    under_way.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    // The reload waits for this worker.
    let Some(worker) = StoppedThread::stop(&gate, "worker-1") else {
        return;
    };
    let port = free_port();
    let listen = format!("listen = [\"127.0.0.1:0\", \"127.0.0.1:{port}\"]");
    public(&upstream).server(&listen).write(gate.folder.path());
    gate.signal("HUP");
    assert_eq!(manager.message()[0], "RELOADING=1");
    gate.signal("HUP");
    gate.signal("TERM");
    assert_eq!(manager.message()[0], "STOPPING=1");
    let command = post("/reload", "").header("X-Authgate-Command", "reload");
    assert_eq!(ask_admin(gate.admin, &command.host("127.0.0.1")).status, 503);
    worker.release();
    gate.logged(&["the configuration was read again and is in force"]);
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "it is not opened any more"
    );
    barrier.open();
    assert_eq!(under_way.reply().status, 200);
    let log = gate.stop();
    assert!(log.contains("drained"), "{log}");
    assert_eq!(log.matches("the configuration was read again").count(), 1, "{log}");
    let later = manager.message_within(Duration::from_millis(10));
    assert_eq!(later, None, "after STOPPING");
}

#[test]
fn a_worker_that_hangs_lets_the_watchdog_fire() {
    let upstream = RecordingUpstream::start();
    let mut manager = ServiceManager::default();
    manager.receive_at_abstract(&format!("authgate-test-{}", std::process::id()));
    manager.set("WATCHDOG_USEC", "1000000");
    manager.set("WATCHDOG_PID", "$$");
    let gate = manager.start(&public(&upstream));
    assert_eq!(manager.message()[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.message(), ["WATCHDOG=1"]);
    }
    let Some(worker) = StoppedThread::stop(&gate, "worker-1") else {
        return;
    };
    gate.logged(&["workers hang", "\"worker-1\""]);
    while manager.message_within(Duration::from_millis(10)).is_some() {}
    let quiet = manager.message_within(Duration::from_secs(3));
    assert_eq!(quiet, None, "no message during three timeouts");
    worker.release();
    assert_eq!(manager.message(), ["WATCHDOG=1"]);
    gate.logged(&["all workers answer again"]);
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let upstream = RecordingUpstream::start();
    let mut manager = ServiceManager::default();
    manager.receive_at_abstract(&format!("authgate-test-{}", std::process::id()));
    manager.set("WATCHDOG_USEC", "200000");
    manager.set("WATCHDOG_PID", "1");
    let gate = manager.start(&public(&upstream));
    assert_eq!(manager.message()[0], "READY=1");
    assert_eq!(manager.message_within(Duration::from_secs(1)), None);
    gate.stop();
}

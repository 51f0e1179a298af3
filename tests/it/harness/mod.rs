//! The test harness: the program itself, a real Redis, and an upstream and a client that see every byte.

pub mod browser;
pub mod caddy;
pub mod client;
pub mod cluster;
pub mod config;
pub mod connect_proxy;
pub mod database;
pub mod directory;
pub mod forgeries;
pub mod frames;
pub mod gate;
pub mod gunicorn;
pub mod h2;
pub mod h2server;
pub mod in_process;
pub mod load;
pub mod machine;
pub mod mint;
pub mod namespace;
pub mod oidc_provider;
pub mod pki;
pub mod program;
pub mod proofs;
pub mod redis;
pub mod redis_proxy;
pub mod restart_load;
pub mod scripted_provider;
pub mod sentinel;
pub mod server;
pub mod service_manager;
pub mod streams;
pub mod systemd;
pub mod terminal;
pub mod upstream;
pub mod websocket;
pub mod wire;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

pub use self::client::{Call, Conn, call, get, post};
pub use self::config::{Config, config};
pub use self::gate::Gate;
pub use self::in_process::InProcess;
pub use self::redis::Redis;
pub use self::redis_proxy::{Fault, RedisProxy};
pub use self::upstream::{Next, RecordingUpstream};

/// Waits for a condition; the test fails after `timeout`.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < timeout, "waited {timeout:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn open_descriptors(pid: u32) -> BTreeSet<usize> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a process")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Limits a process to `free` more descriptors. Waits first for connections that are about to be closed, such as those of probes.
pub fn leave_descriptors(pid: u32, free: usize) {
    let mut open = open_descriptors(pid);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        let later = open_descriptors(pid);
        if later == open {
            break;
        }
        open = later;
    }
    // The system always takes the lowest that is free.
    let refused = (0..).filter(|number| !open.contains(number)).nth(free);
    let limit = refused.expect("there are many numbers");
    let limited = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={limit}:")])
        .status()
        .expect("prlimit, of util-linux");
    assert!(limited.success(), "{limit} descriptors for {pid}");
}

/// Sends a signal; the shell has `kill` built in, so nothing has to be installed.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .expect("a shell");
    assert!(sent.success(), "SIG{name} to {pid}");
}

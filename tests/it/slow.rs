//! slowhttptest against the gateway, in three ways at once: hundreds of clients that send or take their bytes one by one. Meanwhile
//! everybody else is answered, and afterwards nothing of them is left. The longest test there is; others of its kind belong here.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::h2::H2;
use crate::harness::pki::Pki;
use crate::harness::{Gate, RecordingUpstream, Redis, config, get, post, wait_until};

/// Of each way.
const CONNECTIONS: usize = 200;
/// How long it goes on.
const SECONDS: &str = "12";

/// A running slowhttptest, which ends with this value.
struct Attack(Child);

impl Attack {
    fn start(gate: &Gate, path: &str, arguments: &[&str]) -> Self {
        let child = Command::new("slowhttptest")
            .args([
                "-c",
                &CONNECTIONS.to_string(),
                "-r",
                "200",
                "-l",
                SECONDS,
                "-v",
                "0",
                "-u",
            ])
            .arg(format!("https://{}{path}", gate.address))
            .args(arguments)
            .current_dir(gate.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("slowhttptest is installed: see scripts/test");
        Self(child)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some()
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn timed(call: impl FnOnce()) -> Duration {
    let began = Instant::now();
    call();
    let took = began.elapsed();
    std::thread::sleep(Duration::from_millis(10));
    took
}

fn one_connection_each(gate: &Gate, over: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !over.load(Ordering::SeqCst) {
        took.push(timed(|| {
            assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
        }));
    }
    took
}

fn connections_that_are_kept(gate: &Gate, over: &AtomicBool) -> Vec<Duration> {
    let (mut http1, mut http2, mut took) = (gate.connect(), H2::connect(gate), Vec::new());
    while !over.load(Ordering::SeqCst) {
        took.push(timed(|| {
            let call = post("/api/x", "body").token("canary-ada");
            assert_eq!(http1.call(&call).status, 200);
        }));
        took.push(timed(|| {
            assert_eq!(http2.call(&get("/api/x").token("canary-ada")).status, 200);
            assert_eq!(http2.call(&get("/api/x").token("canary-unknown")).status, 401);
        }));
    }
    took
}

#[test]
fn slow_clients_do_not_delay_others_and_leak_nothing() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let big = vec![b'x'; 4 * 1024 * 1024];
    upstream.answers(move |exchange| {
        if exchange.head.first.contains("/big") {
            exchange.answer("200 OK", "", &big)
        } else {
            exchange.ok()
        }
    });
    let gate = Gate::start(
        &config()
            .tls(&Pki::new(), &[&["localhost"]])
            .limits("header_timeout = \"3s\"")
            .limits("body_read_timeout = \"3s\"")
            .redis_with_long_timeout(&redis)
            .token("cache = { entries = 0, negative_entries = 0 }")
            .app(&upstream)
            .protected("/api/*")
            .public("/open/*"),
    );
    // What is kept from now on is there already: each worker has a connection to Redis, and so has the canary.
    for _ in 0..40 {
        assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    }
    wait_until("the canary is written", Duration::from_secs(20), || {
        gate.probe("/metrics")
            .text()
            .contains("authgate_revocation_lag_seconds{")
    });
    wait_until("the first connections are closed", Duration::from_secs(5), || {
        gate.metric("authgate_connections") == 0.0
    });
    let (sockets, memory) = (gate.sockets(), gate.memory());

    let mut attacks = [
        Attack::start(&gate, "/open/x", &["-H", "-i", "1"]),
        Attack::start(&gate, "/open/x", &["-B", "-i", "1", "-s", "100000"]),
        Attack::start(
            &gate,
            "/open/big",
            &["-X", "-n", "1", "-w", "64", "-y", "512", "-z", "32", "-k", "2"],
        ),
    ];
    let (over, began, mut most) = (AtomicBool::new(false), Instant::now(), 0.0_f64);
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let others = [
            scope.spawn(|| one_connection_each(&gate, &over)),
            scope.spawn(|| connections_that_are_kept(&gate, &over)),
        ];
        while !attacks.iter_mut().all(|attack| attack.has_ended()) && began.elapsed() < Duration::from_secs(60) {
            most = most.max(gate.metric("authgate_connections"));
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::SeqCst);
        let all = others.map(|other| other.join().expect("every answer was the right one"));
        all.concat()
    });
    took.sort_unstable();
    let (p50, p99, worst) = (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]);
    println!(
        "{most} connections at most; {} calls: p50 {p50:?}, p99 {p99:?}, worst {worst:?}",
        took.len()
    );
    assert!(most >= 200.0, "the attack took place: {most} connections at most");
    assert!(
        began.elapsed() > Duration::from_secs(10) && took.len() > 100,
        "{}",
        took.len()
    );
    assert!(worst < Duration::from_secs(5), "{worst:?}");

    wait_until("their connections are closed", Duration::from_secs(20), || {
        gate.metric("authgate_connections") == 0.0 && gate.metric("authgate_requests_in_flight") == 0.0
    });
    wait_until("their sockets are closed", Duration::from_secs(20), || {
        upstream.close_connections();
        gate.sockets() <= sockets
    });
    let grown = gate.memory().saturating_sub(memory);
    println!("{} KiB of memory more than before", grown / 1024);
    // What was read ahead for 200 slow readers is freed; an allocator may keep its pages.
    assert!(grown < 128 * 1024 * 1024, "{grown}");
}

//! Connections that rest between requests: they hold next to nothing, and lose nothing of what comes next.

use std::time::Duration;

use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

/// Long enough that a connection rests.
const REST: Duration = Duration::from_millis(350);

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// In the clear, and over TLS.
fn both(config: &Config) -> [Gate; 2] {
    [
        Gate::start(config),
        Gate::start(&config.clone().tls(&Pki::new(), &[&["localhost"]])),
    ]
}

#[test]
fn the_bytes_that_end_an_idle_period_are_not_lost() {
    let upstream = RecordingUpstream::start();
    for gate in both(&public(&upstream)) {
        let mut conn = gate.connect();
        for at in 0..4 {
            let (one, two) = (get(&format!("/{at}/one")), get(&format!("/{at}/two")));
            // Before the first request, a connection rests too.
            std::thread::sleep(REST);
            assert_eq!(conn.call(&one).status, 200);
            std::thread::sleep(REST);
            conn.send([one.bytes(), two.bytes()].concat());
            assert_eq!((conn.reply().status, conn.reply().status), (200, 200), "pipelined");
            std::thread::sleep(REST);
            for piece in two.bytes().chunks(7) {
                conn.send(piece);
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(conn.reply().status, 200, "in pieces");
            conn.send("\r\n");
            std::thread::sleep(REST);
            assert_eq!(conn.call(&one).status, 200, "behind an empty line");
        }
        let lines: Vec<String> = upstream.all().iter().map(|seen| seen.line().to_owned()).collect();
        assert_eq!(
            lines[lines.len() - 5..],
            ["/3/one", "/3/one", "/3/two", "/3/two", "/3/one"].map(|at| format!("GET {at}"))
        );
    }
}

#[test]
fn an_invalid_request_after_an_idle_period_is_refused() {
    let upstream = RecordingUpstream::start();
    let config = public(&upstream).limits("header_timeout = \"300ms\"");
    for gate in both(&config) {
        for (sent, status) in [("GET /x HTTP/1.1\r\nHost : x\r\n\r\n", 400), ("G", 408)] {
            let mut conn = gate.connect();
            assert_eq!(conn.call(&get("/x")).status, 200);
            std::thread::sleep(REST);
            assert_eq!(conn.send(sent).reply().status, status);
            assert!(conn.wire.closes());
        }
    }
}

#[test]
fn an_idle_connection_ends_with_its_client_timeout_or_gateway() {
    let upstream = RecordingUpstream::start();
    for gate in both(&public(&upstream).limits("idle_timeout = \"1s\"")) {
        let before = gate.sockets();
        let mut conn = gate.connect();
        assert_eq!(conn.call(&get("/x")).status, 200);
        std::thread::sleep(REST);
        drop(conn);
        wait_until("it is gone with its client", Duration::from_secs(10), || {
            // One may be a connection to the upstream.
            gate.sockets() <= before + 1
        });
        let mut conn = gate.connect();
        assert_eq!(conn.call(&get("/x")).status, 200);
        assert!(conn.wire.closes(), "it has rested for too long");
        // An empty line is no request, and no reason to stay.
        let mut conn = gate.connect();
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(10) && conn.wire.write(b"\r\n").is_ok() {
            std::thread::sleep(REST);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it stays for empty lines");
    }
    for gate in both(&public(&upstream)) {
        let mut conn = gate.connect();
        assert_eq!(conn.call(&get("/x")).status, 200);
        std::thread::sleep(REST);
        let log = gate.stop();
        assert!(
            conn.wire.closes() && log.contains("drained"),
            "a drain does not wait for it: {log}"
        );
    }
}

#[test]
fn idle_connections_need_little_memory() {
    const COUNT: usize = 1_000;
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).tls(&Pki::new(), &[&["localhost"]]));
    let open = |count: usize| -> Vec<_> {
        let opened = (0..count).map(|_| {
            let mut conn = gate.connect();
            assert_eq!(conn.call(&get("/x")).status, 200);
            conn
        });
        opened.collect()
    };
    // What the first ones need once is not what each needs.
    let some = open(100);
    std::thread::sleep(REST);
    let before = gate.memory();
    let more = open(COUNT);
    std::thread::sleep(REST);
    let each = gate.memory().saturating_sub(before) / COUNT;
    println!("{each} bytes for each idle connection");
    assert!(each < 20 * 1024, "{each} bytes");
    drop((some, more));
}

//! A gateway without free file descriptors: open connections are served, new ones wait, and no server counts as failed.

use std::time::{Duration, Instant};

use crate::harness::{Config, Conn, Gate, RecordingUpstream, config, get, leave_descriptors, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().server("workers = 1").app(upstream).public("/*")
}

/// Closes the connections that the gateway has to a server, and waits until it has closed them too.
fn close(gate: &Gate, upstream: &RecordingUpstream) {
    let before = gate.sockets();
    upstream.close_connections();
    wait_until("they are closed", Duration::from_secs(10), || gate.sockets() < before);
}

#[test]
fn without_descriptors_new_connections_wait_and_open_ones_are_served() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut first = gate.connect();
    assert_eq!(first.call(&get("/x")).status, 200);
    leave_descriptors(gate.pid(), 3);
    let more: Vec<Conn> = (0..12).map(|_| gate.connect()).collect();
    gate.logged(&["accepting a connection failed", "open files"]);
    // Long enough that unthrottled logging would write many lines.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        assert_eq!(first.call(&get("/x")).status, 200, "what is there is served");
        std::thread::sleep(Duration::from_millis(20));
    }
    let lines = gate.log().matches("accepting a connection failed").count();
    assert!(lines <= 2, "{lines} lines:\n{}", gate.log());
    // One after the other leaves, and the next one comes in.
    for mut conn in more {
        assert_eq!(conn.call(&get("/x")).status, 200);
    }
    assert_eq!(gate.get("/x").status, 200);
}

#[test]
fn a_missing_descriptor_for_an_upstream_is_502_and_recovers() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x")).status, 200);
    close(&gate, &upstream);
    leave_descriptors(gate.pid(), 0);
    for _ in 0..5 {
        assert_eq!(conn.call(&get("/x")).status, 502);
    }
    gate.logged(&["upstream_unreachable", "open files"]);
    leave_descriptors(gate.pid(), 100);
    assert_eq!(conn.call(&get("/x")).status, 200);
}

#[test]
fn a_missing_descriptor_for_a_name_lookup_is_502_and_recovers() {
    let upstream = RecordingUpstream::start();
    let named = ["http://app.test:80".to_owned()];
    let gate = Gate::start(
        &public(&upstream)
            .upstream("named", &named)
            .route_to("named", "/named", "public = true"),
    );
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x")).status, 200);
    leave_descriptors(gate.pid(), 0);
    assert_eq!(conn.call(&get("/named")).status, 502);
    gate.logged(&["upstream_unreachable", "could not be looked up", "open files"]);
    leave_descriptors(gate.pid(), 100);
    assert_eq!(conn.call(&get("/x")).status, 200);
}

#[test]
fn a_missing_descriptor_is_not_a_failure_of_the_server() {
    let (one, two) = (RecordingUpstream::named("1"), RecordingUpstream::named("2"));
    let config = config()
        .server("workers = 1")
        .upstream("app", &[one.url(), two.url()])
        .with("balance = \"round-robin\"")
        .with("health = { path = \"/healthz\", interval = \"100ms\" }")
        .public("/*");
    let gate = Gate::start(&config);
    let mut conn = gate.connect();
    let served = |upstream: &RecordingUpstream| {
        let all = upstream.all();
        all.iter().filter(|seen| seen.line().contains("/x")).count()
    };
    for _ in 0..4 {
        assert_eq!(conn.call(&get("/x")).status, 200);
    }
    assert_eq!((served(&one), served(&two)), (2, 2));
    close(&gate, &two);
    // A check that is under way gives its descriptor back; from then on there is none for the next.
    for _ in 0..3 {
        leave_descriptors(gate.pid(), 0);
        std::thread::sleep(Duration::from_millis(30));
    }
    // Each second one would be the second server's, and the first has a connection to serve it on.
    for _ in 0..20 {
        assert_eq!(conn.call(&get("/x")).status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(served(&two), 2);
    leave_descriptors(gate.pid(), 100);
    for _ in 0..4 {
        assert_eq!(conn.call(&get("/x")).status, 200);
    }
    assert_eq!(served(&two), 4, "as if nothing had been");
    assert!(!gate.log().contains("is down"), "{}", gate.log());
}

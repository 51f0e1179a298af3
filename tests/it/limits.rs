//! Limits for one client: a test reaches each of them.

use std::io::{Read, Write};
use std::time::Duration;

use crate::harness::h2::H2;
use crate::harness::{Config, Gate, RecordingUpstream, call, config, get, post, wait_until};

fn limited(upstream: &RecordingUpstream, lines: &[&str]) -> Config {
    lines
        .iter()
        .fold(config().app(upstream).public("/*"), |config, line| config.limits(line))
}

#[test]
fn bodies_are_bounded_in_either_framing() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &limited(&upstream, &["body_bytes = \"1KiB\""]).route("/big", "public = true\nbody_bytes = \"1MiB\""),
    );
    let chunked = |bytes: usize| {
        let mut call = call("POST", "/x").header("Transfer-Encoding", "chunked");
        call.body = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes)).into_bytes();
        call
    };
    for (call, status) in [
        (post("/x", "x".repeat(1024)), 200),
        (post("/x", "x".repeat(1025)), 413),
        (chunked(1024), 200),
        (chunked(1025), 413),
        (post("/big", "x".repeat(100_000)), 200),
    ] {
        let reply = gate.call(&call);
        assert_eq!(reply.status, status, "{}", call.target);
        if status == 413 {
            assert_eq!(reply.detail(), "Payload Too Large.");
        }
    }
    let mut long = post("/x", "x".repeat(5000));
    long.fields.clear();
    assert_eq!(H2::connect(&gate).call(&long).status, 413);
}

#[test]
fn an_incomplete_head_is_answered_408() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["header_timeout = \"300ms\""]));
    let mut conn = gate.connect();
    let reply = conn.send("GET /x HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").reply();
    assert_eq!(
        (reply.status, reply.detail().as_str(), reply.header("connection")),
        (408, "Request Timeout.", Some("close"))
    );
    assert!(conn.wire.closes());
    gate.logged(&["head_too_slow"]);
    // The idle timeout applies between requests, not `header_timeout`.
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x")).status, 200);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(conn.call(&get("/x")).status, 200);
}

#[test]
fn an_idle_connection_is_closed() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["idle_timeout = \"300ms\""]));
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x")).status, 200);
    assert!(conn.wire.closes());
    let mut fresh = gate.connect();
    assert!(fresh.wire.closes(), "one that never said anything too");
    let mut h2 = H2::connect(&gate);
    assert_eq!(h2.call(&get("/x")).status, 200);
    wait_until("the HTTP/2 connection is closed", Duration::from_secs(10), || {
        h2.sender.is_closed()
    });
}

#[test]
fn a_stalled_body_is_answered_408() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["body_read_timeout = \"300ms\""]));
    let mut conn = gate.connect();
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(conn.reply().status, 408);
    gate.logged(&["body_too_slow"]);
}

#[test]
fn a_connection_beyond_the_limit_waits() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["connections = 2"]).server("workers = 1"));
    let (mut one, mut two) = (gate.connect(), gate.connect());
    assert_eq!((one.call(&get("/x")).status, two.call(&get("/x")).status), (200, 200));
    let mut three = gate.connect();
    three.send(get("/late").bytes());
    assert_eq!(one.call(&get("/x")).status, 200);
    assert_eq!(
        upstream.all().iter().filter(|seen| seen.line() == "GET /late").count(),
        0
    );
    drop(two);
    assert_eq!(three.reply().status, 200);
}

#[test]
fn an_unresponsive_http2_client_is_disconnected() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["idle_timeout = \"300ms\""]));
    for said in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut tcp = std::net::TcpStream::connect(gate.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        tcp.write_all(said).unwrap();
        // The gateway sends SETTINGS and GOAWAY, and closes without waiting for acknowledgements.
        assert!(tcp.read_to_end(&mut Vec::new()).is_ok());
    }
}

#[test]
fn streams_of_a_connection_are_bounded() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["h2_streams = 7"]));
    let mut tcp = std::net::TcpStream::connect(gate.address).unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut wire = crate::harness::wire::Wire::new(tcp);
    let header = wire.up_to(9).unwrap();
    assert_eq!(header[3], 4, "SETTINGS");
    let length = usize::from(header[1]) << 8 | usize::from(header[2]);
    let settings = wire.up_to(length).unwrap();
    let streams = settings
        .chunks(6)
        .find(|setting| setting[..2] == [0, 3])
        .map(|setting| setting[2..].to_vec());
    assert_eq!(streams, Some(vec![0, 0, 0, 7]), "SETTINGS_MAX_CONCURRENT_STREAMS");
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    const BODY: usize = 64 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.read_body();
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: {BODY}\r\n\r\n"
        ));
        let part = vec![b'x'; 1024 * 1024];
        for _ in 0..BODY / part.len() {
            if !exchange.write(&part) {
                break;
            }
        }
        crate::harness::Next::Close
    });
    let pki = crate::harness::pki::Pki::new();
    for tls in [false, true] {
        let mut config = limited(&upstream, &["body_read_timeout = \"500ms\""]);
        if tls {
            config = config.tls(&pki, &[&["localhost"]]);
        }
        let gate = Gate::start(&config);
        let mut conn = gate.connect();
        conn.send(get("/x").bytes());
        conn.wire.head().unwrap();
        // The client reads no more and keeps the connection.
        wait_until("the upstream is free again", Duration::from_secs(10), || {
            upstream.open() == 0
        });
        wait_until("the connection is closed", Duration::from_secs(10), || {
            gate.metric("authgate_connections") == 0.0
        });
    }
    // A client that reads slowly is served.
    let gate = Gate::start(&limited(&upstream, &["body_read_timeout = \"500ms\""]));
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    conn.wire.head().unwrap();
    let mut left = BODY;
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        left -= conn.wire.up_to(2 * 1024 * 1024).unwrap().len();
    }
    assert_eq!(conn.wire.up_to(left).unwrap().len(), left);
}

#[test]
fn an_incomplete_http2_preface_has_a_deadline() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&limited(&upstream, &["header_timeout = \"300ms\""]));
    // `P` could be the beginning of a POST, or of HTTP/2's preface.
    for begun in ["P", "PRI * HTTP/2."] {
        let mut conn = gate.connect();
        assert_eq!(conn.send(begun).reply().status, 408, "{begun}");
        assert!(conn.wire.closes());
    }
    let gate = Gate::start(&limited(&upstream, &["header_timeout = \"60s\""]));
    let mut conn = gate.connect();
    conn.send("P");
    wait_until("it is there", Duration::from_secs(5), || {
        gate.metric("authgate_connections") == 1.0
    });
    drop(conn);
    wait_until("it is gone", Duration::from_secs(5), || {
        gate.metric("authgate_connections") == 0.0
    });
    let mut conn = gate.connect();
    for byte in "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".bytes() {
        conn.send([byte]);
    }
    assert_eq!(conn.reply().status, 200);
}

//! The listeners beside those for clients: probes, and redirects to https.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use crate::harness::pki::Pki;
use crate::harness::{Conn, Gate, RecordingUpstream, Redis, config, get, post, wait_until};

/// The address that a line of the log names.
fn listens(gate: &Gate, message: &str) -> SocketAddr {
    let line = gate.logged(&[message]);
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    event["listen"].as_str().unwrap().parse().unwrap()
}

fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut conn = Conn::plain(address);
    conn.send(request);
    let head = conn.wire.head().unwrap().unwrap();
    let status = head.first.split(' ').nth(1).unwrap().parse().unwrap();
    let to = head.header("location").unwrap_or_default().to_owned();
    (status, to)
}

#[test]
fn the_probe_listener_answers_any_host_and_only_probes() {
    let (upstream, mut redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    redis.kill();
    let gate = Gate::spawn(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .protected("/*")
            .tables("[probes]\nlisten = \"127.0.0.1:0\""),
    );
    let probes = listens(&gate, "serving probes");
    let status = |path: &str| ask(probes, &format!("GET {path} HTTP/1.1\r\nHost: pod.example\r\n\r\n")).0;
    assert_eq!(
        (status("/livez"), status("/readyz")),
        (200, 503),
        "the store was never reached"
    );
    for path in ["/metrics", "/config", "/status", "/", "/livez/.."] {
        assert_eq!(status(path), 404, "{path}");
    }
    assert_eq!(
        ask(
            probes,
            "POST /livez HTTP/1.1\r\nHost: pod.example\r\nContent-Length: 0\r\n\r\n"
        )
        .0,
        405
    );
    redis.restart();
    redis.put_layout("one");
    wait_until("it is ready", std::time::Duration::from_secs(10), || {
        status("/readyz") == 200
    });
}

#[test]
fn cleartext_clients_are_redirected_to_https() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .public("/*")
            .route("/own", "public = true\nhost = \"route.example\"")
            .tls(&pki, &[&["localhost", "*.wild.example"]])
            .server("redirect_http = [\"127.0.0.1:0\"]"),
    );
    let clear = listens(&gate, "redirecting clients to https");
    let port = gate.address.port();
    let asked = |host: &str, more: &str| ask(clear, &format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"));
    for host in ["localhost", "a.wild.example", "route.example"] {
        assert_eq!(
            asked(&format!("{host}:80"), ""),
            (308, format!("https://{host}:{port}/a?b=c"))
        );
    }
    assert_eq!(asked("evil.example", ""), (404, String::new()));
    assert_eq!(
        asked("localhost", "Authorization: Token canary\r\n"),
        (403, String::new())
    );
    assert_eq!(upstream.calls(), 0);
    assert_eq!(gate.call(&post("/x", "y")).status, 200);
    assert_eq!(gate.call(&get("/x")).status, 200);
}

/// Connections of strangers that say nothing, or say it very slowly.
fn crowd(address: SocketAddr) -> Vec<TcpStream> {
    let open = |at: usize| {
        let mut tcp = TcpStream::connect(address).expect("it listens");
        if at.is_multiple_of(2) {
            let _ = tcp.write_all(b"GET /livez HTTP/1.1\r\nHost: pod.example\r\nX-Slow: ");
        }
        tcp
    };
    (0..450).map(open).collect()
}

#[test]
fn silent_or_slow_connections_do_not_block_probes() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .public("/*")
            .tls(&pki, &[&["localhost"]])
            .tables("[probes]\nlisten = \"127.0.0.1:0\"")
            .server("redirect_http = [\"127.0.0.1:0\"]"),
    );
    let probes = listens(&gate, "serving probes");
    let clear = listens(&gate, "redirecting clients to https");
    let mut crowds: Vec<TcpStream> = [probes, clear, gate.admin].into_iter().flat_map(crowd).collect();
    for _ in 0..20 {
        for tcp in &mut crowds {
            let _ = tcp.write_all(b"x");
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(
                ask(probes, &format!("GET {path} HTTP/1.1\r\nHost: pod.example\r\n\r\n")).0,
                200
            );
            assert_eq!(gate.probe(path).status, 200);
        }
        assert_eq!(ask(clear, "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").0, 308);
    }
}

#[test]
fn lingering_connections_count_towards_the_limit() {
    const PLACES: usize = 64;
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .public("/*")
            .tables("[probes]\nlisten = \"127.0.0.1:0\""),
    );
    let probes = listens(&gate, "serving probes");
    let before = gate.sockets();
    // Each is answered at once, and never closed by its client.
    let open = |_| {
        let mut tcp = TcpStream::connect(probes).expect("it listens");
        tcp.write_all(b"GET /livez HTTP/1.0\r\n\r\n").expect("open");
        tcp
    };
    let _connections: Vec<TcpStream> = (0..600).map(open).collect();
    assert_eq!(ask(probes, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
    let held = gate.sockets() - before;
    assert!(held <= 2 * PLACES, "{held} sockets");
}

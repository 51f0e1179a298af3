//! The ways to application servers: socket files, TLS, HTTP/2, weights, retries, and how many requests there may be.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::h2server::{Answer, H2Server};
use crate::harness::pki::Pki;
use crate::harness::upstream::closed_port;
use crate::harness::{Config, Gate, Next, RecordingUpstream, config, get, post, wait_until};

/// From now on, `/slow` is answered once for each release.
fn slow(upstream: &RecordingUpstream) -> mpsc::Sender<()> {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    upstream.answers(move |exchange| {
        if exchange.head.first.contains("/slow") {
            let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        exchange.ok()
    });
    release
}

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

#[test]
fn a_server_may_listen_on_a_socket_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (seen, heads) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = seen.send(String::from_utf8_lossy(&head).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let url = format!("unix:{}", path.display());
    let gate = Gate::start(
        &config()
            .upstream("app", std::slice::from_ref(&url))
            .public("/*")
            .upstream("own", std::slice::from_ref(&url))
            .with("host = \"server\"")
            .route_to("own", "/own", "public = true")
            .upstream("gone", &["unix:/nowhere/app.sock".to_owned()])
            .route_to("gone", "/gone", "public = true"),
    );
    let reply = gate.call(&get("/x").host("api.example"));
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    assert!(heads.recv().unwrap().contains("Host: api.example\r\n"));
    assert_eq!(gate.get("/own").status, 200);
    assert!(heads.recv().unwrap().contains("Host: localhost\r\n"));
    assert_eq!(gate.get("/gone").status, 502);
    gate.logged(&["upstream_unreachable", "/nowhere/app.sock"]);
}

#[test]
fn http2_upstreams_work_in_cleartext_and_over_tls() {
    let pki = Pki::new();
    for tls in [None, Some(&pki)] {
        let server = H2Server::start(tls.map(|pki| pki.server(&["app.internal"], false)), |request, body| {
            assert_eq!(request.version(), http::Version::HTTP_2);
            for name in ["host", "transfer-encoding", "connection", "te"] {
                assert!(!request.headers().contains_key(name), "{name}");
            }
            let said = format!("{} {} {}", request.method(), request.uri(), body.len());
            Answer::ok(said)
        });
        let mut config = config().server("workers = 1").upstream("app", &[server.url()]);
        if tls.is_some() {
            config = config
                .file("ca.pem", pki.root_pem())
                .with("tls = { ca = \"ca.pem\", server_name = \"app.internal\" }");
        }
        let gate = Gate::start(&config.public("/*"));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut conn = gate.connect();
        for _ in 0..3 {
            let reply = conn.call(&get("/x?y=1").host("api.example"));
            assert_eq!(
                (reply.status, reply.text()),
                (200, format!("GET {scheme}://api.example/x?y=1 0"))
            );
        }
        let reply = conn.call(&post("/x", vec![b'x'; 300_000]));
        assert_eq!(
            (reply.status, reply.text()),
            (200, format!("POST {scheme}://localhost/x 300000"))
        );
        let mut chunked = crate::harness::call("POST", "/x").header("Transfer-Encoding", "chunked");
        chunked.body = b"4\r\nbody\r\n0\r\n\r\n".to_vec();
        assert_eq!(conn.call(&chunked).text(), format!("POST {scheme}://localhost/x 4"));
        assert_eq!(server.accepted(), 1, "one connection is enough");
    }
}

#[test]
fn upstream_certificates_are_verified_and_the_client_certificate_is_sent() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = H2Server::start(Some(pki.server(&["localhost"], true)), |_, _| {
        Answer::ok("ok".to_owned())
    });
    let url = server.url().replace("127.0.0.1", "localhost");
    let (cert, key) = pki.leaf(&["gateway.example"]);
    let with = |tls: &str| {
        let config = config()
            .file("ca.pem", pki.root_pem())
            .file("other.pem", other.root_pem())
            .file("cert.pem", cert.clone())
            .file("key.pem", key.clone())
            .upstream("app", std::slice::from_ref(&url))
            .with(&format!("tls = {{ {tls} }}"))
            .public("/*");
        Gate::start(&config).get("/x").status
    };
    let own = "cert = \"cert.pem\", key = \"key.pem\"";
    assert_eq!(with(&format!("ca = \"ca.pem\", {own}")), 200);
    assert_eq!(with("ca = \"ca.pem\""), 502, "the server asks for a certificate");
    assert_eq!(
        with(&format!("ca = \"other.pem\", {own}")),
        502,
        "signed by another authority"
    );
    assert_eq!(
        with(&format!("ca = \"ca.pem\", server_name = \"other.example\", {own}")),
        502,
        "another name"
    );
}

#[test]
fn requests_are_distributed_by_weight() {
    let (one, two) = (RecordingUpstream::named("one"), RecordingUpstream::named("two"));
    let servers = format!(
        "servers = [{{ url = \"{}\", weight = 3 }}, {{ url = \"{}\" }}]",
        one.url(),
        two.url()
    );
    for (balance, exact) in [("round-robin", true), ("least-request", false)] {
        let config = config()
            .server("workers = 1")
            .upstream("app", &[])
            .with(&servers)
            .with(&format!("balance = \"{balance}\""))
            .public("/*");
        let gate = Gate::start(&config);
        let before = (one.calls(), two.calls());
        let mut conn = gate.connect();
        for _ in 0..200 {
            assert_eq!(conn.call(&get("/x")).status, 200);
        }
        let got = (one.calls() - before.0, two.calls() - before.1);
        if exact {
            assert_eq!(got, (150, 50));
        } else {
            assert!(got.0 > got.1 && got.1 > 20, "{got:?}");
        }
    }
}

#[test]
fn a_repeatable_request_is_retried_when_its_connection_closes() {
    let upstream = RecordingUpstream::start();
    // The first request of a connection is answered; on the next one, the server hangs up after it has read the request.
    let met: Mutex<std::collections::HashMap<u16, u32>> = Mutex::default();
    upstream.answers(move |mut exchange| {
        let port = exchange.wire.stream.peer_addr().unwrap().port();
        let count = {
            let mut met = met.lock().unwrap();
            let count = met.entry(port).or_default();
            *count += 1;
            *count
        };
        if count == 1 {
            return exchange.ok();
        }
        exchange.read_body();
        Next::Close
    });
    let gate = Gate::start(&public(&upstream).server("workers = 1"));
    let mut conn = gate.connect();
    for method in ["GET", "HEAD", "OPTIONS", "GET"] {
        let before = upstream.calls();
        assert_eq!(conn.call(&crate::harness::call(method, "/x")).status, 200, "{method}");
        assert!(upstream.calls() - before <= 2);
    }
    // What became of others on such a connection is unknown. From now on they go on new ones.
    assert_eq!(conn.call(&post("/x", "once")).status, 200);
    assert_eq!(conn.call(&crate::harness::call("DELETE", "/x")).status, 200);

    for (retries, call) in [
        (1, post("/x", "once")),
        (1, crate::harness::call("DELETE", "/x")),
        (0, get("/x")),
    ] {
        let gate = Gate::start(
            &public(&upstream)
                .with(&format!("retries = {retries}"))
                .server("workers = 1"),
        );
        let mut conn = gate.connect();
        // A connection that has just been used is used again, unless the machine pauses.
        let mut send = || {
            let before = upstream.calls();
            let status = conn.call(&call).status;
            assert_eq!(upstream.calls() - before, 1, "it is sent once: {call:?}");
            status
        };
        assert_eq!(send(), 200);
        assert!((0..20).any(|_| send() == 502), "{call:?}");
        assert_eq!(send(), 200, "on a new connection");
    }
}

#[test]
fn a_request_that_timed_out_is_not_retried() {
    let upstream = RecordingUpstream::start();
    let release = slow(&upstream);
    let gate = Gate::start(
        &public(&upstream)
            .with("response_timeout = \"300ms\"")
            .server("workers = 1"),
    );
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x")).status, 200);
    assert_eq!(conn.call(&get("/slow")).status, 504);
    assert_eq!(upstream.calls(), 2);
    drop(release);
}

#[test]
fn an_unreachable_server_is_ejected() {
    let upstream = RecordingUpstream::start();
    let urls = [format!("http://{}", closed_port()), upstream.url()];
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", &urls)
            .with("balance = \"round-robin\"")
            .public("/*"),
    );
    let mut conn = gate.connect();
    for _ in 0..30 {
        assert_eq!(conn.call(&post("/x", "y")).status, 200);
    }
    assert_eq!(upstream.calls(), 30);
}

#[test]
fn in_flight_limits_the_requests_of_an_upstream() {
    let upstream = RecordingUpstream::start();
    let release = slow(&upstream);
    let gate = Gate::start(&public(&upstream).with("in_flight = 1"));
    let mut slow = gate.connect();
    slow.send(get("/slow").bytes());
    upstream.wait_for_calls(1);
    let reply = gate.get("/x");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    gate.logged(&["upstream_full"]);
    let mut unread = gate.connect();
    unread.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(unread.reply().status, 503, "and that before the rest of its body");
    release.send(()).unwrap();
    assert_eq!(slow.reply().status, 200);
    for _ in 0..5 {
        assert_eq!(gate.get("/x").status, 200, "the place is free again");
    }
}

#[test]
fn clients_cannot_send_the_secret_header() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &public(&upstream)
            .with("secret_header = { name = \"X-Gateway-Secret\", value = { file = \"secret\" } }")
            .file("secret", "canary-of-the-gateway\n"),
    );
    for spoofed in ["X-Gateway-Secret", "X_Gateway_Secret", "x.gateway.secret"] {
        assert_eq!(gate.call(&get("/x").header(spoofed, "guess")).status, 200);
        let seen = upstream.last();
        assert_eq!(
            seen.head.folded("x-gateway-secret"),
            [("X-Gateway-Secret", "canary-of-the-gateway")]
        );
    }
}

#[test]
fn a_server_that_fails_its_health_checks_gets_no_requests() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (one, two) = (RecordingUpstream::named("one"), RecordingUpstream::named("two"));
    let sick = Arc::new(AtomicBool::new(false));
    let is_sick = Arc::clone(&sick);
    two.answers(move |exchange| match exchange.head.first.as_str() {
        "GET /healthz?deep HTTP/1.1" if is_sick.load(Ordering::SeqCst) => {
            exchange.answer("503 Service Unavailable", "", b"")
        }
        _ => exchange.ok(),
    });
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", &[one.url(), two.url()])
            .with("balance = \"round-robin\"")
            .with("health = { path = \"/healthz?deep\", interval = \"100ms\" }")
            .public("/*"),
    );
    let asked = |upstream: &RecordingUpstream| upstream.all().iter().filter(|seen| seen.line() == "GET /x").count();
    let share = || {
        let before = (asked(&one), asked(&two));
        let mut conn = gate.connect();
        for _ in 0..10 {
            assert_eq!(conn.call(&get("/x")).status, 200);
        }
        (asked(&one) - before.0, asked(&two) - before.1)
    };
    assert_eq!(share(), (5, 5));
    sick.store(true, Ordering::SeqCst);
    gate.logged(&["a server is down", &two.address.to_string()]);
    assert_eq!(share(), (10, 0));
    sick.store(false, Ordering::SeqCst);
    gate.logged(&["a server is up again"]);
    assert_eq!(share(), (5, 5));
}

#[test]
fn broken_requests_of_clients_do_not_eject_a_server() {
    let (one, two) = (RecordingUpstream::named("one"), RecordingUpstream::named("two"));
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", &[one.url(), two.url()])
            .with("balance = \"round-robin\"")
            .public("/*"),
    );
    let mut broken = crate::harness::call("POST", "/broken").header("Transfer-Encoding", "chunked");
    broken.body = b"5\r\nhello\r\nx\r\n".to_vec();
    for _ in 0..12 {
        assert_eq!(gate.call(&broken).status, 400);
    }
    let asked = |upstream: &RecordingUpstream| upstream.all().iter().filter(|seen| seen.line() == "GET /x").count();
    for _ in 0..10 {
        assert_eq!(gate.get("/x").status, 200);
    }
    assert_eq!((asked(&one), asked(&two)), (5, 5));
}

#[test]
fn a_connection_closed_by_the_server_leaves_the_pool() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let before = gate.sockets();
    let mut conns: Vec<_> = (0..20).map(|_| gate.connect()).collect();
    for conn in &mut conns {
        conn.send(get("/x").bytes());
    }
    for conn in &mut conns {
        assert_eq!(conn.reply().status, 200);
    }
    drop(conns);
    upstream.close_connections();
    wait_until("no socket is left over", Duration::from_secs(10), || {
        gate.sockets() <= before
    });
}

#[test]
fn requests_move_from_an_http2_server_to_an_http1_server() {
    let h2 = H2Server::start(None, |_, _| Answer::ok("h2".to_owned()));
    let h1 = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", &[h2.url(), h1.url()])
            .with("balance = \"round-robin\"")
            .public("/*"),
    );
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x").host("api.example")).text(), "h2");
    drop(h2);
    for _ in 0..8 {
        assert_eq!(conn.call(&get("/x?y=1").host("api.example")).status, 200);
        let seen = h1.last();
        assert_eq!((seen.line(), seen.header("host")), ("GET /x?y=1", Some("api.example")));
        assert_eq!(seen.header("te"), None);
    }
}

#[test]
fn a_small_body_is_buffered_before_a_server_is_chosen_and_a_long_one_streams() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &public(&upstream)
            .with("buffer = { request = \"1KiB\" }")
            .with("unsized = \"stream\""),
    );
    let mut client = gate.connect();
    let pause = || std::thread::sleep(Duration::from_millis(300));

    client.send("POST /known HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    pause();
    assert_eq!(upstream.accepted(), 0, "no server is taken for half a body");
    client.send("def");
    assert_eq!(client.reply().status, 200);
    assert_eq!(
        (
            upstream.last().body.data.as_slice(),
            upstream.last().header("content-length")
        ),
        (&b"abcdef"[..], Some("6"))
    );

    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    pause();
    assert_eq!(upstream.calls(), 1);
    client.send("3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let seen = upstream.last();
    assert_eq!(seen.body.data, b"abcdef");
    let framing = (seen.header("content-length"), seen.header("transfer-encoding"));
    assert_eq!(framing, (Some("6"), None), "its length is known by now");

    // A server sees the head of what does not fit at once, of unknown length too.
    let (began, begun) = mpsc::channel();
    upstream.answers(move |mut exchange| {
        began.send(()).ok();
        let length = exchange.read_body().data.len();
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 4\r\n\r\n{length}"
        ));
        Next::Keep
    });
    let patience = Duration::from_secs(10);
    client.send("POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    begun.recv_timeout(patience).expect("it is not gathered");
    client.send([b'x'; 1025]);
    assert_eq!(client.reply().text(), "1025");
    client.send("POST /longer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        client.send(format!("200\r\n{}\r\n", "y".repeat(512)));
    }
    begun.recv_timeout(patience).expect("it is too long to be gathered");
    client.send("1\r\nz\r\n0\r\n\r\n");
    assert_eq!(client.reply().text(), "1537");
}

#[test]
fn the_total_of_buffered_request_bodies_is_limited() {
    let upstream = RecordingUpstream::start();
    // 256 MiB in all: there is room for four of these.
    let gate = Gate::start(&public(&upstream).with("buffer = { request = \"64MiB\" }"));
    let half = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc";
    let mut clients: Vec<_> = (0..4).map(|_| gate.connect()).collect();
    for client in &mut clients {
        client.send(half);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(upstream.accepted(), 0);
    let mut fifth = gate.connect();
    fifth.send(half);
    wait_until("it streams", Duration::from_secs(10), || upstream.accepted() == 1);
    clients.push(fifth);
    for client in &mut clients {
        client.send("def");
        assert_eq!(client.reply().status, 200);
    }
    assert_eq!(upstream.calls(), 5);
}

#[test]
fn a_server_never_sees_a_small_body_that_is_incomplete() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).limits("body_read_timeout = \"1s\"\nbody_bytes = \"10B\""));
    let mut slow = gate.connect();
    slow.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(slow.reply().status, 408);
    let mut long = gate.connect();
    long.send("POST /long HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n");
    assert_eq!(long.reply().status, 413);
    let mut gone = gate.connect();
    gone.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    drop(gone);
    gate.logged(&["/gone"]);
    assert_eq!(upstream.accepted(), 0);
}

#[test]
fn a_response_is_read_ahead_of_a_slow_client() {
    const LENGTH: usize = 12 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    let body: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    let whole = body.clone();
    upstream.answers(move |exchange| match exchange.head.first.as_str() {
        "GET /big HTTP/1.1" => exchange.answer("200 OK", "", &body),
        "GET /events HTTP/1.1" => {
            exchange.answer("200 OK", "Content-Type: text/event-stream; charset=utf-8\r\n", &body)
        }
        _ => exchange.ok(),
    });
    // One place at this upstream: who holds it keeps everybody else out.
    let is_free = |gate: &Gate| {
        let end = std::time::Instant::now() + Duration::from_secs(2);
        while std::time::Instant::now() < end {
            if gate.get("/x").status == 200 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    };
    for (target, buffer, freed) in [
        ("/big", "16MiB", true),
        ("/big", "0B", false),
        ("/big", "64KiB", false),
        ("/events", "16MiB", false),
    ] {
        let gate = Gate::start(
            &public(&upstream)
                .with("in_flight = 1")
                .with(&format!("buffer = {{ response = \"{buffer}\" }}")),
        );
        let before = upstream.calls();
        let mut slow = gate.connect();
        slow.send(get(target).bytes());
        upstream.wait_for_calls(before + 1);
        assert_eq!(is_free(&gate), freed, "{target} with {buffer}");
        let reply = slow.reply();
        assert!(
            reply.status == 200 && reply.body.data == whole,
            "{target} with {buffer}: nothing is lost"
        );
        assert!(is_free(&gate));
    }
}

#[test]
fn a_truncated_response_that_was_read_ahead_stays_truncated() {
    const SENT: usize = 12 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    for framing in ["Content-Length: 13000000", "Transfer-Encoding: chunked"] {
        let mut answer = format!("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\n{framing}\r\n\r\n").into_bytes();
        if framing.ends_with("chunked") {
            answer.extend_from_slice(format!("{:x}\r\n", SENT + 1).as_bytes());
        }
        answer.resize(answer.len() + SENT, b'x');
        upstream.answers_raw(answer);
        let gate = Gate::start(&public(&upstream).with("buffer = { response = \"16MiB\" }"));
        let mut slow = gate.connect();
        slow.send(get("/cut").bytes());
        // The server has said all that it will, and none of it was taken yet.
        wait_until("the server is let go", Duration::from_secs(10), || {
            upstream.calls() > 0 && upstream.open() == 0
        });
        let body = slow.reply().body;
        assert!(
            !body.complete && body.data.len() == SENT,
            "{framing}: {}",
            body.data.len()
        );
    }
}

//! Requests and responses on their way: whole, streamed, cut, late.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::h2::H2;
use crate::harness::pki::Pki;
use crate::harness::upstream::closed_port;
use crate::harness::{Config, Gate, Next, RecordingUpstream, call, config, get, post, wait_until};

const MIB: usize = 1024 * 1024;

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).server("workers = 1"));
    let mut conn = gate.connect();
    for at in 0..10 {
        assert_eq!(conn.call(&post("/x", format!("{at}"))).status, 200);
    }
    assert_eq!((upstream.calls(), upstream.accepted()), (10, 1));
}

#[test]
fn a_pooled_connection_that_has_gone_stale_is_no_error() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).server("workers = 1"));
    let mut conn = gate.connect();
    for _ in 0..5 {
        assert_eq!(conn.call(&get("/x")).status, 200);
        upstream.close_connections();
        assert_eq!(conn.call(&post("/x", "body")).status, 200);
        upstream.close_connections();
    }
    assert_eq!(upstream.calls(), 10, "each request was sent once");
}

#[test]
fn a_get_may_have_a_body_of_unknown_length() {
    let upstream = RecordingUpstream::start();
    let streaming = Gate::start(
        &public(&upstream)
            .with("buffer = { request = \"0B\" }")
            .with("unsized = \"stream\""),
    );
    let gathering = Gate::start(&public(&upstream));
    let framings = [(&streaming, Some("chunked"), None), (&gathering, None, Some("5"))];
    for (method, (gate, coding, length)) in ["GET", "HEAD", "DELETE", "OPTIONS"]
        .into_iter()
        .flat_map(|method| framings.map(|framing| (method, framing)))
    {
        let mut chunked = call(method, "/x").header("Transfer-Encoding", "chunked");
        chunked.body = b"5\r\nquery\r\n0\r\n\r\n".to_vec();
        assert_eq!(gate.call(&chunked).status, 200, "{method}");
        let seen = upstream.last();
        assert_eq!(
            (
                seen.text().as_str(),
                seen.header("transfer-encoding"),
                seen.header("content-length")
            ),
            ("query", coding, length),
            "{method}"
        );
        let bare = gate.call(&call(method, "/x"));
        assert_eq!(bare.status, 200, "{method}");
        assert_eq!(upstream.last().header("transfer-encoding"), None, "{method}");
    }
}

#[test]
fn bodies_pass_whole_in_either_framing_and_protocol() {
    let upstream = RecordingUpstream::start();
    let big: Vec<u8> = (0..3 * MIB).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (expected, answer) = (big.clone(), big.clone());
    upstream.answers(move |mut exchange| {
        let body = exchange.read_body();
        assert!(body.complete && body.data == expected, "{} bytes", body.data.len());
        if exchange.head.first.contains("/chunked") {
            exchange.write("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
            for part in answer.chunks(100_000) {
                exchange.write([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
            }
            exchange.write("0\r\n\r\n");
            Next::Keep
        } else {
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            exchange.write([head.as_bytes(), &answer].concat());
            Next::Keep
        }
    });
    let gate = Gate::start(&public(&upstream).tls(&Pki::new(), &[&["localhost"]]));
    for target in ["/length", "/chunked"] {
        let reply = gate.call(&post(target, big.clone()));
        assert!(
            reply.status == 200 && reply.body.complete && reply.body.data == big,
            "{target}"
        );
        let mut chunked = call("POST", target).header("Transfer-Encoding", "chunked");
        for part in big.chunks(70_001) {
            chunked
                .body
                .extend_from_slice(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
        }
        chunked.body.extend_from_slice(b"0\r\n\r\n");
        let reply = gate.call(&chunked);
        assert!(reply.status == 200 && reply.body.data == big, "{target} from chunks");
        let mut h2 = H2::connect(&gate);
        let mut request = post(target, big.clone());
        request.fields.clear();
        let reply = h2.call(&request);
        assert!(
            reply.status == 200 && reply.body.complete && reply.body.data == big,
            "{target} over h2"
        );
    }
}

#[test]
fn answers_without_a_body_have_none() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        let first = exchange.head.first.clone();
        exchange.read_body();
        let head = if first.contains("/204") {
            "HTTP/1.1 204 No Content\r\nX-Upstream: 1\r\n\r\n"
        } else if first.contains("/304") {
            "HTTP/1.1 304 Not Modified\r\nX-Upstream: 1\r\nETag: \"a\"\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 1234\r\n\r\n"
        };
        exchange.write(head);
        Next::Keep
    });
    let gate = Gate::start(&public(&upstream).tls(&Pki::new(), &[&["localhost"]]));
    let mut conn = gate.connect();
    let mut h2 = H2::connect(&gate);
    for (method, target, status) in [
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/x", 200),
        ("GET", "/204", 204),
    ] {
        for reply in [conn.call(&call(method, target)), h2.call(&call(method, target))] {
            assert_eq!((reply.status, reply.body.data.len()), (status, 0), "{method} {target}");
            if method == "HEAD" {
                assert_eq!(reply.header("content-length"), Some("1234"));
            }
        }
    }
}

#[test]
fn a_refused_request_is_never_told_to_continue() {
    let upstream = RecordingUpstream::start();
    let redis = crate::harness::Redis::start().with_ada();
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).protected("/*"));
    let head = |token: &str| {
        format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
    };
    let mut conn = gate.connect();
    let reply = conn.send(head("canary-unknown")).reply();
    assert_eq!((reply.status, reply.interim.len()), (401, 0));

    let mut conn = gate.connect();
    conn.send(head("canary-ada"));
    let go_on = conn.wire.head().unwrap().unwrap();
    assert_eq!(go_on.first, "HTTP/1.1 100 Continue");
    assert_eq!(conn.send("body").reply().status, 200);
    assert_eq!(
        (upstream.last().text().as_str(), upstream.last().header("expect")),
        ("body", None)
    );
}

#[test]
fn an_upstream_that_fails_is_502_and_one_that_is_late_504() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .upstream("gone", &[format!("http://{}", closed_port())])
            .route_to("gone", "/gone", "public = true")
            .upstream("app", &[upstream.url()])
            .with("response_timeout = \"300ms\"")
            .public("/*")
            .route("/patient", "public = true\nresponse_timeout = \"20s\""),
    );
    let check = |target: &str, status: u16, detail: &str, label: &str| {
        let reply = gate.get(target);
        assert_eq!((reply.status, reply.detail().as_str()), (status, detail), "{target}");
        gate.logged(&[label]);
    };
    check("/gone", 502, "Bad gateway.", "upstream_unreachable");
    for garbage in [
        "rubbish\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        upstream.answers_raw(garbage);
        check("/x", 502, "Bad gateway.", "upstream_");
    }
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    upstream.answers(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        exchange.ok()
    });
    check("/x", 504, "Gateway timeout.", "upstream_timeout");
    drop(release);
    assert_eq!(gate.get("/patient").status, 200);
}

#[test]
fn a_cut_body_never_looks_complete() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).tls(&Pki::new(), &[&["localhost"]]));
    for cut in [
        "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    ] {
        upstream.answers_raw(cut);
        for body in [gate.get("/x").body, H2::connect(&gate).call(&get("/x")).body] {
            assert!(!body.complete, "{cut}");
            // What came before is not lost.
            assert_eq!(body.data, b"half", "{cut}");
        }
    }
}

#[test]
fn several_servers_share_the_requests_and_one_that_is_gone_is_passed_over() {
    let (one, two) = (RecordingUpstream::named("one"), RecordingUpstream::named("two"));
    for balance in ["round-robin", "least-request"] {
        let urls = [one.url(), two.url()];
        let config = config()
            .server("workers = 1")
            .upstream("app", &urls)
            .with(&format!("balance = \"{balance}\""))
            .public("/*");
        let gate = Gate::start(&config);
        let before = (one.calls(), two.calls());
        for _ in 0..40 {
            assert_eq!(gate.get("/x").status, 200);
        }
        let (of_one, of_two) = (one.calls() - before.0, two.calls() - before.1);
        assert!(
            of_one + of_two == 40 && of_one >= 5 && of_two >= 5,
            "{balance}: {of_one} and {of_two}"
        );
    }
    let urls = [format!("http://{}", closed_port()), two.url()];
    let gate = Gate::start(
        &config()
            .upstream("app", &urls)
            .with("balance = \"round-robin\"")
            .public("/*"),
    );
    for _ in 0..6 {
        assert_eq!(gate.call(&post("/x", "body")).status, 200);
    }
}

#[test]
fn a_client_that_leaves_takes_its_upstream_request_along() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.read_body();
        exchange.write("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Until the gateway hangs up.
        let _ = exchange.wire.stream.read(&mut [0; 1]);
        Next::Close
    });
    let gate = Gate::start(&public(&upstream));
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    conn.wire.head().unwrap();
    drop(conn);
    wait_until("the upstream's connection is closed", Duration::from_secs(10), || {
        upstream.open() == 0
    });
}

#[test]
fn a_slow_reader_costs_no_memory() {
    const BODY: usize = 64 * MIB;
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.read_body();
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: {BODY}\r\n\r\n"
        ));
        let part = vec![b'x'; MIB];
        for _ in 0..BODY / MIB {
            if !exchange.write(&part) {
                break;
            }
        }
        Next::Close
    });
    let gate = Gate::start(&public(&upstream).tls(&Pki::new(), &[&["localhost"]]));
    let before = gate.memory();
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    conn.wire.head().unwrap();
    let first = conn.wire.up_to(MIB).unwrap();
    // The upstream has long been ready to send the rest; all that could be held is held by now.
    let held = gate.memory().saturating_sub(before);
    assert!(
        first.len() == MIB && held < 24 * MIB,
        "{held} bytes are held for a reader that has paused"
    );
    assert_eq!(conn.wire.up_to(BODY - MIB).unwrap().len(), BODY - MIB);
}

#[test]
fn events_are_never_held_back() {
    let upstream = RecordingUpstream::start();
    let (next, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    upstream.answers(move |mut exchange| {
        exchange.read_body();
        exchange.write(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        for at in 0..5 {
            let event = format!("data: {at}\n\n");
            exchange.write(format!("{:x}\r\n{event}\r\n", event.len()));
            // The next one is sent only once this one was read at the other end.
            if wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).is_err() {
                return Next::Close;
            }
        }
        exchange.write("0\r\n\r\n");
        Next::Keep
    });
    let gate = Gate::start(&public(&upstream).tls(&Pki::new(), &[&["localhost"]]));
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    conn.wire.head().unwrap();
    for at in 0..5 {
        let event = format!("data: {at}\n\n");
        let chunk = format!("{:X}\r\n{event}\r\n", event.len());
        assert_eq!(
            String::from_utf8_lossy(&conn.wire.up_to(chunk.len()).unwrap()).to_uppercase(),
            chunk.to_uppercase()
        );
        next.send(()).unwrap();
    }
    let mut h2 = H2::connect(&gate);
    let request = h2.request(&get("/x"));
    let sent = h2.sender.send_request(request);
    h2.runtime.block_on(async {
        use http_body_util::BodyExt;
        let mut body = sent.await.unwrap().into_body();
        for at in 0..5 {
            let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(event, format!("data: {at}\n\n"));
            next.send(()).unwrap();
        }
    });
}

#[test]
fn a_client_that_sent_a_byte_too_many_is_missed_all_the_same() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| {
        // Until the gateway hangs up.
        let _ = exchange.wire.stream.read(&mut [0; 1]);
        Next::Close
    });
    let gate = Gate::start(&public(&upstream));
    for ahead in ["G", "GET /y HTTP/1.1\r\nHost: localhost\r\n\r\n", "\0"] {
        let mut conn = gate.connect();
        conn.send([get("/x").bytes(), ahead.into()].concat());
        wait_until("it is under way", Duration::from_secs(5), || upstream.open() == 1);
        drop(conn);
        wait_until("it is cancelled", Duration::from_secs(5), || upstream.open() == 0);
    }
}

#[test]
fn an_upstream_of_http_1_0_is_told_as_http_1_1() {
    let upstream = RecordingUpstream::start();
    upstream.answers_raw("HTTP/1.0 200 OK\r\nX-Upstream: 1\r\n\r\nuntil the end");
    let gate = Gate::start(&public(&upstream));
    let reply = gate.get("/x");
    assert_eq!(
        (reply.text().as_str(), reply.head.first.as_str()),
        ("until the end", "HTTP/1.1 200 OK")
    );
    assert_eq!(
        reply.header("transfer-encoding"),
        Some("chunked"),
        "so that an incomplete body can be recognized"
    );
}

#[test]
fn a_client_that_is_still_sending_is_not_cut_off() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    for _ in 0..5 {
        let mut tcp = std::net::TcpStream::connect(gate.address).unwrap();
        let request = get("/x").header("Connection", "close").bytes();
        tcp.write_all(&[request, vec![b'x'; 100_000]].concat()).unwrap();
        // What is behind a request that closes is never read as one. A reset in its place could cost the client its answer.
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        for _ in 0..3 {
            tcp.write_all(b"still sending").expect("the gateway still reads");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

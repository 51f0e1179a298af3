//! Responses of upstreams: ambiguous ones are refused, and silent ones time out.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::harness::frames::{DATA, GOAWAY, HEADERS, RST_STREAM, Raw, head};
use crate::harness::h2::H2;
use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, Next, RecordingUpstream, call, config, get, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

#[test]
fn a_silent_response_body_times_out_but_a_live_stream_does_not() {
    let upstream = RecordingUpstream::start();
    let (_release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    upstream.answers(move |mut exchange| {
        exchange.read_body();
        let kind = exchange.head.header("x-kind").unwrap_or("text/plain").to_owned();
        let head = format!("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Type: {kind}\r\nContent-Length: 8\r\n\r\nhalf");
        exchange.write(head);
        let live = kind == "text/event-stream";
        let _ = wait.lock().unwrap().recv_timeout(if live {
            Duration::from_secs(2)
        } else {
            Duration::from_secs(20)
        });
        exchange.write("half");
        Next::Keep
    });
    let config = config()
        .upstream("app", &[upstream.url()])
        .with("body_read_timeout = \"300ms\"")
        .public("/*");
    let gate = Gate::start(&config);
    let live = gate.call(&get("/events").header("X-Kind", "text/event-stream"));
    assert!(live.body.complete && live.text() == "halfhalf", "{live:?}");
    let cut = gate.get("/x");
    assert!(cut.status == 200 && !cut.body.complete, "{cut:?}");
    gate.logged(&["upstream_silent", "no data of a body for too long"]);
}

#[test]
fn an_ambiguous_response_is_502() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: +4",
        "X: y\r\n folded",
        "X : y",
    ] {
        upstream.answers_raw(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\n{fields}\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        ));
        let reply = gate.get("/x");
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (502, "Bad gateway."),
            "{fields}"
        );
        gate.logged(&["upstream_no_response", "invalid HTTP"]);
    }
}

#[test]
fn a_truncated_body_is_detectable_over_http_1_0() {
    let upstream = RecordingUpstream::start();
    for config in [public(&upstream), public(&upstream).tls(&Pki::new(), &[&["localhost"]])] {
        let gate = Gate::start(&config);
        let ends = |answer: &str| {
            upstream.answers_raw(answer);
            let mut conn = gate.connect();
            conn.send("GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n");
            conn.wire.head().unwrap().expect("a head");
            // The client library reports a reset, or TLS that was not closed.
            std::io::Read::read_to_end(&mut conn.wire.stream, &mut Vec::new()).is_ok()
        };
        let head = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        assert!(ends(&format!("{head}4\r\nhalf\r\n0\r\n\r\n")), "a whole one ends");
        assert!(!ends(head), "a cut one does not");
        assert!(!ends(&format!("{head}zz\r\n")), "nor does one that is broken");
    }
}

#[test]
fn after_an_early_response_the_client_can_finish_its_upload() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        let bodiless = exchange.head.first.contains("/204");
        exchange.write(if bodiless {
            "HTTP/1.1 204 No Content\r\nX-Upstream: 1\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\nok"
        });
        exchange.read_body();
        Next::Keep
    });
    let gate = Gate::start(&public(&upstream));
    for target in ["/200", "/204"] {
        let mut conn = gate.connect();
        for at in 0..3 {
            let before = upstream.calls();
            let length = 4 * 1024 * 1024;
            conn.send(format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            ));
            let reply = conn.reply();
            assert!(reply.status < 300, "{target} {at}: {reply:?}");
            for _ in 0..length / 65_536 {
                conn.send(vec![b'x'; 65_536]);
            }
            let whole = || {
                upstream
                    .all()
                    .get(before)
                    .is_some_and(|seen| seen.body.data.len() == length)
            };
            wait_until("all of it has come", Duration::from_secs(10), whole);
        }
        assert_eq!(conn.call(&get("/200")).status, 200, "and the connection goes on");
    }
}

/// Each response that has no content, with all that servers may send after its head.
#[test]
fn responses_without_content_have_none_in_both_versions() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        let target = exchange.head.first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut parts = target.trim_start_matches('/').split('/');
        let (status, with) = (parts.next().unwrap(), parts.next().unwrap());
        let (fields, body) = match with {
            "length" => ("Content-Length: 5\r\n", ""),
            "body" => ("Content-Length: 5\r\n", "{\"a\"}"),
            "zero" => ("Content-Length: 0\r\n", ""),
            "chunks" => ("Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            _ => ("", ""),
        };
        exchange.write(format!(
            "HTTP/1.1 {status} X\r\nX-Upstream: 1\r\nKeep-Alive: timeout=5\r\n{fields}\r\n{body}"
        ));
        Next::Keep
    });
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for (method, status) in [
        ("GET", 204),
        ("POST", 204),
        ("HEAD", 204),
        ("GET", 304),
        ("HEAD", 304),
        ("HEAD", 200),
    ] {
        for with in ["nothing", "length", "zero", "body", "chunks"] {
            let what = format!("{method} {status} {with}");
            let asked = call(method, &format!("/{status}/{with}"));
            // What another answer would have, where there could be another.
            let length = match (status, with) {
                (204, _) | (_, "nothing" | "chunks") => None,
                (_, "zero") => Some("0"),
                _ => Some("5"),
            };
            let mut conn = gate.connect();
            conn.send(asked.bytes());
            let reply = conn.reply_to(method);
            assert_eq!(
                (reply.status, reply.header("content-length")),
                (status, length),
                "{what}"
            );
            assert_eq!(
                (reply.header("transfer-encoding"), reply.header("keep-alive")),
                (None, None),
                "{what}"
            );
            assert!(reply.header("date").is_some(), "{what}");
            // No byte of it is read as the next response.
            conn.send(get("/200/zero").bytes());
            assert_eq!(conn.reply().status, 200, "{what}");

            // In frames: one HEADERS frame that ends the stream.
            let mut raw = Raw::open(&gate);
            let target = format!("/{status}/{with}");
            let fields = [
                (":method", method),
                (":scheme", "http"),
                (":authority", "localhost"),
                (":path", &target),
            ];
            raw.send(&head(1, &fields, 1));
            let flags = loop {
                let (kind, flags, payload) = raw.next_with_flags().expect("a frame");
                assert!(![DATA, RST_STREAM, GOAWAY].contains(&kind), "{what}: {payload:?}");
                if kind == HEADERS {
                    break flags;
                }
            };
            assert_eq!(flags & 1, 1, "{what} ends with its head");
            // As a client library reads it.
            let reply = H2::connect(&gate).call(&asked);
            assert_eq!(
                (reply.status, reply.header("content-length")),
                (status, length),
                "{what}"
            );
            assert!(reply.header("date").is_some() && reply.body.complete, "{what}");
        }
    }
}

/// A server that sends an early hint, and its response after the client has received the hint.
fn hinting(hints: &'static str) -> (RecordingUpstream, mpsc::Sender<()>) {
    let upstream = RecordingUpstream::start();
    let (seen, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    upstream.answers(move |mut exchange| {
        exchange.write(hints);
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        exchange.ok()
    });
    (upstream, seen)
}

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-a\r\nX-A: 1\r\n\
    Keep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\n";

#[test]
fn early_hints_reach_a_client_before_the_response() {
    let (upstream, seen) = hinting(HINT);
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    let head = conn.wire.head().unwrap().expect("a head");
    assert_eq!(head.first, "HTTP/1.1 103 Early Hints");
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    assert_eq!(fields, [("link".to_owned(), "</a.css>; rel=preload")]);
    seen.send(()).unwrap();
    let reply = conn.reply();
    assert_eq!((reply.status, reply.interim.len()), (200, 0));
    // The connection serves the next request.
    conn.send(get("/y").bytes());
    assert_eq!(
        conn.wire.head().unwrap().expect("a head").first,
        "HTTP/1.1 103 Early Hints"
    );
    seen.send(()).unwrap();
    assert_eq!(conn.reply().status, 200);

    let mut raw = Raw::open(&gate);
    raw.send(&head_of("/x"));
    let heads = |raw: &mut Raw| loop {
        let (kind, flags, payload) = raw.next_with_flags().expect("a frame");
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "{payload:?}");
        if kind == HEADERS {
            return (flags & 1, payload);
        }
    };
    let (ends, hint) = heads(&mut raw);
    assert!(ends == 0 && hint.windows(3).all(|bytes| bytes != b"x-a"), "{hint:?}");
    seen.send(()).unwrap();
    // `:status: 200` is one byte in the static table.
    assert_eq!(heads(&mut raw).1[0], 0x88);
}

fn head_of(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ];
    head(1, &fields, 1)
}

#[test]
fn other_interim_responses_and_hints_beyond_the_limit_are_dropped() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let statuses = |call: &[u8]| {
        let mut conn = gate.connect();
        conn.send(call);
        let reply = conn.reply();
        (reply.interim, reply.status)
    };
    let answers = |before: String| {
        upstream.answers(move |mut exchange| {
            exchange.write(&before);
            exchange.ok()
        });
    };
    let get = get("/x").bytes();
    answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 X\r\nLink: a\r\n\r\n".to_owned());
    assert_eq!(statuses(&get), (vec![], 200));
    answers(HINT.repeat(12));
    assert_eq!(statuses(&get), (vec![103; 8], 200));
    answers(format!("HTTP/1.1 103 X\r\nLink: {}\r\n\r\n{HINT}", "x".repeat(9_000)));
    assert_eq!(statuses(&get), (vec![103], 200));
    // HTTP/1.0 has no interim responses.
    let old = b"GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n";
    answers(HINT.to_owned());
    assert_eq!(statuses(old), (vec![], 200));
    // Their number is limited.
    answers(HINT.repeat(20));
    assert_eq!(statuses(&get).1, 502);
}

//! Whether an HTTP/1 connection is kept for another request, and its `Connection` header (RFC 9112, section 9.3).

use std::thread::sleep;
use std::time::Duration;

use crate::harness::{Config, Gate, Next, RecordingUpstream, config, get, post, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// Refused by its length alone, before a byte of it is read.
const LIMIT: &str = "body_bytes = \"1KiB\"";

#[test]
fn a_short_unread_body_is_drained_and_the_connection_kept() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).limits(LIMIT));
    let mut conn = gate.connect();
    for _ in 0..3 {
        let refused = conn.call(&post("/x", vec![b'x'; 2_000]));
        assert_eq!((refused.status, refused.header("connection")), (413, None));
        // What would be a request if its body were not taken for what it is.
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
        let refused = conn.call(&post("/x", smuggled));
        assert_eq!((refused.status, refused.header("connection")), (413, None));
        assert_eq!(conn.call(&get("/next")).status, 200);
    }
    // In pieces, with what follows in the last one.
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n");
    assert_eq!(conn.reply().status, 413);
    conn.send([b'x'; 1_000]);
    sleep(Duration::from_millis(20));
    conn.send([&[b'x'; 1_000][..], b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
    assert_eq!(conn.reply().status, 200);
    assert!(upstream.all().iter().all(|call| call.line().contains("/next")));
}

#[test]
fn a_long_unread_body_closes_the_connection_with_connection_close() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).limits(LIMIT));
    let mut conn = gate.connect();
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    let refused = conn.reply();
    assert_eq!((refused.status, refused.header("connection")), (413, Some("close")));
    assert!(conn.wire.closes());
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn an_expected_body_that_may_never_come_closes_the_connection() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).limits(LIMIT));
    let mut conn = gate.connect();
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n");
    let refused = conn.reply();
    assert_eq!((refused.status, refused.header("connection")), (413, Some("close")));
    assert!(conn.wire.closes());
}

#[test]
fn a_missing_body_closes_the_connection() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).limits(LIMIT));
    let mut conn = gate.connect();
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n");
    assert_eq!(conn.reply().status, 413);
    assert!(conn.wire.closes());
}

#[test]
fn http_1_0_clients_get_http_1_0_framing() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.read_body();
        exchange.write(if exchange.head.first.contains("/chunks") {
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\nok"
        });
        Next::Keep
    });
    let gate = Gate::start(&public(&upstream));
    let mut conn = gate.connect();
    for _ in 0..2 {
        conn.send("GET /x HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\n\r\n");
        let reply = conn.reply();
        assert_eq!(
            (reply.header("connection"), reply.header("content-length")),
            (Some("keep-alive"), Some("2"))
        );
    }
    conn.send("GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(conn.reply().header("connection"), Some("close"));
    assert!(conn.wire.closes());
    // The end of the connection is the end of the body, whatever was asked for.
    let mut conn = gate.connect();
    conn.send("GET /chunks HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\n\r\n");
    let reply = conn.reply();
    let framing = ["connection", "content-length", "transfer-encoding"].map(|name| reply.header(name));
    assert_eq!((framing, reply.text().as_str()), ([Some("close"), None, None], "ok"));
}

#[test]
fn responses_without_a_body_have_the_allowed_content_length() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.read_body();
        let status = exchange.head.first.split('/').nth(1).unwrap_or_default()[..3].to_owned();
        exchange.write(format!(
            "HTTP/1.1 {status} It is\r\nX-Upstream: 1\r\nContent-Length: 7\r\n\r\n"
        ));
        if status == "200" && exchange.head.first.starts_with("GET") {
            exchange.write("content");
        }
        Next::Keep
    });
    let gate = Gate::start(&public(&upstream));
    let mut conn = gate.connect();
    for (method, target, length) in [
        ("HEAD", "/200", Some("7")),
        ("GET", "/304", Some("7")),
        ("GET", "/204", None),
        ("HEAD", "/204", None),
        ("GET", "/200", Some("7")),
    ] {
        conn.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let reply = conn.reply_to(method);
        assert_eq!(reply.header("content-length"), length, "{method} {target}");
        assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")));
    }
}

#[test]
fn a_client_that_sends_a_request_before_reading_is_not_disconnected() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: {LENGTH}\r\n\r\n"
        ));
        let answer = exchange.write(vec![b'y'; LENGTH]);
        exchange.read_body();
        if answer { Next::Keep } else { Next::Close }
    });
    let gate = Gate::start(&public(&upstream).limits("body_read_timeout = \"400ms\""));
    let mut conn = gate.connect();
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
    for _ in 0..10 {
        sleep(Duration::from_millis(150));
        conn.send([b'x'; 10_000]);
    }
    let reply = conn.reply();
    assert_eq!((reply.status, reply.body.data.len()), (200, LENGTH));
}

#[test]
fn an_upload_continues_after_a_response_with_connection_close() {
    const BODY: usize = 3_000_000;
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\nok");
        exchange.read_body();
        Next::Close
    });
    let gate = Gate::start(&public(&upstream).with("buffer = { request = \"0B\" }"));
    let mut conn = gate.connect();
    conn.send(format!(
        "POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {BODY}\r\n\r\n"
    ));
    let answer = conn.reply();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    for _ in 0..BODY / 100_000 {
        conn.send(vec![b'x'; 100_000]);
        sleep(Duration::from_millis(5));
    }
    assert!(conn.wire.closes());
    wait_until("all of it has come", Duration::from_secs(5), || {
        upstream.last().body.data.len() == BODY
    });
}

#[test]
fn a_target_without_a_path_is_forwarded_with_a_slash() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut conn = gate.connect();
    for (target, line) in [("http://localhost", "GET /"), ("http://localhost?x=/a", "GET /?x=/a")] {
        conn.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(conn.reply().status, 200);
        assert_eq!(upstream.last().line(), line);
    }
}

//! HTTP/2 as bytes: floods, frames that break the protocol, heads that are too large, and messages that could be read otherwise.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::frames::{
    CANCEL, CONTINUATION, DATA, EMPTY_SETTINGS, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PLAIN, RST_STREAM, Raw, block,
    frame, head,
};
use crate::harness::h2::H2;
use crate::harness::websocket::accept_of;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, post, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

#[test]
fn too_many_frames_without_data_close_the_connection() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let ping = frame(6, 0, 0, &[0; 8]);
    let empty = frame(DATA, 0, 1, &[]);
    let window = frame(8, 0, 0, &[0, 0, 0, 1]);
    let unknown = frame(0x77, 0, 0, &[]);
    let priority = frame(2, 0, 3, &[0, 0, 0, 0, 16]);
    let open = head(1, &[PLAIN[0], PLAIN[1], PLAIN[2], PLAIN[3], ("content-length", "5")], 0);
    for flood in [&ping[..], EMPTY_SETTINGS, &empty, &window, &unknown, &priority] {
        let mut raw = Raw::open(&gate);
        raw.send(&open);
        let mut sent = 0;
        while sent < 20_000 && raw.send(&flood.repeat(50)) {
            sent += 1;
        }
        assert!(sent < 20_000, "{flood:?} is still read");
        // A reset may come before the GOAWAY was read.
        let error = raw.error();
        assert!(
            error.is_none_or(|error| error == ENHANCE_YOUR_CALM),
            "{flood:?}: {error:?}"
        );
    }
    // h2 itself ends some of them first.
    gate.metric_reaches("authgate_h2_floods_total", 4.0);
    gate.logged(&["reason", "control frames"]);
    assert_eq!(H2::connect(&gate).call(&get("/x")).status, 200);
}

#[test]
fn too_many_reset_streams_close_the_connection() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| {
        std::thread::sleep(Duration::from_millis(50));
        exchange.ok()
    });
    let gate = Gate::start(&public(&upstream));
    let mut raw = Raw::open(&gate);
    let mut sent = 0;
    for stream in (1..20_001).step_by(2) {
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        if !raw.send(&[head(stream, &PLAIN, 1), reset].concat()) {
            break;
        }
        sent += 1;
    }
    assert!(sent < 10_000, "all {sent} were taken");
    assert!(upstream.calls() < 1_500, "{} reached the upstream", upstream.calls());
    assert_eq!(H2::connect(&gate).call(&get("/x")).status, 200);
}

#[test]
fn too_many_resets_by_the_gateway_close_the_connection() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut raw = Raw::open(&gate);
    for stream in (1..20_001).step_by(2) {
        // A window beyond 2^31-1 is a stream error (RFC 9113, section 6.9.1), and we are the one to reset.
        let too_much = frame(8, 0, stream, &[0x7F, 0xFF, 0xFF, 0xFF]);
        if !raw.send(&[head(stream, &PLAIN, 0), too_much].concat()) {
            break;
        }
    }
    // What is sent after the last stream is read and dropped for a while: only GOAWAY tells which streams were taken.
    let (last, code) = loop {
        if let (GOAWAY, _, payload) = raw.next().expect("a GOAWAY before the end") {
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            break (number(0), number(4));
        }
    };
    assert_eq!(code, ENHANCE_YOUR_CALM);
    assert!(last < 10_000, "{last} was taken");
}

#[test]
fn endless_continuation_frames_are_bounded() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let before = gate.memory();
    for piece in [&b""[..], &block(&[("x", &"y".repeat(1000))])] {
        let mut raw = Raw::open(&gate);
        raw.send(&frame(HEADERS, 0, 1, &block(&PLAIN)));
        let mut sent = 0;
        while sent < 100_000 && raw.send(&frame(CONTINUATION, 0, 1, piece)) {
            sent += 1;
        }
        assert!(sent < 100_000, "it is still read");
    }
    assert!(gate.memory() < before + 8 * 1024 * 1024);
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn an_oversized_head_gets_the_gateway_s_response() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &public(&upstream)
            .limits("header_bytes = \"8KiB\"")
            .limits("headers = 20"),
    );
    let mut h2 = H2::connect(&gate);
    let reply = h2.call(&get("/x").header("x-large", "y".repeat(9000)));
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (431, "Request Header Fields Too Large.")
    );
    let many = (0..21).fold(get("/x"), |call, at| call.header(&format!("x-{at}"), "y"));
    assert_eq!(h2.call(&many).status, 431);
    gate.logged(&["head_too_large", "\"http.status\":431"]);
    assert_eq!(h2.call(&get("/x")).status, 200);
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn ambiguous_http2_messages_are_refused() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let with = |more: &[(&'static str, &'static str)]| [&PLAIN[..], more].concat();
    let bad: Vec<Vec<(&str, &str)>> = vec![
        with(&[("connection", "x-a")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("keep-alive", "5")]),
        with(&[("proxy-connection", "x")]),
        with(&[("te", "gzip")]),
        with(&[("X-Upper", "1")]),
        with(&[("x a", "1")]),
        with(&[("x-a", "b\r\nc: d")]),
        with(&[("x-a", "b\0")]),
        with(&[(":path", "/y")]),
        with(&[("x-a", "b"), (":authority", "localhost")]),
        with(&[(":status", "200")]),
        with(&[("content-length", "1")]),
        with(&[("content-length", "0, 0")]),
        with(&[("content-length", "x")]),
        vec![PLAIN[0], PLAIN[1], PLAIN[2]],
        vec![PLAIN[1], PLAIN[2], PLAIN[3]],
        vec![PLAIN[0], PLAIN[1], PLAIN[2], (":path", "")],
        vec![PLAIN[0], PLAIN[2], PLAIN[3]],
    ];
    for fields in &bad {
        let mut raw = Raw::open(&gate);
        raw.send(&head(1, fields, 1));
        assert!(raw.error().is_some_and(|error| error != 0), "{fields:?}");
    }
    // What h2 lets pass is refused by the proxy, and said so.
    for fields in [
        with(&[("host", "other.example")]),
        with(&[("host", "localhost"), ("host", "localhost")]),
        vec![PLAIN[0], PLAIN[1], PLAIN[3]],
        vec![PLAIN[0], PLAIN[1], PLAIN[2], (":path", "/a%zz")],
        vec![PLAIN[0], PLAIN[1], PLAIN[2], (":path", "?x=1")],
    ] {
        let mut raw = Raw::open(&gate);
        raw.send(&head(1, &fields, 1));
        let (_, body) = raw.response();
        assert_eq!(body, br#"{"detail":"Malformed request."}"#, "{fields:?}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_body_with_a_wrong_content_length_is_never_forwarded_as_complete() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let fields = [&[(":method", "POST")], &PLAIN[1..], &[("content-length", "5")]].concat();
    for (body, flags) in [(&b"abc"[..], 1), (b"abcdefgh", 1), (b"abcdefgh", 0)] {
        let mut raw = Raw::open(&gate);
        raw.send(&[head(1, &fields, 0), frame(DATA, flags, 1, body)].concat());
        assert!(raw.error().is_some_and(|error| error != 0), "{body:?}");
    }
    assert!(upstream.all().iter().all(|seen| !seen.body.complete));
}

#[test]
fn a_content_length_with_a_sign_is_not_forwarded() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &public(&upstream)
            .with("buffer = { request = \"0B\" }")
            .with("unsized = \"stream\""),
    );
    let fields = [
        &[(":method", "POST")],
        &PLAIN[1..],
        &[("content-length", "9999999999999999999")],
    ]
    .concat();
    let mut raw = Raw::open(&gate);
    raw.send(&[head(1, &fields, 0), frame(DATA, 0, 1, b"x")].concat());
    wait_until("the head is there", Duration::from_secs(5), || upstream.calls() == 1);
    assert_eq!(upstream.last().header("content-length"), None);
    assert_eq!(upstream.last().header("transfer-encoding"), Some("chunked"));
}

#[test]
fn cookies_are_joined_and_trailers_dropped() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut h2 = H2::connect(&gate);
    assert_eq!(
        h2.call(&get("/x").header("cookie", "a=1").header("cookie", "b=2"))
            .status,
        200
    );
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=2"));
    let mut raw = Raw::open(&gate);
    let fields = [&[(":method", "POST")], &PLAIN[1..]].concat();
    let trailers = frame(HEADERS, 5, 1, &block(&[("x-user-id", "1"), ("x-late", "2")]));
    raw.send(&[head(1, &fields, 0), frame(DATA, 0, 1, b"body"), trailers].concat());
    raw.response();
    let seen = upstream.last();
    assert_eq!((seen.text().as_str(), seen.body.trailers.len()), ("body", 0));
    assert!(seen.head.folded("x-late").is_empty() && seen.head.folded("x-user-id").is_empty());
}

#[test]
fn a_websocket_over_http2_is_authenticated_and_then_tunneled() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        let key = exchange.head.header("sec-websocket-key").expect("a key").to_owned();
        let accept = if exchange.head.first.contains("/liar") {
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()
        } else {
            accept_of(&key)
        };
        exchange.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nX-Upstream: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\nhello"
        ));
        loop {
            let heard = exchange.wire.some().unwrap_or_default();
            if heard.is_empty() && exchange.head.first.contains("/silent") {
                // It hears the end, and says nothing.
                std::thread::sleep(Duration::from_secs(4));
            }
            if heard.is_empty() || !exchange.write(&heard) {
                return crate::harness::Next::Close;
            }
        }
    });
    let redis = crate::harness::Redis::start().with_ada();
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .protected("/*")
            .limits("idle_timeout = \"1s\""),
    );
    let connect = |path: &'static str, token: &'static str| {
        let mut fields = vec![
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ];
        if !token.is_empty() {
            fields.push(("authorization", token));
        }
        let mut raw = Raw::open(&gate);
        raw.send(&head(1, &fields, 0));
        raw
    };
    // `:status: 200` is one byte in the static table.
    let mut raw = connect("/ws", "Token canary-ada");
    let (mut status, mut body) = (0, Vec::new());
    let mut until = |raw: &mut Raw, length: usize| {
        while body.len() < length {
            match raw.next().expect("a frame") {
                (HEADERS, _, payload) => status = payload[0],
                (DATA, _, payload) => body.extend_from_slice(&payload),
                _ => {}
            }
        }
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(until(&mut raw, 5), (0x88, "hello".to_owned()));
    // Longer than the connection may be idle.
    std::thread::sleep(Duration::from_millis(1500));
    raw.send(&frame(DATA, 0, 1, b"GET / HTTP/1.1"));
    assert_eq!(until(&mut raw, 19).1, "helloGET / HTTP/1.1");
    assert_eq!(upstream.last().line(), "GET /ws");
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    assert_eq!(
        gate.metric("authgate_requests_in_flight"),
        1.0,
        "it is under way until it ends"
    );
    drop(raw);
    wait_until("both sides are closed", Duration::from_secs(5), || upstream.open() == 0);

    let mut raw = connect("/silent", "Token canary-ada");
    while !matches!(raw.next().expect("a frame"), (DATA, ..)) {}
    raw.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, CANCEL]));
    wait_until("the WebSocket has ended", Duration::from_secs(3), || {
        gate.metric("authgate_requests_in_flight") == 0.0
    });

    let calls = upstream.calls();
    let (_, body) = connect("/ws", "Token canary-unknown").response();
    assert_eq!(body, br#"{"detail":"Invalid token."}"#);
    let (_, body) = connect("/ws", "").response();
    assert_eq!(body, br#"{"detail":"Authentication credentials were not provided."}"#);
    assert_eq!(upstream.calls(), calls);
    let (_, body) = connect("/liar", "Token canary-ada").response();
    assert_eq!(body, br#"{"detail":"Bad gateway."}"#, "the key was not confirmed");
    // Any other CONNECT is none of ours.
    for fields in [
        vec![(":method", "CONNECT"), (":authority", "localhost:443")],
        vec![
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", "/ws"),
        ],
    ] {
        let mut raw = Raw::open(&gate);
        raw.send(&head(1, &fields, 1));
        let (_, body) = raw.response();
        assert_eq!(body, br#"{"detail":"Not implemented."}"#);
    }
}

#[test]
fn hop_by_hop_fields_are_removed_from_http2_responses() {
    let upstream = RecordingUpstream::start();
    let fields = "Connection: x-a, close\r\nX-A: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nUpgrade: h3\r\nProxy-Connection: x\r\nTrailer: y\r\n";
    upstream.answers(move |exchange| exchange.answer("200 OK", fields, b"whole"));
    let gate = Gate::start(&public(&upstream));
    let reply = H2::connect(&gate).call(&get("/x"));
    assert_eq!((reply.status, &reply.body.data[..]), (200, &b"whole"[..]));
    for name in [
        "connection",
        "x-a",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
        "trailer",
    ] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[test]
fn a_body_reset_with_no_error_is_never_forwarded_as_complete() {
    let upstream = RecordingUpstream::start();
    for buffer in ["64KiB", "0B"] {
        let gate = Gate::start(&public(&upstream).with(&format!("buffer = {{ request = \"{buffer}\" }}")));
        for code in [8, 0] {
            let before = upstream.calls();
            let mut raw = Raw::open(&gate);
            let mut post = PLAIN;
            post[0].1 = "POST";
            raw.send(&[head(1, &post, 0), frame(DATA, 0, 1, b"half")].concat());
            std::thread::sleep(Duration::from_millis(200));
            raw.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, code]));
            std::thread::sleep(Duration::from_millis(300));
            let seen = upstream.all().split_off(before);
            assert!(seen.iter().all(|seen| !seen.body.complete), "{buffer} {code}: {seen:?}");
        }
    }
}

/// Frames that others have put together, each with the errors that the protocol has for it.
#[test]
fn invalid_frames_of_a_test_suite_have_the_expected_error() {
    let folder = std::env::var_os("AUTHGATE_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let Ok(listed) = std::fs::read_dir(folder.join("http2-frames/error")) else {
        eprintln!("skipped: no http2-frames");
        return;
    };
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut judged = 0;
    for file in listed {
        let file = file.unwrap().path();
        let case: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let wire = case["wire"].as_str().unwrap();
        let wire: Vec<u8> = (0..wire.len() / 2)
            .map(|at| u8::from_str_radix(&wire[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let expected: Vec<u64> = case["error"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        let mut raw = Raw::open(&gate);
        // A frame that comes short would be waited for.
        raw.send(&wire);
        let _ = raw.0.shutdown(std::net::Shutdown::Write);
        let error = raw.error();
        // Errors of a connection may be any of these (RFC 9113, section 5.4); a connection that ends says it too.
        assert!(
            error != Some(0),
            "{}: taken as good: {error:?}, expected {expected:?}",
            file.display()
        );
        judged += 1;
    }
    assert!(judged >= 10, "{judged}");
    assert_eq!(upstream.calls(), 0);
    assert_eq!(H2::connect(&gate).call(&post("/x", "y")).status, 200);
}

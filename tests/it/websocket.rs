//! WebSockets: authenticated like any request; then bytes are copied in both directions.

use std::io::Read;
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::frames::{Raw, head};
use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, Next, RecordingUpstream, Redis, call, config, get};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nX-Upstream: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An upstream that echoes all bytes after the switch.
fn echoing() -> RecordingUpstream {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        if exchange.head.header("upgrade").is_none() {
            return exchange.ok();
        }
        exchange.write([SWITCHING.as_bytes(), b"hello"].concat());
        loop {
            let heard = exchange.wire.some().unwrap_or_default();
            if heard.is_empty() || !exchange.write(&heard) {
                return Next::Close;
            }
        }
    });
    upstream
}

fn gate(upstream: &RecordingUpstream, redis: &Redis) -> Gate {
    Gate::start(&protected(upstream, redis))
}

fn protected(upstream: &RecordingUpstream, redis: &Redis) -> Config {
    config().tokens(redis).app(upstream).protected("/*").public("/open/*")
}

#[test]
fn bytes_are_copied_both_ways_after_the_upstream_has_switched() {
    let (upstream, redis) = (echoing(), Redis::start().with_ada());
    let gate = gate(&upstream, &redis);
    for ahead in ["", "early"] {
        let mut conn = gate.connect();
        // Some clients send before the 101 arrives.
        conn.send(format!("{UPGRADE}Authorization: Token canary-ada\r\n\r\n{ahead}"));
        let head = conn.wire.head().unwrap().unwrap();
        assert_eq!(head.first, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(head.header("upgrade"), Some("websocket"));
        assert_eq!(
            head.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(conn.wire.up_to(5).unwrap(), b"hello");
        assert_eq!(conn.wire.up_to(ahead.len()).unwrap(), ahead.as_bytes());
        // Bytes that look like a request are not parsed.
        for said in [&b"GET /x HTTP/1.1\r\n\n\n\r\n"[..], &[0; 100_000], b"\x88\0"] {
            conn.send(said);
            assert_eq!(conn.wire.up_to(said.len()).unwrap(), said);
        }
        let seen = upstream.last();
        assert_eq!(
            (seen.header("upgrade"), seen.header("connection")),
            (Some("websocket"), Some("Upgrade"))
        );
        assert_eq!(seen.header("x-user-id"), Some("42"));
        assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        drop(conn);
        crate::harness::wait_until("both sides are closed", Duration::from_secs(5), || upstream.open() == 0);
    }
    assert_eq!(gate.requests(2)[0]["http.status"], 101);
}

#[test]
fn one_side_may_end_before_the_other() {
    for tls in [true, false] {
        let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
        let config = protected(&upstream, &redis);
        let gate = Gate::start(&if tls {
            config.tls(&Pki::new(), &[&["localhost"]])
        } else {
            config
        });
        let open = || {
            let mut conn = gate.connect();
            conn.send(format!("{UPGRADE}Authorization: Token canary-ada\r\n\r\n"));
            assert_eq!(
                conn.wire.head().unwrap().unwrap().first,
                "HTTP/1.1 101 Switching Protocols"
            );
            conn
        };
        // The client closes its direction first.
        upstream.answers(|mut exchange| {
            exchange.write(SWITCHING);
            let heard = exchange.wire.up_to(usize::MAX).unwrap();
            exchange.write([b"heard ", heard.as_slice(), &[b'.'; 300_000]].concat());
            Next::Close
        });
        let mut conn = open();
        conn.send("all of it").end();
        let said = conn.wire.up_to(usize::MAX).unwrap();
        assert!(
            said.starts_with(b"heard all of it..") && said.len() == 15 + 300_000,
            "{tls}: {}",
            said.len()
        );
        // The application closes its direction first.
        let (told, heard) = mpsc::channel();
        let told = std::sync::Mutex::new(told);
        upstream.answers(move |mut exchange| {
            exchange.write([SWITCHING.as_bytes(), b"that is all"].concat());
            exchange.wire.stream.shutdown(Shutdown::Write).unwrap();
            let heard = exchange.wire.up_to(usize::MAX).unwrap();
            told.lock().unwrap().send(heard).unwrap();
            Next::Close
        });
        let mut conn = open();
        assert_eq!(conn.wire.up_to(usize::MAX).unwrap(), b"that is all");
        conn.send([b'!'; 300_000]).end();
        assert_eq!(
            heard.recv_timeout(Duration::from_secs(10)).unwrap().len(),
            300_000,
            "{tls}"
        );
    }
}

#[test]
fn a_websocket_request_is_authenticated_like_any_other() {
    let (upstream, redis) = (echoing(), Redis::start().with_ada());
    let gate = gate(&upstream, &redis);
    for credential in ["", "Authorization: Token canary-unknown\r\n"] {
        let mut conn = gate.connect();
        conn.send(format!("{UPGRADE}{credential}\r\n"));
        assert_eq!(conn.reply().status, 401);
        // The connection continues as HTTP, and requests are authenticated.
        assert_eq!(conn.call(&get("/x").token("canary-ada")).status, 200);
        conn.send("GET /x HTTP/1.1\r\nHost : localhost\r\n\r\n");
        assert_eq!(conn.reply().status, 400);
    }
}

#[test]
fn a_request_after_a_refused_upgrade_is_read_as_http() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let mut conn = gate.connect();
    conn.send(format!(
        "{UPGRADE}\r\nGET /next HTTP/1.1\r\nHost: localhost\r\n\r\nGET /bad HTTP/1.1\nHost: localhost\r\n\r\n"
    ));
    assert_eq!(conn.reply().status, 200, "the upstream has not switched");
    assert_eq!(conn.reply().status, 200);
    assert_eq!(upstream.last().line(), "GET /next");
    assert_eq!(conn.reply().status, 400);
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn only_upgrades_to_websocket_are_forwarded() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for (name, value) in [
        ("Upgrade", "h2c"),
        ("Upgrade", "websocket, h2c"),
        ("Upgrade", "TLS/1.0"),
    ] {
        let asked = get("/x")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header(name, value);
        assert_eq!(
            gate.call(&asked.header("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"))
                .status,
            200
        );
        let seen = upstream.last();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen.header(name), None, "{value}");
        }
    }
    let body = call("POST", "/x")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Content-Length", "0");
    assert_eq!(gate.call(&body).status, 200);
    assert_eq!(upstream.last().header("upgrade"), None);
    // A switch to another protocol, or one that was not requested, is refused.
    upstream.answers_raw(SWITCHING.replace("Upgrade: websocket", "Upgrade: other"));
    let mut conn = gate.connect();
    conn.send(format!("{UPGRADE}\r\n"));
    assert_eq!(conn.reply().status, 502);
    upstream.answers_raw(SWITCHING);
    assert_eq!(gate.get("/x").status, 502);
    gate.logged(&["upstream_unexpected_upgrade"]);
}

#[test]
fn a_client_that_disconnects_before_the_response_cancels_its_request() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| {
        let _ = exchange.wire.stream.read(&mut [0; 1]);
        Next::Close
    });
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let mut conn = gate.connect();
    conn.send(format!("{UPGRADE}\r\nsome bytes ahead"));
    upstream.wait_for_calls(1);
    drop(conn);
    crate::harness::wait_until("the upstream's connection is closed", Duration::from_secs(10), || {
        upstream.open() == 0
    });
}

#[test]
fn a_2xx_without_a_switch_opens_no_websocket_over_http2() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let over_http2 = || {
        let mut raw = Raw::open(&gate);
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", "/x"),
            ("sec-websocket-version", "13"),
        ];
        raw.send(&head(1, &fields, 0));
        String::from_utf8_lossy(&raw.response().1).into_owned()
    };
    for status in ["200 OK", "201 Created", "206 Partial Content", "299 Odd"] {
        upstream.answers(move |exchange| exchange.answer(status, "", b"{\"not\":\"switched\"}"));
        assert_eq!(over_http2(), r#"{"detail":"Bad gateway."}"#, "{status}");
        // Over HTTP/1.1 a response without a switch is forwarded.
        let mut conn = gate.connect();
        conn.send(format!("{UPGRADE}\r\n"));
        let reply = conn.reply();
        assert_eq!(reply.text(), "{\"not\":\"switched\"}", "{status}");
        assert_eq!(reply.status.to_string(), status[..3], "{status}");
    }
    gate.logged(&["upstream_not_switched"]);
    for status in ["302 Found", "403 Forbidden", "426 Upgrade Required", "500 Oops"] {
        upstream.answers(move |exchange| exchange.answer(status, "", b"{\"not\":\"switched\"}"));
        assert_eq!(over_http2(), "{\"not\":\"switched\"}", "{status}");
    }
}

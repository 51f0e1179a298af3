//! Parts of a request that another server may read in another way than the gateway did: methods, hosts, schemes, media types,
//! expectations, upgrades, options of `Connection`, preflights. Each has one reading, is refused, or is not forwarded.

use crate::harness::client::Conn;
use crate::harness::frames::{PLAIN, Raw, head};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, call, config, get};

const MALFORMED: &str = r#"{"detail":"Malformed request."}"#;

/// `POST` needs a token; every other method falls to a public route of the same path.
fn guarded(upstream: &RecordingUpstream, redis: &Redis) -> Config {
    config()
        .tokens(redis)
        .app(upstream)
        .route("/*", "authenticate = [\"token\"]\nmethods = [\"POST\", \"DELETE\"]")
        .public("/*")
}

fn http1(gate: &Gate, head: &str) -> (u16, String) {
    let reply = Conn::plain(gate.address).send(head).reply();
    (reply.status, reply.text())
}

/// The body of the answer to a request over HTTP/2 with these in place of the usual pseudo-fields, and these fields.
fn http2(gate: &Gate, others: &[(&'static str, &'static str)], fields: &[(&'static str, &'static str)]) -> String {
    let of = |name: &str| others.iter().find(|(other, _)| *other == name);
    let mut all: Vec<(&str, &str)> = PLAIN
        .iter()
        .map(|(name, value)| *of(name).unwrap_or(&(name, value)))
        .collect();
    all.extend(
        others
            .iter()
            .filter(|(name, _)| PLAIN.iter().all(|(plain, _)| plain != name)),
    );
    all.extend(fields);
    let mut raw = Raw::open(gate);
    raw.send(&head(1, &all, 1));
    String::from_utf8_lossy(&raw.response().1).into_owned()
}

#[test]
fn a_method_with_a_lowercase_letter_is_400_in_either_version_and_goes_nowhere() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&guarded(&upstream, &redis));
    const METHODS: [&str; 11] = [
        "post", "Post", "pOST", "POSt", "delete", "get", "options", "trace", "connect", "patch", "x-purge",
    ];
    for method in METHODS {
        let sent = format!("{method} /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(http1(&gate, &sent), (400, MALFORMED.to_owned()), "{method}");
        assert_eq!(http2(&gate, &[(":method", method)], &[]), MALFORMED, "{method}");
    }
    assert_eq!(upstream.calls(), 0);
    gate.logged(&["a lowercase letter in its method"]);
    // The same in capitals is what the routes say.
    assert_eq!(
        http1(
            &gate,
            "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        )
        .0,
        401
    );
    assert_eq!(gate.call(&call("X-PURGE", "/x")).status, 200);
}

#[test]
fn a_websocket_over_http2_has_no_other_spelling_of_its_method() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start());
    let gate = Gate::start(&guarded(&upstream, &redis));
    for method in ["connect", "Connect", "get", "GET"] {
        let mut raw = Raw::open(&gate);
        let fields = [
            (":method", method),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", "/x"),
        ];
        raw.send(&head(1, &fields, 0));
        assert!(raw.error().is_some_and(|error| error != 0), "{method}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_host_that_may_be_read_as_another_one_is_400() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start());
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .route("/*", "authenticate = [\"token\"]\nhost = \"admin.example\"")
            .route("/*", "authenticate = [\"token\"]\nhost = \"[0:0::1]\"")
            .route("/*", "authenticate = [\"token\"]\nhost = \"127.0.0.1\""),
    );
    const HOSTS: [&str; 14] = [
        "%61dmin.example",
        "admin%2eexample",
        "admin.example%00",
        "admin.example..",
        ".admin.example",
        "admin..example",
        "127.1",
        "0x7f.0.0.1",
        "127.0.0.0x1",
        "2130706433",
        "127.0.0.01",
        "[::1%25lo]",
        "[::1",
        "admin.example:0443",
    ];
    for host in HOSTS {
        let sent = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(http1(&gate, &sent), (400, MALFORMED.to_owned()), "{host}");
        let sent = format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(http1(&gate, &sent), (400, MALFORMED.to_owned()), "{host}");
        assert_eq!(
            http2(&gate, &[(":authority", "localhost")], &[("host", host)]),
            MALFORMED,
            "{host}"
        );
    }
    // Every usual way to write it is the same host.
    for host in [
        "ADMIN.example",
        "admin.example.",
        "admin.example:8443",
        "[::1]",
        "[0::0:1]:80",
        "127.0.0.1:80",
    ] {
        assert_eq!(
            http1(&gate, &format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).0,
            401,
            "{host}"
        );
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_scheme_is_http_or_https_and_is_not_forwarded() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for scheme in ["ftp", "ws", "httpx", "file"] {
        let sent = format!("GET {scheme}://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(http1(&gate, &sent), (400, MALFORMED.to_owned()), "{scheme}");
        assert_eq!(http2(&gate, &[(":scheme", scheme)], &[]), MALFORMED, "{scheme}");
    }
    assert_eq!(upstream.calls(), 0);
    for scheme in ["http", "HTTPS", "Http"] {
        let sent = format!("GET {scheme}://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(http1(&gate, &sent).0, 200, "{scheme}");
        assert_eq!(
            http2(&gate, &[(":scheme", scheme)], &[]),
            r#"{"upstream":"1"}"#,
            "{scheme}"
        );
        let seen = upstream.last();
        // How the client has come is what the connection says.
        assert_eq!(
            (seen.line(), seen.header("x-forwarded-proto")),
            ("GET /x", Some("http")),
            "{scheme}"
        );
    }
}

#[test]
fn bytes_beyond_ascii_in_a_target_are_400_in_either_version() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for target in ["/caf\u{e9}", "/x?caf\u{e9}", "/\u{ff0e}\u{ff0e}/x"] {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(http1(&gate, &sent), (400, MALFORMED.to_owned()), "{target}");
        assert_eq!(http2(&gate, &[(":path", target)], &[]), MALFORMED, "{target}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn no_media_type_over_http1_makes_a_body_pass_unbuffered() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for kind in ["application/grpc", "Application/GRPC+proto", "text/plain"] {
        let sent = format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nwhole\r\n0\r\n\r\n"
        );
        assert_eq!(http1(&gate, &sent).0, 200, "{kind}");
        // Only of a body that was gathered before it left is the length known.
        let seen = upstream.last();
        assert_eq!(
            (seen.header("content-length"), seen.text().as_str()),
            (Some("5"), "whole"),
            "{kind}"
        );
    }
}

#[test]
fn an_expectation_is_met_or_ignored_and_never_forwarded() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    for (expect, continued) in [
        ("100-continue", true),
        ("100-Continue", true),
        ("x=1, 100-CONTINUE", true),
        ("x=1", false),
        ("100-continued", false),
        ("", false),
    ] {
        let mut conn = gate.connect();
        conn.send(format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: {expect}\r\nContent-Length: 4\r\n\r\n"
        ));
        if continued {
            assert_eq!(conn.wire.some().unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n", "{expect}");
        }
        let reply = conn.send("abcd").reply();
        assert_eq!((reply.status, reply.interim.len()), (200, 0), "{expect}");
        assert_eq!(
            (upstream.last().header("expect"), upstream.last().text().as_str()),
            (None, "abcd")
        );
    }
}

#[test]
fn only_the_one_way_to_ask_for_a_websocket_is_one() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let asks = |line: &str, upgrade: &str, connection: &str, more: &str| {
        let sent = format!(
            "{line}\r\nHost: localhost\r\nUpgrade: {upgrade}\r\nConnection: {connection}\r\n{more}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(http1(&gate, &sent).0, 200, "{sent}");
        upstream.last().header("upgrade").map(str::to_owned)
    };
    const GET: &str = "GET /x HTTP/1.1";
    for (line, upgrade, connection, more) in [
        (GET, "websocket, h2c", "Upgrade", ""),
        (GET, "websocket/13", "Upgrade", ""),
        (GET, "\"websocket\"", "Upgrade", ""),
        (GET, "websocket", "close", ""),
        (GET, "websocket", "\"upgrade\"", ""),
        (GET, "websocket", "upgrade;q=1", ""),
        (GET, "websocket", "Upgrade", "Upgrade: websocket\r\n"),
        (
            GET,
            "websocket",
            "Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        ("GET /x HTTP/1.0", "websocket", "Upgrade", ""),
        ("OPTIONS /x HTTP/1.1", "websocket", "Upgrade", ""),
    ] {
        assert_eq!(
            asks(line, upgrade, connection, more),
            None,
            "{line} {upgrade} {connection} {more}"
        );
    }
    for (upgrade, connection) in [
        ("websocket", "Upgrade"),
        ("WebSocket", "keep-alive,UPGRADE"),
        ("websocket", "\tupgrade\t"),
    ] {
        assert_eq!(
            asks(GET, upgrade, connection, "").as_deref(),
            Some("websocket"),
            "{upgrade} {connection}"
        );
    }
}

#[test]
fn a_preflight_is_about_a_method_that_could_pass_and_is_seen_by_the_upstream_as_one() {
    const OURS: &str = "https://app.example.com";
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).route(
        "/*",
        &format!("authenticate = [\"token\"]\ncors = {{ origins = [\"{OURS}\"] }}"),
    ));
    let preflight = |method: &str| {
        call("OPTIONS", "/x")
            .header("Origin", OURS)
            .header("Access-Control-Request-Method", method)
    };
    assert_eq!(gate.call(&preflight("PATCH")).status, 200);
    assert_eq!(upstream.last().header("access-control-request-method"), Some("PATCH"));
    let calls = upstream.calls();
    for method in ["patch", "Put", "CONNECT", "TRACE", "GET,POST", ""] {
        assert_eq!(gate.call(&preflight(method)).status, 401, "{method}");
    }
    for named in ["Origin", "keep-alive, access-control-request-METHOD"] {
        assert_eq!(
            gate.call(&preflight("PATCH").header("Connection", named)).status,
            401,
            "{named}"
        );
    }
    assert_eq!(upstream.calls(), calls);
}

#[test]
fn connection_takes_nothing_away_that_the_decision_rested_on() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .identity("credential = \"keep\"")
            .app(&upstream)
            .protected("/*"),
    );
    let asked = get("/x")
        .token("canary-ada")
        .header(
            "Connection",
            "authorization, host, x-user-id, x-request-id, \"x-b\", X-A",
        )
        .header("X-A", "1")
        .header("X-B", "2");
    assert_eq!(gate.call(&asked).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("authorization"), Some("Token canary-ada"));
    assert_eq!((seen.header("x-a"), seen.header("x-b")), (None, Some("2")));
    assert_eq!(seen.header("host"), Some("localhost"));
    assert!(seen.header("x-request-id").is_some());
}

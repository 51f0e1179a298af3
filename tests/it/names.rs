//! Names of fields over HTTP/1: as they came in, and ours as the file writes them.

use crate::harness::h2::H2;
use crate::harness::wire::Head;
use crate::harness::{Config, Gate, Next, RecordingUpstream, Redis, config, get};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nX-RateLimit-LIMIT: 5\r\nETag: \"a\"\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n\
    X-BLANKS: \t 2 \r\nX-None:\r\nWWW-Authenticate: Basic\r\nDATE: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok";

fn started(upstream: &RecordingUpstream, redis: &Redis) -> Config {
    upstream.answers(|mut exchange| {
        exchange.read_body();
        exchange.write(ANSWER);
        Next::Keep
    });
    config()
        .tokens(redis)
        .identity("headers = { X-User-ID = \"id\", x-ada = \"authenticator\" }\ncredential = \"keep\"")
        .app(upstream)
        .file("secret", "proof")
        .with("secret_header = { name = \"X-Gateway-SECRET\", value = { file = \"secret\" } }")
        .protected("/*")
}

fn has(head: &Head, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let found = head.fields.iter().any(|(own, said)| own == name && said == value);
        assert!(found, "{name}: {value} is not among {:?}", head.fields);
    }
}

#[test]
fn names_of_fields_keep_the_case_that_they_were_written_in() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&started(&upstream, &redis));
    let mut conn = gate.connect();
    for _ in 0..2 {
        conn.send(
            "POST /x HTTP/1.1\r\nhost: localhost\r\nX-CamelCase-Id: 1\r\nx-lower: 2\r\nX-UPPER:3\r\nX-Tab:\t 4\t\r\nX-Empty:\r\n\
             AUTHORIZATION: Token canary-ada\r\nAccept: a\r\nACCEPT: b\r\nCoOkIe: c=1\r\nX-Request-ID: mine\r\nX-USER-ID: 13\r\nX-Gateway-secret: mine\r\n\
             X-Forwarded-HOST: mine\r\nFORWARDED: for=192.0.2.1\r\ncontent-LENGTH: 2\r\n\r\nhi",
        );
        let reply = conn.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        let seen = upstream.last().head;
        has(
            &seen,
            &[
                ("Host", "localhost"),
                ("X-CamelCase-Id", "1"),
                ("x-lower", "2"),
                ("X-UPPER", "3"),
                ("X-Tab", "4"),
                ("X-Empty", ""),
                ("AUTHORIZATION", "Token canary-ada"),
                ("Accept", "a"),
                ("ACCEPT", "b"),
                ("CoOkIe", "c=1"),
                ("Content-Length", "2"),
                ("X-User-ID", "42"),
                ("x-ada", "token"),
                ("X-Gateway-SECRET", "proof"),
            ],
        );
        // Our own field has our own name, whatever the client's was called.
        assert!(
            seen.fields
                .iter()
                .any(|(name, value)| name == "x-request-id" && value != "mine")
        );
        // Its value is a copy of the client's `host`, and its name is ours.
        has(&seen, &[("x-forwarded-host", "localhost")]);
        for name in ["x-user-id", "x-gateway-secret", "x-forwarded-host", "x-request-id"] {
            assert_eq!(seen.folded(name).len(), 1, "{name}");
        }
        assert!(seen.folded("forwarded").is_empty());
        has(
            &reply.head,
            &[
                ("X-RateLimit-LIMIT", "5"),
                ("ETag", "\"a\""),
                ("set-cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("X-BLANKS", "2"),
                ("X-None", ""),
                ("WWW-Authenticate", "Basic"),
                ("DATE", "Mon, 01 Jan 2024 00:00:00 GMT"),
                ("Content-Length", "2"),
            ],
        );
        assert_eq!(reply.head.all("date").len(), 1);
    }
}

#[test]
fn names_from_http2_are_in_lower_case_and_ours_as_ever() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&started(&upstream, &redis));
    let reply = H2::connect(&gate).call(&get("/x").token("canary-ada").header("X-CamelCase-Id", "1"));
    assert_eq!(reply.status, 200);
    has(&reply.head, &[("x-ratelimit-limit", "5"), ("etag", "\"a\"")]);
    has(
        &upstream.last().head,
        &[
            ("x-camelcase-id", "1"),
            ("authorization", "Token canary-ada"),
            ("Host", "localhost"),
            ("X-User-ID", "42"),
        ],
    );
}

#[test]
fn a_switch_of_protocols_keeps_the_names_of_its_fields() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Upstream: 1\r\n\r\n",
        );
        Next::Keep
    });
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let mut conn = gate.connect();
    conn.send(
        "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = conn.wire.head().unwrap().unwrap();
    assert_eq!(head.first, "HTTP/1.1 101 Switching Protocols");
    let accept = ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    has(&head, &[accept, ("X-Upstream", "1")]);
    has(
        &upstream.last().head,
        &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")],
    );
}

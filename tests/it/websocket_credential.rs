//! `websocket` of a route: the credential is a subprotocol or a cookie, from listed origins only.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::Signer;
use crate::harness::websocket::Over;
use crate::harness::{Config, Gate, Next, RecordingUpstream, Redis, call, config, get};

const OURS: &str = "https://app.example.com";
const WEBSOCKET: &str = "websocket = { origins = [\"https://app.example.com\", \"http://localhost:3000\"], subprotocol = true, \
    cookie = \"__Host-key\", scheme = \"Token\" }";
const ORIGIN: (&str, &str) = ("Origin", OURS);
const WORD: (&str, &str) = ("Sec-WebSocket-Protocol", "authgate.bearer.canary-ada, chat");
const COOKIE: (&str, &str) = ("Cookie", "__Host-key=canary-ada");

/// An upstream that accepts every upgrade, and selects `chat` if it is offered.
fn chatting() -> RecordingUpstream {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        if exchange.head.header("upgrade").is_none() {
            return exchange.ok();
        }
        let offered = exchange.head.all("sec-websocket-protocol").join(",");
        exchange.switch(if offered.contains("chat") {
            "Sec-WebSocket-Protocol: chat\r\n"
        } else {
            ""
        });
        let _ = exchange.wire.some();
        Next::Close
    });
    upstream
}

fn with_pages(redis: &Redis, upstream: &RecordingUpstream, lines: &str) -> Config {
    let lines = format!("authenticate = [\"token\"]\n{WEBSOCKET}\n{lines}");
    config().tokens(redis).app(upstream).route("/ws", &lines)
}

#[test]
fn a_page_from_a_listed_origin_is_authenticated_by_its_token() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    let signer = Signer::new(Algorithm::ES256);
    let pages = |scheme: &str| WEBSOCKET.replace("Token", scheme);
    let gate = Gate::start(
        &with_pages(&redis, &upstream, "")
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt("users = \"none\"")
            .route(
                "/both",
                &format!("authenticate = [\"token\", \"jwt\"]\n{}", pages("Bearer")),
            ),
    );
    let jwt = signer.with(&json!({}));
    for (target, token) in [("/ws", "canary-ada"), ("/both", jwt.as_str())] {
        let word = format!("a, authgate.bearer.{token},chat");
        let cookie = format!("theme=dark; __Host-key={token}; lang=\"a;b\"");
        for over in Over::BOTH {
            let fields = [ORIGIN, ("Sec-WebSocket-Protocol", &word), ("Cookie", "theme=dark")];
            let reply = over.open(&gate, target, &fields);
            assert_eq!(reply.status, over.opened(), "{over:?} {target}");
            assert_eq!(reply.header("sec-websocket-protocol"), Some("chat"));
            let seen = upstream.last();
            assert_eq!(
                (seen.header("x-user-id"), seen.header("origin")),
                (Some("42"), Some(OURS))
            );
            assert_eq!(seen.header("sec-websocket-protocol"), Some("a, chat"));
            assert_eq!(seen.header("cookie"), Some("theme=dark"));
            assert!(seen.header("authorization").unwrap().starts_with("Authgate "));
            assert!(!String::from_utf8_lossy(&seen.head.raw).contains(token));

            let reply = over.open(
                &gate,
                target,
                &[("Origin", "http://localhost:3000"), ("Cookie", &cookie)],
            );
            assert_eq!(reply.status, over.opened(), "{over:?} {target}");
            let seen = upstream.last();
            assert_eq!(seen.header("x-user-id"), Some("42"));
            assert_eq!(seen.header("cookie"), Some("theme=dark; lang=\"a;b\""));
            assert!(!String::from_utf8_lossy(&seen.head.raw).contains(token));
        }
    }
    // HTTP/2 may split cookies into several fields.
    let cut = [ORIGIN, ("Cookie", "a=1"), COOKIE, ("Cookie", "b=2")];
    assert_eq!(Over::Http2.open(&gate, "/ws", &cut).status, 200);
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=2"));
}

#[test]
fn a_credential_from_an_unlisted_origin_is_refused() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    let gate = Gate::start(&with_pages(&redis, &upstream, "optional = true"));
    for over in Over::BOTH {
        for carried in [WORD, COOKIE] {
            for origin in [
                "https://evil.example",
                "null",
                "*",
                "",
                "https://APP.example.com",
                "http://app.example.com",
                "https://app.example.com:443",
                "https://app.example.com.evil.example",
                "https://app.example.com/",
                "https://app.example.com https://evil.example",
            ] {
                let reply = over.open(&gate, "/ws", &[("Origin", origin), carried]);
                assert_eq!(reply.status, 403, "{over:?} {origin:?} {carried:?}");
            }
            for fields in [
                vec![carried],
                vec![ORIGIN, ("Origin", "https://evil.example"), carried],
                vec![ORIGIN, ORIGIN, carried],
                vec![
                    ("Referer", OURS),
                    ("X-Origin", OURS),
                    ("Sec-WebSocket-Origin", OURS),
                    carried,
                ],
            ] {
                let reply = over.open(&gate, "/ws", &fields);
                assert_eq!(reply.status, 403, "{over:?} {fields:?}");
            }
        }
    }
    assert_eq!(upstream.calls(), 0);
    gate.logged(&["origin_not_listed"]);
    // Without such a credential, a request is authenticated as usual, from any origin.
    for over in Over::BOTH {
        let evil = ("Origin", "https://evil.example");
        assert_eq!(over.open(&gate, "/ws", &[evil]).status, over.opened());
        assert_eq!(upstream.last().header("x-user-id"), None);
        let header = ("Authorization", "Token canary-ada");
        assert_eq!(over.open(&gate, "/ws", &[evil, header]).status, over.opened());
        assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    }
}

#[test]
fn several_credentials_of_a_websocket_are_refused() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    let problem = format!("authenticate = [\"token\"]\noptional = true\nerrors = \"problem\"\n{WEBSOCKET}");
    let gate = Gate::start(&with_pages(&redis, &upstream, "").route("/problem", &problem));
    let header = ("Authorization", "Token canary-ada");
    for fields in [
        vec![ORIGIN, WORD, COOKIE],
        vec![ORIGIN, WORD, WORD],
        vec![
            ORIGIN,
            (
                "Sec-WebSocket-Protocol",
                "authgate.bearer.canary-ada, authgate.bearer.canary-x",
            ),
        ],
        vec![ORIGIN, ("Cookie", "__Host-key=canary-x; __Host-key=canary-ada")],
        vec![ORIGIN, COOKIE, COOKIE],
        vec![ORIGIN, WORD, header],
        vec![ORIGIN, COOKIE, header],
        vec![ORIGIN, COOKIE, ("Authorization", "Basic eDp5")],
        vec![COOKIE, header],
    ] {
        for over in Over::BOTH {
            assert_eq!(over.open(&gate, "/ws", &fields).status, 400, "{over:?} {fields:?}");
            let reply = over.open(&gate, "/problem", &fields);
            assert_eq!(
                (reply.status, &reply.json()["code"]),
                (400, &json!("repeated_credential"))
            );
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn an_invalid_credential_is_refused_like_one_in_its_header() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    redis.put_token("canary-revoked", &json!({ "user": "42", "revoked": 1_700_000_000 }));
    let gate = Gate::start(&with_pages(&redis, &upstream, "optional = true"));
    for (token, cookie_only) in [
        ("canary-unknown", false),
        ("canary-revoked", false),
        ("", false),
        ("a b", true),
    ] {
        let expected = gate.call(&get("/ws").authorization(&format!("Token {token}")));
        assert_eq!(expected.status, 401, "{token:?}");
        for over in Over::BOTH {
            let (word, cookie) = (format!("authgate.bearer.{token}"), format!("__Host-key={token}"));
            let mut carried = vec![("Cookie", cookie.as_str())];
            if !cookie_only {
                carried.push(("Sec-WebSocket-Protocol", word.as_str()));
            }
            for carried in carried {
                let reply = over.open(&gate, "/ws", &[ORIGIN, carried]);
                assert_eq!(
                    (reply.status, reply.text()),
                    (401, expected.text()),
                    "{over:?} {carried:?}"
                );
                assert_eq!(reply.header("www-authenticate"), Some("Token"));
            }
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn other_requests_have_credentials_only_in_headers() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    let config = with_pages(&redis, &upstream, "").protected("/plain");
    let gate = Gate::start(&config);
    let upgrade = |method: &str, to: &str| {
        let call = call(method, "/ws")
            .header("Connection", "Upgrade")
            .header("Upgrade", to);
        call.header("Sec-WebSocket-Version", "13")
    };
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for asked in [
        get("/ws"),
        call("POST", "/ws").header("Content-Length", "0"),
        upgrade("GET", "websocket"),
        upgrade("GET", "h2c").header("Sec-WebSocket-Key", key),
        upgrade("GET", "websocket, h2c").header("Sec-WebSocket-Key", key),
        upgrade("POST", "websocket")
            .header("Sec-WebSocket-Key", key)
            .header("Content-Length", "0"),
    ] {
        let asked = asked.header("Origin", OURS);
        for (name, value) in [WORD, COOKIE] {
            assert_eq!(
                gate.call(&asked.clone().header(name, value)).status,
                401,
                "{asked:?} {name}"
            );
        }
    }
    // A route without `websocket` accepts none either.
    for over in Over::BOTH {
        for carried in [WORD, COOKIE] {
            assert_eq!(over.open(&gate, "/plain", &[ORIGIN, carried]).status, 401);
        }
    }
    assert_eq!(upstream.calls(), 0);
    // The gateway's subprotocols are removed even there; a cookie may belong to the application.
    let plain = get("/ws").token("canary-ada").header("Origin", OURS);
    assert_eq!(
        gate.call(&plain.header(WORD.0, WORD.1).header(COOKIE.0, COOKIE.1))
            .status,
        200
    );
    let seen = upstream.last();
    assert_eq!(
        (seen.header("sec-websocket-protocol"), seen.header("cookie")),
        (Some("chat"), Some(COOKIE.1))
    );
}

#[test]
fn the_credential_is_handled_like_one_in_its_header() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    for (mode, expected) in [("keep", Some("Token canary-ada")), ("remove", None)] {
        let gate = Gate::start(&with_pages(&redis, &upstream, &format!("credential = \"{mode}\"")));
        for over in Over::BOTH {
            for carried in [WORD, COOKIE] {
                assert_eq!(over.open(&gate, "/ws", &[ORIGIN, carried]).status, over.opened());
                let seen = upstream.last();
                assert_eq!(seen.header("authorization"), expected);
                for name in ["cookie", "sec-websocket-protocol"] {
                    assert!(!seen.header(name).unwrap_or_default().contains("canary"), "{name}");
                }
            }
        }
    }
    let gate = Gate::start(&with_pages(&redis, &upstream, "credential = \"keep\"").token("header = \"X-Api-Key\""));
    assert_eq!(Over::Http1.open(&gate, "/ws", &[ORIGIN, COOKIE]).status, 101);
    let seen = upstream.last();
    assert_eq!(
        (seen.header("x-api-key"), seen.header("authorization")),
        (Some("Token canary-ada"), None)
    );
    assert_eq!(
        Over::Http1
            .open(&gate, "/ws", &[ORIGIN, COOKIE, ("X-Api-Key", "x")])
            .status,
        400
    );
}

#[test]
fn the_gateway_subprotocol_is_selected_if_the_application_selects_none() {
    let (upstream, redis) = (chatting(), Redis::start().with_ada());
    let gate = Gate::start(&with_pages(&redis, &upstream, ""));
    for over in Over::BOTH {
        for (offered, selected, sent) in [
            ("authgate, authgate.bearer.canary-ada", Some("authgate"), None),
            ("authgate.bearer.canary-ada, authgate, x", Some("authgate"), Some("x")),
            ("authgate.bearer.canary-ada, authgate, chat", Some("chat"), Some("chat")),
            ("authgate.bearer.canary-ada", None, None),
        ] {
            let reply = over.open(&gate, "/ws", &[ORIGIN, ("Sec-WebSocket-Protocol", offered)]);
            assert_eq!(reply.status, over.opened(), "{over:?} {offered}");
            assert_eq!(reply.header("sec-websocket-protocol"), selected, "{over:?} {offered}");
            assert_eq!(
                upstream.last().header("sec-websocket-protocol"),
                sent,
                "{over:?} {offered}"
            );
        }
        // A cookie may be the credential here too.
        let reply = over.open(&gate, "/ws", &[ORIGIN, COOKIE, ("Sec-WebSocket-Protocol", "authgate")]);
        assert_eq!(reply.header("sec-websocket-protocol"), Some("authgate"));
    }
}

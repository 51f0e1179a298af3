//! `scheme = ""`: the whole value of a header is the key, as in `X-API-Key`.

use serde_json::{Value, json};

use crate::harness::program::authgate;
use crate::harness::{Gate, RecordingUpstream, Redis, config, get};

const KEY: &str = "
[authenticators.key]
kind = \"token\"
scheme = \"\"
header = \"X-API-Key\"
cache = { entries = 0, negative_entries = 0 }
";

fn start() -> (Redis, RecordingUpstream, Gate) {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_token("Token canary-blank", &json!({ "user": "42" }));
    redis.put_token("canary,canary", &json!({ "user": "42" }));
    let config = config()
        .tokens(&redis)
        .tables(KEY)
        .app(&upstream)
        .route("/key", "authenticate = [\"key\"]")
        .route("/problem", "authenticate = [\"key\"]\nerrors = \"problem\"")
        .route("/optional", "authenticate = [\"key\"]\noptional = true")
        .route("/both", "authenticate = [\"key\", \"token\"]\ncredential = \"keep\"")
        .route(
            "/socket",
            "authenticate = [\"key\"]\nwebsocket = { origins = [\"https://app.example\"], cookie = \"key\", scheme = \"\" }",
        );
    let gate = Gate::start(&config);
    (redis, upstream, gate)
}

#[test]
fn the_whole_value_is_the_key_and_a_bad_one_is_refused() {
    let (_redis, upstream, gate) = start();
    for value in ["canary-ada", " canary-ada \t", "Token canary-blank", "canary,canary"] {
        for target in ["/key", "/problem", "/optional", "/both"] {
            let reply = gate.call(&get(target).header("X-API-Key", value));
            assert_eq!(reply.status, 200, "{target} {value:?}");
            let seen = upstream.last();
            assert_eq!(seen.header("x-user-id"), Some("42"), "{target} {value:?}");
            let kept = (target == "/both").then(|| value.trim());
            assert_eq!(seen.header("x-api-key"), kept, "{target} {value:?}");
        }
    }
    let before = upstream.calls();
    let challenge = Some("Key header=\"x-api-key\"");
    for (values, detail) in [
        (&[&b"canary-unknown"[..]][..], "Invalid token."),
        (&[b"Token canary-ada"], "Invalid token."),
        (&[b"canary ada"], "Invalid token."),
        (
            &[b"canary\xff"],
            "Invalid token header. Token string should not contain invalid characters.",
        ),
        // Several lines are never accepted, not even as the key that they make together.
        (&[b"canary", b"canary"], "Invalid token."),
        (&[b"canary-ada", b"canary-ada"], "Invalid token."),
        (&[b"", b"canary-ada"], "Invalid token."),
        (&[b"", b""], "Invalid token."),
    ] {
        for target in ["/key", "/optional"] {
            let call = values
                .iter()
                .fold(get(target), |call, value| call.header("X-API-Key", *value));
            let reply = gate.call(&call);
            assert_eq!(
                (reply.status, reply.detail().as_str()),
                (401, detail),
                "{target} {values:?}"
            );
            assert_eq!(reply.header("www-authenticate"), challenge);
        }
    }
    for call in [
        get("/key"),
        get("/key").header("X-API-Key", ""),
        get("/key").token("canary-ada"),
    ] {
        let reply = gate.call(&call);
        assert_eq!(reply.status, 401);
        assert_eq!(reply.detail(), "Authentication credentials were not provided.");
        assert_eq!(reply.header("www-authenticate"), challenge);
    }
    let reply = gate.call(&get("/problem").header("X-API-Key", "canary-unknown"));
    assert_eq!(
        reply.headers("www-authenticate"),
        [
            "Key header=\"x-api-key\", error=\"invalid_token\", error_description=\"The token is unknown, expired or revoked.\""
        ]
    );
    let twice = get("/problem")
        .header("X-API-Key", "canary-ada")
        .header("X-API-Key", "canary-ada");
    assert_eq!(gate.call(&twice).status, 400);
    assert_eq!(upstream.calls(), before);

    // A missing header, an empty value, and no credential at all: anonymous, if the route allows it. Another authenticator of the route is asked.
    for call in [get("/optional"), get("/optional").header("X-API-Key", " ")] {
        assert_eq!(gate.call(&call).status, 200);
        assert_eq!(upstream.last().header("x-user-id"), None);
    }
    assert_eq!(gate.call(&get("/both").token("canary-ada")).status, 200);
}

#[test]
fn a_page_may_put_it_into_a_cookie_and_token_show_sends_it_as_it_is() {
    let (_redis, upstream, gate) = start();
    let socket = get("/socket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
        .header("Origin", "https://app.example");
    let reply = gate.call(&socket.clone().header("Cookie", "key=canary-unknown"));
    assert_eq!((reply.status, upstream.calls()), (401, 0));
    gate.call(&socket.header("Cookie", "key=canary-ada"));
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));

    let words = ["token", "show", "canary-ada", "--route", "/key", "--json"];
    let shown: Value = serde_json::from_str(&authgate(gate.folder.path(), &words).good()).unwrap();
    assert_eq!(
        (
            &shown["request"]["forwarded"],
            &shown["request"]["header"],
            &shown["request"]["scheme"]
        ),
        (&json!(true), &json!("x-api-key"), &json!(""))
    );
}

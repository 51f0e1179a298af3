//! `Authorization: Token <key>` against a real Redis. The upstream repeats the user that it received.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, mint, wait_until};

fn setup() -> (Redis, RecordingUpstream) {
    (Redis::start().with_ada(), RecordingUpstream::start())
}

fn protected(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config().tokens(redis).app(upstream).protected("/api/*")
}

/// Sends `Authorization: <value>` and wants a refusal that the upstream hears nothing of.
fn refused(gate: &Gate, upstream: &RecordingUpstream, value: &[u8], detail: &str) {
    let before = upstream.calls();
    let reply = gate.call(&get("/api/x").header("Authorization", value));
    let value = String::from_utf8_lossy(value);
    assert_eq!((reply.status, reply.detail().as_str()), (401, detail), "{value}");
    assert_eq!(reply.header("www-authenticate"), Some("Token"), "{value}");
    assert_eq!(upstream.calls(), before, "{value} reached the upstream");
}

#[test]
fn a_known_token_is_accepted_and_its_user_is_sent_to_the_upstream() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&protected(&redis, &upstream));
    for scheme in ["Token", "token", "TOKEN"] {
        let reply = gate.call(&get("/api/x?y=1").authorization(&format!("{scheme} canary-ada")));
        assert_eq!(reply.status, 200, "{scheme}");
        let seen = upstream.last();
        assert_eq!(seen.line(), "GET /api/x?y=1");
        assert_eq!(
            (seen.header("x-user-id"), seen.header("x-user-name")),
            (Some("42"), Some("ada")),
            "{scheme}"
        );
        assert!(
            !String::from_utf8_lossy(&seen.head.raw).contains("canary"),
            "the upstream sees no credential"
        );
    }
}

#[test]
fn refusals_are_those_of_rest_framework_and_never_reach_the_upstream() {
    let (redis, upstream) = setup();
    redis.put_user("43", &json!({ "active": false }));
    redis.put_token("canary-ben", &json!({ "user": "43" }));
    redis.put_token("canary-orphan", &json!({ "user": "44" }));
    redis.put_token("canary-dead", &json!({ "user": "42", "revoked": 1_700_000_000 }));
    redis.put_token("canary-old", &json!({ "user": "42", "expires": mint::now() }));
    let gate = Gate::start(&protected(&redis, &upstream));
    for (value, detail) in [
        (&b"Token"[..], "Invalid token header. No credentials provided."),
        (
            b"Token canary-ada canary",
            "Invalid token header. Token string should not contain spaces.",
        ),
        (
            b"Token canary-\xff",
            "Invalid token header. Token string should not contain invalid characters.",
        ),
        (b"Token canary-unknown", "Invalid token."),
        (b"Token CANARY-ADA", "Invalid token."),
        (b"Token canary-orphan", "Invalid token."),
        (b"Token canary-dead", "Invalid token."),
        (b"Token canary-old", "Invalid token."),
        (b"Token canary-ben", "User inactive or deleted."),
        (b"Basic canary-ada", "Authentication credentials were not provided."),
        (b"Tokenx canary-ada", "Authentication credentials were not provided."),
        (b"", "Authentication credentials were not provided."),
    ] {
        refused(&gate, &upstream, value, detail);
    }
    assert_eq!(
        gate.get("/api/x").detail(),
        "Authentication credentials were not provided."
    );
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn the_digest_of_a_token_is_not_a_token() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&protected(&redis, &upstream));
    let digest = Redis::token_key("canary-ada").replace("token:", "");
    refused(&gate, &upstream, format!("Token {digest}").as_bytes(), "Invalid token.");
}

#[test]
fn several_authorization_lines_are_never_accepted_and_never_anonymous() {
    let (redis, upstream) = setup();
    redis.put_token("canary-a,canary-b", &json!({ "user": "42" }));
    let optional = "authenticate = [\"token\"]\noptional = true";
    let gate = Gate::start(&protected(&redis, &upstream).route("/optional", optional));
    for (one, other) in [
        ("Token canary-ada", "Token canary-ada"),
        ("Token canary-a", "canary-b"),
        ("", "Token canary-ada"),
        ("Token canary-ada", ""),
        ("Basic x", "Token canary-ada"),
        ("Basic x", "Basic y"),
    ] {
        for path in ["/api/x", "/optional"] {
            let reply = gate.call(&get(path).authorization(one).authorization(other));
            assert_eq!(reply.status, 401, "{path} {one:?} {other:?}");
        }
    }
    assert_eq!(upstream.calls(), 0);
    assert_eq!(
        gate.call(&get("/api/x").token("canary-a,canary-b")).status,
        200,
        "the same key on one line is a key"
    );
}

#[test]
fn a_user_whose_tokens_were_revoked_is_refused_for_older_tokens_alone() {
    let (redis, upstream) = setup();
    redis.put_token("canary-undated", &json!({ "user": "42" }));
    redis.put_token("canary-new", &json!({ "user": "42", "created": 1_700_000_002 }));
    redis.set("revoked:user:42", "1700000001");
    let gate = Gate::start(&protected(&redis, &upstream));
    refused(&gate, &upstream, b"Token canary-ada", "Invalid token.");
    refused(&gate, &upstream, b"Token canary-undated", "Invalid token.");
    assert_eq!(gate.call(&get("/api/x").token("canary-new")).status, 200);
}

#[test]
fn a_deleted_token_is_refused_at_once_where_the_cache_is_off() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&protected(&redis, &upstream));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.del(&Redis::token_key("canary-ada"));
    refused(&gate, &upstream, b"Token canary-ada", "Invalid token.");
    redis.put_token("canary-ada", &json!({ "user": "42" }));
    assert_eq!(
        gate.call(&get("/api/x").token("canary-ada")).status,
        200,
        "and known again at once"
    );
}

#[test]
fn a_cached_decision_expires_after_its_ttl() {
    let (redis, upstream) = setup();
    let cache = "cache = { entries = 10, ttl = \"2s\", negative_entries = 10, negative_ttl = \"2s\" }";
    let redis_without_invalidation = config()
        .redis_without_invalidation(&redis)
        .app(&upstream)
        .protected("/api/*");
    let gate = Gate::start(&redis_without_invalidation.token(cache));
    let status = |key: &str| gate.call(&get("/api/x").token(key)).status;
    assert_eq!((status("canary-ada"), status("canary-later")), (200, 401));
    redis.del(&Redis::token_key("canary-ada"));
    redis.put_token("canary-later", &json!({ "user": "42" }));
    // Both decisions are younger than two seconds here, unless the machine is stopped.
    assert_eq!((status("canary-ada"), status("canary-later")), (200, 401));
    wait_until("the verdicts end", Duration::from_secs(8), || {
        (status("canary-ada"), status("canary-later")) == (401, 200)
    });
}

#[test]
fn a_cached_token_is_refused_when_it_expires() {
    let (redis, upstream) = setup();
    redis.put_token("canary-brief", &json!({ "user": "42", "expires": mint::now() + 3 }));
    let gate = Gate::start(&protected(&redis, &upstream).token("cache = { entries = 10, ttl = \"10m\" }"));
    let status = || gate.call(&get("/api/x").token("canary-brief")).status;
    assert_eq!(status(), 200);
    wait_until("the token expires", Duration::from_secs(8), || status() == 401);
}

#[test]
fn the_cache_avoids_lookups_and_zero_entries_disable_it() {
    let (redis, upstream) = setup();
    let asked = |cache: &str| {
        let gate = Gate::subscribed(&protected(&redis, &upstream).token(cache).server("workers = 1"));
        gate.call(&get("/api/x").token("canary-ada"));
        redis.run(&["CONFIG", "RESETSTAT"]);
        for _ in 0..20 {
            assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
        }
        let redis::Value::BulkString(stats) = redis.run(&["INFO", "commandstats"]) else {
            panic!("text")
        };
        let stats = String::from_utf8(stats).unwrap();
        let calls = stats
            .split_once("cmdstat_get:calls=")
            .map_or("0", |(_, rest)| rest.split(',').next().unwrap());
        calls.parse::<usize>().unwrap()
    };
    // The gateway looks at the layout twice a second by itself.
    assert!(asked("cache = { entries = 0 }") >= 40);
    assert!(asked("cache = { entries = 10, ttl = \"60s\" }") < 20);
}

#[test]
fn the_scheme_and_the_header_of_a_token_are_configurable() {
    let (redis, upstream) = setup();
    let keys = config()
        .tokens(&redis)
        .token("scheme = [\"Token\", \"Api-Key\"]")
        .token("header = \"X-Api-Key\"");
    let gate = Gate::start(&keys.app(&upstream).protected("/api/*"));
    for value in ["Token canary-ada", "api-key canary-ada"] {
        let reply = gate.call(&get("/api/x").header("X-Api-Key", value));
        assert_eq!(
            (reply.status, upstream.last().header("x-api-key")),
            (200, None),
            "{value}"
        );
    }
    let reply = gate.call(&get("/api/x").token("canary-ada"));
    assert_eq!(
        (reply.status, reply.header("www-authenticate")),
        (401, Some("Token")),
        "Authorization is not looked at"
    );
}

#[test]
fn head_is_refused_with_the_head_of_get_and_no_body() {
    let (redis, upstream) = setup();
    let gate = Gate::start(&protected(&redis, &upstream));
    let mut connection = gate.connect();
    let reply = connection.call(&crate::harness::call("HEAD", "/api/x"));
    assert_eq!(reply.status, 401);
    let length = gate.get("/api/x").body.data.len().to_string();
    assert_eq!(reply.header("content-length"), Some(length.as_str()));
    // Were there a body, it would be taken for the next answer.
    assert_eq!(connection.call(&get("/api/x").token("canary-ada")).status, 200);
}

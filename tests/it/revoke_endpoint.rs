//! `POST /revoke`: what one gateway revokes, every gateway refuses.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::gate::TRACKING;
use crate::harness::mint::{Signer, now};
use crate::harness::program::authgate;
use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get, post, wait_until};

pub const SOON: Duration = Duration::from_secs(5);
pub const TOKEN: &str = "canary-of-operators";
pub const FORM: &str = "application/x-www-form-urlencoded";
/// Cached for so long that only a report of a change ends it.
pub const CACHE: &str = "cache = { ttl = \"60s\", negative_ttl = \"60s\" }";

pub fn with_token(config: Config) -> Config {
    config
        .file("admin.token", format!("{TOKEN}\n"))
        .admin("token = { file = \"admin.token\" }")
}

/// Tokens and JWTs, both with users and revocations in Redis.
pub fn both(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer) -> Config {
    with_token(config())
        .redis(redis)
        .token(CACHE)
        .jwt(CACHE)
        .jwt("users = \"redis\"")
        .jwt("revocation = \"redis\"")
        .file("key0", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("key0")))
        .app(upstream)
        .route("/token/*", "authenticate = [\"token\"]")
        .route("/jwt/*", "authenticate = [\"jwt\"]")
}

/// Started, and subscribed to the changes of Redis.
pub fn subscribed(config: &Config) -> Gate {
    let gate = Gate::start(config);
    wait_until("the gateway is subscribed", SOON, || metric(&gate, TRACKING) == 1.0);
    gate
}

fn metric(gate: &Gate, name: &str) -> f64 {
    let metrics = gate.ask_admin(&get("/metrics").bearer(TOKEN)).text();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

pub fn outcomes(gate: &Gate, outcome: &str) -> f64 {
    metric(gate, &format!("authgate_revocations_total{{outcome=\"{outcome}\"}}"))
}

pub fn form(body: impl Into<Vec<u8>>) -> Call {
    post("/revoke", body).header("Content-Type", FORM)
}

/// Sends a form with the token of the listener.
pub fn revoke(gate: &Gate, body: &str) -> Reply {
    gate.ask_admin(&form(body).bearer(TOKEN))
}

/// Wants 200, and an empty body.
pub fn revoked(gate: &Gate, body: &str) {
    let reply = revoke(gate, body);
    assert_eq!((reply.status, reply.text().as_str()), (200, ""), "{body}");
}

/// Wants problem details with this status and error; returns the detail.
pub fn problem(reply: &Reply, status: u16, error: &str) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let json = reply.json();
    assert_eq!(
        (&json["status"], &json["error"]),
        (&json!(status), &json!(error)),
        "{json}"
    );
    assert!(!reply.text().contains("canary"), "{json}");
    reply.detail()
}

pub fn becomes(gate: &Gate, call: &Call, status: u16, after: &str) {
    wait_until(&format!("{status} after {after}"), SOON, || {
        gate.call(call).status == status
    });
}

pub fn value(redis: &Redis, key: &str) -> Option<String> {
    match redis.run(&["GET", &format!("authgate:{key}")]) {
        redis::Value::BulkString(bytes) => Some(String::from_utf8(bytes).expect("text")),
        _ => None,
    }
}

pub fn ttl(redis: &Redis, key: &str) -> i64 {
    match redis.run(&["TTL", &format!("authgate:{key}")]) {
        redis::Value::Int(seconds) => seconds,
        other => panic!("{other:?}"),
    }
}

/// All keys but those by which gateways measure the delay of changes.
pub fn keys(redis: &Redis) -> Vec<String> {
    let redis::Value::Array(keys) = redis.run(&["KEYS", "*"]) else {
        panic!("a list of keys");
    };
    let mut keys: Vec<String> = keys
        .into_iter()
        .map(|key| redis::from_redis_value(key).expect("text"))
        .filter(|key: &String| !key.starts_with("authgate:canary:"))
        .collect();
    keys.sort();
    keys
}

#[test]
fn what_one_gateway_revokes_is_refused_by_itself_at_once_and_by_the_other_soon() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256).kid("k1");
    let config = both(&redis, &upstream, &signer);
    let (one, other) = (subscribed(&config), subscribed(&config));
    let check = |body: &str, call: Call, what: &str| {
        for gate in [&one, &other] {
            assert_eq!(gate.call(&call).status, 200, "before {what}");
        }
        revoked(&one, body);
        assert_eq!(one.call(&call).status, 401, "{what}");
        becomes(&other, &call, 401, what);
    };
    let with_jwt = |more: &Value| {
        let jwt = signer.with(more);
        (get("/jwt/x").bearer(&jwt), jwt)
    };
    check(
        "token=canary-ada",
        get("/token/x").token("canary-ada"),
        "an opaque token",
    );
    let record: Value = serde_json::from_str(&value(&redis, &Redis::token_key("canary-ada")).unwrap()).unwrap();
    assert!(record["revoked"].as_i64().is_some_and(|at| (now() - at).abs() < 60));
    assert_eq!(
        (&record["user"], &record["created"]),
        (&json!("42"), &json!(1_700_000_000)),
        "kept"
    );

    let (call, jwt) = with_jwt(&json!({ "jti": "canary-1" }));
    check(&format!("token={jwt}&token_type_hint=access_token"), call, "a JWT");
    // Until `exp`, and a minute and a second more.
    let left = ttl(&redis, "revoked:jti:canary-1");
    assert!((300..=361).contains(&left), "{left}");

    let (call, _) = with_jwt(&json!({ "jti": "canary-2" }));
    check("jti=canary-2", call, "a jti");
    assert_eq!(ttl(&redis, "revoked:jti:canary-2"), -1, "for ever");

    redis.put_token("canary-new", &json!({ "user": "42", "created": now() - 10 }));
    let (call, _) = with_jwt(&json!({ "jti": "canary-3", "iat": now() - 5 }));
    let of_token = get("/token/x").token("canary-new");
    assert_eq!(other.call(&of_token).status, 200);
    check(&format!("user=42&before={}", now() - 1), call, "a user");
    becomes(&one, &of_token, 401, "a user");
    becomes(&other, &of_token, 401, "a user");

    let (call, _) = with_jwt(&json!({ "jti": "canary-4", "iat": now() }));
    check("kid=k1&store=redis", call, "a kid");
    assert_eq!(value(&redis, "revoked:kid:k1").as_deref(), Some("1"));

    wait_until("they are counted", SOON, || outcomes(&one, "revoked") == 5.0);
    assert_eq!(outcomes(&other, "revoked"), 0.0);
    for kind in ["token", "jti", "user", "kid"] {
        let line = one.logged(&["\"revoked\"", &format!("\"kind\":\"{kind}\"")]);
        assert!(
            line.contains("\"store\":\"redis\"") && line.contains("\"client.ip\":\"127.0.0.1\""),
            "{line}"
        );
    }
}

#[test]
fn a_user_that_is_disabled_has_no_token_and_no_jwt_on_any_gateway() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_token("canary-second", &json!({ "user": "42" }));
    let signer = Signer::new(Algorithm::ES256);
    let config = both(&redis, &upstream, &signer);
    let gates = [subscribed(&config), subscribed(&config)];
    let calls = [
        get("/token/x").token("canary-ada"),
        get("/token/x").token("canary-second"),
        get("/jwt/x").bearer(&signer.with(&json!({ "jti": "canary-1" }))),
        get("/jwt/x").bearer(&signer.with(&json!({ "jti": "canary-2" }))),
    ];
    let all_become = |status: u16, after: &str| {
        for gate in &gates {
            for call in &calls {
                becomes(gate, call, status, after);
            }
        }
    };
    all_become(200, "the start");
    let run = |words: &[&str]| {
        let ended = authgate(gates[0].folder.path(), words);
        assert_eq!(ended.code, 0, "{ended:?}");
    };
    run(&["user", "disable", "42"]);
    all_become(401, "`user disable`");
    // One that is issued later is refused too.
    let later = get("/jwt/x").bearer(&signer.with(&json!({ "jti": "canary-3" })));
    assert_eq!(gates[1].call(&later).status, 401);
    run(&["user", "enable", "42"]);
    all_become(200, "`user enable`");
}

#[test]
fn the_store_keeps_what_covers_more() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    for before in ["1000", "3000", "2000"] {
        revoked(&gate, &format!("user=7&before={before}"));
    }
    assert_eq!(value(&redis, "revoked:user:7").as_deref(), Some("3000"));
    revoked(&gate, &format!("jti=x&expires={}", now() + 1000));
    revoked(&gate, &format!("jti=x&expires={}", now() + 10));
    assert!(ttl(&redis, "revoked:jti:x") > 1000);
    revoked(&gate, "jti=x");
    revoked(&gate, &format!("jti=x&expires={}", now() + 10));
    assert_eq!(ttl(&redis, "revoked:jti:x"), -1);
    // A JWT that has expired needs no record.
    revoked(&gate, "jti=old&expires=1000");
    assert_eq!(value(&redis, "revoked:jti:old"), None);
    revoked(&gate, "token=canary-ada");
    let first = value(&redis, &Redis::token_key("canary-ada"));
    redis.set(
        &Redis::token_key("canary-ada"),
        first
            .clone()
            .expect("a record")
            .replace(&now().to_string()[..6], "170000"),
    );
    let earlier = value(&redis, &Redis::token_key("canary-ada"));
    assert_ne!(earlier, first, "the record has an earlier time now");
    revoked(&gate, "token=canary-ada");
    assert_eq!(
        value(&redis, &Redis::token_key("canary-ada")),
        earlier,
        "the time of the first revocation is kept"
    );
}

#[test]
fn a_token_that_no_authenticator_accepts_is_200_and_changes_nothing() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let config = both(&redis, &upstream, &signer).jwt("audience = \"api\"");
    let gate = Gate::start(&config);
    let before = keys(&redis);
    let own = json!({ "jti": "canary-own", "aud": "api" });
    let with = |name: &str, value: Value| {
        let mut claims = own.clone();
        claims[name] = value;
        signer.with(&claims)
    };
    let signed = signer.with(&own);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let other_digit = if signature.starts_with('A') { 'B' } else { 'A' };
    for token in [
        "canary-unknown".to_owned(),
        "canary.with.dots".to_owned(),
        "..".to_owned(),
        Signer::new(Algorithm::ES256).with(&own),
        with("aud", json!("other")),
        with("exp", json!(now() - 1000)),
        format!("{head}.{other_digit}{}", &signature[1..]),
        format!("{head}."),
        "canary-%00%01".to_owned(),
    ] {
        revoked(&gate, &format!("token={token}"));
    }
    assert_eq!(keys(&redis), before);
    wait_until("they are counted", SOON, || outcomes(&gate, "unknown") == 9.0);
    // One that will be valid is revoked before it is.
    revoked(&gate, &format!("token={}", with("nbf", json!(now() + 200))));
    assert_eq!(value(&redis, "revoked:jti:canary-own").as_deref(), Some("1"));
}

#[test]
fn a_jwt_that_cannot_be_revoked_here_is_an_unsupported_token_type() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&both(&redis, &upstream, &signer));
    let before = keys(&redis);
    for (claims, reason) in [
        (json!({ "jti": null }), "no id"),
        (json!({ "jti": "" }), "no id"),
        (json!({ "token_type": "refresh" }), "at its issuer"),
    ] {
        let reply = revoke(&gate, &format!("token={}", signer.with(&claims)));
        let detail = problem(&reply, 400, "unsupported_token_type");
        assert!(detail.contains(reason), "{detail}");
    }
    let without = both(&redis, &upstream, &signer).jwt("revocation = \"none\"");
    let gate = Gate::start(&without);
    let detail = problem(
        &revoke(&gate, &format!("token={}", signer.access())),
        400,
        "unsupported_token_type",
    );
    assert!(detail.contains("revocation = \"none\""), "{detail}");
    for form in ["jti=x", "kid=x"] {
        let detail = problem(&revoke(&gate, form), 400, "invalid_request");
        assert!(detail.contains("`revocation`"), "{detail}");
    }
    assert_eq!(keys(&redis), before);
    // A store that the form names is written to in any case, as by the command.
    revoked(&gate, "jti=x&store=redis");
    assert_eq!(value(&redis, "revoked:jti:x").as_deref(), Some("1"));
}

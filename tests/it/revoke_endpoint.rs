//! `POST /revoke`: what one gateway revokes, every gateway refuses; and what is not accepted as a revocation.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::gate::{TRACKING, exchange};
use crate::harness::mint::{Signer, now};
use crate::harness::program::authgate;
use crate::harness::proofs::ProofKey;
use crate::harness::server::{BASE_RIGHTS, WRITER};
use crate::harness::wire::Wire;
use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, call, config, get, post, wait_until};

const SOON: Duration = Duration::from_secs(5);
const TOKEN: &str = "canary-of-operators";
const FORM: &str = "application/x-www-form-urlencoded";
/// Cached for so long that only a report of a change ends it.
const CACHE: &str = "cache = { ttl = \"60s\", negative_ttl = \"60s\" }";

pub fn with_token(config: Config) -> Config {
    config
        .file("admin.token", format!("{TOKEN}\n"))
        .admin("token = { file = \"admin.token\" }")
}

/// Tokens and JWTs, both with users and revocations in Redis.
fn both(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer) -> Config {
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
fn subscribed(config: &Config) -> Gate {
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

fn outcomes(gate: &Gate, outcome: &str) -> f64 {
    metric(gate, &format!("authgate_revocations_total{{outcome=\"{outcome}\"}}"))
}

fn form(body: impl Into<Vec<u8>>) -> Call {
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

fn becomes(gate: &Gate, call: &Call, status: u16, after: &str) {
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
        first.unwrap().replace(&now().to_string()[..6], "170000"),
    );
    let earlier = value(&redis, &Redis::token_key("canary-ada"));
    revoked(&gate, "token=canary-ada");
    assert_eq!(
        value(&redis, &Redis::token_key("canary-ada")),
        earlier,
        "the first time stays"
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
    for token in [
        "canary-unknown".to_owned(),
        "canary.with.dots".to_owned(),
        "..".to_owned(),
        Signer::new(Algorithm::ES256).with(&own),
        with("aud", json!("other")),
        with("exp", json!(now() - 1000)),
        format!("{head}.A{}", &signature[1..]),
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

#[test]
fn only_requests_with_the_token_may_revoke() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let config = both(&redis, &upstream, &signer).admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]");
    let gate = Gate::start(&config);
    let over_file = |call: &Call| exchange(&mut gate.connect_over("admin.sock").wire, call).expect("a response");
    let ask: [&dyn Fn(&Call) -> Reply; 2] = [&|call| gate.ask_admin(call), &over_file];
    for ask in ask {
        for refused in [
            form("token=canary-ada"),
            form("token=canary-ada").bearer("canary"),
            form("token=canary-ada").bearer(""),
            form("token=canary-ada").bearer(TOKEN).bearer(TOKEN),
            form("token=canary-ada").header("X-Authgate-Command", "revoke"),
            form(format!("token=canary-ada&access_token={TOKEN}")),
        ] {
            let reply = ask(&refused);
            problem(&reply, 401, "invalid_client");
            assert_eq!(reply.headers("www-authenticate").len(), 2);
        }
        for (name, field) in [
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            let reply = ask(&form("token=canary-ada").bearer(TOKEN).header(name, field));
            problem(&reply, 403, "unauthorized_client");
            assert!(reply.header("access-control-allow-origin").is_none());
        }
        problem(
            &ask(&form("token=canary-ada").bearer(TOKEN).host("evil.example")),
            403,
            "unauthorized_client",
        );
        for method in ["GET", "PUT", "OPTIONS", "DELETE"] {
            let reply = ask(&call(method, "/revoke").bearer(TOKEN));
            assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
        }
    }
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 200);
    // Clients of RFC 7009 may authenticate by Basic, with any name.
    let basic = form("token=canary-ada&client_id=app").authorization(&format!(
        "Basic {}",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("app:{TOKEN}"))
    ));
    assert_eq!(gate.ask_admin(&basic).status, 200);
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 401);
}

#[test]
fn without_a_token_of_the_listener_nothing_is_revoked_not_even_from_this_machine() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).protected("/*"));
    for refused in [
        form("token=canary-ada"),
        form("token=canary-ada").header("X-Authgate-Command", "revoke"),
        form("token=canary-ada").header("X-Authgate-Command", "reload"),
        form("token=canary-ada").bearer(""),
    ] {
        let detail = problem(&gate.ask_admin(&refused), 403, "unauthorized_client");
        assert!(detail.contains("admin.token"), "{detail}");
    }
    assert_eq!(gate.get("/x").status, 401);
    assert_eq!(gate.call(&get("/x").token("canary-ada")).status, 200);
}

#[test]
fn what_is_no_form_is_refused() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    let before = keys(&redis);
    let with_type = |body: &str, types: &[&str]| {
        let call = post("/revoke", body).bearer(TOKEN);
        let call = types
            .iter()
            .fold(call, |call, media_type| call.header("Content-Type", *media_type));
        gate.ask_admin(&call)
    };
    for types in [
        &[][..],
        &["application/json"],
        &["text/plain"],
        &["multipart/form-data; boundary=x"],
        &["application/x-www-form-urlencoded; charset=utf-16"],
        &[FORM, FORM],
    ] {
        problem(&with_type("token=canary-ada", types), 415, "invalid_request");
    }
    let coded = form("token=canary-ada")
        .bearer(TOKEN)
        .header("Content-Encoding", "gzip");
    problem(&gate.ask_admin(&coded), 415, "invalid_request");
    for body in [
        "",
        "token",
        "token=canary-ada&token=canary-ada",
        "token=canary-ada&user=42",
        "token=canary-ada&before=1",
        "user=42&befor=1",
        "user=42&before=yesterday",
        "user=42&before=1700000000000",
        &format!("user=42&before={}", now() + 7200),
        "user=%20",
        "jti=a&expires=-1",
        "token=canary-ada&store=canary",
        "token=canary-%zz",
        "token=%ff",
        "\u{feff}token=canary-ada",
    ] {
        problem(&revoke(&gate, body), 400, "invalid_request");
    }
    assert_eq!(keys(&redis), before);
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 200);
    wait_until("they are counted", SOON, || outcomes(&gate, "refused") == 22.0);
}

#[test]
fn a_form_that_is_huge_is_refused_and_one_that_is_slow_holds_up_no_other() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    let wire = || {
        let tcp = std::net::TcpStream::connect(gate.admin).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Wire::new(tcp)
    };
    let head = |length: &str| {
        let mut call = call("POST", "/revoke").bearer(TOKEN).header("Content-Type", FORM);
        if let Some((name, value)) = length.split_once(": ") {
            call = call.header(name, value);
        }
        call
    };
    // It says how long it will be.
    let reply = exchange(&mut wire(), &head("Content-Length: 65537")).expect("a response before the body");
    problem(&reply, 413, "invalid_request");
    // It does not say.
    let mut chunked = head("Transfer-Encoding: chunked");
    chunked.body = format!("11000\r\ntoken={}\r\n0\r\n\r\n", "a".repeat(0x11000 - 6)).into_bytes();
    problem(
        &exchange(&mut wire(), &chunked).expect("a response"),
        413,
        "invalid_request",
    );
    let mut cut = head("Content-Length: 16");
    cut.body = b"token=canary-ada".to_vec();
    assert_eq!(exchange(&mut wire(), &cut).expect("a response").status, 200);
    let (mut slow, mut half) = (wire(), head("Content-Length: 5"));
    half.body = b"kid".to_vec();
    slow.write(&half.bytes()).expect("the gateway reads");
    revoked(&gate, "user=42");
    slow.write(b"=x").expect("the gateway reads");
    let reply = slow.head().expect("a response").expect("a response");
    assert!(reply.first.contains(" 200 "), "{}", reply.first);
}

#[test]
fn a_store_that_cannot_be_written_is_503_and_nothing_counts_as_revoked() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    let unavailable = |after: &str| {
        for form in ["token=canary-ada", "user=42", "jti=canary", "kid=canary"] {
            let reply = revoke(&gate, form);
            let detail = problem(&reply, 503, "temporarily_unavailable");
            assert_eq!(reply.header("retry-after"), Some("1"));
            assert!(detail.contains("tore redis"), "{after}: {detail}");
        }
    };
    redis.run(&["ACL", "SETUSER", "default", "-@write"]);
    unavailable("the role may not write");
    redis.run(&["ACL", "SETUSER", "default", "+@all"]);
    redis.set(&Redis::token_key("canary-bad"), "canary");
    problem(&revoke(&gate, "token=canary-bad"), 503, "temporarily_unavailable");
    // An empty store gets no layout record: gateways would take it for a complete one.
    redis.run(&["FLUSHALL"]);
    unavailable("the store was flushed");
    assert!(keys(&redis).is_empty());
    wait_until("they are counted", SOON, || outcomes(&gate, "unavailable") == 9.0);
    assert_eq!(outcomes(&gate, "revoked"), 0.0);
    gate.logged(&["not revoked", "NOPERM"]);
}

#[test]
fn an_embedded_store_is_written_too_and_is_in_force_at_once() {
    let upstream = RecordingUpstream::start();
    let config = with_token(config())
        .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
        .token(CACHE)
        .app(&upstream)
        .protected("/*");
    let gate = Gate::spawn(&config);
    problem(&revoke(&gate, "token=canary-ada"), 503, "temporarily_unavailable");
    let words = [
        "token",
        "create",
        "--user",
        "1",
        "--username",
        "ada",
        "--key",
        "canary-ada",
    ];
    let ended = authgate(gate.folder.path(), &words);
    assert_eq!(ended.code, 0, "{ended:?}");
    let call = get("/x").token("canary-ada");
    becomes(&gate, &call, 200, "the token is there");
    revoked(&gate, "token=canary-ada");
    assert_eq!(gate.call(&call).status, 401);
    revoked(&gate, "user=2");
    let file = std::fs::read_to_string(gate.folder.path().join("tokens.toml")).unwrap();
    assert!(file.contains("revoked = ") && file.contains("[revoked.user]"), "{file}");
}

#[test]
fn without_a_name_the_stores_of_all_concerned_authenticators_are_written() {
    let (one, two, upstream) = (Redis::start().with_ada(), Redis::start(), RecordingUpstream::start());
    let third = Redis::start();
    let signer = Signer::new(Algorithm::ES256);
    let store = |name: &str, redis: &Redis| format!("[stores.{name}]\nkind = \"redis\"\nurl = \"{}\"\n", redis.url());
    let config = with_token(config())
        .tables(&(store("one", &one) + &store("two", &two) + &store("three", &third)))
        .token("store = \"one\"")
        .jwt("users = \"none\"")
        .jwt("revocation = \"two\"")
        .file("key0", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("key0")))
        .app(&upstream)
        .route("/token/*", "authenticate = [\"token\"]")
        .route("/jwt/*", "authenticate = [\"jwt\"]");
    let gate = Gate::start(&config);
    revoked(&gate, "user=42&before=1000");
    let at = |redis: &Redis, key: &str| value(redis, key).is_some();
    assert_eq!(
        [&one, &two, &third].map(|redis| at(redis, "revoked:user:42")),
        [true, true, false]
    );
    revoked(&gate, "jti=x");
    assert_eq!(
        [&one, &two, &third].map(|redis| at(redis, "revoked:jti:x")),
        [false, true, false]
    );
    revoked(&gate, &format!("token={}", signer.with(&json!({ "jti": "y" }))));
    assert_eq!(
        [&one, &two, &third].map(|redis| at(redis, "revoked:jti:y")),
        [false, true, false]
    );
    revoked(&gate, "kid=z&store=three");
    assert_eq!(
        [&one, &two, &third].map(|redis| at(redis, "revoked:kid:z")),
        [false, false, true]
    );
    let detail = problem(&revoke(&gate, "kid=z&store=four"), 400, "invalid_request");
    assert!(detail.contains("one, three, two"), "{detail}");
    // If one of several stores fails, the response says so; the other one has it.
    two.pause();
    problem(&revoke(&gate, "user=42&before=2000"), 503, "temporarily_unavailable");
    two.resume();
}

/// A replica of a Redis, which is in sync.
fn replica_of(redis: &Redis) -> Redis {
    // Another process may take the port first; then Redis refuses it.
    let port = (0..20).find_map(|_| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port().to_string();
        drop(free);
        let set = redis.try_run(&["CONFIG", "SET", "port", &port]);
        set.is_ok().then_some(port)
    });
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port.expect("a free port")]);
    wait_until("the replica is in sync", Duration::from_secs(20), || {
        redis.run(&["WAIT", "1", "100"]) == redis::Value::Int(1)
    });
    replica
}

#[test]
fn a_revocation_that_no_replica_confirms_is_reported() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    let command = |words: &[&str]| {
        let ended = authgate(gate.folder.path(), words);
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.err
    };
    let (of_user, of_token) = (["revoke", "--user", "42"], ["revoke", "--token", "canary-ada"]);
    assert!(!command(&of_user).contains("replica"), "there is none");
    let replica = replica_of(&redis);
    revoked(&gate, "user=42");
    assert!(!command(&of_user).contains("replica"), "it has confirmed");
    assert_eq!(value(&replica, "revoked:user:42"), value(&redis, "revoked:user:42"));

    replica.pause();
    let not_confirmed = "none has confirmed";
    assert!(command(&of_user).contains(not_confirmed));
    assert!(command(&of_token).contains(not_confirmed));
    assert!(command(&["user", "disable", "42"]).contains(not_confirmed));
    revoked(&gate, "kid=x");
    gate.logged(&["unconfirmed", "replica"]);
    wait_until("it is counted", SOON, || outcomes(&gate, "unconfirmed") == 1.0);
    replica.resume();
    wait_until("the replica follows", Duration::from_secs(20), || {
        value(&replica, "revoked:kid:x").is_some()
    });
}

#[test]
fn a_role_that_only_reads_is_enough_beside_a_writer() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let client = ProofKey::new(Algorithm::ES256);
    redis.run(BASE_RIGHTS);
    redis.run(WRITER);
    let reading = both(&redis, &upstream, &signer)
        .jwt("dpop = \"accept\"\ndpop_replay = \"redis\"")
        .replacing("url = ", "username = \"gateway\"\npassword = \"canary-redis\"\nurl = ");
    let writer = "writer = { username = \"writer\", password = \"canary-writer\" }\nurl = ";
    let with_writer = reading.clone().replacing("url = ", writer);
    let bound = signer.with(&json!({ "cnf": client.cnf() }));
    let send = || client.send(get("/jwt/x"), "http://localhost/jwt/x", &bound);

    let gate = subscribed(&reading);
    problem(&revoke(&gate, "token=canary-ada"), 503, "temporarily_unavailable");
    assert_eq!(gate.call(&send()).status, 503, "the proof cannot be recorded");
    let ended = authgate(gate.folder.path(), &["revoke", "--user", "7"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 200);

    let gate = subscribed(&with_writer);
    let proof = send();
    assert_eq!(gate.call(&proof).status, 200);
    assert_eq!(gate.call(&proof).status, 401, "it was used before");
    revoked(&gate, "token=canary-ada");
    revoked(&gate, "user=7");
    revoked(&gate, "kid=x");
    revoked(&gate, &format!("jti=x&expires={}", now() + 100));
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 401);
    let ended = authgate(gate.folder.path(), &["revoke", "--jti", "y"]);
    assert_eq!((ended.code, ended.err.contains("replica")), (0, false), "{ended:?}");

    // Look-ups go on, whatever becomes of the writer.
    let check = || authgate(gate.folder.path(), &["check", "--online"]);
    assert_eq!(check().code, 0, "{:?}", check());
    redis.run(&["ACL", "DELUSER", "writer"]);
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    let checked = check();
    assert!(
        checked.code != 0 && checked.err.contains("stores.redis.writer"),
        "{checked:?}"
    );
    problem(&revoke(&gate, "kid=z"), 503, "temporarily_unavailable");
    for number in 0..3 {
        assert_eq!(gate.call(&send()).status, 503);
        redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        let token = format!("canary-new{number}");
        redis.put_token(&token, &json!({ "user": "42" }));
        assert_eq!(gate.call(&get("/token/x").token(&token)).status, 200);
    }
}

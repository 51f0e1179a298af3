//! `mode = "observe"`: requests go on as they came, and the gateway compares its decision with the application's response.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::Signer;
use crate::harness::program::authgate;
use crate::harness::upstream::Exchange;
use crate::harness::websocket::Over;
use crate::harness::{Config, Gate, Next, RecordingUpstream, Redis, config, get, post, wait_until};
use crate::reload::reload;

const SECRET: &str = "secret_header = { name = \"X-Gateway-Secret\", value = { env = \"PATH\" } }";
const OBSERVE: &str = "authenticate = [\"token\"]\nmode = \"observe\"";

/// A gateway that observes `/api/*`, with all fields that prove something.
fn observing(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config()
        .tokens(redis)
        .identity("headers = { X-User-Id = \"id\", X-By = \"authenticator\" }")
        .app(upstream)
        .with(SECRET)
        .route("/api/*", OBSERVE)
}

/// How many observed requests of `/api/*` were counted with these labels.
pub fn observed(gate: &Gate, ours: &str, theirs: &str, reason: &str) -> f64 {
    let labels = format!("route=\"/api/*\",ours=\"{ours}\",theirs=\"{theirs}\",reason=\"{reason}\"");
    gate.metric(&format!("authgate_observed_total{{{labels}}}"))
}

pub fn wait_for_observed(gate: &Gate, (ours, theirs, reason): (&str, &str, &str), count: f64) {
    let what = format!("{ours} {theirs} {reason} is counted {count} times");
    wait_until(&what, Duration::from_secs(10), || {
        observed(gate, ours, theirs, reason) >= count
    });
    assert!(observed(gate, ours, theirs, reason) <= count, "{what}");
}

/// The logged differences.
pub fn differences(gate: &Gate) -> Vec<Value> {
    let log = gate.log();
    let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|event: &Value| {
            event["message"]
                .as_str()
                .is_some_and(|message| message.contains("observed request"))
        })
        .collect()
}

/// An application that knows ada's token, as DRF does.
fn authenticates(exchange: Exchange<'_>) -> Next {
    match exchange.head.header("authorization") {
        Some("Token canary-ada") => exchange.ok(),
        _ => exchange.answer("401 Unauthorized", "WWW-Authenticate: Token\r\n", b"{}"),
    }
}

#[test]
fn an_observed_request_reaches_the_application_as_it_came_but_for_reserved_names() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&observing(&redis, &upstream));
    for value in [
        "Token canary-ada",
        "Token canary-unknown",
        "Bearer canary",
        "Basic Y2FuYXJ5",
    ] {
        let call = get("/api/x").authorization(value).header("Cookie", "a=b");
        let call = call
            .header("X-User-Id", "1")
            .header("X_User_Id", "1")
            .header("X-By", "me");
        let call = call
            .header("X-Gateway-Secret", "mine")
            .header("Forwarded", "for=10.0.0.1");
        assert_eq!(gate.call(&call).status, 200, "{value}");
        let seen = upstream.last();
        assert_eq!(
            (seen.header("authorization"), seen.header("cookie")),
            (Some(value), Some("a=b"))
        );
        for name in ["x-user-id", "x_user_id", "x-by", "x-gateway-secret", "forwarded"] {
            assert_eq!(seen.header(name), None, "{value}: {name}");
        }
        assert_eq!(seen.head.all("x-forwarded-for").len(), 1);
    }
    assert_eq!(gate.get("/api/x").status, 200);
    assert_eq!(upstream.last().header("authorization"), None);
    let before = upstream.calls();
    assert_eq!(gate.get("/api/%2e%2e/x").status, 400, "paths have one reading");
    let authgate = get("/api/x").authorization("Authgate canary");
    assert_eq!(gate.call(&authgate).status, 200);
    assert_eq!(
        upstream.last().header("authorization"),
        None,
        "the gateway's own scheme"
    );
    assert_eq!(upstream.calls(), before + 1);
    let lines = get("/api/x")
        .authorization("Token canary-ada")
        .authorization("Token canary-b");
    assert_eq!(gate.call(&lines).status, 200);
    assert_eq!(
        upstream.last().head.all("authorization"),
        ["Token canary-ada", "Token canary-b"]
    );
}

#[test]
fn an_observed_request_carries_no_signed_identity_and_a_dry_run_shows_what_enforcement_would_do() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::EdDSA);
    let signed =
        "signed = { header = \"X-Proof\", keys = [{ algorithm = \"EdDSA\", file = \"identity.key\", kid = \"1\" }] }";
    let file = observing(&redis, &upstream)
        .identity(signed)
        .file("identity.key", signer.private);
    let gate = Gate::start(&file.route("/enforced", "authenticate = [\"token\"]"));
    for (target, is_signed) in [("/api/x", false), ("/enforced", true)] {
        let call = get(target).token("canary-ada").header("X-Proof", "mine");
        assert_eq!(gate.call(&call).status, 200);
        let proof = upstream.last().header("x-proof").map(str::to_owned);
        assert_eq!(proof.is_some(), is_signed, "{proof:?}");
        assert_ne!(proof.as_deref(), Some("mine"));
    }
    for (key, expected) in [
        ("canary-ada", "forwarded to upstream app"),
        ("canary-unknown", "answered 401"),
    ] {
        let shown = authgate(gate.folder.path(), &["token", "show", key, "--route", "/api/x"]);
        let text = format!("{}{}", shown.out, shown.err);
        assert!(
            text.contains("observed: the request reaches the application as it came"),
            "{text}"
        );
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn each_kind_of_difference_is_counted_and_logged_once_in_a_while() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("9", &json!({}));
    redis.put_token("canary-late", &json!({ "user": "9" }));
    upstream.answers(authenticates);
    let gate = Gate::start(&observing(&redis, &upstream).server("workers = 1"));
    for _ in 0..5 {
        assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
        assert_eq!(gate.call(&get("/api/x").token("canary-unknown")).status, 401);
        assert_eq!(gate.get("/api/x").status, 401);
        assert_eq!(gate.call(&get("/api/x?secret=1").token("canary-late")).status, 401);
    }
    wait_for_observed(&gate, ("accepted", "accepted", "same"), 5.0);
    wait_for_observed(&gate, ("401", "401", "same"), 10.0);
    wait_for_observed(&gate, ("accepted", "401", "authenticated"), 5.0);
    let logged = differences(&gate);
    assert_eq!(logged.len(), 1, "{logged:?}");
    let event = &logged[0];
    for (field, value) in [
        ("route", json!("/api/*")),
        ("ours", json!("accepted")),
        ("theirs", json!(401)),
        ("reason", json!("authenticated")),
        ("challenge.theirs", json!("Token")),
        ("user.id", json!("9")),
        ("http.target", json!("/api/x")),
        ("times", json!(1)),
    ] {
        assert_eq!(event[field], value, "{field}: {event}");
    }

    upstream.answers(|exchange| match exchange.head.header("authorization") {
        None => exchange.answer("403 Forbidden", "", b"{}"),
        Some(_) => exchange.answer("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"api\"\r\n", b"{}"),
    });
    gate.get("/api/x");
    gate.call(&get("/api/x").token("canary-unknown"));
    wait_for_observed(&gate, ("401", "403", "no_credential"), 1.0);
    wait_for_observed(&gate, ("401", "401", "challenge"), 1.0);
    upstream.answers(|exchange| exchange.answer("500 Internal Server Error", "", b""));
    assert_eq!(gate.call(&get("/api/x").token("canary-unknown")).status, 500);
    wait_for_observed(&gate, ("401", "5xx", "token_unknown"), 1.0);
    upstream.answers(|_| Next::Close);
    assert_eq!(gate.call(&post("/api/x", "x").token("canary-ada")).status, 502);
    wait_for_observed(&gate, ("accepted", "none", "authenticated"), 1.0);
    assert_eq!(differences(&gate).len(), 3, "failures are no differences");
}

#[test]
fn requirements_and_revocations_are_compared_but_not_applied() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_token("canary-dead", &json!({ "user": "42", "revoked": 1 }));
    let require = format!("{OBSERVE}\nrequire = {{ groups = {{ any = [\"root\"] }} }}");
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).route("/api/*", &require));
    for key in ["canary-ada", "canary-dead"] {
        assert_eq!(gate.call(&get("/api/x").token(key)).status, 200);
        assert_eq!(upstream.last().header("authorization"), Some(&*format!("Token {key}")));
    }
    wait_for_observed(&gate, ("403", "accepted", "not_allowed"), 1.0);
    wait_for_observed(&gate, ("401", "accepted", "token_unknown"), 1.0);
    let detail = gate.logged(&["observed request", "not_allowed"]);
    assert!(detail.contains("missing: group"), "{detail}");
}

#[test]
fn an_outage_of_the_store_neither_delays_nor_refuses_an_observed_request() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let url = redis.url();
    let store = format!("[stores.redis]\nkind = \"redis\"\nurl = \"{url}\"\ntimeout = \"20s\"\n");
    let gate = Gate::start(
        &config()
            .tables(&store)
            .token("cache = { entries = 0, negative_entries = 0 }")
            .app(&upstream)
            .route("/api/*", OBSERVE),
    );
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.pause();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "less than one look-up takes");
    redis.resume();
    redis.kill();
    for _ in 0..20 {
        assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    }
    assert_eq!(upstream.calls(), 41);
    wait_until("failures are counted", Duration::from_secs(30), || {
        observed(&gate, "503", "accepted", "store_unreachable") > 0.0
    });
    assert!(differences(&gate).is_empty(), "{:?}", differences(&gate));
    assert_eq!(gate.stop().matches("panicked").count(), 0);
}

#[test]
fn evaluations_are_bounded_and_what_is_not_evaluated_is_counted() {
    const REQUESTS: u32 = 1100;
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let file = config()
        .redis_with_long_timeout(&redis)
        .token("cache = { entries = 0, negative_entries = 0 }");
    let file = file.server("workers = 1").log("access = false").app(&upstream);
    let gate = Gate::start(&file.route("/api/*", OBSERVE));
    redis.pause();
    let mut conn = gate.connect();
    for _ in 0..REQUESTS {
        assert_eq!(conn.call(&get("/api/x").token("canary-ada")).status, 200);
    }
    wait_until("some are not evaluated", Duration::from_secs(10), || {
        observed(&gate, "503", "accepted", "overloaded") >= 1.0
    });
    redis.resume();
    let counted = || {
        let failed = ["overloaded", "busy", "store_timeout", "store_unreachable"];
        let failed: f64 = failed
            .iter()
            .map(|reason| observed(&gate, "503", "accepted", reason))
            .sum();
        failed + observed(&gate, "accepted", "accepted", "same")
    };
    wait_until("all are counted", Duration::from_secs(40), || {
        counted() >= f64::from(REQUESTS)
    });
    assert!(counted() <= f64::from(REQUESTS));
}

#[test]
fn a_websocket_of_an_observed_route_opens_with_its_subprotocol_as_it_came() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    upstream.answers(|mut exchange| {
        if exchange.head.header("upgrade").is_none() {
            return exchange.answer("403 Forbidden", "", b"");
        }
        exchange.switch("Sec-WebSocket-Protocol: chat\r\n");
        let _ = exchange.wire.some();
        Next::Close
    });
    let pages = "websocket = { origins = [\"https://app.example.com\"], subprotocol = true, scheme = \"Token\" }";
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .route("/api/*", &format!("{OBSERVE}\n{pages}")),
    );
    let word = "authgate.bearer.canary-ada, chat";
    for over in Over::BOTH {
        for (origin, word) in [("https://app.example.com", word), ("https://other.example", word)] {
            let fields = [("Origin", origin), ("Sec-WebSocket-Protocol", word)];
            assert_eq!(over.open(&gate, "/api/x", &fields).status, over.opened(), "{over:?}");
            let seen = upstream.last();
            assert_eq!(seen.header("sec-websocket-protocol"), Some(word));
            assert_eq!((seen.header("authorization"), seen.header("x-user-id")), (None, None));
        }
    }
    wait_for_observed(&gate, ("accepted", "accepted", "same"), 2.0);
    wait_for_observed(&gate, ("403", "accepted", "origin_not_listed"), 2.0);
    assert_eq!(gate.get("/api/x").status, 403, "an answer instead of the switch");
    wait_for_observed(&gate, ("401", "403", "no_credential"), 1.0);
}

#[test]
fn a_stream_of_an_observed_route_is_compared_when_it_begins() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    upstream.answers(|mut exchange| {
        exchange.read_body();
        let head = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        exchange.write(head);
        let _ = exchange.wire.some();
        Next::Close
    });
    let gate = Gate::start(&observing(&redis, &upstream));
    let mut conn = gate.connect();
    conn.send(get("/api/x").token("canary-ada").bytes());
    let head = conn.wire.head().expect("in time").expect("an answer");
    assert!(head.first.contains("200"), "{}", head.first);
    wait_for_observed(&gate, ("accepted", "accepted", "same"), 1.0);
    upstream.close_connections();
}

fn check(config: &Config) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    config.write(folder.path());
    let ended = authgate(folder.path(), &["check"]);
    (ended.code, ended.err)
}

#[test]
fn check_warns_that_the_application_must_authenticate_observed_requests() {
    let upstream = RecordingUpstream::start();
    let file = |lines: &str| {
        config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .file("tokens.toml", "layout = { version = 1, epoch = \"1\" }\n")
            .token("store = \"file\"")
            .app(&upstream)
            .route("/api/*", &format!("authenticate = [\"token\"]\n{lines}"))
    };
    for (lines, code, words) in [
        ("mode = \"enforce\"", 0, ""),
        ("mode = { enforce = 100 }", 0, ""),
        ("mode = \"observe\"", 0, "all requests of this route are only observed"),
        (
            "mode = { enforce = 0 }",
            0,
            "all requests of this route are only observed",
        ),
        (
            "mode = { enforce = 10 }",
            0,
            "a share of the requests of this route is only observed",
        ),
        (
            "mode = \"observe\"\nrequire = { groups = { any = [\"staff\"] } }",
            0,
            "`require` does not apply to them",
        ),
        ("mode = \"observ\"", 2, "did you mean \"observe\"?"),
        ("mode = { enforce = 101 }", 2, "write a whole number from 0 to 100"),
        ("mode = { enforce = \"10\" }", 2, "a whole number"),
        ("mode = { observe = 10 }", 2, "{ enforce = 10 }"),
        ("mode = 10", 2, "{ enforce = 10 }"),
    ] {
        let (found, report) = check(&file(lines));
        assert_eq!(found, code, "{lines}\n{report}");
        let is_quiet = words.is_empty() && report.is_empty();
        assert!(
            is_quiet || (!words.is_empty() && report.contains(words)),
            "{lines}\n{report}"
        );
    }
    let public = file("").route("/x", "public = true\nmode = \"observe\"");
    let (code, report) = check(&public);
    assert_eq!(code, 2);
    assert!(report.contains("`mode` has no effect on a public route"), "{report}");
}

#[test]
fn an_observed_route_counts_as_a_public_one_beside_a_stricter_host() {
    let upstream = RecordingUpstream::start();
    for (mode, code) in [("enforce", 0), ("observe", 2)] {
        let file = config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .file("tokens.toml", "layout = { version = 1, epoch = \"1\" }\n")
            .token("store = \"file\"")
            .app(&upstream)
            .route("/api/*", "host = \"api.example\"\nauthenticate = [\"token\"]")
            .route("/api/*", &format!("authenticate = [\"token\"]\nmode = {mode:?}"));
        let (found, report) = check(&file);
        assert_eq!(found, code, "{report}");
        assert_eq!(
            report.contains("it is not enforced for all requests"),
            code == 2,
            "{report}"
        );
    }
}

/// The users out of 40 whose requests are enforced, with this kind of credential.
fn enforced(gate: &Gate, upstream: &RecordingUpstream, credential: impl Fn(u32) -> String) -> BTreeSet<u32> {
    let is_enforced = |user: &u32| {
        let value = credential(*user);
        assert_eq!(gate.call(&get("/api/x").authorization(&value)).status, 200);
        let seen = upstream.last();
        let id = seen.header("x-user-id").map(str::to_owned);
        assert!(id.is_none() || id == Some(user.to_string()));
        let (credential, secret) = (seen.header("authorization"), seen.header("x-gateway-secret"));
        assert_eq!(
            credential == Some(&*value),
            id.is_none(),
            "an enforced request has the opaque credential"
        );
        assert_eq!(secret.is_some(), id.is_some());
        id.is_some()
    };
    (0..40).filter(is_enforced).collect()
}

#[test]
fn a_share_of_users_is_enforced_always_the_same_ones_and_only_ever_more() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    for user in 0..40 {
        redis.put_user(&user.to_string(), &json!({}));
        redis.put_token(&format!("canary-{user}"), &json!({ "user": user.to_string() }));
        redis.put_token(
            &format!("canary-dead-{user}"),
            &json!({ "user": user.to_string(), "revoked": 1 }),
        );
    }
    let file = |mode: &str| {
        let lines = format!("authenticate = [\"token\", \"jwt\"]\nmode = {mode}");
        let file = config()
            .tokens(&redis)
            .jwt("users = \"none\"")
            .file("jwt.key", signer.file());
        let file = file
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .app(&upstream)
            .with(SECRET);
        file.route("/api/*", &lines)
    };
    let gate = Gate::start(&file("{ enforce = 30 }"));
    let token = |user: u32| format!("Token canary-{user}");
    let jwt = |user: u32| format!("Bearer {}", signer.with(&json!({ "user_id": user.to_string() })));
    let some = enforced(&gate, &upstream, token);
    assert!((4..22).contains(&some.len()), "{some:?}");
    assert_eq!(
        enforced(&gate, &upstream, jwt),
        some,
        "the user counts, not the credential"
    );
    assert_eq!(
        gate.get("/api/x").status,
        200,
        "a request without a credential is observed"
    );

    // A revoked token of an enforced user does not reach the application.
    for user in 0..40 {
        let status = gate.call(&get("/api/x").token(&format!("canary-dead-{user}"))).status;
        assert_eq!(status, if some.contains(&user) { 401 } else { 200 }, "user {user}");
    }
    let unknown: Vec<u16> = (0..40)
        .map(|at| gate.call(&get("/api/x").token(&format!("canary-unknown-{at}"))).status)
        .collect();
    assert!(unknown.contains(&401) && unknown.contains(&200), "{unknown:?}");

    assert!(reload(&gate, &file("{ enforce = 60 }")));
    let more = enforced(&gate, &upstream, token);
    assert!(more.is_superset(&some) && more.len() > some.len(), "{some:?} {more:?}");
    assert_eq!(enforced(&gate, &upstream, jwt), more);
    assert!(reload(&gate, &file("{ enforce = 100 }")));
    assert_eq!(enforced(&gate, &upstream, token).len(), 40);
    assert_eq!(gate.get("/api/x").status, 401);
}

#[test]
fn in_an_outage_a_share_of_credentials_is_503_and_the_others_are_observed() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let lines = "authenticate = [\"token\"]\nmode = { enforce = 50 }";
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).route("/api/*", lines));
    redis.kill();
    let statuses: Vec<u16> = (0..40)
        .map(|at| gate.call(&get("/api/x").token(&format!("canary-{at}"))).status)
        .collect();
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
}

const FORWARD: &str = "on_unknown = \"forward\"";

#[test]
fn an_unknown_key_is_forwarded_without_identity_and_a_key_that_is_known_to_be_bad_is_refused() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("9", &json!({ "active": false }));
    for (key, record) in [
        ("canary-dead", json!({ "user": "42", "revoked": 1 })),
        ("canary-old", json!({ "user": "42", "expires": 1 })),
        ("canary-orphan", json!({ "user": "77" })),
        ("canary-idle", json!({ "user": "9" })),
    ] {
        redis.put_token(key, &record);
    }
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .token(FORWARD)
            .identity("headers = { X-User-Id = \"id\", X-By = \"authenticator\" }")
            .app(&upstream)
            .route("/api/*", "authenticate = [\"token\"]\ncredential = \"keep\""),
    );
    for (key, by, id) in [("canary-new", "unknown", None), ("canary-ada", "token", Some("42"))] {
        let call = get("/api/x").token(key).header("X-User-Id", "1").header("X-By", "me");
        assert_eq!(gate.call(&call).status, 200);
        let seen = upstream.last();
        assert_eq!((seen.header("x-by"), seen.header("x-user-id")), (Some(by), id));
        assert_eq!(seen.header("authorization"), Some(&*format!("Token {key}")));
    }
    let before = upstream.calls();
    for value in ["dead", "old", "orphan", "idle"].map(|key| format!("Token canary-{key}")) {
        assert_eq!(gate.call(&get("/api/x").authorization(&value)).status, 401, "{value}");
    }
    for value in ["Token", "Token a b"] {
        assert_eq!(gate.call(&get("/api/x").authorization(value)).status, 401, "{value}");
    }
    assert_eq!(gate.get("/api/x").status, 401);
    let lines = get("/api/x").authorization("Token canary").authorization("new");
    assert_eq!(gate.call(&lines).status, 401, "several lines are never forwarded");
    redis.kill();
    assert_eq!(gate.call(&get("/api/x").token("canary-new")).status, 503);
    assert_eq!(upstream.calls(), before);
}

#[test]
fn on_an_observed_route_an_unknown_key_counts_as_accepted() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&observing(&redis, &upstream).token(FORWARD));
    assert_eq!(gate.call(&get("/api/x").token("canary-new")).status, 200);
    assert_eq!(upstream.last().header("x-by"), None);
    wait_for_observed(&gate, ("accepted", "accepted", "same"), 1.0);
}

#[test]
fn check_refuses_routes_that_cannot_leave_unknown_keys_to_the_application() {
    let upstream = RecordingUpstream::start();
    let file = |lines: &str| {
        config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .file("tokens.toml", "layout = { version = 1, epoch = \"1\" }\n")
            .token("store = \"file\"")
            .token(FORWARD)
            .app(&upstream)
            .route("/api/*", &format!("authenticate = [\"token\"]\n{lines}"))
    };
    const REQUIRE: &str = "require = { groups = { any = [\"staff\"] } }";
    for (lines, code, words) in [
        ("credential = \"keep\"", 0, ""),
        ("mode = \"observe\"", 0, "only observed"),
        (&format!("mode = \"observe\"\n{REQUIRE}"), 0, "only observed"),
        ("", 2, "the route does not keep the credential"),
        ("mode = { enforce = 10 }", 2, "the route does not keep the credential"),
        (
            &format!("credential = \"keep\"\n{REQUIRE}"),
            2,
            "the route has `require`",
        ),
    ] {
        let (found, report) = check(&file(lines));
        assert_eq!(found, code, "{lines}\n{report}");
        assert!(report.contains(words), "{lines}\n{report}");
    }
    let reserved = config().tables("[authenticators.unknown]\nkind = \"token\"\n");
    assert!(check(&reserved).1.contains("\"unknown\" is reserved"));
    let narrow = file("credential = \"keep\"").tables("[authenticators.strict]\nkind = \"token\"\nstore = \"file\"\n");
    let guarded = narrow.clone().route(
        "/api/*",
        "host = \"api.example\"\nauthenticate = [\"token\", \"strict\"]\ncredential = \"keep\"",
    );
    assert_eq!(check(&guarded).0, 0, "both count as public");
    let guarded = narrow.route("/api/*", "host = \"api.example\"\nauthenticate = [\"strict\"]");
    let (code, report) = check(&guarded);
    assert!(
        code == 2 && report.contains("it forwards keys that no record knows"),
        "{report}"
    );
}

//! `on_outage = "serve-cached"`: in an outage of a store, credentials that were accepted before are accepted for up to `stale_for`.
//! Those that were refused are refused, and all others get 503.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::gate::TRACKING;
use crate::harness::mint::{Signer, now};
use crate::harness::proofs::ProofKey;
use crate::harness::scripted_provider::{Hold, Script};
use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::introspection::{Idp, active};
use crate::reload::reload;

/// Far more than any step takes.
const SOON: Duration = Duration::from_secs(10);
const STALE: &str = "authgate_stale_decisions_total{authenticator=\"token\"}";
const OUTAGE: &str = "authgate_store_outage_seconds{store=\"redis\"}";
/// Cached decisions end at once, so that each request asks the store, or else is served from the cache.
const SHORT: &str = "cache = { ttl = \"1ms\", negative_ttl = \"1ms\" }";

fn serving(redis: &Redis, upstream: &RecordingUpstream, cache: &str) -> Config {
    config()
        .redis(redis)
        .token(cache)
        .token("on_outage = \"serve-cached\"")
        .app(upstream)
        .protected("/api/*")
}

fn token(key: &str) -> Call {
    get("/api/x").token(key)
}

fn status(gate: &Gate, key: &str) -> u16 {
    gate.call(&token(key)).status
}

fn report(gate: &Gate) -> Value {
    serde_json::from_str(&gate.probe("/status.json").text()).expect("JSON")
}

/// The state of the store in `/status.json`.
fn store(gate: &Gate) -> Value {
    report(gate)["stores"][0].clone()
}

fn tracking(gate: &Gate, up: f64) {
    wait_until("the state of the subscription", SOON, || gate.metric(TRACKING) == up);
}

/// Credentials that were looked up before get the same status as then, and all others 503.
fn outage_is_survived(gate: &Gate, after: &str) {
    for _ in 0..3 {
        assert_eq!(
            status(gate, "canary-ada"),
            200,
            "{after}: a key that was accepted before"
        );
        assert_eq!(
            status(gate, "canary-refused"),
            401,
            "{after}: a key that was refused before"
        );
        assert_eq!(
            status(gate, "canary-unknown"),
            503,
            "{after}: a key that was not looked up before"
        );
    }
}

#[test]
fn known_users_go_on_while_redis_is_killed_paused_or_loading() {
    for outage in ["killed", "paused"] {
        let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
        let gate = Gate::subscribed(&serving(&redis, &upstream, SHORT));
        assert_eq!(
            (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
            (200, 401)
        );
        match outage {
            "killed" => redis.kill(),
            _ => redis.pause(),
        }
        outage_is_survived(&gate, outage);
        gate.logged(&["store redis cannot answer", "\"authenticator\":\"token\""]);
        wait_until("the outage is measured", SOON, || gate.metric(OUTAGE) > 0.0);
        gate.metric_reaches(STALE, 6.0);
        let shown = store(&gate);
        assert!(shown["outage"]["since"].is_string(), "{shown}");
        assert_eq!(
            shown["outage"]["cached_decisions"][0]["authenticator"], "token",
            "{shown}"
        );
        match outage {
            "killed" => {
                redis.restart();
                redis.put_layout("1");
                redis = redis.with_ada();
            }
            _ => redis.resume(),
        }
        wait_until("the store is asked again", SOON, || {
            status(&gate, "canary-unknown") == 401
        });
        // Normal rules hold at once: what was changed meanwhile is in force.
        redis.del(&Redis::token_key("canary-ada"));
        wait_until("the deleted key is refused", SOON, || {
            status(&gate, "canary-ada") == 401
        });
        gate.logged(&["store redis answers again"]);
        wait_until("the outage is over", SOON, || gate.metric(OUTAGE) == 0.0);
        assert_eq!(store(&gate)["outage"], Value::Null);
    }
}

/// Redis answers each command with LOADING while it reads its file.
#[test]
fn known_users_go_on_while_a_restarted_redis_reads_its_records() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.run(&[
        "EVAL",
        "for i = 1, 20000 do redis.call('SET', 'filler:' .. i, i) end",
        "0",
    ]);
    redis.run(&["SAVE"]);
    let gate = Gate::subscribed(&serving(&redis, &upstream, SHORT));
    assert_eq!(
        (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
        (200, 401)
    );
    redis.kill();
    // 0.5 ms for each key: 10 s.
    redis.restart_with(&[
        "--key-load-delay",
        "500",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    gate.logged(&["LOADING"]);
    outage_is_survived(&gate, "LOADING");
}

#[test]
fn a_decision_outlives_its_ttl_and_not_stale_for() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let lines = serving(&redis, &upstream, SHORT).token("stale_for = \"2s\"");
    let gate = Gate::subscribed(&lines);
    assert_eq!(status(&gate, "canary-ada"), 200);
    redis.kill();
    assert_eq!(status(&gate, "canary-ada"), 200);
    wait_until("stale_for is over", SOON, || status(&gate, "canary-ada") == 503);
    assert_eq!(status(&gate, "canary-ada"), 503);
}

#[test]
fn decisions_are_confirmed_while_the_subscription_works() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let lines = serving(&redis, &upstream, SHORT).token("stale_for = \"3s\"");
    let gate = Gate::subscribed(&lines);
    assert_eq!(status(&gate, "canary-ada"), 200);
    // Longer than stale_for, while the subscription works.
    std::thread::sleep(Duration::from_secs(4));
    redis.kill();
    assert_eq!(
        status(&gate, "canary-ada"),
        200,
        "the subscription confirmed it until it was lost"
    );
    wait_until("stale_for is over", SOON, || status(&gate, "canary-ada") == 503);
}

#[test]
fn without_serve_cached_known_users_get_503_after_the_ttl() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&config().redis(&redis).token(SHORT).app(&upstream).protected("/api/*"));
    assert_eq!(status(&gate, "canary-ada"), 200);
    redis.kill();
    assert_eq!(status(&gate, "canary-ada"), 503);
    assert_eq!(gate.metric(STALE), 0.0);
}

#[test]
fn a_revocation_that_was_reported_before_the_outage_holds_in_it() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("43", &json!({}));
    redis.put_token("canary-bob", &json!({ "user": "43" }));
    let gate = Gate::subscribed(&serving(&redis, &upstream, "cache = { ttl = \"60s\" }"));
    assert_eq!((status(&gate, "canary-ada"), status(&gate, "canary-bob")), (200, 200));
    let before = gate.metric("authgate_store_invalidations_total{store=\"redis\"}");
    redis.set("revoked:user:42", now().to_string());
    wait_until("it is reported", SOON, || {
        gate.metric("authgate_store_invalidations_total{store=\"redis\"}") > before
    });
    redis.kill();
    assert_eq!((status(&gate, "canary-ada"), status(&gate, "canary-bob")), (503, 200));
}

#[test]
fn a_missing_or_changed_layout_is_no_outage() {
    for change in ["missing", "changed", "flushed"] {
        let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
        let gate = Gate::subscribed(&serving(&redis, &upstream, "cache = { ttl = \"60s\" }"));
        assert_eq!(
            (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
            (200, 401)
        );
        match change {
            "missing" => redis.del("layout"),
            "changed" => redis.put_layout("another"),
            _ => {
                redis.run(&["FLUSHALL"]);
            }
        }
        for key in ["canary-ada", "canary-refused", "canary-unknown"] {
            wait_until("503", SOON, || status(&gate, key) == 503);
            assert_eq!(status(&gate, key), 503, "{change}: {key}");
        }
        // In an outage after that, no cached decision is used.
        redis.kill();
        assert_eq!(status(&gate, "canary-ada"), 503, "{change}");
        assert_eq!(gate.metric(STALE), 0.0, "{change}");
    }
}

#[test]
fn a_redis_that_comes_back_empty_is_no_outage() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&serving(&redis, &upstream, "cache = { ttl = \"60s\" }"));
    assert_eq!(status(&gate, "canary-ada"), 200);
    redis.kill();
    assert_eq!(status(&gate, "canary-ada"), 200);
    redis.restart();
    wait_until("the missing layout record is found", SOON, || {
        status(&gate, "canary-ada") == 503
    });
    gate.logged(&["layout record is missing"]);
}

#[test]
fn a_redis_that_comes_and_goes_keeps_known_users() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&serving(&redis, &upstream, "cache = { ttl = \"60s\" }"));
    assert_eq!(
        (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
        (200, 401)
    );
    for round in 0..2 {
        redis.pause();
        tracking(&gate, 0.0);
        assert_eq!(
            (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
            (200, 401),
            "{round}"
        );
        redis.resume();
        // The subscription is new, so the cached decisions are not valid any more. No request has them looked up again.
        tracking(&gate, 1.0);
    }
    redis.pause();
    tracking(&gate, 0.0);
    let before = gate.metric(STALE);
    assert_eq!(
        (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
        (200, 401)
    );
    // They were confirmed under the first subscription alone.
    gate.metric_reaches(STALE, before + 2.0);
    redis.resume();
}

#[test]
fn a_flood_of_known_users_costs_no_look_ups_in_an_outage() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&serving(&redis, &upstream, SHORT));
    assert_eq!(status(&gate, "canary-ada"), 200);
    redis.kill();
    wait_until("all workers have noted the outage", SOON, || {
        let before = lookups(&gate);
        (0..20).all(|_| status(&gate, "canary-ada") == 200) && lookups(&gate) == before
    });
    let (before, mut conn) = (lookups(&gate), gate.connect());
    for _ in 0..500 {
        assert_eq!(conn.call(&token("canary-ada")).status, 200);
    }
    assert!(lookups(&gate) - before < 5.0, "{} look-ups", lookups(&gate) - before);
}

fn lookups(gate: &Gate) -> f64 {
    gate.metric("authgate_store_lookup_duration_seconds_count{store=\"redis\"}")
}

fn jwts(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer, lines: &str) -> Config {
    config()
        .redis(redis)
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt(SHORT)
        .jwt("on_outage = \"serve-cached\"")
        .jwt(lines)
        .app(upstream)
        .route("/api/*", "authenticate = [\"jwt\"]")
}

#[test]
fn jwts_are_served_too_and_never_beyond_their_expiry() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    for lines in ["users = \"redis\"", "users = \"none\"\nrevocation = \"redis\""] {
        let gate = Gate::subscribed(&jwts(&redis, &upstream, &signer, lines));
        let of = |claims: Value| get("/api/x").bearer(&signer.with(&claims));
        let expiry = now() + 8;
        let (long, short) = (
            of(json!({ "user_id": "42", "jti": "canary-long" })),
            of(json!({ "user_id": "42", "jti": "canary-short", "exp": expiry })),
        );
        let revoked = of(json!({ "user_id": "42", "jti": "canary-revoked" }));
        redis.set("revoked:jti:canary-revoked", "1");
        let refused = if lines.contains("revocation") { 401 } else { 200 };
        for (call, expected) in [(&long, 200), (&short, 200), (&revoked, refused)] {
            assert_eq!(gate.call(call).status, expected, "{lines}");
        }
        redis.kill();
        let unknown = of(json!({ "user_id": "42", "jti": "canary-unknown" }));
        for (call, expected) in [(&long, 200), (&short, 200), (&revoked, refused), (&unknown, 503)] {
            assert_eq!(gate.call(call).status, expected, "{lines}");
        }
        wait_until("it expires", SOON, || {
            let before = now();
            let status = gate.call(&short).status;
            assert!(status != 200 || before < expiry, "accepted after its end");
            status == 401
        });
        assert_eq!(gate.call(&long).status, 200, "{lines}");
        redis.restart();
        redis.put_layout("1");
        redis = redis.with_ada();
    }
}

#[test]
fn a_token_is_not_served_beyond_its_expiry() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let expiry = now() + 5;
    redis.put_token("canary-short", &json!({ "user": "42", "expires": expiry }));
    let gate = Gate::subscribed(&serving(&redis, &upstream, SHORT));
    assert_eq!(status(&gate, "canary-short"), 200);
    redis.kill();
    assert_eq!(status(&gate, "canary-short"), 200);
    wait_until("it expires", SOON, || {
        let (before, status) = (now(), status(&gate, "canary-short"));
        assert!(status != 200 || before < expiry, "accepted after its end");
        status == 503
    });
}

#[test]
fn a_reload_keeps_what_may_be_served() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let config = serving(&redis, &upstream, SHORT);
    let gate = Gate::subscribed(&config);
    assert_eq!(status(&gate, "canary-ada"), 200);
    redis.kill();
    assert!(reload(&gate, &config.clone().public("/public")));
    assert_eq!((gate.get("/public").status, status(&gate, "canary-ada")), (200, 200));
}

#[test]
fn a_bound_token_still_needs_its_proof_in_an_outage() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let (signer, client) = (Signer::new(Algorithm::ES256), ProofKey::new(Algorithm::ES256));
    let lines = "users = \"redis\"\ndpop = \"require\"";
    let gate = Gate::subscribed(&jwts(&redis, &upstream, &signer, lines));
    let bound = signer.with(&json!({ "user_id": "42", "cnf": client.cnf() }));
    let proven = || client.send(get("/api/x"), "http://localhost/api/x", &bound);
    assert_eq!(gate.call(&proven()).status, 200);
    redis.kill();
    assert_eq!(gate.call(&proven()).status, 200);
    let used = proven();
    assert_eq!(gate.call(&used).status, 200);
    assert_eq!(gate.call(&used).status, 401, "its proof was used");
    let unproven = get("/api/x").authorization(&format!("DPoP {bound}"));
    assert_eq!(gate.call(&unproven).status, 401);
    gate.metric_reaches("authgate_stale_decisions_total{authenticator=\"jwt\"}", 2.0);
}

fn introspecting(idp: &Idp, upstream: &RecordingUpstream) -> Config {
    let lines = format!("{SHORT}\non_outage = \"serve-cached\"\ntimeout = \"250ms\"");
    idp.config(upstream, &lines)
}

fn ask(gate: &Gate, token: &str) -> u16 {
    gate.call(&get("/api/x").bearer(token)).status
}

#[test]
fn tokens_of_an_endpoint_that_cannot_answer_are_served() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&introspecting(&idp, &upstream));
    idp.knows("canary-ada", &json!({}));
    let hold = Hold::default();
    let all = ["canary-ada", "canary-refused", "canary-unknown"];
    for (outage, failure) in [
        ("503", Script::new(503, "")),
        ("429", Script::new(429, "")),
        ("silent", Script::json(&active(&json!({}))).hold(&hold)),
    ] {
        idp.knows("canary-ada", &json!({}));
        idp.says("canary-refused", Script::json(&json!({ "active": false })));
        wait_until("the endpoint is asked again", SOON, || {
            (ask(&gate, "canary-ada"), ask(&gate, "canary-refused")) == (200, 401)
        });
        for token in all {
            idp.says(token, failure.clone());
        }
        for _ in 0..3 {
            assert_eq!(ask(&gate, "canary-ada"), 200, "{outage}");
            assert_eq!(ask(&gate, "canary-refused"), 401, "{outage}");
            assert_eq!(ask(&gate, "canary-unknown"), 503, "{outage}");
        }
        // The outage is noted by now, and cached tokens do not cost one question each.
        let (before, mut conn) = (idp.count(), gate.connect());
        for _ in 0..200 {
            assert_eq!(conn.call(&get("/api/x").bearer("canary-ada")).status, 200, "{outage}");
        }
        let asked = idp.count() - before;
        assert!(asked < 100, "{outage}: {asked} questions for 200 requests");
        gate.logged(&["the introspection endpoint of idp cannot answer"]);
        let shown = report(&gate)["introspection"][0]["outage"].clone();
        assert_eq!(shown["cached_decisions"][0]["authenticator"], "idp", "{shown}");
        // Probes find that the endpoint answers again, and its answers are in force.
        for token in all {
            idp.says(token, Script::json(&json!({ "active": false })));
        }
        wait_until("the inactive token is refused", SOON, || {
            ask(&gate, "canary-ada") == 401
        });
        assert_eq!(report(&gate)["introspection"][0]["outage"], Value::Null);
    }
    hold.release();
}

#[test]
fn an_answer_of_the_endpoint_is_no_outage() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&introspecting(&idp, &upstream));
    for answer in [
        Script::new(404, ""),
        Script::new(401, ""),
        Script::new(200, "not json"),
        Script::json(&json!({ "active": "yes" })),
    ] {
        idp.knows("canary-ada", &json!({}));
        wait_until("it is accepted", SOON, || ask(&gate, "canary-ada") == 200);
        idp.says("canary-ada", answer.clone());
        wait_until("the ttl is over", SOON, || ask(&gate, "canary-ada") == 503);
    }
    assert_eq!(
        gate.metric("authgate_stale_decisions_total{authenticator=\"idp\"}"),
        0.0
    );
}

/// The endpoint has recovered while there were no requests. The first one asks it, and is not served as in the outage.
#[test]
fn an_endpoint_that_was_down_long_ago_is_asked_again() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&introspecting(&idp, &upstream));
    idp.knows("canary-ada", &json!({}));
    assert_eq!(ask(&gate, "canary-ada"), 200);
    idp.says("canary-ada", Script::new(503, ""));
    for _ in 0..5 {
        assert_eq!(ask(&gate, "canary-ada"), 200);
    }
    idp.says("canary-ada", Script::json(&json!({ "active": false })));
    // Longer than 2 s and twice the timeout.
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(ask(&gate, "canary-ada"), 401);
}

//! A store that cannot answer is 503 within its deadline, never 401 and never an accepted request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::Signer;
use crate::harness::program::{authgate, authgate_with_input};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::reload::hangup;

/// The configured deadline of a store is 250 ms; a busy machine adds to it.
const SOON: Duration = Duration::from_secs(5);

fn protected(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config().tokens(redis).app(upstream).protected("/api/*")
}

fn unavailable(gate: &Gate, key: &str) {
    let asked = Instant::now();
    let reply = gate.call(&get("/api/x").token(key));
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (503, "Service temporarily unavailable, try again later."),
        "{key}"
    );
    assert!(
        reply
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    assert_eq!(reply.header("www-authenticate"), None);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

fn comes_back(gate: &Gate) {
    wait_until("the token passes again", Duration::from_secs(10), || {
        gate.call(&get("/api/x").token("canary-ada")).status == 200
    });
}

#[test]
fn a_redis_that_is_down_at_the_start_does_not_stop_it() {
    let (mut redis, upstream) = (Redis::start(), RecordingUpstream::start());
    redis.kill();
    let gate = Gate::spawn(&protected(&redis, &upstream).public("/public"));
    assert_eq!(gate.probe("/readyz").status, 503);
    assert_eq!(gate.probe("/livez").status, 200);
    unavailable(&gate, "canary-ada");
    assert_eq!(gate.get("/public").status, 200);
    // No credential and a bad form of one are judged without the store.
    assert_eq!(gate.get("/api/x").status, 401);
    redis.restart();
    redis.put_layout("1");
    let redis = redis.with_ada();
    comes_back(&gate);
    wait_until("it is ready", Duration::from_secs(10), || {
        gate.probe("/readyz").status == 200
    });
    drop(redis);
}

#[test]
fn a_redis_that_dies_is_503_and_is_found_again() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&protected(&redis, &upstream));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.kill();
    for key in ["canary-ada", "canary-unknown"] {
        unavailable(&gate, key);
    }
    assert_eq!(upstream.calls(), 1);
    wait_until("the metrics tell", SOON, || {
        gate.metric("authgate_store_usable{store=\"redis\"}") == 0.0
    });
    assert_eq!(gate.probe("/readyz").status, 200, "it was reached once");
    redis.restart();
    redis.put_layout("1");
    let _redis = redis.with_ada();
    comes_back(&gate);
}

#[test]
fn a_redis_that_hangs_is_503_within_the_deadline() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&protected(&redis, &upstream));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.pause();
    for key in ["canary-ada", "canary-unknown"] {
        unavailable(&gate, key);
    }
    redis.resume();
    comes_back(&gate);
}

#[test]
fn a_store_that_is_not_the_one_it_was_is_503() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&protected(&redis, &upstream));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.put_layout("another");
    for key in ["canary-ada", "canary-unknown"] {
        unavailable(&gate, key);
    }
    gate.logged(&["layout record has changed", "authgate reload"]);
    redis.put_layout("1");
    comes_back(&gate);
    redis.del("layout");
    for key in ["canary-ada", "canary-unknown"] {
        unavailable(&gate, key);
    }
    gate.logged(&["layout record is missing", "authgate token export"]);
    redis.put_layout("1");
    comes_back(&gate);
    redis.run(&["FLUSHALL"]);
    unavailable(&gate, "canary-ada");
}

#[test]
fn another_layout_is_accepted_by_a_reload_that_the_operator_asks_for_and_by_no_other() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let config = protected(&redis, &upstream).server("watch = \"all\"");
    let gate = Gate::start(&config);
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.put_layout("another");
    unavailable(&gate, "canary-ada");
    gate.logged(&["layout record has changed", "authgate reload"]);
    config.public("/more").write(gate.folder.path());
    gate.metric_becomes("authgate_reloads_total{outcome=\"applied\"}", 1.0);
    for key in ["canary-ada", "canary-unknown"] {
        unavailable(&gate, key);
    }
    assert!(hangup(&gate));
    comes_back(&gate);
    // The next change is refused again.
    redis.put_layout("a third one");
    wait_until("it is refused", SOON, || {
        gate.call(&get("/api/x").token("canary-ada")).status == 503
    });
}

/// The layout record during an import, and after an interrupted one.
fn filling(redis: &Redis, epoch: &str) {
    redis.set(
        "layout",
        json!({ "version": 1, "epoch": epoch, "filling": true }).to_string(),
    );
}

#[test]
fn a_store_that_was_flushed_and_filled_again_is_used_without_a_restart() {
    for invalidation in ["tracking", "off"] {
        let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
        redis.put_token("canary-old", &json!({ "user": "42" }));
        let gate = Gate::start(
            &config()
                .redis(&redis)
                .tables(&format!("invalidation = \"{invalidation}\""))
                .token("cache = { ttl = \"60s\", negative_ttl = \"60s\" }")
                .app(&upstream)
                .protected("/api/*"),
        );
        let status = |key: &str| gate.call(&get("/api/x").token(key)).status;
        for key in ["canary-ada", "canary-old"] {
            assert_eq!(status(key), 200, "{key} is remembered from now on");
        }
        assert_eq!(status("canary-new"), 401);
        redis.run(&["FLUSHALL"]);
        for key in ["canary-ada", "canary-old", "canary-new"] {
            wait_until("the flush is noticed", SOON, || status(key) == 503);
        }
        filling(&redis, "2");
        redis.put_user("42", &json!({}));
        redis.put_token("canary-ada", &json!({ "user": "42" }));
        for key in ["canary-ada", "canary-new"] {
            unavailable(&gate, key);
        }
        let line = |key: &str| {
            let digest = Redis::token_key(key).replace("token:", "");
            json!({ "token": digest, "user": "42" }).to_string()
        };
        let dump = [line("canary-ada"), line("canary-new")].join("\n");
        let import = || authgate_with_input(gate.folder.path(), &["token", "import", "-"], dump.as_bytes());
        let imported = import();
        assert_eq!(imported.code, 0, "{imported:?}");
        comes_back(&gate);
        assert_eq!(
            (status("canary-new"), status("canary-old")),
            (200, 401),
            "{invalidation}: no verdict rests on the store that was flushed"
        );
        gate.logged(&["filled anew", "revoked tokens"]);
        // The same once more, and an import from nothing.
        redis.run(&["FLUSHALL"]);
        wait_until("the flush is noticed", SOON, || status("canary-ada") == 503);
        let user = json!({ "user": { "id": "42", "active": true } }).to_string();
        let imported = authgate_with_input(
            gate.folder.path(),
            &["token", "import", "-"],
            format!("{user}\n{dump}").as_bytes(),
        );
        assert!(
            imported.code == 0 && imported.err.contains("revoked tokens are lost"),
            "{imported:?}"
        );
        comes_back(&gate);
    }
}

#[test]
fn a_broken_record_is_503_for_its_own_credential_alone() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.set(&Redis::token_key("canary-list"), "[]");
    redis.put_token("canary-broken-user", &json!({ "user": "8" }));
    redis.set("user:8", "not json");
    redis.put_token("canary-revoked", &json!({ "user": "9" }));
    redis.put_user("9", &json!({}));
    redis.set("revoked:user:9", "soon");
    redis.run(&["SADD", &format!("authgate:{}", Redis::token_key("canary-set")), "x"]);
    let gate = Gate::start(&protected(&redis, &upstream));
    for key in ["canary-list", "canary-broken-user", "canary-revoked", "canary-set"] {
        unavailable(&gate, key);
        assert_eq!(
            gate.call(&get("/api/x").token("canary-ada")).status,
            200,
            "{key} must not affect other records"
        );
    }
}

/// JWTs that name their users by id (`/id`) or by login name (`/name`), and the store that is asked.
fn named(signer: &Signer, stores: Config, store: &str, field: &str, upstream: &RecordingUpstream) -> Config {
    stores
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt(&format!("users = \"{store}\"\nuser_id_field = \"{field}\""))
        .app(upstream)
        .route("/*", "authenticate = [\"token\", \"jwt\"]")
}

fn jwt_of(signer: &Signer, user: &str) -> String {
    format!("Bearer {}", signer.with(&json!({ "user_id": user })))
}

#[test]
fn a_record_under_a_key_of_another_is_503_and_is_logged() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let status = |gate: &Gate, value: &str| gate.call(&get("/x").authorization(value)).status;
    redis.put_user("77", &json!({ "id": "78", "username": "eve" }));
    redis.put_token("canary-other", &json!({ "user": "77" }));
    let by_id = Gate::start(&named(&signer, config().tokens(&redis), "redis", "id", &upstream));
    for value in ["Token canary-other", &jwt_of(&signer, "77")] {
        assert_eq!(status(&by_id, value), 503, "user:77 holds 78");
    }
    assert_eq!(status(&by_id, "Token canary-ada"), 200);
    by_id.logged(&["invalid record in the store", "user \\\"77\\\" holds the id \\\"78\\\""]);
    by_id.metric_reaches(
        "authgate_store_errors_total{store=\"redis\",reason=\"store_bad_record\"}",
        2.0,
    );

    let by_name = Gate::start(&named(&signer, config().tokens(&redis), "redis", "username", &upstream));
    assert_eq!(status(&by_name, &jwt_of(&signer, "ada")), 200);
    assert_eq!(status(&by_name, &jwt_of(&signer, "unknown")), 401);
    // The index still leads to a user who was renamed, or who is gone.
    redis.put_user("42", &json!({ "username": "lovelace" }));
    assert_eq!(status(&by_name, &jwt_of(&signer, "ada")), 503);
    assert_eq!(status(&by_name, &jwt_of(&signer, "lovelace")), 200);
    redis.set("user-by-name:ghost", "99");
    assert_eq!(status(&by_name, &jwt_of(&signer, "ghost")), 503);
    by_name.logged(&["invalid record in the store", "user-by-name"]);

    let file = "layout = { version = 1, epoch = \"e\" }\n\
        [users.1]\nid = \"1\"\nusername = \"eve\"\nactive = true\n\
        [users.2]\nid = \"2\"\nusername = \"eve\"\nactive = true\n\
        [users.3]\nid = \"3\"\nusername = \"ada\"\nactive = true\n";
    let embedded = || {
        config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .token("cache = { entries = 0, negative_entries = 0 }")
    };
    let two = Gate::start(&named(
        &signer,
        embedded().file("tokens.toml", file),
        "file",
        "username",
        &upstream,
    ));
    assert_eq!(status(&two, &jwt_of(&signer, "eve")), 503);
    assert_eq!(status(&two, &jwt_of(&signer, "ada")), 200);
    two.logged(&["invalid record in the store", "several users"]);
    let other = file.replace("id = \"2\"", "id = \"9\"");
    let broken = Gate::spawn(&named(
        &signer,
        embedded().file("tokens.toml", other),
        "file",
        "id",
        &upstream,
    ));
    assert_eq!(status(&broken, &jwt_of(&signer, "2")), 503);
    broken.logged(&["cannot be used", "users.2: the record holds the id"]);
}

#[test]
fn a_rename_is_atomic() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&named(&signer, config().tokens(&redis), "redis", "username", &upstream));
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for name in ["ada", "lovelace"] {
            let (gate, done, value) = (&gate, &done, jwt_of(&signer, name));
            threads.spawn(move || {
                let mut conn = gate.connect();
                while !done.load(Ordering::Relaxed) {
                    let status = conn.call(&get("/x").authorization(&value)).status;
                    assert!(matches!(status, 200 | 401), "{name}: {status}");
                }
            });
        }
        for round in 0..20 {
            let name = if round % 2 == 0 { "lovelace" } else { "ada" };
            let ended = authgate(gate.folder.path(), &["user", "put", "--id", "42", "--username", name]);
            assert_eq!(ended.code, 0, "{ended:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(gate.call(&get("/x").authorization(&jwt_of(&signer, "ada"))).status, 200);
    assert_eq!(
        gate.call(&get("/x").authorization(&jwt_of(&signer, "lovelace"))).status,
        401
    );
}

#[test]
fn jwts_that_need_no_store_are_accepted_in_an_outage() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt("users = \"none\"")
            .app(&upstream)
            .route("/jwt", "authenticate = [\"jwt\"]")
            .route("/both", "authenticate = [\"token\", \"jwt\"]"),
    );
    redis.kill();
    for target in ["/jwt", "/both"] {
        assert_eq!(gate.call(&get(target).bearer(&signer.access())).status, 200, "{target}");
    }
    assert_eq!(gate.call(&get("/both").token("canary-ada")).status, 503);
}

#[test]
fn cached_decisions_are_used_until_their_ttl_in_an_outage() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&protected(&redis, &upstream).token("cache = { ttl = \"60s\" }"));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.kill();
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    unavailable(&gate, "canary-other");
}

/// A store that answers with an error was reached, and the log has its reply.
#[test]
fn error_replies_of_redis_are_logged_and_not_called_unreachable() {
    let upstream = RecordingUpstream::start();
    for (acl, url_login, label, words) in [
        (
            &["ACL", "SETUSER", "default", "resetpass", ">canary-secret"][..],
            "",
            "store_no_auth",
            "NOAUTH",
        ),
        (
            &["ACL", "SETUSER", "default", "resetpass", ">canary-secret"],
            "password = \"canary-other\"",
            "store_wrong_password",
            "WRONGPASS",
        ),
        (
            &["ACL", "SETUSER", "reader", "on", ">canary-secret", "~other:*", "+@all"],
            "username = \"reader\"\npassword = \"canary-secret\"",
            "store_no_permission",
            "NOPERM",
        ),
    ] {
        let redis = Redis::start().with_ada();
        redis.run(acl);
        let gate = Gate::spawn(
            &config()
                .redis_without_invalidation(&redis)
                .tables(url_login)
                .token("cache = { entries = 0, negative_entries = 0 }")
                .app(&upstream)
                .route("/api/*", "authenticate = [\"token\"]"),
        );
        assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 503, "{words}");
        let line = gate.logged(&["\"request\"", label]);
        assert!(line.contains(words), "{words}: {line}");
        assert!(!gate.log().contains("cannot be reached"), "{}", gate.log());
    }
    let redis = Redis::start().with_ada();
    let key = Redis::token_key("canary-list");
    redis.run(&["LPUSH", &format!("authgate:{key}"), "x"]);
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .route("/api/*", "authenticate = [\"token\"]"),
    );
    assert_eq!(gate.call(&get("/api/x").token("canary-list")).status, 503);
    assert!(gate.logged(&["\"request\"", "store_wrong_type"]).contains("WRONGTYPE"));
}

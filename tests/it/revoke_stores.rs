//! The stores that `POST /revoke` writes to: which they are, which login writes, and what happens if they cannot be written.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::{Signer, now};
use crate::harness::program::authgate;
use crate::harness::proofs::ProofKey;
use crate::harness::server::{BASE_RIGHTS, WRITER};
use crate::harness::{Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::revoke_endpoint::{
    CACHE, SOON, becomes, both, keys, outcomes, problem, revoke, revoked, subscribed, value, with_token,
};

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
    // An empty store gets no layout record. With one, gateways would use it as a complete store.
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
    assert_eq!(value(&one, "revoked:user:42").as_deref(), Some("2000"));
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

    // Look-ups do not depend on the writer.
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

#[test]
fn a_revocation_that_no_authenticator_looks_for_is_refused_and_noted_by_the_command() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let file = |more: &str| {
        with_token(config())
            .redis(&redis)
            .tables(&format!(
                "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\nissuer = \"x\"\naudience = \"y\"\n\
                 keys = [{{ algorithm = \"ES256\", file = \"key0\" }}]\n{more}\n"
            ))
            .file("key0", Signer::new(Algorithm::ES256).file())
            .app(&upstream)
            .route("/*", "authenticate = [\"idp\"]")
    };
    let note = "note: no authenticator of this configuration looks into store redis";
    for (more, [jti, kid]) in [
        ("", [false, false]),
        ("revocation = \"redis\"", [false, true]),
        ("revocation = \"redis\"\njti_claim = \"jti\"", [true, true]),
    ] {
        let gate = Gate::start(&file(more));
        for (kind, is_checked) in [("jti", jti), ("kid", kid)] {
            let ended = authgate(gate.folder.path(), &["revoke", &format!("--{kind}"), "canary-x"]);
            assert_eq!(
                (ended.code, !ended.err.contains(note)),
                (0, is_checked),
                "{more} {kind}: {ended:?}"
            );
            let form = format!("{kind}=canary-x");
            if is_checked {
                revoked(&gate, &form);
            } else {
                problem(&revoke(&gate, &form), 400, "invalid_request");
            }
        }
    }
}

//! `authgate token reseal`: an unsealed store becomes a sealed one, also after an interruption.

use std::collections::BTreeSet;
use std::path::Path;

use authgate_auth::store::TokenDigest;
use serde_json::{Value, json};

use crate::harness::program::{authgate, authgate_with_input, program};
use crate::harness::{Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::sealed_commands::{SEAL, fails, folder, run, table};
use crate::sealed_store::{
    KEY, NO_CACHE, OTHER_KEY, SOON, Writer, everything, is_sealed, sealed, signer, status, stored,
};

/// The tokens of a store that is resealed.
const TOKENS: usize = 5_000;

/// Fills an unsealed store by the command line: users, tokens of two kinds of digests, revocations, and a token that expires.
fn fill(folder: &Path, redis: &Redis) {
    let mut lines = String::new();
    for at in 0..TOKENS {
        let user = at / 5;
        if at % 5 == 0 {
            lines += &json!({ "user": { "id": user.to_string(), "username": format!("user{user}"), "active": true } })
                .to_string();
            lines.push('\n');
        }
        let digest = TokenDigest::of(format!("canary-{at}").as_bytes()).to_hex();
        let mut token = json!({ "token": digest, "user": user.to_string(), "created": 1_700_000_000 });
        if at == 1 {
            token["revoked"] = json!(1_700_000_001);
        }
        lines += &token.to_string();
        lines.push('\n');
    }
    lines += "{\"revoked_jti\":\"j\"}\n{\"revoked_user\":\"3\",\"before\":1800000000}\n{\"revoked_kid\":\"k\"}\n";
    authgate_with_input(folder, &["token", "import", "-"], lines.as_bytes()).good();
    redis.run(&["SET", "authgate:revoked:jti:short", "1", "EX", "1000"]);
    // No records of the layout.
    redis.set("dpop:x", "1");
    redis.set("other", "x");
}

#[test]
fn an_interrupted_reseal_is_completed_by_the_next_one() {
    let (redis, upstream, signer) = (Redis::start_empty(), RecordingUpstream::start(), signer());
    let plain = folder(&table("redis", &redis, ""));
    let sealed_folder = folder(&table("redis", &redis, SEAL));
    fill(plain.path(), &redis);
    let users_before = run(plain.path(), &["user", "show", "7"]);
    fails(
        &authgate(sealed_folder.path(), &["user", "show", "7"]),
        1,
        &["\"authgate:layout\" is not sealed", "authgate token reseal"],
    );
    fails(
        &authgate(plain.path(), &["token", "reseal"]),
        1,
        &["seal = { file = \"seal.key\" }"],
    );
    let old_gate = Gate::subscribed(
        &config()
            .redis(&redis)
            .token("cache = { ttl = \"10m\" }")
            .app(&upstream)
            .protected("/*"),
    );
    assert_eq!(status(&old_gate, &get("/x").token("canary-0")), 200);

    // A value of another type ends the command after the tokens.
    redis.set("tokens-of:wrong", "x");
    fails(&authgate(sealed_folder.path(), &["token", "reseal"]), 1, &["WRONGTYPE"]);
    redis.del("tokens-of:wrong");
    let has_unsealed_json = || everything(&redis).iter().any(|(_, value)| value.starts_with('{'));
    assert!(stored(&redis, "layout").is_some_and(|layout| layout.contains("\"resealing\":")));
    // Neither gateway uses the store, and no other command does.
    let gate = Gate::spawn(&sealed(&redis, &upstream, &signer, NO_CACHE));
    wait_until("the old gateway is 503", SOON, || {
        status(&old_gate, &get("/x").token("canary-0")) == 503
    });
    assert_eq!(status(&gate, &get("/x").token("canary-0")), 503);
    for words in [
        ["user", "show", "7"],
        ["user", "disable", "7"],
        ["revoke", "--user", "7"],
    ] {
        fails(
            &authgate(sealed_folder.path(), &words),
            1,
            &["is being sealed", "authgate token reseal"],
        );
    }
    fails(
        &authgate_with_input(
            sealed_folder.path(),
            &["token", "import", "-"],
            b"{\"revoked_jti\":\"k\"}",
        ),
        1,
        &["is being sealed"],
    );
    assert!(!has_unsealed_json());
    assert!(run(sealed_folder.path(), &["token", "reseal"]).contains("tokens 0,"));

    assert_eq!(
        run(sealed_folder.path(), &["token", "reseal"]),
        "the store is sealed already; nothing was changed\n"
    );
    is_sealed(&redis);
    assert_eq!(run(sealed_folder.path(), &["user", "show", "7"]), users_before);
    wait_until("the gateway accepts", SOON, || {
        status(&gate, &get("/x").token("canary-0")) == 200
    });
    for (key, expected) in [
        ("canary-1", 401),
        ("canary-15", 401),
        ("canary-4999", 200),
        ("canary-5000", 401),
    ] {
        assert_eq!(status(&gate, &get("/x").token(key)), expected, "{key}");
    }
    let bearer = |jti: &str| get("/x").bearer(&signer.with(&json!({ "username": "user7", "jti": jti })));
    assert_eq!([status(&gate, &bearer("a")), status(&gate, &bearer("j"))], [200, 401]);
    let left = redis.run(&["TTL", "authgate:revoked:jti:short"]);
    assert!(matches!(left, redis::Value::Int(900..=1001)), "{left:?}");
    let listed: Value = serde_json::from_str(&run(sealed_folder.path(), &["token", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(TOKENS));
    let listed: Value =
        serde_json::from_str(&run(sealed_folder.path(), &["token", "list", "--user", "7", "--json"])).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(5));
}

/// How many commands Redis has executed.
fn commands(redis: &Redis) -> u64 {
    let info: String = redis::from_redis_value(redis.run(&["INFO", "stats"])).expect("text");
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.and_then(|count| count.trim().parse().ok()).expect("a number")
}

#[test]
fn a_reseal_that_is_killed_is_completed_by_the_next_one() {
    let redis = Redis::start_empty();
    let plain = folder(&table("redis", &redis, ""));
    fill(plain.path(), &redis);
    let folder = folder(&table("redis", &redis, SEAL));
    // While the records are counted, and in the middle of the run.
    let mut killed = 0;
    for least in [1_000, 20_000, 30_000] {
        let before = commands(&redis);
        let mut child = program()
            .args(["token", "reseal"])
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        wait_until("a part is done", SOON, || {
            commands(&redis) >= before + least || child.try_wait().unwrap().is_some()
        });
        let _ = child.kill();
        killed += usize::from(child.wait().unwrap().code().is_none());
    }
    assert!(killed > 0, "each run was complete before it was killed");
    let ended = authgate(folder.path(), &["token", "reseal", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    is_sealed(&redis);
    let listed: Value = serde_json::from_str(&run(folder.path(), &["token", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(TOKENS));
    assert!(run(folder.path(), &["token", "show", "canary-1"]).contains("was revoked"));
}

#[test]
fn a_store_whose_layout_record_was_replaced_is_not_resealed() {
    let redis = Redis::start_empty();
    let folder = folder(&table("redis", &redis, SEAL));
    run(folder.path(), &["user", "put", "--id", "42", "--username", "ada"]);
    // Another program unseals the layout record, and writes a user.
    redis.put_layout("1");
    redis.set("user:1", r#"{"id":"1","groups":["staff"],"active":true}"#);
    let before: BTreeSet<_> = everything(&redis).into_iter().collect();
    let ended = authgate(folder.path(), &["token", "reseal"]);
    fails(
        &ended,
        1,
        &[
            "the layout record is not sealed",
            "Another program has replaced the layout record",
        ],
    );
    assert_eq!(
        everything(&redis).into_iter().collect::<BTreeSet<_>>(),
        before,
        "something was changed"
    );
    // Nor one with the layout record of an old, interrupted run.
    let writer = Writer::new(&redis, KEY);
    writer.put(
        "layout",
        r#"{"version":1,"epoch":"1","filling":true,"resealing":1700000000}"#,
    );
    fails(
        &authgate(folder.path(), &["token", "reseal"]),
        1,
        &["more than a day ago"],
    );
    // Nor is one with another seal.
    Writer::new(&redis, OTHER_KEY).put_layout();
    fails(
        &authgate(folder.path(), &["token", "reseal"]),
        1,
        &["has a seal that does not fit"],
    );
}

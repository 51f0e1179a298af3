//! Looking up a token again, after its entry in the cache has expired. One MGET then reads its record and those of the user in the entry.

use std::time::Duration;

use serde_json::json;

use crate::harness::redis::PREFIX;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get};

/// Entries expire before the next request.
const TTL: Duration = Duration::from_millis(1);

fn forgetful(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config()
        .server("workers = 1")
        .redis_without_invalidation(redis)
        .tables("timeout = \"10s\"")
        .token("cache = { ttl = \"1ms\", negative_ttl = \"1ms\" }")
        .app(upstream)
        .protected("/api/*")
}

/// The status of a request that finds no valid entry.
fn ask(gate: &Gate) -> u16 {
    std::thread::sleep(2 * TTL);
    gate.call(&get("/api/x").token("canary-ada")).status
}

/// How often Redis has executed a command.
fn calls(redis: &Redis, command: &str) -> usize {
    let redis::Value::BulkString(stats) = redis.run(&["INFO", "commandstats"]) else {
        panic!("statistics");
    };
    let stats = String::from_utf8(stats).expect("text");
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| {
        line.split(',').next().expect("a number").parse().expect("a number")
    })
}

#[test]
fn a_token_is_looked_up_again_with_one_request() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&forgetful(&redis, &upstream));
    for earlier in 0..3 {
        assert_eq!(ask(&gate), 200);
        assert_eq!(upstream.last().header("x-user-id"), Some("42"));
        assert_eq!(calls(&redis, "mget"), earlier);
    }
}

#[test]
fn each_change_of_a_record_is_seen_by_the_next_lookup() {
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("43", &json!({ "username": "bob" }));
    let gate = Gate::start(&forgetful(&redis, &upstream));
    let token = Redis::token_key("canary-ada");
    let list = |redis: &Redis, key: &str| {
        redis.del(key);
        redis.run(&["RPUSH", &format!("{PREFIX}{key}"), "x"]);
    };
    type Change<'c> = &'c dyn Fn(&Redis);
    let cases: &[(&str, u16, Change<'_>)] = &[
        ("the token is revoked", 401, &|redis| {
            redis.put_token("canary-ada", &json!({ "user": "42", "revoked": 1 }));
        }),
        ("the token is deleted", 401, &|redis| redis.del(&token)),
        ("the user is inactive", 401, &|redis| {
            redis.put_user("42", &json!({ "active": false }));
        }),
        ("the user is deleted", 401, &|redis| redis.del("user:42")),
        ("the user's tokens are revoked", 401, &|redis| {
            redis.set("revoked:user:42", "1700000000");
        }),
        ("the user's earlier tokens are revoked", 200, &|redis| {
            redis.set("revoked:user:42", "1699999999");
        }),
        ("the token belongs to another user", 200, &|redis| {
            redis.put_token("canary-ada", &json!({ "user": "43" }));
        }),
        ("the token belongs to a user that does not exist", 401, &|redis| {
            redis.put_token("canary-ada", &json!({ "user": "44" }));
        }),
        ("the layout record is another one", 503, &|redis| redis.put_layout("2")),
        ("the layout record is of another type", 503, &|redis| {
            list(redis, "layout")
        }),
        ("the token is of another type", 503, &|redis| list(redis, &token)),
        ("the user is of another type", 503, &|redis| list(redis, "user:42")),
        ("the revocation is of another type", 503, &|redis| {
            list(redis, "revoked:user:42")
        }),
        ("the token is no record", 503, &|redis| redis.set(&token, "{}")),
        ("the user is another one", 503, &|redis| {
            redis.set("user:42", json!({ "id": "43", "active": true }).to_string());
        }),
        ("the revocation is no number", 503, &|redis| {
            redis.set("revoked:user:42", "x")
        }),
        // The last one: after that, another record is accepted.
        ("the layout record is missing", 503, &|redis| redis.del("layout")),
    ];
    for (name, status, change) in cases {
        assert_eq!(ask(&gate), 200, "before {name}");
        change(&redis);
        assert_eq!(ask(&gate), *status, "{name}");
        if *status == 200 {
            let user = if name.contains("another") { "43" } else { "42" };
            assert_eq!(upstream.last().header("x-user-id"), Some(user), "{name}");
        }
        // As it was. Revocations and the layout record included.
        redis.del("revoked:user:42");
        redis.put_layout("1");
        redis = redis.with_ada();
        assert_eq!(ask(&gate), 200, "after {name}");
    }
}

#[test]
fn a_role_without_the_right_to_mget_is_enough() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.run(&["ACL", "SETUSER", "default", "-mget"]);
    let gate = Gate::start(&forgetful(&redis, &upstream));
    for _ in 0..3 {
        assert_eq!(ask(&gate), 200);
    }
    assert_eq!(calls(&redis, "mget"), 0);
}

//! The delay of reported changes is measured: each gateway writes a key of its own, and waits for the report.

use std::time::Duration;

use serde_json::Value;

use crate::harness::gate::TRACKING;
use crate::harness::server::BASE_RIGHTS;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};

/// Far more than any step takes.
const SOON: Duration = Duration::from_secs(20);
const LAG: &str = "authgate_revocation_lag_seconds";

fn gateway(redis: &Redis, upstream: &RecordingUpstream, store: &str) -> Config {
    config()
        .redis(redis)
        .tables(store)
        .token("scheme = \"Token\"")
        .app(upstream)
        .protected("/api/*")
}

/// The metric, if it is there.
fn lag(gate: &Gate) -> Option<f64> {
    let page = gate.probe("/metrics").text();
    let line = page
        .lines()
        .find(|line| line.starts_with(&format!("{LAG}{{store=\"redis\"}}")))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn keys(redis: &Redis) -> Vec<String> {
    let redis::Value::Array(keys) = redis.run(&["KEYS", "authgate:canary:*"]) else {
        panic!("a list of keys");
    };
    let text = |key| match key {
        redis::Value::BulkString(key) => String::from_utf8(key).expect("text"),
        other => panic!("{other:?}"),
    };
    keys.into_iter().map(text).collect()
}

#[test]
fn the_lag_rises_while_changes_are_not_reported() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gates = [(), ()].map(|()| Gate::subscribed(&gateway(&redis, &upstream, "")));
    for gate in &gates {
        wait_until("the canary was reported", SOON, || {
            lag(gate).is_some_and(|lag| lag < 5.0)
        });
    }
    let keys = keys(&redis);
    assert_eq!(keys.len(), 2, "each gateway has a key of its own: {keys:?}");
    for key in &keys {
        let expiry = redis.run(&["TTL", key]);
        assert!(matches!(expiry, redis::Value::Int(1..=60)), "{expiry:?}");
    }
    let gate = &gates[0];
    let invalidations = "authgate_store_invalidations_total{store=\"redis\"}";
    assert_eq!(
        gate.metric(invalidations),
        0.0,
        "the canary is no change of the records"
    );
    let before = lag(gate).expect("it is measured");
    redis.pause();
    wait_until("the lag rises", SOON, || {
        lag(gate).is_some_and(|lag| lag > before + 1.5)
    });
    let shown: Value = serde_json::from_str(&gate.probe("/status.json").text()).expect("JSON");
    assert!(
        shown["stores"][0]["revocation_lag_seconds"].as_f64() > Some(1.0),
        "{shown}"
    );
    redis.resume();
    wait_until("the lag falls again", SOON, || lag(gate).is_some_and(|lag| lag < 1.0));
}

#[test]
fn a_lost_subscription_raises_the_lag_and_the_next_one_ends_it() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&gateway(&redis, &upstream, ""));
    wait_until("the canary was reported", SOON, || lag(&gate).is_some());
    for _ in 0..3 {
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes"]);
    }
    wait_until("it is subscribed again", SOON, || gate.metric(TRACKING) == 1.0);
    wait_until("the lag is low", SOON, || lag(&gate).is_some_and(|lag| lag < 1.0));
}

/// Requests need the right to read alone.
#[test]
fn without_the_right_to_write_the_metric_is_absent_and_requests_go_on() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.run(BASE_RIGHTS);
    let login = "username = \"gateway\"
password = \"canary-redis\"
";
    let gate = Gate::subscribed(&gateway(&redis, &upstream, login));
    gate.logged(&["the delay of revocations is not measured", "NOPERM"]);
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    assert_eq!((lag(&gate), keys(&redis).len()), (None, 0));
    redis.del(&Redis::token_key("canary-ada"));
    wait_until("the change is in force", SOON, || {
        gate.call(&get("/api/x").token("canary-ada")).status == 401
    });
}

#[test]
fn without_invalidation_nothing_is_written() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&gateway(&redis, &upstream, "invalidation = \"off\"\n"));
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((lag(&gate), keys(&redis).len()), (None, 0));
}

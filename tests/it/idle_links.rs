//! A store's connection that was closed, or forgotten by a firewall, while nothing was asked is no outage.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use authgate_app::provisioning::WritableStore;
use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::store::redis::{Endpoint, Invalidation, RedisSettings, Servers};
use authgate_auth::store::{Digests, StoreKind, StoreSettings};
use authgate_core::identity::UserId;

use crate::harness::mint::Signer;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, RedisProxy, config, get, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn protected(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer) -> Config {
    config()
        .server("workers = 1")
        .tokens(redis)
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt("users = \"redis\"")
        .jwt("revocation = \"redis\"")
        .app(upstream)
        .route("/*", "authenticate = [\"token\", \"jwt\"]")
}

fn both_pass(gate: &Gate, signer: &Signer, round: usize) {
    assert_eq!(gate.call(&get("/x").token("canary-ada")).status, 200, "round {round}");
    assert_eq!(
        gate.call(&get("/x").bearer(&signer.access())).status,
        200,
        "round {round}"
    );
}

/// Those that look something up.
fn clients(redis: &Redis) -> BTreeSet<String> {
    let redis::Value::BulkString(list) = redis.run(&["CLIENT", "LIST"]) else {
        panic!("a list of clients");
    };
    let list = String::from_utf8(list).expect("text");
    list.lines()
        .filter(|line| line.contains(" cmd=get "))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[test]
fn a_redis_that_closes_idle_connections_fails_no_request() {
    let (redis, upstream) = (Redis::start_with(&["--timeout", "1"]), RecordingUpstream::start());
    redis.put_layout("1");
    let (redis, signer) = (redis.with_ada(), Signer::new(Algorithm::ES256));
    let gate = Gate::start(&protected(&redis, &upstream, &signer));
    for round in 0..3 {
        both_pass(&gate, &signer, round);
        let before = clients(&redis);
        // Redis looks at idle clients once a second; those that watch for changes are never idle.
        wait_until("the worker's connection is closed", SOON, || {
            !before.is_subset(&clients(&redis))
        });
        both_pass(&gate, &signer, round);
    }
    let log = gate.stop();
    assert!(!log.contains("cannot be reached"), "{log}");
}

#[test]
fn connections_that_are_killed_between_requests_fail_none() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&protected(&redis, &upstream, &signer));
    for round in 0..30 {
        redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        both_pass(&gate, &signer, round);
    }
    gate.metric_becomes("authgate_store_usable{store=\"redis\"}", 1.0);
    let log = gate.stop();
    assert!(!log.contains("cannot be reached"), "{log}");
}

#[test]
fn a_command_whose_connection_is_closed_while_it_is_idle_asks_again() {
    let redis = Redis::start().with_ada();
    let kind = StoreKind::Redis(RedisSettings {
        servers: Servers::Single(Endpoint::parse(&redis.url()).expect("a URL")),
        username: None,
        password: None,
        writer: None,
        tls: None,
        prefix: "authgate:".to_owned(),
        timeout: SOON,
        invalidation: Invalidation::Off,
        digests: Digests::SHA256,
        seal: None,
    });
    let mut admin = WritableStore::open(&StoreSettings {
        name: "redis".into(),
        kind,
    })
    .expect("it is there");
    let ada = UserId::new("42").expect("an id");
    assert!(admin.find_user(&ada).expect("readable").is_some());
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    let killed = Instant::now();
    wait_until("the connection is idle", SOON, || {
        killed.elapsed() > Duration::from_millis(600)
    });
    assert_eq!(admin.set_active(&ada, false).expect("writable"), Some(true));
}

#[test]
fn a_connection_that_a_firewall_has_forgotten_fails_no_request() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let firewall = RedisProxy::before(&redis);
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .tables(&format!(
                "[stores.redis]\nkind = \"redis\"\nurl = \"{}\"\ntimeout = \"4s\"\n",
                firewall.url()
            ))
            .token("cache = { entries = 0, negative_entries = 0 }")
            .app(&upstream)
            .protected("/*"),
    );
    for round in 0..2 {
        assert_eq!(gate.call(&get("/x").token("canary-ada")).status, 200);
        let answered = Instant::now();
        firewall.forget_connections();
        wait_until("the connection is silent", SOON, || {
            answered.elapsed() > Duration::from_millis(1_200)
        });
        assert_eq!(gate.call(&get("/x").token("canary-ada")).status, 200, "round {round}");
    }
}

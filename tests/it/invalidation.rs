//! Invalidation: a change in a store takes effect on every gateway at once, although decisions are cached for a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::store::redis::{Endpoint, Invalidation, RedisSettings, Servers};
use authgate_auth::store::{Digests, SharedStore, StoreKind, StoreSettings};
use serde_json::json;

use crate::harness::gate::TRACKING;
use crate::harness::mint::{Signer, now};
use crate::harness::{Call, Config, Conn, Gate, RecordingUpstream, Redis, config, get, wait_until};

/// Far less than the `ttl` of cached decisions, and far more than a push takes.
const SOON: Duration = Duration::from_secs(5);
const CACHE: &str = "cache = { ttl = \"60s\", negative_ttl = \"60s\" }";

fn cached(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config().redis(redis).token(CACHE).app(upstream).protected("/api/*")
}

fn tracks(gate: &Gate, up: bool) {
    wait_until(&format!("changes are reported: {up}"), SOON, || {
        gate.metric(TRACKING) == f64::from(u8::from(up))
    });
}

fn ada() -> Call {
    get("/api/x").token("canary-ada")
}

fn becomes(gate: &Gate, call: &Call, status: u16, after: &str) {
    wait_until(&format!("{status} after {after}"), SOON, || {
        gate.call(call).status == status
    });
}

/// The ids of the invalidation connections.
fn tracked(redis: &Redis) -> Vec<String> {
    let redis::Value::BulkString(list) = redis.run(&["CLIENT", "LIST"]) else {
        panic!("a list of clients");
    };
    let list = String::from_utf8(list).expect("text");
    let field = |line: &str, name: &str| {
        let mut words = line.split(' ');
        words
            .find_map(|word| word.strip_prefix(name).map(str::to_owned))
            .unwrap_or_default()
    };
    list.lines()
        .filter(|line| field(line, "flags=").contains('B'))
        .map(|line| field(line, "id="))
        .collect()
}

#[test]
fn each_kind_of_change_takes_effect_on_two_gateways() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256).kid("canary-kid");
    let config = cached(&redis, &upstream)
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt("users = \"redis\"")
        .jwt("revocation = \"redis\"")
        .jwt(CACHE)
        .route("/jwt", "authenticate = [\"jwt\"]");
    let gates = [Gate::subscribed(&config), Gate::subscribed(&config)];
    let jwt = get("/jwt").bearer(&signer.with(&json!({ "jti": "canary-jti" })));
    let both = |call: &Call, status, after: &str| {
        for gate in &gates {
            becomes(gate, call, status, after);
        }
    };
    both(&ada(), 200, "the start");
    both(&jwt, 200, "the start");

    let token = json!({ "user": "42", "created": 1_700_000_000 });
    redis.put_token(
        "canary-ada",
        &json!({ "user": "42", "created": 1_700_000_000, "revoked": 1 }),
    );
    both(&ada(), 401, "the token was revoked");
    redis.put_token("canary-ada", &token);
    both(&ada(), 200, "the token was put back");
    redis.del(&Redis::token_key("canary-ada"));
    both(&ada(), 401, "the token was deleted");
    redis.put_token("canary-ada", &token);
    both(&ada(), 200, "a refusal is not kept either");

    redis.put_user("42", &json!({ "active": false }));
    both(&ada(), 401, "the user was disabled");
    both(&jwt, 401, "the user was disabled");
    redis.put_user("42", &json!({}));
    both(&ada(), 200, "the user was enabled");
    both(&jwt, 200, "the user was enabled");

    redis.set("revoked:user:42", now().to_string());
    both(&ada(), 401, "the user's credentials were revoked");
    both(&jwt, 401, "the user's credentials were revoked");
    redis.del("revoked:user:42");
    both(&ada(), 200, "that was taken back");
    both(&jwt, 200, "that was taken back");

    for key in ["revoked:jti:canary-jti", "revoked:kid:canary-kid"] {
        redis.set(key, "1");
        both(&jwt, 401, "it was revoked");
        redis.del(key);
        both(&jwt, 200, "that was taken back");
    }
    both(&ada(), 200, "all of this");
    both(&ada(), 200, "it was asked for");
    for gate in &gates {
        gate.metric_reaches("authgate_store_invalidations_total{store=\"redis\"}", 10.0);
        gate.metric_reaches("authgate_store_invalidation_lag_seconds_count{store=\"redis\"}", 1.0);
        gate.metric_reaches("authgate_cache_hits_total{authenticator=\"token\"}", 1.0);
        gate.metric_reaches("authgate_cache_misses_total{authenticator=\"jwt\"}", 1.0);
    }
}

#[test]
fn a_change_takes_effect_soon_under_load() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_token("canary-busy", &json!({ "user": "42" }));
    let gates = [
        Gate::subscribed(&cached(&redis, &upstream)),
        Gate::subscribed(&cached(&redis, &upstream)),
    ];
    let (done, mut delays) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|threads| {
        for gate in gates.iter().chain(&gates) {
            let done = &done;
            threads.spawn(move || {
                let mut conn = gate.connect();
                while !done.load(Ordering::Relaxed) {
                    let status = conn.call(&get("/api/x").token("canary-busy")).status;
                    assert_eq!(status, 200, "no other credential is affected");
                }
            });
        }
        let mut conns: Vec<Conn> = gates.iter().map(Gate::connect).collect();
        for round in 0..50 {
            let revoked = round % 2 == 0;
            if revoked {
                redis.del(&Redis::token_key("canary-ada"));
            } else {
                redis.put_token("canary-ada", &json!({ "user": "42" }));
            }
            let changed = Instant::now();
            for conn in &mut conns {
                while conn.call(&ada()).status != if revoked { 401 } else { 200 } {
                    assert!(changed.elapsed() < SOON, "round {round}");
                }
                delays.push(changed.elapsed());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    delays.sort_unstable();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100];
    println!(
        "a change is in force after: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
}

#[test]
fn a_killed_invalidation_connection_is_replaced_and_no_change_is_missed() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&cached(&redis, &upstream));
    for _ in 0..3 {
        assert_eq!(gate.call(&ada()).status, 200);
        let ids = tracked(&redis);
        assert_eq!(ids.len(), 1, "one connection for all workers");
        // In one transaction: no connection receives the change.
        let mut connection = redis::Client::open(redis.url())
            .and_then(|client| client.get_connection())
            .expect("there");
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("CLIENT").arg(&["KILL", "ID", &ids[0]]);
        pipeline
            .cmd("DEL")
            .arg(format!("authgate:{}", Redis::token_key("canary-ada")));
        let _: redis::Value = pipeline.query(&mut connection).expect("it takes both");
        becomes(&gate, &ada(), 401, "a change that no connection received");
        tracks(&gate, true);
        redis.put_token("canary-ada", &json!({ "user": "42" }));
        becomes(&gate, &ada(), 200, "the next one");
    }
}

#[test]
fn a_store_that_is_flushed_is_503_at_once() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&cached(&redis, &upstream));
    for flush in ["FLUSHALL", "FLUSHDB"] {
        becomes(&gate, &ada(), 200, "the records are there");
        redis.run(&[flush]);
        wait_until("it is found out", SOON, || {
            let status = gate.call(&ada()).status;
            assert_ne!(status, 401, "{flush} is no revocation");
            status == 503
        });
        assert_eq!(gate.call(&ada()).status, 503, "{flush}");
        redis.put_layout("1");
        redis.put_user("42", &json!({}));
        redis.put_token("canary-ada", &json!({ "user": "42" }));
    }
    becomes(&gate, &ada(), 200, "the records are back");
    redis.del("layout");
    becomes(&gate, &ada(), 503, "the layout is gone");
}

#[test]
fn a_silent_store_is_detected_and_cached_users_keep_working() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::subscribed(&cached(&redis, &upstream));
    assert_eq!(gate.call(&ada()).status, 200);
    redis.pause();
    // Its socket stays open: there is nothing but silence to tell by.
    tracks(&gate, false);
    assert_eq!(gate.call(&ada()).status, 200);
    assert_eq!(gate.call(&get("/api/x").token("canary-other")).status, 503);
    assert_eq!(gate.call(&ada()).status, 200);
    redis.resume();
    redis.del(&Redis::token_key("canary-ada"));
    becomes(&gate, &ada(), 401, "it speaks again");
    tracks(&gate, true);
    gate.metric_reaches(
        "authgate_store_errors_total{store=\"redis\",reason=\"store_timeout\"}",
        1.0,
    );
}

#[test]
fn decisions_that_depend_on_no_store_stay_cached_when_one_is_flushed() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::subscribed(
        &cached(&redis, &upstream)
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt("users = \"none\"")
            .jwt(CACHE)
            .route("/jwt", "authenticate = [\"jwt\"]"),
    );
    let jwt = get("/jwt").bearer(&signer.access());
    assert_eq!((gate.call(&jwt).status, gate.call(&ada()).status), (200, 200));
    redis.run(&["FLUSHALL"]);
    becomes(&gate, &ada(), 503, "the flush");
    assert_eq!(gate.call(&jwt).status, 200);
    gate.metric_becomes("authgate_cache_misses_total{authenticator=\"jwt\"}", 1.0);
}

#[test]
fn invalidation_can_be_off() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let config = config()
        .redis_without_invalidation(&redis)
        .app(&upstream)
        .protected("/api/*");
    let gate = Gate::start(&config.token("cache = { ttl = \"2s\" }"));
    assert_eq!(gate.call(&ada()).status, 200);
    redis.del(&Redis::token_key("canary-ada"));
    assert!(tracked(&redis).is_empty());
    becomes(&gate, &ada(), 401, "the ttl");
    gate.metric_becomes(TRACKING, 0.0);
}

#[test]
fn a_store_is_watched_as_long_as_it_lives() {
    let redis = Redis::start().with_ada();
    let settings = StoreSettings {
        name: "redis".into(),
        kind: StoreKind::Redis(RedisSettings {
            servers: Servers::Single(Endpoint::parse(&redis.url()).expect("a URL")),
            username: None,
            password: None,
            writer: None,
            tls: None,
            prefix: "authgate:".to_owned(),
            timeout: SOON,
            invalidation: Invalidation::Tracking,
            digests: Digests::SHA256,
            seal: None,
        }),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let store = SharedStore::new(settings, &Arc::default());
    {
        let _entered = runtime.enter();
        store.watch();
        store.watch();
    }
    wait_until("it is watched", SOON, || {
        store.is_usable() && !tracked(&redis).is_empty()
    });
    assert_eq!((tracked(&redis).len(), Arc::strong_count(&store)), (1, 1));
    drop(store);
    wait_until("its connections are closed", SOON, || tracked(&redis).is_empty());
}

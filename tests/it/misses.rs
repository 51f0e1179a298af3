//! Cache misses: concurrent requests with one credential share a lookup, and a flood of unknown credentials does not stop cached ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::Signer;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);
const MANY: usize = 60;

/// A gateway of one worker, and a store that may take its time.
fn patient(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config()
        .server("workers = 1")
        .redis_without_invalidation(redis)
        .tables("timeout = \"10s\"")
        .token("cache = {}")
        .app(upstream)
        .protected("/api/*")
}

fn lookups(gate: &Gate) -> f64 {
    gate.metric("authgate_store_lookup_duration_seconds_count{store=\"redis\"}")
}

#[test]
fn concurrent_requests_with_one_unknown_token_make_one_lookup() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&patient(&redis, &upstream));
    redis.put_token("canary-first", &json!({ "user": "42" }));
    assert_eq!(gate.call(&get("/api/x").token("canary-first")).status, 200);
    for (token, status, total) in [("canary-ada", 200, 2.0), ("canary-unknown", 401, 3.0)] {
        redis.pause();
        let statuses: Vec<u16> = std::thread::scope(|threads| {
            let ask = || gate.call(&get("/api/x").token(token)).status;
            let asked: Vec<_> = (0..MANY).map(|_| threads.spawn(ask)).collect();
            wait_until("all of them wait", PATIENCE, || {
                gate.metric("authgate_requests_in_flight") >= MANY as f64
            });
            redis.resume();
            asked
                .into_iter()
                .map(|asked| asked.join().expect("an answer"))
                .collect()
        });
        assert_eq!(statuses, [status; MANY], "{token}");
        assert_eq!(lookups(&gate), total, "{token}");
    }
}

#[test]
fn a_cancelled_lookup_does_not_fail_the_requests_that_wait_for_it() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&patient(&redis, &upstream));
    redis.pause();
    let mut first = gate.connect();
    first.send(get("/api/x").token("canary-ada").bytes());
    let in_flight = |count: f64| {
        wait_until("they wait", PATIENCE, || {
            gate.metric("authgate_requests_in_flight") == count
        });
    };
    in_flight(1.0);
    std::thread::scope(|threads| {
        let others: Vec<_> = (0..5)
            .map(|_| threads.spawn(|| gate.call(&get("/api/x").token("canary-ada")).status))
            .collect();
        in_flight(6.0);
        drop(first);
        in_flight(5.0);
        redis.resume();
        for other in others {
            assert_eq!(other.join().expect("an answer"), 200);
        }
    });
}

#[test]
fn unknown_tokens_that_wait_for_a_store_do_not_delay_cached_ones() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&patient(&redis, &upstream));
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.pause();
    std::thread::scope(|threads| {
        // More than are asked for at once: some wait for the store, the rest for their turn.
        let garbage: Vec<_> = (0..MANY * 2)
            .map(|at| {
                let gate = &gate;
                threads.spawn(move || gate.call(&get("/api/x").token(&format!("canary-{at}"))).status)
            })
            .collect();
        wait_until("all of them wait", PATIENCE, || {
            gate.metric("authgate_requests_in_flight") >= (MANY * 2) as f64
        });
        for _ in 0..100 {
            assert_eq!(conn.call(&get("/api/x").token("canary-ada")).status, 200);
        }
        assert!(
            garbage.iter().all(|one| !one.is_finished()),
            "none of them was answered before"
        );
        redis.resume();
        for one in garbage {
            assert_eq!(one.join().expect("an answer"), 401);
        }
    });
    assert_eq!(upstream.calls(), 101);
}

#[test]
fn queued_requests_are_answered_within_the_deadline_of_the_store() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .redis(&redis)
            .token("cache = {}")
            .app(&upstream)
            .protected("/api/*"),
    );
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    redis.pause();
    std::thread::scope(|threads| {
        let garbage: Vec<_> = (0..MANY * 2)
            .map(|at| {
                let gate = &gate;
                // Some requests share a credential: the timeout also applies to a request that waits for the look-up of another one.
                threads.spawn(move || gate.call(&get("/api/x").token(&format!("canary-{}", at / 2))).status)
            })
            .collect();
        for one in garbage {
            assert_eq!(one.join().expect("an answer"), 503);
        }
    });
    redis.resume();
}

#[test]
fn forged_jwts_do_not_delay_cached_ones() {
    let upstream = RecordingUpstream::start();
    let (signer, forger) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt("users = \"none\"")
            .jwt("cache = {}")
            .app(&upstream)
            .route("/*", "authenticate = [\"jwt\"]"),
    );
    let forged: Vec<String> = (0..32)
        .map(|at| forger.with(&json!({ "jti": at.to_string() })))
        .collect();
    let (done, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for own in forged.chunks(4) {
            let (gate, done, refused) = (&gate, &done, &refused);
            threads.spawn(move || {
                let mut conn = gate.connect();
                for at in 0_usize.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    // Another signature each time: no cache knows it.
                    let token = &own[at % own.len()];
                    let (kept, signature) = token.rsplit_once('.').expect("three segments");
                    let changed = format!("{kept}.{at:06}{}", &signature[6..]);
                    assert_eq!(conn.call(&get("/x").bearer(&changed)).status, 401);
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (good, mut conn) = (signer.access(), gate.connect());
        wait_until("the flood has begun", PATIENCE, || refused.load(Ordering::Relaxed) > 8);
        for _ in 0..200 {
            assert_eq!(conn.call(&get("/x").bearer(&good)).status, 200);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(upstream.calls(), 200);
}

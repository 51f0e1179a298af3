//! Faults of one Redis connection, by a proxy that replaces, delays and cuts replies. A look-up that gets no answer is asked again; one that
//! cannot be answered is 503 with a label of its own; no answer belongs to another look-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::Signer;
use crate::harness::proofs::ProofKey;
use crate::harness::{Config, Fault, Gate, RecordingUpstream, Redis, RedisProxy, config, get, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Tokens without a cache, from a store behind the proxy.
fn behind(proxy: &RedisProxy, store: &str, upstream: &RecordingUpstream) -> Config {
    config()
        .tables(&format!(
            "[stores.redis]\nkind = \"redis\"\nurl = \"{}\"\n{store}\n",
            proxy.url()
        ))
        .token("cache = { entries = 0, negative_entries = 0 }")
        .app(upstream)
        .protected("/*")
}

fn status(gate: &Gate) -> u16 {
    gate.call(&get("/x").token("canary-ada")).status
}

fn errors(gate: &Gate, reason: &str) -> f64 {
    gate.metric(&format!(
        "authgate_store_errors_total{{store=\"redis\",reason=\"{reason}\"}}"
    ))
}

/// Whether a command reads the record of a token.
fn is_token(command: &[String]) -> bool {
    command[0] == "GET" && command[1].contains("token:")
}

/// This happens to each command that reads the record of a token.
fn at_tokens(proxy: &RedisProxy, fault: Fault) {
    proxy.rule(move |command| if is_token(command) { fault } else { Fault::None });
}

#[test]
fn each_error_of_redis_is_503_with_its_own_label() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let proxy = RedisProxy::before(&redis);
    let gate = Gate::start(&behind(&proxy, "timeout = \"4s\"", &upstream));
    assert_eq!(status(&gate), 200);
    for (reply, label, words) in [
        (
            "-LOADING Redis is loading the dataset in memory\r\n",
            "store_loading",
            "LOADING",
        ),
        (
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
            "store_master_down",
            "MASTERDOWN",
        ),
        (
            "-CLUSTERDOWN The cluster is down\r\n",
            "store_cluster_down",
            "CLUSTERDOWN",
        ),
        (
            "-READONLY You can't write against a read only replica.\r\n",
            "store_read_only",
            "READONLY",
        ),
        ("-NOAUTH Authentication required.\r\n", "store_no_auth", "NOAUTH"),
        (
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            "store_wrong_password",
            "WRONGPASS",
        ),
        (
            "-NOPERM this user has no permissions to run the 'get' command\r\n",
            "store_no_permission",
            "NOPERM",
        ),
        (
            "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
            "store_out_of_memory",
            "OOM",
        ),
        (
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            "store_wrong_type",
            "WRONGTYPE",
        ),
        ("-ERR something else\r\n", "store_refused", "something else"),
        (":1\r\n", "store_unexpected_reply", "not a string"),
        ("+OK\r\n", "store_unexpected_reply", "not a string"),
        ("*1\r\n$2\r\n{}\r\n", "store_unexpected_reply", "not a string"),
    ] {
        let before = errors(&gate, label);
        at_tokens(&proxy, Fault::Reply(reply));
        assert_eq!(status(&gate), 503, "{reply}");
        wait_until(&format!("{label} is counted"), SOON, || errors(&gate, label) > before);
        gate.logged(&["\"request\"", label, words]);
        proxy.pass();
        assert_eq!(status(&gate), 200, "after {reply}");
    }
    // A reply that is cut, or cannot be read, on every connection.
    for reply in ["$100\r\n{\"user\"", "", "$5", "?what\r\n"] {
        let before = errors(&gate, "store_reply_cut");
        at_tokens(&proxy, Fault::Cut(reply));
        assert_eq!(status(&gate), 503, "{reply}");
        wait_until("it is counted", SOON, || errors(&gate, "store_reply_cut") > before);
        proxy.pass();
        assert_eq!(status(&gate), 200, "after {reply}");
    }
    gate.logged(&["\"request\"", "store_reply_cut", "ended before its reply"]);
    assert_eq!(
        upstream.calls(),
        1 + 13 + 4,
        "no request was forwarded without an answer"
    );
}

#[test]
fn a_reply_that_is_cut_is_asked_for_again() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let proxy = RedisProxy::before(&redis);
    let gate = Gate::start(&behind(&proxy, "timeout = \"4s\"", &upstream));
    for (round, reply) in ["$100\r\n{\"user\"", "", "?what\r\n"].into_iter().enumerate() {
        let (look_ups, cuts) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&cuts);
        proxy.rule(move |command| {
            // Two connections in a row, the second of them after the first reply of its look-up.
            let is_cut = match (command[0].as_str(), command.get(1)) {
                ("GET", Some(key)) if key.contains("token:") => look_ups.fetch_add(1, Ordering::SeqCst) == 0,
                ("GET", Some(key)) if key.contains(":user:") => look_ups.fetch_add(1, Ordering::SeqCst) < 3,
                _ => false,
            };
            if is_cut {
                counted.fetch_add(1, Ordering::SeqCst);
                return Fault::Cut(reply);
            }
            Fault::None
        });
        assert_eq!(status(&gate), 200, "round {round}");
        assert_eq!(
            cuts.load(Ordering::SeqCst),
            2,
            "round {round}: connections that were cut"
        );
    }
    assert_eq!(errors(&gate, "store_reply_cut"), 0.0);
}

#[test]
fn connections_that_are_killed_under_load_fail_no_request() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &config()
            .redis_with_long_timeout(&redis)
            .token("cache = { entries = 0, negative_entries = 0 }")
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt("users = \"redis\"\nrevocation = \"redis\"")
            .jwt("cache = { entries = 0, negative_entries = 0 }")
            .app(&upstream)
            .route("/*", "authenticate = [\"token\", \"jwt\"]"),
    );
    let (jwt, done, answered) = (signer.access(), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for client in 0..4 {
            let (gate, jwt, done, answered) = (&gate, &jwt, &done, &answered);
            threads.spawn(move || {
                let mut conn = gate.connect();
                while !done.load(Ordering::Relaxed) {
                    let call = match client % 2 {
                        0 => get("/x").token("canary-ada"),
                        _ => get("/x").bearer(jwt),
                    };
                    assert_eq!(conn.call(&call).status, 200, "client {client}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=60 {
            redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
            // Requests are under way at the next kill.
            let before = answered.load(Ordering::Relaxed);
            wait_until(&format!("requests are answered in round {round}"), SOON, || {
                answered.load(Ordering::Relaxed) > before + 5
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    wait_until("the store is watched", SOON, || {
        gate.metric("authgate_store_usable{store=\"redis\"}") == 1.0
    });
    let log = gate.stop();
    assert!(!log.contains("cannot be reached"), "{log}");
}

#[test]
fn a_proof_that_may_have_been_recorded_twice_is_accepted_once() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let proxy = RedisProxy::before(&redis);
    let (server, client) = (Signer::new(Algorithm::ES256), ProofKey::new(Algorithm::ES256));
    let gate = Gate::start(
        &behind(&proxy, "timeout = \"4s\"", &upstream)
            .file("jwt.key", server.file())
            .jwt(&format!("keys = [{}]", server.key("jwt.key")))
            .jwt("users = \"none\"\ndpop = \"require\"\ndpop_replay = \"redis\"")
            .route("/jwt/*", "authenticate = [\"jwt\"]"),
    );
    let token = server.with(&json!({ "cnf": client.cnf() }));
    for round in 0..3 {
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        proxy.rule(move |command| {
            // Redis has recorded the proof, and the connection ends before it can say so.
            if command[0] == "SET" && !lost.swap(true, Ordering::SeqCst) {
                Fault::Lose
            } else {
                Fault::None
            }
        });
        let call = client.send(get("/jwt/x"), "http://localhost/jwt/x", &token);
        assert_eq!(gate.call(&call).status, 200, "round {round}");
        assert!(is_lost.load(Ordering::SeqCst), "round {round}: no reply was lost");
        assert_eq!(gate.call(&call).status, 401, "round {round}: the proof was used");
    }
}

#[test]
fn slow_replies_and_cancelled_requests_leave_no_answer_to_another_look_up() {
    const CLIENTS: usize = 6;
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    for user in 0..CLIENTS {
        redis.put_user(&format!("{user}"), &json!({ "username": format!("name-{user}") }));
        redis.put_token(&format!("canary-{user}"), &json!({ "user": format!("{user}") }));
    }
    let proxy = RedisProxy::before(&redis);
    let slow = AtomicUsize::new(0);
    proxy.rule(move |command| match command[0].as_str() {
        // Some answers come in time, some just before the deadline, some after it.
        "GET" => match slow.fetch_add(1, Ordering::Relaxed) % 40 {
            0 => Fault::Delay(Duration::from_millis(300)),
            13 => Fault::Delay(Duration::from_millis(240)),
            26 => Fault::Delay(Duration::from_millis(60)),
            _ => Fault::None,
        },
        _ => Fault::None,
    });
    // The body of each response has the user's id.
    upstream.answers(|exchange| {
        let user = exchange.head.header("x-user-id").unwrap_or("none").to_owned();
        exchange.answer("200 OK", "", user.as_bytes())
    });
    let gate = Gate::start(&behind(&proxy, "timeout = \"250ms\"", &upstream).server("workers = 4"));
    let (known, unknown, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for client in 0..CLIENTS {
            let (gate, known, unknown, failed) = (&gate, &known, &unknown, &failed);
            threads.spawn(move || {
                for round in 0..60 {
                    let key = match round % 3 {
                        0 => format!("canary-unknown-{client}"),
                        _ => format!("canary-{client}"),
                    };
                    let call = get("/x").token(&key);
                    if round % 5 == 4 {
                        // The client goes away while its look-up may be under way.
                        gate.connect().send(call.bytes());
                        continue;
                    }
                    let reply = gate.call(&call);
                    match (reply.status, round % 3) {
                        (200, 1 | 2) => {
                            assert_eq!(reply.text(), client.to_string(), "the user of another key");
                            known.fetch_add(1, Ordering::Relaxed);
                        }
                        (401, 0) => {
                            unknown.fetch_add(1, Ordering::Relaxed);
                        }
                        (503, _) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        (status, _) => panic!("{status} for {key} in round {round}"),
                    }
                }
            });
        }
    });
    let counts = [known, unknown, failed].map(AtomicUsize::into_inner);
    println!("known, unknown, failed: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    proxy.pass();
    wait_until("answers are in time again", SOON, || status(&gate) == 200);
}

/// Sends requests until 20 in a row have sent no look-up to Redis.
fn until_look_ups_fail_at_once(gate: &Gate, look_ups: &AtomicUsize) {
    let mut quiet = 0;
    wait_until("look-ups fail at once", SOON, || {
        let before = look_ups.load(Ordering::SeqCst);
        let status = status(gate);
        quiet = if status == 503 && look_ups.load(Ordering::SeqCst) == before {
            quiet + 1
        } else {
            0
        };
        quiet == 20
    });
}

fn look_ups_fail_at_once_until_it_answers(reply: Option<&'static str>, label: &str) {
    const REQUESTS: usize = 500;
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let proxy = RedisProxy::before(&redis);
    let gate = Gate::start(&behind(&proxy, "", &upstream));
    assert_eq!(status(&gate), 200);
    let look_ups = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&look_ups);
    proxy.rule(move |command| {
        if is_token(command) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        match reply {
            Some(reply) => Fault::Reply(reply),
            None => Fault::Silence,
        }
    });
    if reply.is_some() {
        proxy.close_connections();
    }
    until_look_ups_fail_at_once(&gate, &look_ups);
    let (sent, connections, commands) = (look_ups.load(Ordering::SeqCst), proxy.accepted(), proxy.commands());
    let mut client = gate.connect();
    for _ in 0..REQUESTS {
        assert_eq!(client.call(&get("/x").token("canary-ada")).status, 503);
    }
    assert_eq!(look_ups.load(Ordering::SeqCst), sent, "no look-up was sent");
    let (connections, commands) = (proxy.accepted() - connections, proxy.commands() - commands);
    // Those of the tasks beside the requests, whatever the number of requests.
    assert!(
        connections < REQUESTS / 2 && commands < REQUESTS / 2,
        "{connections} connections, {commands} commands"
    );
    assert!(errors(&gate, label) >= 500.0);
    proxy.pass();
    wait_until("it is found again", SOON, || status(&gate) == 200);
}

#[test]
fn a_silent_redis_gets_no_look_ups_until_it_answers() {
    look_ups_fail_at_once_until_it_answers(None, "store_timeout");
}

#[test]
fn a_redis_that_is_loading_gets_no_look_ups_until_it_has_finished() {
    let reply = "-LOADING Redis is loading the dataset in memory\r\n";
    look_ups_fail_at_once_until_it_answers(Some(reply), "store_loading");
}

#[test]
fn a_redis_that_answers_pings_alone_gets_few_look_ups() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let proxy = RedisProxy::before(&redis);
    let gate = Gate::start(&behind(&proxy, "", &upstream).server("workers = 1"));
    assert_eq!(status(&gate), 200);
    let look_ups = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&look_ups);
    proxy.rule(move |command| {
        if is_token(command) {
            counted.fetch_add(1, Ordering::SeqCst);
            return Fault::Silence;
        }
        Fault::None
    });
    until_look_ups_fail_at_once(&gate, &look_ups);
    proxy.pass();
    wait_until("it is found again", SOON, || status(&gate) == 200);
}

#[test]
fn a_dead_redis_gets_no_connections_for_requests() {
    const REQUESTS: usize = 500;
    let (mut redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let proxy = RedisProxy::before(&redis);
    let gate = Gate::start(&behind(&proxy, "", &upstream));
    assert_eq!(status(&gate), 200);
    redis.kill();
    wait_until("it is down", SOON, || status(&gate) == 503);
    let before = proxy.accepted();
    let mut client = gate.connect();
    for _ in 0..REQUESTS {
        assert_eq!(client.call(&get("/x").token("canary-ada")).status, 503);
    }
    let connections = proxy.accepted() - before;
    println!("{REQUESTS} refused requests: {connections} connections");
    assert!(connections < REQUESTS / 2);
    redis.restart();
    redis.put_layout("1");
    let _redis = redis.with_ada();
    wait_until("it is found again", SOON, || status(&gate) == 200);
}

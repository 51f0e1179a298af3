//! `mode = "cluster"`: each key is looked up on the server that has its slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::cluster::Cluster;
use crate::harness::gate::TRACKING;
use crate::harness::mint::Signer;
use crate::harness::program::authgate;
use crate::harness::proofs::ProofKey;
use crate::harness::server::{BASE_RIGHTS, Ends, Records, WRITER, settles};
use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get};

/// How many tokens are spread over the slots.
const TOKENS: usize = 60;

fn store(cluster: &Cluster) -> Config {
    let urls = cluster.urls();
    config().tables(&format!(
        "[stores.redis]\nkind = \"redis\"\nmode = \"cluster\"\nurls = [{urls}]\ntimeout = \"1s\"\n"
    ))
}

/// Makes a user with the least rights on all servers; the lines of the configuration for it.
fn least_rights(cluster: &Cluster) -> &'static str {
    for server in &cluster.primaries {
        server.run(
            &[
                BASE_RIGHTS,
                &["+cluster|info", "+cluster|slots", "+cluster|shards", "+asking"],
            ]
            .concat(),
        );
    }
    "username = \"gateway\"\npassword = \"canary-redis\""
}

fn uncached(cluster: &Cluster, upstream: &RecordingUpstream) -> Config {
    let config = store(cluster).token("cache = { entries = 0, negative_entries = 0 }");
    config.app(upstream).protected("/api/*")
}

fn cached(cluster: &Cluster, upstream: &RecordingUpstream) -> Config {
    let config = store(cluster).token("cache = { ttl = \"60s\" }");
    config.app(upstream).protected("/api/*")
}

fn with(token: &str) -> Call {
    get("/api/x").header("Authorization", format!("Token {token}"))
}

fn status(gate: &Gate, token: &str) -> u16 {
    gate.call(&with(token)).status
}

/// Each user has one token, `canary-N`; the odd ones are revoked.
fn fill(cluster: &Cluster) {
    cluster.fill();
    for number in 0..TOKENS {
        let id = format!("u{number}");
        cluster.put_user(&id, &format!("name{number}"));
        let mut record = json!({ "user": id });
        if number % 2 == 1 {
            record["revoked"] = 1_700_000_000.into();
        }
        cluster.put_token(&format!("canary-{number}"), &record);
    }
}

fn expected(number: usize) -> u16 {
    if number % 2 == 1 { 401 } else { 200 }
}

/// Asks for all tokens all the time while `change` is made. Returns how many answers were right; all others fail the test.
fn under_load(gate: &Gate, change: impl FnOnce()) -> usize {
    let (ended, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|thread| {
                let (ended, answers) = (Arc::clone(&ended), Arc::clone(&answers));
                scope.spawn(move || {
                    let mut client = gate.connect();
                    let mut number = thread;
                    while !ended.load(Ordering::Relaxed) {
                        number = (number + 1) % TOKENS;
                        let status = client.call(&with(&format!("canary-{number}"))).status;
                        assert_eq!(status, expected(number), "token {number}\n{}", gate.log());
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        {
            let _ends = Ends(&ended);
            change();
        }
        for thread in threads {
            thread.join().expect("all answers are right");
        }
    });
    let answers = answers.load(Ordering::Relaxed);
    assert!(answers > 0, "no request was answered during the change");
    answers
}

#[test]
fn slots_that_move_under_load_make_no_request_fail_and_no_answer_wrong() {
    let (mut cluster, upstream) = (Cluster::start(0), RecordingUpstream::start());
    fill(&cluster);
    let config = store(&cluster).tables(least_rights(&cluster));
    let config = config.token("cache = { entries = 0, negative_entries = 0 }");
    let gate = Gate::start(&config.app(&upstream).protected("/api/*"));
    for number in 0..TOKENS {
        assert_eq!(status(&gate, &format!("canary-{number}")), expected(number), "{number}");
    }
    let mut slots: Vec<u16> = (0..TOKENS)
        .flat_map(|number| [Redis::token_key(&format!("canary-{number}")), format!("user:u{number}")])
        .map(|key| cluster.slot_of(&key))
        .filter(|slot| *slot <= 5460)
        .collect();
    slots.push(cluster.slot_of("layout"));
    slots.sort_unstable();
    slots.dedup();
    let layout = cluster.index_of("layout");
    let of = |slot| if slot == cluster.slot_of("layout") { layout } else { 0 };
    let from: Vec<_> = slots.iter().map(|slot| (*slot, of(*slot))).collect();
    let new = cluster.add();
    least_rights(&cluster);
    let answers = under_load(&gate, || {
        for (slot, from) in from {
            cluster.move_slot(slot, from, new);
        }
    });
    eprintln!("{answers} answers while {} slots moved", slots.len());
    settles("the gateway lists the new server", || {
        let status = gate.probe("/status.json").json();
        status["stores"][0]["primaries"]
            .as_array()
            .is_some_and(|primaries| primaries.len() == 4)
    });
    assert_eq!(gate.probe("/status.json").json()["stores"][0]["mode"], "cluster");
    assert_eq!(gate.metric("authgate_store_usable{store=\"redis\"}"), 1.0);
}

#[test]
fn keys_of_a_slot_that_is_being_moved_are_found_on_both_servers() {
    let (mut cluster, upstream) = (Cluster::start(0), RecordingUpstream::start());
    fill(&cluster);
    let new = cluster.add();
    let gate = Gate::subscribed(&cached(&cluster, &upstream));
    assert_eq!(status(&gate, "canary-ada"), 200);
    let (slot, from) = (cluster.slot_of("user:42"), cluster.index_of("user:42"));
    cluster.begin_move(slot, from, new);
    cluster.move_keys(slot, from, new);
    // The former server answers ASK, and the new one has the record.
    assert_eq!(status(&gate, "canary-ada"), 200);
    // A change that is written to the new server, which has no slot yet, invalidates the cached decision.
    settles("all servers are tracked", || gate.metric(TRACKING) == 1.0);
    cluster.run(&[
        "SET",
        "authgate:user:42",
        &json!({ "id": "42", "active": false }).to_string(),
    ]);
    settles("the change is in force", || status(&gate, "canary-ada") == 401);
    cluster.end_move(slot, from, new);
    cluster.put_user("42", "ada");
    settles("the user is accepted", || status(&gate, "canary-ada") == 200);
    // The same after the move.
    cluster.run(&["SET", "authgate:revoked:user:42", "4000000000"]);
    settles("the revocation is in force", || status(&gate, "canary-ada") == 401);
}

#[test]
fn a_server_that_is_lost_makes_only_its_keys_503_and_a_replica_takes_them_over() {
    let (mut cluster, upstream) = (Cluster::start(1), RecordingUpstream::start());
    fill(&cluster);
    let gate = Gate::subscribed(&uncached(&cluster, &upstream));
    let servers: Vec<[usize; 3]> = (0..TOKENS)
        .map(|number| {
            let keys = [
                Redis::token_key(&format!("canary-{number}")),
                format!("user:u{number}"),
                format!("revoked:user:u{number}"),
            ];
            keys.map(|key| cluster.index_of(&key))
        })
        .collect();
    let needs = |server: usize| {
        (0..TOKENS)
            .filter(|number| servers[*number].contains(&server))
            .collect()
    };
    let (lost, replaced) = (2, 0);
    let (of_lost, of_replaced): (Vec<usize>, Vec<usize>) = (needs(lost), needs(replaced));
    let others: Vec<_> = (0..TOKENS).filter(|number| !of_lost.contains(number)).collect();
    assert!(!of_lost.is_empty() && !of_replaced.is_empty() && !others.is_empty());
    let is = |number: usize, wanted: u16| status(&gate, &format!("canary-{number}")) == wanted;

    // One that does not answer: only its keys are not served.
    cluster.primaries[lost].pause();
    // The record of a revoked token is enough to refuse it.
    let is_refused = |number: &usize| number % 2 == 1 && servers[*number][0] != lost;
    let unserved: Vec<_> = of_lost.iter().filter(|number| !is_refused(number)).collect();
    assert!(!unserved.is_empty());
    for number in &others {
        assert!(is(*number, expected(*number)), "{number}\n{}", gate.log());
    }
    for number in unserved.iter().take(5) {
        assert!(is(**number, 503), "{number}");
    }
    cluster.primaries[lost].resume();
    settles("all are served", || {
        of_lost.iter().all(|number| is(*number, expected(*number)))
    });

    // One with a replica, which is promoted.
    cluster.primaries[replaced].kill();
    settles("the replica is promoted", || cluster.replicas[0].role() == "master");
    settles("its keys are served", || {
        of_replaced.iter().all(|number| is(*number, expected(*number)))
    });
    gate.metric_becomes(TRACKING, 1.0);
    let of_promoted = |number: &&usize| (**number).is_multiple_of(2) && servers[**number][0] == replaced;
    let number = of_replaced.iter().find(of_promoted).expect("a valid token");
    let record = json!({ "user": format!("u{number}"), "revoked": 1_700_000_000 });
    cluster.replicas[0].put_token(&format!("canary-{number}"), &record);
    settles("the revocation at the promoted replica is in force", || {
        is(*number, 401)
    });

    // One without a replica, which is gone.
    cluster.primaries[lost].kill();
    for other in others.iter().filter(|other| *other != number) {
        assert!(is(*other, expected(*other)), "{other}\n{}", gate.log());
    }
    for number in unserved {
        assert!(is(*number, 503), "{number}");
    }
}

#[test]
fn beside_a_writer_the_role_that_finds_the_servers_only_reads() {
    let (mut cluster, upstream) = (Cluster::start(0), RecordingUpstream::start());
    fill(&cluster);
    let new = cluster.add();
    let login = least_rights(&cluster);
    for server in &cluster.primaries {
        server.run(&[WRITER, &["+asking"]].concat());
    }
    let (signer, client) = (Signer::new(Algorithm::ES256), ProofKey::new(Algorithm::ES256));
    let config = store(&cluster)
        .tables(login)
        .tables("writer = { username = \"writer\", password = \"canary-writer\" }")
        .token("cache = { ttl = \"60s\" }")
        .jwt("users = \"redis\"\ndpop = \"accept\"\ndpop_replay = \"redis\"")
        .file("key0", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("key0")))
        .app(&upstream)
        .protected("/api/*")
        .route("/jwt/*", "authenticate = [\"jwt\"]");
    let gate = Gate::subscribed(&config);
    let bound = signer.with(&json!({ "cnf": client.cnf() }));
    let records_proofs = || {
        for _ in 0..8 {
            let proof = client.send(get("/jwt/x"), "http://localhost/jwt/x", &bound);
            assert_eq!(gate.call(&proof).status, 200);
            assert_eq!(gate.call(&proof).status, 401, "it was used before");
        }
    };
    records_proofs();
    for number in (0..10).step_by(2) {
        let (token, user) = (format!("canary-{number}"), format!("u{number}"));
        assert_eq!(status(&gate, &token), 200);
        if number == 4 {
            let slot = cluster.slot_of(&format!("revoked:user:{user}"));
            cluster.move_slot(slot, cluster.index_of(&format!("revoked:user:{user}")), new);
        }
        authgate(gate.folder.path(), &["revoke", "--user", &user]).good();
        settles("the revocation is in force", || status(&gate, &token) == 401);
    }
    records_proofs();
}

#[test]
fn the_command_line_writes_to_a_cluster() {
    let (mut cluster, upstream) = (Cluster::start(0), RecordingUpstream::start());
    let folder = TempDir::new().unwrap();
    cached(&cluster, &upstream).write(folder.path());
    let run = |words: &[&str]| authgate(folder.path(), &[words, &["--config", "gateway.toml"]].concat());
    let user = |number: i32| {
        let fields = json!({ "username": format!("n{number}"), "password": "x", "is_active": true, "groups": [] });
        json!({ "model": "auth.user", "pk": number, "fields": fields })
    };
    let token = |number: i32| {
        let fields = json!({ "user": number, "created": "2026-11-23T23:39:10Z" });
        json!({ "model": "authtoken.token", "pk": format!("canary-{number}"), "fields": fields })
    };
    let rows: Vec<_> = (0..40).flat_map(|number| [user(number), token(number)]).collect();
    std::fs::write(folder.path().join("dump.json"), serde_json::to_vec(&rows).unwrap()).unwrap();
    // The second time changes nothing.
    for _ in 0..2 {
        let imported = run(&["token", "import", "dump.json"]).good();
        assert!(imported.contains("40"), "{imported}");
    }
    let gate = Gate::start(&uncached(&cluster, &upstream));
    assert!((0..40).all(|number| status(&gate, &format!("canary-{number}")) == 200));
    run(&["user", "put", "--id", "42", "--username", "ada"]).good();
    let created = run(&["token", "create", "--user", "42", "--name", "ci"]).good();
    assert!(run(&["token", "list"]).good().contains("ci"), "{created}");
    // Renamed: the former name is free, and another user can take it.
    run(&["user", "put", "--id", "42", "--username", "augusta"]).good();
    run(&["user", "put", "--id", "43", "--username", "ada"]).good();
    assert_ne!(
        run(&["user", "put", "--id", "44", "--username", "ada"]).code,
        0,
        "the name is taken"
    );
    run(&["revoke", "--user", "42"]).good();
    run(&["revoke", "--jti", "j1", "--expires", "4000000000"]).good();
    let exported = run(&["token", "export"]).good();
    for word in ["augusta", "ada", "j1"] {
        assert!(exported.contains(word), "{word}: {exported}");
    }
    // Commands follow a slot that has moved.
    let new = cluster.add();
    cluster.move_slot(cluster.slot_of("user:43"), cluster.index_of("user:43"), new);
    run(&["user", "disable", "43"]).good();
    let stored: String = redis::from_redis_value(cluster.run(&["GET", "authgate:user:43"])).unwrap();
    assert!(stored.contains("\"active\":false"), "{stored}");
    run(&["user", "delete", "43"]).good();
}

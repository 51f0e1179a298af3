//! `mode = "sentinel"`: the primary is the server that most sentinels name and whose ROLE is master.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::gate::TRACKING;
use crate::harness::pki::Pki;
use crate::harness::program::{authgate, program, run};
use crate::harness::sentinel::{FakeSentinel, Sentinels};
use crate::harness::server::{BASE_RIGHTS, Ends, Records, Server, WRITER, settles};
use crate::harness::{Call, Config, Gate, RecordingUpstream, config, get};

/// `[stores.redis]` with these sentinels.
fn store(urls: &str, more: &str) -> Config {
    config().tables(&format!(
        "[stores.redis]\nkind = \"redis\"\nmode = \"sentinel\"\nurls = [{urls}]\nservice = \"mymaster\"\n{more}\n"
    ))
}

fn with(token: &str) -> Call {
    get("/api/x").header("Authorization", format!("Token {token}"))
}

fn status(gate: &Gate, token: &str) -> u16 {
    gate.call(&with(token)).status
}

fn primaries(gate: &Gate) -> Vec<String> {
    let status = gate.probe("/status.json").json();
    assert_eq!(status["stores"][0]["mode"], "sentinel");
    let primaries = status["stores"][0]["primaries"].as_array().expect("a list").clone();
    primaries
        .iter()
        .map(|address| address.as_str().expect("text").to_owned())
        .collect()
}

/// Asks with two tokens until it is stopped. Returns all statuses of each, and the time of the last 503.
fn load(gate: &Gate, has_begun: &AtomicBool, until: &AtomicBool) -> (BTreeSet<u16>, BTreeSet<u16>, Option<Instant>) {
    let (mut valid, mut revoked, mut last) = (BTreeSet::new(), BTreeSet::new(), None);
    while !until.load(Ordering::Relaxed) {
        let of_valid = status(gate, "canary-ada");
        valid.insert(of_valid);
        revoked.insert(status(gate, "canary-old"));
        has_begun.store(true, Ordering::Relaxed);
        if of_valid == 503 {
            last = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (valid, revoked, last)
}

/// Changes the primary under load. Every answer is right, or 503.
fn under_load(gate: &Gate, change: impl FnOnce(), is_over: impl Fn() -> bool) {
    let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let loaded = scope.spawn(|| load(gate, &begun, &ended));
        let began = Instant::now();
        let changed = {
            let _ends = Ends(&ended);
            settles("requests are answered before the change", || {
                begun.load(Ordering::Relaxed)
            });
            change();
            settles("the servers have changed", is_over);
            let changed = began.elapsed();
            settles("requests pass again", || status(gate, "canary-ada") == 200);
            changed
        };
        let (valid, revoked, last) = loaded.join().expect("no panic");
        let last = last.map(|at| at.duration_since(began));
        eprintln!("servers changed after {changed:?}, the last 503 was after {last:?}");
        let is_only =
            |seen: &BTreeSet<u16>, right| seen.contains(&right) && seen.is_subset(&BTreeSet::from([right, 503]));
        assert!(is_only(&valid, 200), "{valid:?}");
        assert!(is_only(&revoked, 401), "{revoked:?}");
    });
}

#[test]
fn a_primary_that_is_killed_is_replaced_and_no_answer_is_wrong() {
    let (mut redis, upstream) = (Sentinels::start(None), RecordingUpstream::start());
    redis.servers[0].fill();
    let folder = TempDir::new().unwrap();
    let config = store(&redis.urls(), "").token("cache = { entries = 0, negative_entries = 0 }");
    let config = config.app(&upstream).protected("/api/*");
    config.write(folder.path());
    let gate = Gate::start(&config);
    assert_eq!(primaries(&gate), [redis.servers[0].address()]);
    assert_eq!(status(&gate, "canary-ada"), 200);
    settles("the replica has the records", || {
        redis.servers[1].run(&["DBSIZE"]) == redis.servers[0].run(&["DBSIZE"])
    });
    let [primary, replica] = &mut redis.servers;
    under_load(&gate, || primary.kill(), || replica.role() == "master");
    assert_eq!(primaries(&gate), [replica.address()]);

    // The command line finds the new primary too, and the gateway refuses what it revokes there.
    let run = |words: &[&str]| authgate(folder.path(), &[words, &["--config", "gateway.toml"]].concat());
    let created = run(&["token", "create", "--user", "42", "--name", "ci"]).good();
    assert!(run(&["token", "list"]).good().contains("ci"), "{created}");
    assert!(run(&["user", "disable", "42"]).code == 0);
    settles("the user is refused", || status(&gate, "canary-ada") == 401);
}

#[test]
fn a_failover_by_command_is_followed_and_the_former_primary_is_not_read() {
    let password = "canary-default";
    let (mut redis, upstream) = (Sentinels::start(Some(password)), RecordingUpstream::start());
    redis.servers[0].fill();
    // Both logins have the least rights.
    for server in &redis.servers {
        server.run(&[BASE_RIGHTS, &["+role"]].concat());
        server.run(&[WRITER, &["+role"]].concat());
    }
    for sentinel in &redis.sentinels {
        let user = ["ACL", "SETUSER", "gateway", "reset", "on", ">canary-sentinel"];
        let rights = ["+auth", "+hello", "+ping", "+sentinel|get-master-addr-by-name"];
        sentinel.run(&[&user[..], &rights].concat());
    }
    let login = "username = \"gateway\"\npassword = \"canary-redis\"\n\
                 writer = { username = \"writer\", password = \"canary-writer\" }\n\
                 sentinel = { username = \"gateway\", password = \"canary-sentinel\" }";
    let config = store(&redis.urls(), login).token("cache = { ttl = \"60s\" }");
    let gate = Gate::subscribed(&config.app(&upstream).protected("/api/*"));
    settles("the replica has the records", || {
        redis.servers[1].run(&["DBSIZE"]) == redis.servers[0].run(&["DBSIZE"])
    });
    let change = || {
        settles("a sentinel begins", || {
            redis.sentinels[0]
                .try_run(&["SENTINEL", "FAILOVER", "mymaster"])
                .is_ok()
        });
    };
    under_load(&gate, change, || redis.servers[1].role() == "master");
    settles("the gateway follows", || {
        primaries(&gate) == [redis.servers[1].address()]
    });
    gate.metric_becomes(TRACKING, 1.0);
    assert_eq!(status(&gate, "canary-ada"), 200);
    // The cached decision ends with a revocation at the new primary.
    redis.servers[1].put_token("canary-ada", &json!({ "user": "42", "revoked": 1_700_000_000 }));
    settles("the revocation is in force", || status(&gate, "canary-ada") == 401);
    authgate(gate.folder.path(), &["revoke", "--user", "7"]).good();

    // Without sentinels, the primary is used as long as its ROLE is master.
    for sentinel in &mut redis.sentinels {
        sentinel.kill();
    }
    gate.logged(&[
        "the primaries of the store cannot be found out",
        "none of the servers in `urls` answers",
    ]);
    redis.servers[1].put_token("canary-new", &json!({ "user": "42" }));
    assert_eq!(status(&gate, "canary-new"), 200);
}

#[test]
fn a_primary_that_comes_back_after_its_replacement_is_not_read() {
    let (redis, upstream) = (Sentinels::start(None), RecordingUpstream::start());
    redis.servers[0].fill();
    let config = store(&redis.urls(), "").token("cache = { entries = 0, negative_entries = 0 }");
    let gate = Gate::start(&config.app(&upstream).protected("/api/*"));
    settles("the replica has the records", || {
        redis.servers[1].run(&["DBSIZE"]) == redis.servers[0].run(&["DBSIZE"])
    });
    redis.servers[0].pause();
    settles("the replica is promoted", || redis.servers[1].role() == "master");
    settles("requests pass again", || status(&gate, "canary-ada") == 200);
    redis.servers[1].put_token("canary-ada", &json!({ "user": "42", "revoked": 1_700_000_000 }));
    assert_eq!(status(&gate, "canary-ada"), 401);
    // It still has the valid token, and its ROLE is master until the sentinels make it a replica.
    redis.servers[0].resume();
    settles("it follows the new primary", || {
        assert_eq!(status(&gate, "canary-ada"), 401);
        redis.servers[0].role() == "slave"
    });
    assert_eq!(status(&gate, "canary-ada"), 401);
}

#[test]
fn a_wrong_login_at_the_sentinels_is_reported() {
    let (sentinel, upstream) = (
        Server::with_password(&[], "", Some("canary-default")),
        RecordingUpstream::start(),
    );
    for (login, words) in [
        ("", "NOAUTH"),
        ("sentinel = { password = \"canary-wrong\" }", "WRONGPASS"),
    ] {
        let config = store(&format!("{:?}", sentinel.url()), login).token("");
        let gate = Gate::spawn(&config.app(&upstream).protected("/api/*"));
        gate.logged(&["the primaries of the store cannot be found out", words]);
        assert_eq!(status(&gate, "canary-ada"), 503);
    }
}

#[test]
fn what_most_sentinels_name_is_used_and_a_replica_is_not() {
    let (real, other, upstream) = (
        Server::start(&[], ""),
        Server::start(&[], ""),
        RecordingUpstream::start(),
    );
    real.fill();
    other.put_layout("other");
    let replica = Server::start(&[], &format!("replicaof 127.0.0.1 {}\n", real.port));
    let fakes = [Some(real.port), Some(other.port), Some(real.port)].map(FakeSentinel::naming);
    let urls = |fakes: &[&FakeSentinel]| {
        fakes
            .iter()
            .map(|fake| format!("{:?}", fake.url()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let start = |urls: &str| {
        let config = store(urls, "").token("cache = { entries = 0, negative_entries = 0 }");
        Gate::spawn(&config.app(&upstream).protected("/api/*"))
    };
    // One of three names another server.
    let gate = start(&urls(&[&fakes[0], &fakes[1], &fakes[2]]));
    settles("it is used", || status(&gate, "canary-ada") == 200);
    assert_eq!(primaries(&gate), [real.address()]);
    // All name a server with another layout record: this is another database.
    fakes.iter().for_each(|fake| fake.name(other.port));
    settles("it is not used", || status(&gate, "canary-ada") == 503);
    gate.logged(&["the store's layout record has changed"]);
    fakes.iter().for_each(|fake| fake.name(real.port));
    settles("it is used again", || status(&gate, "canary-ada") == 200);
    // All name a replica.
    fakes.iter().for_each(|fake| fake.name(replica.port));
    settles("it is not used", || status(&gate, "canary-ada") == 503);
    gate.logged(&["is not a primary: its role is slave"]);
    drop(gate);

    for (urls, words) in [
        (
            urls(&[&FakeSentinel::naming(None)]),
            "the sentinels know no primary by the name",
        ),
        (
            urls(&[
                &FakeSentinel::naming(Some(real.port)),
                &FakeSentinel::naming(Some(other.port)),
            ]),
            "the sentinels name different primaries",
        ),
    ] {
        let gate = start(&urls);
        gate.logged(&["the primaries of the store cannot be found out", words]);
        assert_eq!(status(&gate, "canary-ada"), 503);
    }
}

#[test]
fn sentinels_over_tls_need_no_system_roots_if_the_store_has_a_ca() {
    let (folder, upstream) = (TempDir::new().expect("a folder"), RecordingUpstream::start());
    let lines = "tls = { ca = \"ca.pem\" }\nsentinel = { password = { file = \"sentinel.password\" } }";
    store("\"rediss://127.0.0.1:26379\"", lines)
        .token("")
        .file("ca.pem", Pki::new().root_pem())
        .file("sentinel.password", "canary\n")
        .app(&upstream)
        .protected("/api/*")
        .write(folder.path());
    let mut check = program();
    check
        .arg("check")
        .current_dir(folder.path())
        .env("SSL_CERT_FILE", "/dev/null")
        .env_remove("SSL_CERT_DIR");
    run(check, b"").good();
}

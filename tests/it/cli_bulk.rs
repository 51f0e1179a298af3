//! Many tokens by the command line: records are streamed in bounded memory, and an interrupted import is completed by the next one.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use authgate_auth::store::TokenDigest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::program::{Ended, authgate, program, run};
use crate::harness::{RecordingUpstream, Redis, config, signal, wait_until};

/// A folder with a configuration for a store at this URL, and the records of `dump` in dump.jsonl.
fn folder(url: &str, dump: &str) -> TempDir {
    let (folder, upstream) = (TempDir::new().expect("a folder"), RecordingUpstream::start());
    config()
        .tables(&format!("[stores.redis]\nkind = \"redis\"\nurl = \"{url}\"\n"))
        .token("")
        .app(&upstream)
        .protected("/*")
        .write(folder.path());
    fs::write(folder.path().join("dump.jsonl"), dump).expect("writable");
    folder
}

/// Lines of an export: `tokens` tokens that belong to `users` users in turn.
fn dump(users: usize, tokens: usize) -> String {
    let mut text = String::new();
    for id in 0..users {
        let user = json!({ "user": { "id": format!("{id}"), "username": format!("user{id}"), "active": true } });
        writeln!(text, "{user}").expect("memory");
    }
    for at in 0..tokens {
        let digest = TokenDigest::of(format!("canary-{at}").as_bytes()).to_hex();
        let token = json!({ "token": digest, "user": format!("{}", at % users), "created": 1_700_000_000 });
        writeln!(text, "{token}").expect("memory");
    }
    text
}

fn good(folder: &Path, words: &[&str]) -> String {
    authgate(folder, words).good()
}

fn layout(redis: &Redis) -> Value {
    match redis.run(&["GET", "authgate:layout"]) {
        redis::Value::BulkString(text) => serde_json::from_slice(&text).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

fn count(redis: &Redis, words: &[&str]) -> i64 {
    match redis.run(words) {
        redis::Value::Int(count) => count,
        other => panic!("{other:?}"),
    }
}

/// A proxy before Redis that stops for good when it has passed on this many bytes of commands.
struct StallingProxy {
    folder: TempDir,
    stalled: Arc<AtomicBool>,
}

impl StallingProxy {
    fn start(redis: &Redis, bytes: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("proxy.sock")).expect("free");
        let (stalled, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(bytes)));
        let (socket, is_stalled) = (redis.socket(), Arc::clone(&stalled));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = UnixStream::connect(&socket).expect("redis-server is there");
                let (mut replies, mut answered) = (
                    server.try_clone().expect("a socket"),
                    client.try_clone().expect("a socket"),
                );
                thread::spawn(move || std::io::copy(&mut replies, &mut answered));
                let (left, stalled) = (Arc::clone(&left), Arc::clone(&is_stalled));
                thread::spawn(move || pass_on(client, server, &left, &stalled));
            }
        });
        Self { folder, stalled }
    }

    fn url(&self) -> String {
        format!("unix://{}", self.folder.path().join("proxy.sock").display())
    }
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, left: &AtomicUsize, stalled: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if left.fetch_sub(read.min(left.load(Ordering::Relaxed)), Ordering::Relaxed) < read {
            stalled.store(true, Ordering::Relaxed);
            // Both sockets stay open: the client waits for its reply.
            while from.read(&mut bytes).is_ok_and(|read| read > 0) {}
            return;
        }
        if to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

/// Runs a command until the proxy stalls, and ends it by this signal.
fn interrupt(proxy: &StallingProxy, folder: &Path, words: &[&str], name: &str, number: i32) {
    let mut command = program();
    let mut child = command
        .args(words)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("the proxy has stalled", Duration::from_secs(60), || {
        proxy.stalled.load(Ordering::Relaxed)
    });
    signal(child.id(), name);
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(number), "{status:?}");
}

#[test]
fn twenty_thousand_tokens_are_imported_listed_and_exported_once_each() {
    const TOKENS: usize = 20_000;
    let (redis, other) = (Redis::start_empty(), Redis::start_empty());
    let first = folder(&redis.url(), &dump(2_000, TOKENS));
    let out = good(first.path(), &["token", "import", "dump.jsonl"]);
    assert!(out.starts_with("users 2000, tokens 20000,"), "{out}");
    redis.run(&["SET", "authgate:revoked:user:7", "1700000000"]);
    for jti in 0..1_500 {
        redis.run(&["SET", &format!("authgate:revoked:jti:{jti}"), "1", "EX", "100000"]);
    }
    let listed: Vec<Value> = serde_json::from_str(&good(first.path(), &["token", "list", "--json"])).expect("JSON");
    let digests: Vec<&str> = listed
        .iter()
        .map(|token| token["digest"].as_str().expect("text"))
        .collect();
    assert!(
        digests.is_sorted_by(|one, next| one < next),
        "in order, without repeats"
    );
    assert_eq!(digests.len(), TOKENS);
    let of_one = good(first.path(), &["token", "list", "--user", "42"]);
    assert_eq!(of_one.lines().count(), TOKENS / 2_000);
    let exported = good(first.path(), &["token", "export"]);
    assert_eq!(exported.lines().count(), 2_000 + TOKENS + 1_501);
    let second = folder(&other.url(), &exported);
    let out = good(second.path(), &["token", "import", "dump.jsonl"]);
    assert!(out.contains("revocations 1501"), "{out}");
    assert_eq!(count(&redis, &["SCARD", "authgate:tokens-of:42"]), 10);
    let again = good(second.path(), &["token", "export"]);
    // A second may have passed: the expiry of a jti is what is left of it.
    let but_expiries = |text: &str| {
        text.lines()
            .filter(|line| !line.contains("\"forget\""))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(but_expiries(&again), but_expiries(&exported));
    let stats = match redis.run(&["INFO", "commandstats"]) {
        redis::Value::BulkString(text) => String::from_utf8(text).expect("UTF-8"),
        redis::Value::VerbatimString { text, .. } => text,
        other => panic!("{other:?}"),
    };
    for command in ["keys", "smembers", "flushdb", "flushall"] {
        assert!(
            !stats.contains(&format!("cmdstat_{command}:")),
            "{command} blocks Redis: {stats}"
        );
    }
    assert!(
        stats.contains("cmdstat_scan:") && stats.contains("cmdstat_sscan:"),
        "{stats}"
    );
}

#[test]
fn an_import_that_is_interrupted_is_completed_by_the_next() {
    for (name, number) in [("INT", 2), ("KILL", 9)] {
        let redis = Redis::start_empty();
        // Users are about 400 KB of commands; the import stalls within the tokens.
        let proxy = StallingProxy::start(&redis, 2_000_000);
        let records = dump(1_000, 10_000);
        let stalling = folder(&proxy.url(), &records);
        interrupt(
            &proxy,
            stalling.path(),
            &["token", "import", "dump.jsonl"],
            name,
            number,
        );
        assert_eq!(layout(&redis)["filling"], true, "gateways do not use the store");
        let written = count(&redis, &["DBSIZE"]);
        assert!((3_000..11_000).contains(&written), "{written} keys");
        let folder = folder(&redis.url(), &records);
        let ended = authgate(folder.path(), &["token", "import", "dump.jsonl"]);
        assert!(ended.err.contains("this import completes it"), "{ended:?}");
        assert!(ended.good().starts_with("users 1000, tokens 10000,"));
        assert_eq!(layout(&redis).get("filling"), None);
        assert_eq!(good(folder.path(), &["token", "list"]).lines().count(), 10_000);
        assert_eq!(count(&redis, &["SCARD", "authgate:tokens-of:42"]), 10);
    }
}

#[test]
fn a_prune_that_is_interrupted_is_completed_by_the_next() {
    let redis = Redis::start_empty();
    let folder_of = |url: &str| folder(url, &dump(1, 1));
    let all = folder(&redis.url(), &dump(2_000, 4_000));
    good(all.path(), &["token", "import", "dump.jsonl"]);
    let revoked = format!("sha256:{}", TokenDigest::of(b"canary-1999").to_hex());
    good(all.path(), &["token", "revoke", &revoked]);
    // Deleting a user is about 600 bytes of commands.
    let proxy = StallingProxy::start(&redis, 300_000);
    let prune = ["token", "import", "dump.jsonl", "--prune", "--user-model", "auth.user"];
    interrupt(&proxy, folder_of(&proxy.url()).path(), &prune, "KILL", 9);
    let users = good(all.path(), &["token", "export"])
        .lines()
        .filter(|line| line.starts_with("{\"user\":{"))
        .count();
    assert!((2..2_000).contains(&users), "{users} users");
    assert_eq!(layout(&redis).get("filling"), None, "gateways go on using the store");
    // As if the command had been killed between the record of a user and its tokens.
    let half_deleted = "1998";
    redis.del(&format!("user:{half_deleted}"));
    let out = good(folder_of(&redis.url()).path(), &prune);
    assert!(out.contains("users 1, tokens 1,"), "{out}");
    let left = good(all.path(), &["token", "list"]);
    assert_eq!(
        left.lines().count(),
        2,
        "the token of the dump, and the revoked one: {left}"
    );
    assert!(
        left.lines()
            .any(|line| line.starts_with(&revoked) && line.contains("revoked ")),
        "{left}"
    );
    assert_eq!(
        count(&redis, &["EXISTS", &format!("authgate:tokens-of:{half_deleted}")]),
        0
    );
}

#[test]
fn tokens_of_a_half_deleted_user_are_pruned_with_a_dump_of_users() {
    let redis = Redis::start_empty();
    let folder = folder(&redis.url(), &dump(3, 3));
    good(folder.path(), &["token", "import", "dump.jsonl"]);
    redis.del("user:2");
    fs::write(folder.path().join("users.jsonl"), dump(2, 0)).expect("writable");
    let out = good(
        folder.path(),
        &["token", "import", "users.jsonl", "--prune", "--user-model", "auth.user"],
    );
    assert!(out.contains("removed users 0, removed tokens 1"), "{out}");
    // An import that brings the user back does not bring its token back.
    fs::write(folder.path().join("users.jsonl"), dump(3, 0)).expect("writable");
    good(folder.path(), &["token", "import", "users.jsonl"]);
    assert_eq!(good(folder.path(), &["token", "list"]).lines().count(), 2);
}

/// The largest resident memory of a run, in KiB.
fn peak_memory(folder: &Path, words: &[&str]) -> usize {
    const PYTHON: &str = "import resource, subprocess, sys\n\
        code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n\
        print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut command = Command::new("python3");
    command
        .args(["-c", PYTHON])
        .arg(program().get_program())
        .args(words)
        .current_dir(folder);
    let out = run(command, b"").good();
    let (code, peak) = out.trim().split_once(' ').expect("two numbers");
    assert_eq!(code, "0", "{words:?}");
    peak.parse().expect("a number")
}

#[test]
fn memory_does_not_grow_with_the_number_of_tokens() {
    // More than the names that are sorted in memory at once, and less than 50,000 records.
    const SLACK: usize = 6 * 1024;
    let peaks = [5_000, 50_000].map(|many| {
        let redis = Redis::start_empty();
        let folder = folder(&redis.url(), &dump(many / 5, many));
        let prune = ["token", "import", "dump.jsonl", "--prune", "--user-model", "auth.user"];
        [&prune[..], &["token", "list", "--json"], &["token", "export"]].map(|words| peak_memory(folder.path(), words))
    });
    for (few, many) in peaks[0].into_iter().zip(peaks[1]) {
        assert!(many < few + SLACK, "KiB: {peaks:?}");
    }
}

/// The same command with a terminal as standard error and output.
fn on_terminal(folder: &Path, words: &[&str]) -> Ended {
    let mut command = Command::new("script");
    let program = PathBuf::from(program().get_program());
    command
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{} {}", program.display(), words.join(" ")))
        .arg("/dev/null")
        .env("TERM", "xterm")
        .env_remove("AUTHGATE_CONFIG")
        .current_dir(folder);
    run(command, b"")
}

#[test]
fn progress_is_shown_on_a_terminal_alone() {
    let redis = Redis::start_empty();
    let folder = folder(&redis.url(), &dump(20, 20_000));
    let import = ["token", "import", "dump.jsonl"];
    let bar = |text: &str| text.contains('\u{1b}') || text.contains("/20000") || text.contains("/20,000");
    let seen = on_terminal(folder.path(), &import);
    assert!(
        seen.code == 0 && seen.out.contains("tokens ") && bar(&seen.out) && seen.out.contains("users 20, tokens 20000"),
        "{seen:?}"
    );
    let json = on_terminal(folder.path(), &[&import[..], &["--json"]].concat());
    assert!(json.code == 0 && !bar(&json.out), "{json:?}");
    for words in [&import[..], &["token", "export"], &["token", "list"]] {
        let piped = authgate(folder.path(), words);
        assert!(
            piped.code == 0 && !bar(&piped.err) && !piped.out.contains('\u{1b}'),
            "{words:?}"
        );
    }
    // Records on a terminal are not mixed with a bar; a bar is shown beside records that go elsewhere.
    let mixed = on_terminal(folder.path(), &["token", "list"]);
    assert!(mixed.code == 0 && !bar(&mixed.out), "{mixed:?}");
    let beside = on_terminal(folder.path(), &["token", "export", ">exported.jsonl"]);
    assert!(beside.code == 0 && bar(&beside.out), "{beside:?}");
    let exported = fs::read_to_string(folder.path().join("exported.jsonl")).expect("written");
    assert_eq!(exported.lines().count(), 20_020);
}

#[test]
fn an_output_that_ends_early_is_said_to_be_incomplete() {
    let redis = Redis::start_empty();
    let folder = folder(&redis.url(), &dump(1, 2_000));
    good(folder.path(), &["token", "import", "dump.jsonl"]);
    redis.put_token("canary-broken", &json!({ "user": 7 }));
    for words in [["token", "export"], ["token", "list"]] {
        let ended = authgate(folder.path(), &words);
        assert!(
            ended.code == 1 && ended.err.contains("the output is incomplete"),
            "{ended:?}"
        );
    }
    // A reader that has seen enough is no failure.
    let mut command = Command::new("sh");
    let program = PathBuf::from(program().get_program());
    command
        .args([
            "-c",
            "\"$0\" token list --user 0 >list.txt; \"$0\" token list --user 0 | head -n 1",
        ])
        .arg(program)
        .current_dir(folder.path());
    let ended = run(command, b"");
    assert!(ended.err.is_empty() && ended.out.lines().count() == 1, "{ended:?}");
}

#[test]
fn a_large_embedded_store_is_a_warning_of_the_import_and_of_check() {
    let (folder, upstream) = (TempDir::new().expect("a folder"), RecordingUpstream::start());
    config()
        .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
        .token("")
        .app(&upstream)
        .protected("/*")
        .write(folder.path());
    let import = |tokens: usize| {
        fs::write(folder.path().join("dump.jsonl"), dump(1, tokens)).expect("writable");
        let ended = authgate(folder.path(), &["token", "import", "dump.jsonl"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        (ended.err, authgate(folder.path(), &["check"]))
    };
    let (note, checked) = import(19_999);
    assert!(
        !note.contains("is meant for") && checked.code == 0 && checked.err.is_empty(),
        "{note} {checked:?}"
    );
    let (note, checked) = import(20_000);
    assert!(
        note.contains("has 20001 tokens and users, and is meant for 20000"),
        "{note}"
    );
    assert!(
        checked.code == 0
            && checked.err.contains("stores.file.file")
            && checked.err.contains("has 20001 tokens and users"),
        "{checked:?}"
    );
}

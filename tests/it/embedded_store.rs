//! The embedded store: the file is read again when it changes; an invalid file is an outage.

use std::time::Duration;

use crate::harness::program::authgate;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

/// Everything behind a token of a file that is not there yet, and nothing remembered.
fn on_a_file(upstream: &RecordingUpstream) -> Config {
    config()
        .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
        .token("cache = { entries = 0, negative_entries = 0 }")
        .app(upstream)
        .protected("/*")
}

/// Makes user 1 with that key, and the file if there is none.
fn create(gate: &Gate, key: &str) {
    let words = ["token", "create", "--user", "1", "--username", "ada", "--key", key];
    let ended = authgate(gate.folder.path(), &words);
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_file_that_breaks_is_503_and_comes_back() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(&on_a_file(&upstream));
    let becomes = |status: u16| {
        wait_until(&format!("it is answered {status}"), Duration::from_secs(5), || {
            let reply = gate.call(&get("/x").token("canary-ada"));
            assert!(
                status != 503 || reply.status != 401,
                "a store that cannot say is no refusal"
            );
            reply.status == status
        });
    };
    let file = gate.folder.path().join("tokens.toml");
    assert_eq!(gate.probe("/readyz").status, 503, "there is no file yet");
    becomes(503);
    create(&gate, "canary-ada");
    becomes(200);
    assert_eq!(gate.probe("/readyz").status, 200);
    let good = std::fs::read_to_string(&file).unwrap();
    for broken in [
        "",
        "not toml",
        &good.replace("version = 1", "version = 2"),
        &good.replace("user = ", "usher = "),
    ] {
        std::fs::write(&file, broken).unwrap();
        becomes(503);
        std::fs::write(&file, &good).unwrap();
        becomes(200);
    }
    std::fs::remove_file(&file).unwrap();
    becomes(503);
}

#[test]
fn an_unreadable_file_is_503_with_retry_after() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(&on_a_file(&upstream));
    create(&gate, "canary-ada");
    let status = |key: &str| gate.call(&get("/x").token(key)).status;
    wait_until("the file is read", Duration::from_secs(5), || {
        status("canary-ada") == 200
    });
    assert_eq!(status("canary-unknown"), 401);
    std::fs::write(gate.folder.path().join("tokens.toml"), "not toml = [").unwrap();
    wait_until("the file is found broken", Duration::from_secs(5), || {
        status("canary-ada") == 503
    });
    let before = upstream.calls();
    for key in ["canary-ada", "canary-unknown"] {
        let reply = gate.call(&get("/x").token(key));
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (503, "Service temporarily unavailable, try again later."),
            "{key}"
        );
        let seconds = reply.header("retry-after").unwrap().parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0), "{key}");
        assert_eq!(reply.header("www-authenticate"), None, "{key}");
    }
    assert_eq!(
        gate.get("/x").status,
        401,
        "who sends no credential need not be looked up"
    );
    assert_eq!(upstream.calls(), before);
}

#[test]
fn changes_by_the_command_line_take_effect_soon() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(&on_a_file(&upstream));
    let run = |words: &[&str]| {
        let ended = authgate(gate.folder.path(), words);
        assert_eq!(ended.code, 0, "{ended:?}");
    };
    let becomes = |key: &str, status: u16| {
        wait_until(&format!("{key} is answered {status}"), Duration::from_secs(3), || {
            gate.call(&get("/x").token(key)).status == status
        });
    };
    create(&gate, "canary-one");
    run(&["token", "create", "--user", "1", "--key", "canary-two"]);
    becomes("canary-one", 200);
    becomes("canary-two", 200);
    run(&["token", "revoke", "canary-one"]);
    becomes("canary-one", 401);
    assert_eq!(
        gate.call(&get("/x").token("canary-two")).status,
        200,
        "the other one is still good"
    );
    run(&["user", "disable", "1"]);
    becomes("canary-two", 401);
    let reply = gate.call(&get("/x").token("canary-two"));
    assert_eq!(reply.detail(), "User inactive or deleted.");
    run(&["user", "enable", "1"]);
    becomes("canary-two", 200);
    assert_eq!(gate.call(&get("/x").token("canary-one")).status, 401);
}

#[test]
fn a_broken_file_is_not_quoted_in_the_log() {
    let upstream = RecordingUpstream::start();
    let gate =
        Gate::spawn(&on_a_file(&upstream).file("tokens.toml", "password_md5 = \"CANARY0MD5\" and a comma too few\n"));
    gate.logged(&["cannot be used", "tokens.toml"]);
    let log = gate.stop();
    assert!(!log.contains("CANARY0MD5"), "a line of the store is in the log:\n{log}");
}

#[test]
fn a_key_that_was_pasted_where_its_digest_belongs_is_not_logged() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(&on_a_file(&upstream));
    create(&gate, "canary-ada");
    wait_until("the good file is read", Duration::from_secs(5), || {
        gate.call(&get("/x").token("canary-ada")).status == 200
    });
    let file = gate.folder.path().join("tokens.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let digest = crate::harness::Redis::token_key("canary-ada").replace("token:", "");
    assert!(good.contains(&digest), "a digest is there to be replaced");
    std::fs::write(&file, good.replace(&digest, "canary-ada")).unwrap();
    wait_until("the file is refused", Duration::from_secs(5), || {
        gate.call(&get("/x").token("canary-ada")).status == 503
    });
    // The harness looks for the key in the log.
    drop(gate);
}

#[test]
fn a_changed_file_invalidates_cached_decisions() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .file("tokens.toml", "layout = { version = 1, epoch = \"e\" }\n")
            .token("cache = { ttl = \"60s\", negative_ttl = \"60s\" }")
            .app(&upstream)
            .protected("/api/*"),
    );
    let becomes = |status: u16| {
        wait_until("the file is read again", Duration::from_secs(5), || {
            gate.call(&get("/api/x").token("canary-ada")).status == status
        });
    };
    let rewrite = |active: bool| {
        let digest = authgate_auth::store::TokenDigest::of(b"canary-ada").to_hex();
        let text = format!(
            "layout = {{ version = 1, epoch = \"e\" }}\n[tokens.{digest}]\nuser = \"42\"\n[users.42]\nid = \"42\"\nactive = {active}\n"
        );
        let (fresh, file) = (gate.folder.path().join("fresh"), gate.folder.path().join("tokens.toml"));
        std::fs::write(&fresh, text).expect("writable");
        std::fs::rename(fresh, file).expect("writable");
    };
    becomes(401);
    rewrite(true);
    becomes(200);
    rewrite(false);
    becomes(401);
    rewrite(true);
    becomes(200);
}

//! How the gateway and the command line reach Redis: TLS, socket files, a user with few rights, and servers that do not report changes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::gate::TRACKING;
use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::program::authgate;
use crate::harness::proofs::ProofKey;
use crate::harness::upstream::closed_port;
use crate::harness::{Config, Fault, Gate, RecordingUpstream, Redis, RedisProxy, config, get, wait_until};

const SOON: Duration = Duration::from_secs(10);
const NO_CACHE: &str = "cache = { entries = 0, negative_entries = 0 }";

/// A Redis with TLS on a port. Its socket file has none.
struct TlsRedis {
    _redis: Redis,
    port: u16,
    _files: TempDir,
}

impl TlsRedis {
    /// Its certificate has this name. With `asks`, clients must show a certificate of the same authority.
    fn start(pki: &Arc<Pki>, name: &str, asks: bool) -> Self {
        let files = TempDir::new().expect("a folder");
        let (chain, key) = pki.leaf(&[name]);
        let mut arguments = Vec::new();
        for (option, content) in [
            ("--tls-cert-file", chain),
            ("--tls-key-file", key),
            ("--tls-ca-cert-file", pki.root_pem()),
        ] {
            let file = files.path().join(option);
            fs::write(&file, content).expect("writable");
            arguments.extend([option.to_owned(), file.display().to_string()]);
        }
        let port = closed_port().port();
        let asks = if asks { "yes" } else { "no" };
        let more = ["--tls-port", &port.to_string(), "--tls-auth-clients", asks].map(str::to_owned);
        arguments.extend(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let redis = Redis::start_with(&arguments);
        redis.put_layout("1");
        Self {
            _redis: redis.with_ada(),
            port,
            _files: files,
        }
    }

    fn config(&self, host: &str, lines: &str, upstream: &RecordingUpstream) -> Config {
        let port = self.port;
        store(
            &format!("url = \"rediss://{host}:{port}\"\ntimeout = \"4s\"\n{lines}"),
            upstream,
        )
    }
}

fn store(lines: &str, upstream: &RecordingUpstream) -> Config {
    config()
        .tables(&format!("[stores.redis]\nkind = \"redis\"\n{lines}\n"))
        .token(NO_CACHE)
        .app(upstream)
        .protected("/*")
}

fn status(gate: &Gate) -> u16 {
    gate.call(&get("/x").token("canary-ada")).status
}

#[test]
fn both_sides_of_tls_check_each_other() {
    let (pki, other) = (Pki::new(), Pki::new());
    let upstream = RecordingUpstream::start();
    let (localhost, internal) = (
        TlsRedis::start(&pki, "localhost", false),
        TlsRedis::start(&pki, "redis.internal", true),
    );
    let (chain, key) = pki.leaf(&["gateway"]);
    let with_files = |config: Config| {
        config
            .file("ca.pem", pki.root_pem())
            .file("other.pem", other.root_pem())
            .file("gate.pem", chain.clone())
            .file("gate.key", key.clone())
    };
    let own = "cert = \"gate.pem\", key = \"gate.key\"";
    let named = "server_name = \"redis.internal\"";
    for (redis, host, tls) in [
        (&localhost, "localhost", "ca = \"ca.pem\"".to_owned()),
        (&internal, "127.0.0.1", format!("ca = \"ca.pem\", {named}, {own}")),
    ] {
        let gate = Gate::subscribed(&with_files(redis.config(
            host,
            &format!("tls = {{ {tls} }}"),
            &upstream,
        )));
        assert_eq!(status(&gate), 200, "{tls}");
        let listed = authgate(gate.folder.path(), &["token", "list"]);
        assert_eq!(listed.code, 0, "{tls}: {listed:?}");
        let online = authgate(gate.folder.path(), &["check", "--online"]);
        assert_eq!(online.code, 0, "{tls}: {online:?}");
    }
    for (redis, host, tls, words) in [
        (
            &localhost,
            "localhost",
            "ca = \"other.pem\"".to_owned(),
            "invalid peer certificate",
        ),
        (&localhost, "127.0.0.1", "ca = \"ca.pem\"".to_owned(), "not valid for"),
        (
            &internal,
            "127.0.0.1",
            format!("ca = \"ca.pem\", {own}"),
            "not valid for",
        ),
        (&internal, "127.0.0.1", format!("ca = \"ca.pem\", {named}"), "alert"),
    ] {
        let gate = Gate::spawn(&with_files(redis.config(
            host,
            &format!("tls = {{ {tls} }}"),
            &upstream,
        )));
        assert_eq!(status(&gate), 503, "{tls}");
        let line = gate.logged(&["\"request\"", "store_tls"]);
        assert!(line.contains(words), "{tls}: {line}");
        let listed = authgate(gate.folder.path(), &["token", "list"]);
        assert!(listed.code == 1 && listed.err.contains(words), "{tls}: {listed:?}");
        let online = authgate(gate.folder.path(), &["check", "--online"]);
        assert!(online.code == 2 && online.err.contains(words), "{tls}: {online:?}");
    }
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn a_changed_authority_is_used_without_a_reload_by_hand() {
    let (pki, other) = (Pki::new(), Pki::new());
    let upstream = RecordingUpstream::start();
    let redis = TlsRedis::start(&pki, "localhost", false);
    let gate = Gate::spawn(
        &redis
            .config("localhost", "tls = { ca = \"ca.pem\" }", &upstream)
            .server("watch = \"keys\"")
            .file("ca.pem", other.root_pem()),
    );
    assert_eq!(status(&gate), 503);
    fs::write(gate.folder.path().join("ca.pem"), pki.root_pem()).expect("writable");
    wait_until("the new authority is trusted", SOON, || status(&gate) == 200);
    fs::write(gate.folder.path().join("ca.pem"), other.root_pem()).expect("writable");
    wait_until("the former one is not trusted any more", SOON, || status(&gate) == 503);
}

pub const PASSWORD: &str = "canary-password";

/// The lines of the page that begin with `ACL SETUSER` and this name, with [`PASSWORD`].
pub fn rights(name: &str) -> Vec<Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md");
    let page = fs::read_to_string(page).expect("a page");
    let start = format!("ACL SETUSER {name} ");
    let lines = page.lines().filter(|line| line.starts_with(&start));
    let words = |line: &str| {
        let words = line.split_ascii_whitespace();
        words
            .map(|word| word.replace(">PASSWORD", &format!(">{PASSWORD}")))
            .collect()
    };
    lines.map(words).collect()
}

pub fn grant(redis: &Redis, line: &[String]) {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    redis.run(&words);
}

/// Commands that Redis has refused for lack of rights, apart from the question about `maxmemory-policy`, and the canary.
fn denied(redis: &Redis) -> Vec<String> {
    let log: Vec<Vec<redis::Value>> = redis::from_redis_value(redis.run(&["ACL", "LOG"])).expect("a log");
    let object = |entry: &Vec<redis::Value>| {
        let at = entry
            .iter()
            .position(|value| matches!(value, redis::Value::BulkString(name) if name == b"object"))
            .expect("an object");
        redis::from_redis_value::<String>(entry[at + 1].clone()).expect("text")
    };
    let is_optional = |object: &String| ["config|get", "set"].contains(&&**object) || object.contains(":canary:");
    log.iter().map(object).filter(|object| !is_optional(object)).collect()
}

#[test]
fn the_rights_of_the_page_are_enough_for_each_feature() {
    let (redis, upstream) = (Redis::start(), RecordingUpstream::start());
    // Database 3, over the socket file.
    let put = |key: &str, value: String| {
        let script = "redis.call('SELECT', 3) return redis.call('SET', KEYS[1], ARGV[1])";
        redis.run(&["EVAL", script, "1", &format!("authgate:{key}"), &value]);
    };
    put("layout", json!({ "version": 1, "epoch": "3" }).to_string());
    put("user:42", json!({ "id": "42", "active": true }).to_string());
    put(&Redis::token_key("canary-ada"), json!({ "user": "42" }).to_string());
    let [base, proofs, canary] = &rights("authgate")[..] else {
        panic!("{:?}", rights("authgate"));
    };
    grant(&redis, base);
    let (server, client) = (Signer::new(Algorithm::ES256), ProofKey::new(Algorithm::ES256));
    let lines = format!(
        "url = \"{}?db=3\"\nusername = \"authgate\"\npassword = \"canary-password\"\ntimeout = \"4s\"",
        redis.url()
    );
    let config = store(&lines, &upstream)
        .file("jwt.key", server.file())
        .jwt(&format!("keys = [{}]", server.key("jwt.key")))
        .jwt("users = \"redis\"\nrevocation = \"redis\"\ndpop = \"accept\"\ndpop_replay = \"redis\"")
        .route("/jwt/*", "authenticate = [\"jwt\"]");
    let gate = Gate::subscribed(&config);
    assert_eq!(status(&gate), 200);
    assert_eq!(gate.call(&get("/jwt/x").bearer(&server.access())).status, 200);
    assert_eq!(denied(&redis), Vec::<String>::new());
    let bound = server.with(&json!({ "cnf": client.cnf() }));
    let with_proof = || client.send(get("/jwt/x"), "http://localhost/jwt/x", &bound);
    assert_eq!(gate.call(&with_proof()).status, 503, "it may not write");
    gate.logged(&["\"request\"", "store_no_permission"]);
    grant(&redis, proofs);
    redis.run(&["ACL", "LOG", "RESET"]);
    assert_eq!(gate.call(&with_proof()).status, 200);
    assert_eq!(denied(&redis), Vec::<String>::new());
    grant(&redis, canary);
    let gate = Gate::subscribed(&config);
    wait_until("the delay is measured", SOON, || {
        gate.probe("/metrics")
            .text()
            .contains("authgate_revocation_lag_seconds{")
    });

    // The command line has a user of its own.
    let [admin] = &rights("authgate-admin")[..] else {
        panic!("{:?}", rights("authgate-admin"));
    };
    grant(&redis, admin);
    let folder = TempDir::new().expect("a folder");
    let lines = lines.replace("username = \"authgate\"", "username = \"authgate-admin\"");
    store(&lines, &upstream).write(folder.path());
    for command in [
        &["user", "put", "--id", "7", "--username", "grace"][..],
        &["user", "put", "--id", "7", "--username", "hopper"],
        &["user", "show", "7"],
        &["user", "disable", "7"],
        &["token", "create", "--user", "42"],
        &["token", "list"],
        &["token", "list", "--user", "42"],
        &["token", "export"],
        &["token", "revoke", "canary-ada"],
        &["revoke", "--user", "42"],
        &["revoke", "--jti", "one"],
        &["revoke", "--jti", "one", "--expires", "4000000000"],
        &["user", "delete", "7"],
        &["check", "--online"],
    ] {
        let ended = authgate(folder.path(), command);
        assert_eq!(ended.code, 0, "{command:?}: {ended:?}");
    }
    assert_eq!(denied(&redis), Vec::<String>::new());
    wait_until("the token is revoked", SOON, || status(&gate) == 401);
}

/// The state of `changes` in the status of the store.
fn changes(gate: &Gate) -> String {
    let status = gate.probe("/status.json").json();
    status["stores"][0]["changes"].as_str().unwrap_or("null").to_owned()
}

#[test]
fn a_redis_that_cannot_report_changes_is_used_without_them() {
    let upstream = RecordingUpstream::start();
    for (unknown, reply) in [
        (
            "HELLO",
            "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n",
        ),
        (
            "HELLO",
            "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'canary-password' \r\n",
        ),
        ("HELLO", "-NOPROTO unsupported protocol version\r\n"),
        (
            "CLIENT",
            "-ERR Unknown subcommand or wrong number of arguments for 'TRACKING'. Try CLIENT HELP\r\n",
        ),
        (
            "CLIENT",
            "-NOPERM this user has no permissions to run the 'client|tracking' command or its subcommand\r\n",
        ),
    ] {
        let redis = Redis::start().with_ada();
        let proxy = RedisProxy::before(&redis);
        proxy.rule(move |command| {
            if command[0] == unknown {
                Fault::Reply(reply)
            } else {
                Fault::None
            }
        });
        let gate = Gate::start(
            &store(&format!("url = \"{}\"\ntimeout = \"4s\"", proxy.url()), &upstream)
                .token("cache = { ttl = \"1s\", negative_ttl = \"1s\" }"),
        );
        assert_eq!(status(&gate), 200, "{reply}");
        wait_until("it is reported", SOON, || changes(&gate) == "unsupported");
        assert_eq!(gate.metric(TRACKING), 0.0);
        redis.del(&Redis::token_key("canary-ada"));
        wait_until("the ttl is over", SOON, || status(&gate) == 401);
        let log = gate.stop();
        assert_eq!(log.matches("this Redis does not report changes").count(), 1, "{log}");
        assert!(!log.contains("canary-password"), "{log}");
    }
    // `rename-command` in redis.conf, and changes that are switched off.
    let redis = Redis::start_with(&["--rename-command", "HELLO", ""]);
    redis.put_layout("1");
    let redis = redis.with_ada();
    let url = format!("url = \"{}\"", redis.url());
    let gate = Gate::start(&store(&url, &upstream));
    assert_eq!(status(&gate), 200);
    wait_until("it is reported", SOON, || changes(&gate) == "unsupported");
    let gate = Gate::start(&store(&format!("{url}\ninvalidation = \"off\""), &upstream));
    assert_eq!((status(&gate), changes(&gate).as_str()), (200, "off"));
    let redis = Redis::start().with_ada();
    let gate = Gate::subscribed(&store(&format!("url = \"{}\"", redis.url()), &upstream));
    assert_eq!(changes(&gate), "reported");
}

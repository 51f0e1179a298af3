//! `seal` of a store in Redis: records of other programs are refused. The programs of these tests may read and write everything in Redis.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::{Keys, Seal};
use authgate_core::secret::Secret;
use serde_json::{Value, json};

use crate::harness::mint::Signer;
use crate::harness::program::{Ended, authgate, authgate_with_input, program};
use crate::harness::redis::PREFIX;
use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get, post, wait_until};

const SOON: Duration = Duration::from_secs(15);
/// Of the gateway, and of another one.
const KEY: &[u8] = &[7; 32];
const OTHER_KEY: &[u8] = &[8; 32];

/// A program with a key of its own, and with access to Redis.
struct Writer<'r> {
    redis: &'r Redis,
    seal: Seal,
}

impl<'r> Writer<'r> {
    fn new(redis: &'r Redis, key: &[u8]) -> Self {
        Self {
            redis,
            seal: Seal::new(&Secret::new(key.to_vec())).expect("32 bytes"),
        }
    }

    fn keys(&self) -> Keys<'_> {
        Keys::new(PREFIX, Some(&self.seal))
    }

    /// Stores a value with this program's seal. The key is without the prefix.
    fn put(&self, key: &str, value: &str) {
        let name = format!("{PREFIX}{key}");
        let stored = self.keys().stored(&name, value.as_bytes()).into_owned();
        self.redis.set(key, String::from_utf8(stored).expect("UTF-8"));
    }

    /// The key of a token's record, without the prefix.
    fn token(&self, key: &str) -> String {
        let name = self.keys().token(&TokenDigest::of(key.as_bytes()));
        name.strip_prefix(PREFIX).expect("it begins so").to_owned()
    }

    fn put_layout(&self) {
        self.put("layout", r#"{"version":1,"epoch":"1"}"#);
    }

    /// User 42 with the token canary-ada, user 1 with the token canary-root, and a revoked token of each.
    fn put_users(&self) {
        for (id, name, group) in [("42", "ada", "users"), ("1", "root", "staff")] {
            let user = json!({ "id": id, "username": name, "groups": [group], "active": true });
            self.put(&format!("user:{id}"), &user.to_string());
            self.put(&format!("user-by-name:{name}"), id);
            let token = json!({ "user": id, "created": 1_700_000_000 });
            self.put(&self.token(&format!("canary-{name}")), &token.to_string());
            let token = json!({ "user": id, "created": 1_700_000_000, "revoked": 1_700_000_001 });
            self.put(&self.token(&format!("canary-{name}-revoked")), &token.to_string());
        }
    }
}

fn stored(redis: &Redis, key: &str) -> Option<String> {
    match redis.run(&["GET", &format!("{PREFIX}{key}")]) {
        redis::Value::BulkString(stored) => Some(String::from_utf8(stored).expect("UTF-8")),
        redis::Value::Nil => None,
        other => panic!("{other:?}"),
    }
}

/// A sealed store, and routes for tokens and JWTs of users by name.
fn sealed(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer, cache: &str) -> Config {
    config()
        .redis(redis)
        .tables("timeout = \"5s\"\nseal = { file = \"seal.key\" }\n")
        .file("seal.key", KEY)
        .file("jwt.key", signer.file())
        .token(cache)
        .jwt(cache)
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt("users = \"redis\"\nuser_id_claim = \"username\"\nuser_id_field = \"username\"")
        .jwt("revocation = \"redis\"")
        .app(upstream)
        .route("/*", "authenticate = [\"token\", \"jwt\"]")
}

const NO_CACHE: &str = "cache = { entries = 0, negative_entries = 0 }";

fn signer() -> Signer {
    Signer::new(Algorithm::ES256).kid("main")
}

fn bad_seals(gate: &Gate) -> f64 {
    gate.metric("authgate_store_errors_total{store=\"redis\",reason=\"store_bad_seal\"}")
}

fn status(gate: &Gate, call: &Call) -> u16 {
    gate.call(call).status
}

/// Every key with its value, and every member of a set.
fn everything(redis: &Redis) -> Vec<(String, String)> {
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client.get_connection().expect("redis-server is there");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).expect("keys");
    let mut found = Vec::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).expect("a type");
        if kind == "set" {
            let members: Vec<String> = redis::cmd("SMEMBERS").arg(&key).query(&mut connection).expect("a set");
            found.extend(members.into_iter().map(|member| (key.clone(), member)));
        } else {
            let value = redis::cmd("GET").arg(&key).query(&mut connection).expect("a string");
            found.push((key, value));
        }
    }
    found
}

#[test]
fn a_sealed_record_that_another_program_wrote_changed_or_moved_is_503() {
    let (redis, upstream, signer) = (Redis::start_empty(), RecordingUpstream::start(), signer());
    let (writer, other) = (Writer::new(&redis, KEY), Writer::new(&redis, OTHER_KEY));
    writer.put_layout();
    writer.put_users();
    let gate = Gate::start(&sealed(&redis, &upstream, &signer, NO_CACHE));
    let ada = get("/x").token("canary-ada");
    let revoked = get("/x").token("canary-ada-revoked");
    let jwt = get("/x").bearer(&signer.with(&json!({ "username": "ada", "jti": "one" })));
    for call in [&ada, &jwt] {
        assert_eq!(status(&gate, call), 200, "{}", gate.log());
        assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    }
    assert_eq!(status(&gate, &revoked), 401);
    assert_eq!(status(&gate, &get("/x").token("canary-none")), 401);
    let calls = upstream.calls();

    let token = writer.token("canary-ada");
    let root = stored(&redis, &writer.token("canary-root")).expect("it is there");
    let user_of_root = stored(&redis, "user:1").expect("it is there");
    let alive = stored(&redis, &writer.token("canary-ada-revoked")).expect("it is there");
    let alive = alive.replace(r#","revoked":1700000001"#, "");
    let layout = r#"{"version":1,"epoch":"1"}"#;
    let sealed_by_other = |key: &str, value: &str| {
        other.put(key, value);
        stored(&redis, key).expect("it is there")
    };
    let user = r#"{"id":"42","username":"ada","groups":["staff"],"active":true}"#;
    let record_of_token = r#"{"user":"1"}"#;
    let attacks: Vec<(&str, &str, String, &Call)> = vec![
        ("an unsealed token", &token, record_of_token.to_owned(), &ada),
        ("the token of another user, at another key", &token, root, &ada),
        ("an unsealed user", "user:42", user.to_owned(), &ada),
        ("another user", "user:42", user_of_root.clone(), &ada),
        ("another user, for a JWT", "user:42", user_of_root.clone(), &jwt),
        (
            "the id in another user's record",
            "user:42",
            user_of_root.replace("\"1\"", "\"42\""),
            &ada,
        ),
        ("an unsealed username", "user-by-name:ada", "1".to_owned(), &jwt),
        (
            "the username of another user",
            "user-by-name:ada",
            stored(&redis, "user-by-name:root").expect("it is there"),
            &jwt,
        ),
        ("a token without its revocation", "revoked token", alive, &revoked),
        (
            "an unsealed revocation of the user",
            "revoked:user:42",
            "1".to_owned(),
            &ada,
        ),
        (
            "an unsealed revocation of a JWT",
            "revoked:jti:one",
            "1".to_owned(),
            &jwt,
        ),
        (
            "an unsealed revocation of a key",
            "revoked:kid:main",
            "1".to_owned(),
            &jwt,
        ),
        ("an unsealed layout record", "layout", layout.to_owned(), &ada),
        (
            "an unsealed layout record, for an unknown token",
            "layout",
            layout.to_owned(),
            &revoked,
        ),
        (
            "a layout record of another version",
            "layout",
            r#"{"version":2,"epoch":"1"}"#.to_owned(),
            &jwt,
        ),
        (
            "a layout record with another seal",
            "layout",
            sealed_by_other("layout", layout),
            &ada,
        ),
        (
            "a token with another seal",
            &token,
            sealed_by_other(&token, record_of_token),
            &ada,
        ),
        (
            "a user with another seal",
            "user:42",
            sealed_by_other("user:42", user),
            &ada,
        ),
        ("a user without its seal", "user:42", "s1.".to_owned(), &ada),
        ("an empty user", "user:42", String::new(), &ada),
    ];
    writer.put_layout();
    writer.put_users();
    for (attack, key, value, call) in attacks {
        let key = match key {
            "revoked token" => writer.token("canary-ada-revoked"),
            key => key.to_owned(),
        };
        let before = (stored(&redis, &key), bad_seals(&gate));
        redis.set(&key, &value);
        assert_eq!(status(&gate, call), 503, "{attack}: {}", gate.log());
        wait_until("it is counted", SOON, || bad_seals(&gate) > before.1);
        match before.0 {
            Some(stored) => redis.set(&key, stored),
            None => redis.del(&key),
        }
    }
    assert_eq!(upstream.calls(), calls, "an attack was forwarded");
    gate.logged(&["does not have its seal"]);
    gate.logged(&["layout record does not have the seal", "authgate token reseal"]);
    for call in [&ada, &jwt] {
        wait_until("it is accepted again", SOON, || status(&gate, call) == 200);
    }
    assert_eq!(status(&gate, &revoked), 401);
    // A token under its digest without the key is not found.
    redis.put_token("canary-evil", &json!({ "user": "1" }));
    assert_eq!(status(&gate, &get("/x").token("canary-evil")), 401);
}

#[test]
fn a_change_of_a_sealed_record_ends_what_was_cached() {
    let (redis, upstream, signer) = (Redis::start_empty(), RecordingUpstream::start(), signer());
    let writer = Writer::new(&redis, KEY);
    writer.put_layout();
    writer.put_users();
    let cache = "cache = { ttl = \"10m\", negative_ttl = \"10m\" }";
    let gate = Gate::subscribed(&sealed(&redis, &upstream, &signer, cache));
    let ada = get("/x").token("canary-ada");
    assert_eq!(status(&gate, &ada), 200, "{}", gate.log());
    let token = json!({ "user": "42", "revoked": 1 }).to_string();
    writer.put(&writer.token("canary-ada"), &token);
    wait_until("it is refused", SOON, || status(&gate, &ada) == 401);
    let root = get("/x").token("canary-root");
    assert_eq!(status(&gate, &root), 200);
    redis.set(&writer.token("canary-root"), r#"{"user":"1"}"#);
    wait_until("it is 503", SOON, || status(&gate, &root) == 503);
    writer.put_users();
    wait_until("it is accepted", SOON, || status(&gate, &root) == 200);
    redis.put_layout("1");
    wait_until("it is 503", SOON, || status(&gate, &root) == 503);
}

#[test]
fn a_gateway_without_the_seal_refuses_a_sealed_store_and_one_with_a_seal_an_unsealed_store() {
    let (redis, upstream, signer) = (Redis::start().with_ada(), RecordingUpstream::start(), signer());
    let ada = get("/x").token("canary-ada");
    let gate = Gate::spawn(&sealed(&redis, &upstream, &signer, NO_CACHE));
    gate.logged(&["\\\"authgate:layout\\\" is not sealed", "authgate token reseal"]);
    assert_eq!((status(&gate, &ada), gate.probe("/readyz").status), (503, 503));
    drop(gate);
    let writer = Writer::new(&redis, KEY);
    writer.put_layout();
    let plain = config().tokens(&redis).app(&upstream).protected("/*");
    let gate = Gate::spawn(&plain);
    gate.logged(&["\\\"authgate:layout\\\" is sealed, and the store has no `seal`"]);
    assert_eq!((status(&gate, &ada), upstream.calls()), (503, 0));
}

#[test]
fn a_seal_that_is_replaced_is_another_store() {
    let (redis, upstream, signer) = (Redis::start_empty(), RecordingUpstream::start(), signer());
    let (writer, other) = (Writer::new(&redis, KEY), Writer::new(&redis, OTHER_KEY));
    writer.put_layout();
    writer.put_users();
    let cache = "cache = { ttl = \"10m\", negative_ttl = \"10m\" }";
    let gate = Gate::subscribed(&sealed(&redis, &upstream, &signer, cache));
    let ada = get("/x").token("canary-ada");
    assert_eq!(status(&gate, &ada), 200);
    let file = gate.folder.path().join("seal.key");
    std::fs::write(&file, OTHER_KEY).unwrap();
    wait_until("the new seal is in force", SOON, || status(&gate, &ada) == 503);
    other.put_layout();
    other.put_users();
    wait_until("records with the new seal are accepted", SOON, || {
        status(&gate, &ada) == 200
    });
}

#[test]
fn what_is_revoked_over_http_is_sealed_and_refused_at_once() {
    let (redis, upstream, signer) = (Redis::start_empty(), RecordingUpstream::start(), signer());
    let writer = Writer::new(&redis, KEY);
    writer.put_layout();
    writer.put_users();
    let cache = "cache = { ttl = \"10m\", negative_ttl = \"10m\" }";
    let config = sealed(&redis, &upstream, &signer, cache)
        .file("admin.token", "canary-of-operators\n")
        .admin("token = { file = \"admin.token\" }");
    let gate = Gate::start(&config);
    let jwt = get("/x").bearer(&signer.with(&json!({ "username": "ada", "jti": "one" })));
    let (ada, root) = (get("/x").token("canary-ada"), get("/x").token("canary-root"));
    for call in [&ada, &root, &jwt] {
        assert_eq!(status(&gate, call), 200, "{}", gate.log());
    }
    for (form, call) in [("token=canary-ada", &ada), ("jti=one", &jwt), ("user=1", &root)] {
        let revoke = post("/revoke", form)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .bearer("canary-of-operators");
        let reply = gate.ask_admin(&revoke);
        assert_eq!(reply.status, 200, "{form}: {}", reply.text());
        assert_eq!(status(&gate, call), 401, "{form}");
    }
    is_sealed(&redis);
}

fn run(folder: &Path, words: &[&str]) -> String {
    authgate(folder, words).good()
}

fn fails(ended: &Ended, code: i32, words: &[&str]) {
    assert!(
        ended.code == code && words.iter().all(|word| ended.err.contains(word)),
        "{ended:?}"
    );
}

/// A folder with a configuration for the command line.
fn folder(stores: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n{stores}\n[authenticators.token]\nkind = \"token\"\nstore = \"redis\"\n\
         [upstreams.app]\nservers = [\"http://127.0.0.1:1\"]\n[[routes]]\npath = \"/*\"\nauthenticate = [\"token\"]\nupstream = \"app\"\n"
    );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    std::fs::write(folder.path().join("seal.key"), KEY).unwrap();
    std::fs::write(folder.path().join("other.key"), OTHER_KEY).unwrap();
    folder
}

fn table(name: &str, redis: &Redis, more: &str) -> String {
    let url = redis.url();
    format!("[stores.{name}]\nkind = \"redis\"\nurl = \"{url}\"\n{more}\n")
}

const SEAL: &str = "seal = { file = \"seal.key\" }";

#[test]
fn the_command_line_names_tokens_of_a_sealed_store_by_their_digest_and_by_their_sealed_digest() {
    let redis = Redis::start_empty();
    let folder = folder(&table("redis", &redis, SEAL));
    let run = |words: &[&str]| run(folder.path(), words);
    run(&[
        "token",
        "create",
        "--user",
        "42",
        "--username",
        "ada",
        "--key",
        "canary-ada",
    ]);
    run(&["token", "create", "--user", "42", "--key", "canary-two"]);
    let writer = Writer::new(&redis, KEY);
    let listed: Value = serde_json::from_str(&run(&["token", "list", "--user", "42", "--json"])).unwrap();
    let names: BTreeSet<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["digest"].as_str().unwrap())
        .collect();
    let expected = ["canary-ada", "canary-two"].map(|key| writer.token(key).replace("token:", "hmac-sha256:"));
    assert_eq!(names, expected.iter().map(String::as_str).collect());
    let digest = format!("sha256:{}", TokenDigest::of(b"canary-ada").to_hex());
    for key in ["canary-ada", &digest, &expected[0]] {
        assert!(run(&["token", "show", key]).contains("accepted"), "{key}");
    }
    run(&["token", "revoke", &digest]);
    assert!(run(&["token", "show", "canary-ada"]).contains("was revoked"));
    run(&["token", "revoke", &expected[1]]);
    assert!(run(&["token", "show", "canary-two"]).contains("was revoked"));
    // An unsealed member of a list, and an unsealed record.
    redis.run(&["SADD", "authgate:tokens-of:42", &TokenDigest::of(b"canary-x").to_hex()]);
    let ended = authgate(folder.path(), &["token", "list", "--user", "42"]);
    fails(
        &ended,
        1,
        &["\"authgate:tokens-of:42\" is not sealed", "another program"],
    );
    redis.set("user:42", r#"{"id":"42","active":true}"#);
    fails(
        &authgate(folder.path(), &["user", "show", "42"]),
        1,
        &["\"authgate:user:42\" is not sealed"],
    );
    run(&["user", "delete", "42"]);
    run(&["user", "put", "--id", "42", "--username", "ada"]);
    assert!(stored(&redis, "user:42").is_some_and(|stored| stored.starts_with("s1.")));
}

#[test]
fn an_export_of_a_sealed_store_is_imported_only_where_the_seal_is_the_same() {
    let redis = Redis::start_empty();
    let stores = [
        table("redis", &redis, SEAL),
        table("same", &redis, &format!("prefix = \"same:\"\n{SEAL}")),
        table("other", &redis, "prefix = \"other:\"\nseal = { file = \"other.key\" }"),
        table("plain", &redis, "prefix = \"plain:\""),
    ];
    let folder = folder(&stores.concat());
    let run = |words: &[&str]| run(folder.path(), words);
    run(&[
        "token",
        "create",
        "--user",
        "42",
        "--username",
        "ada",
        "--key",
        "canary-ada",
        "--store",
        "redis",
    ]);
    run(&[
        "token",
        "create",
        "--user",
        "42",
        "--key",
        "canary-two",
        "--store",
        "redis",
    ]);
    run(&["token", "revoke", "canary-two", "--store", "redis"]);
    run(&["revoke", "--jti", "j", "--store", "redis"]);
    let exported = run(&["token", "export", "--store", "redis"]);
    let import = |store: &str, text: &str| {
        authgate_with_input(
            folder.path(),
            &["token", "import", "-", "--store", store],
            text.as_bytes(),
        )
    };
    import("same", &exported).good();
    assert_eq!(run(&["token", "export", "--store", "same"]), exported);
    assert!(run(&["token", "show", "canary-ada", "--store", "same"]).contains("accepted"));
    assert!(run(&["token", "show", "canary-two", "--store", "same"]).contains("was revoked"));
    for store in ["other", "plain"] {
        fails(
            &import(store, &exported),
            1,
            &["only a store with the same `seal`", "dump of Django"],
        );
        // Users and revocations have no digests.
        let others: Vec<&str> = exported.lines().filter(|line| !line.contains("\"token\":")).collect();
        import(store, &others.join("\n")).good();
    }
    // The digests of an unsealed store are sealed by the import.
    run(&[
        "token",
        "create",
        "--user",
        "42",
        "--key",
        "canary-ada",
        "--store",
        "plain",
    ]);
    let plain = run(&["token", "export", "--store", "plain"]);
    import("other", &plain).good();
    assert!(run(&["token", "show", "canary-ada", "--store", "other"]).contains("accepted"));
    let sealed = exported
        .lines()
        .find(|line| line.contains("hmac-sha256:"))
        .expect("a token");
    let sealed: Value = serde_json::from_str(sealed).unwrap();
    let ended = authgate(
        folder.path(),
        &["token", "show", sealed["token"].as_str().unwrap(), "--store", "plain"],
    );
    fails(&ended, 2, &["names a token of a sealed store"]);
}

/// The tokens of a store that is resealed.
const TOKENS: usize = 5_000;

/// Fills an unsealed store by the command line: users, tokens of two kinds of digests, revocations, and a token that expires.
fn fill(folder: &Path, redis: &Redis) {
    let mut lines = String::new();
    for at in 0..TOKENS {
        let user = at / 5;
        if at % 5 == 0 {
            lines += &json!({ "user": { "id": user.to_string(), "username": format!("user{user}"), "active": true } })
                .to_string();
            lines.push('\n');
        }
        let digest = TokenDigest::of(format!("canary-{at}").as_bytes()).to_hex();
        let mut token = json!({ "token": digest, "user": user.to_string(), "created": 1_700_000_000 });
        if at == 1 {
            token["revoked"] = json!(1_700_000_001);
        }
        lines += &token.to_string();
        lines.push('\n');
    }
    lines += "{\"revoked_jti\":\"j\"}\n{\"revoked_user\":\"3\",\"before\":1800000000}\n{\"revoked_kid\":\"k\"}\n";
    authgate_with_input(folder, &["token", "import", "-"], lines.as_bytes()).good();
    redis.run(&["SET", "authgate:revoked:jti:short", "1", "EX", "1000"]);
    // No records of the layout.
    redis.set("dpop:x", "1");
    redis.set("other", "x");
}

#[test]
fn an_interrupted_reseal_is_completed_by_the_next_one() {
    let (redis, upstream, signer) = (Redis::start_empty(), RecordingUpstream::start(), signer());
    let plain = folder(&table("redis", &redis, ""));
    let sealed_folder = folder(&table("redis", &redis, SEAL));
    fill(plain.path(), &redis);
    let users_before = run(plain.path(), &["user", "show", "7"]);
    fails(
        &authgate(sealed_folder.path(), &["user", "show", "7"]),
        1,
        &["\"authgate:layout\" is not sealed", "authgate token reseal"],
    );
    fails(
        &authgate(plain.path(), &["token", "reseal"]),
        1,
        &["seal = { file = \"seal.key\" }"],
    );
    let old_gate = Gate::subscribed(
        &config()
            .redis(&redis)
            .token("cache = { ttl = \"10m\" }")
            .app(&upstream)
            .protected("/*"),
    );
    assert_eq!(status(&old_gate, &get("/x").token("canary-0")), 200);

    // A value of another type ends the command after the tokens.
    redis.set("tokens-of:wrong", "x");
    fails(&authgate(sealed_folder.path(), &["token", "reseal"]), 1, &["WRONGTYPE"]);
    redis.del("tokens-of:wrong");
    let has_unsealed_json = || everything(&redis).iter().any(|(_, value)| value.starts_with('{'));
    assert!(stored(&redis, "layout").is_some_and(|layout| layout.contains("\"resealing\":")));
    // Neither gateway uses the store, and no other command does.
    let gate = Gate::spawn(&sealed(&redis, &upstream, &signer, NO_CACHE));
    wait_until("the old gateway is 503", SOON, || {
        status(&old_gate, &get("/x").token("canary-0")) == 503
    });
    assert_eq!(status(&gate, &get("/x").token("canary-0")), 503);
    for words in [
        ["user", "show", "7"],
        ["user", "disable", "7"],
        ["revoke", "--user", "7"],
    ] {
        fails(
            &authgate(sealed_folder.path(), &words),
            1,
            &["is being sealed", "authgate token reseal"],
        );
    }
    fails(
        &authgate_with_input(
            sealed_folder.path(),
            &["token", "import", "-"],
            b"{\"revoked_jti\":\"k\"}",
        ),
        1,
        &["is being sealed"],
    );
    assert!(!has_unsealed_json());
    assert!(run(sealed_folder.path(), &["token", "reseal"]).contains("tokens 0,"));

    assert_eq!(
        run(sealed_folder.path(), &["token", "reseal"]),
        "the store is sealed already; nothing was changed\n"
    );
    is_sealed(&redis);
    assert_eq!(run(sealed_folder.path(), &["user", "show", "7"]), users_before);
    wait_until("the gateway accepts", SOON, || {
        status(&gate, &get("/x").token("canary-0")) == 200
    });
    for (key, expected) in [
        ("canary-1", 401),
        ("canary-15", 401),
        ("canary-4999", 200),
        ("canary-5000", 401),
    ] {
        assert_eq!(status(&gate, &get("/x").token(key)), expected, "{key}");
    }
    let bearer = |jti: &str| get("/x").bearer(&signer.with(&json!({ "username": "user7", "jti": jti })));
    assert_eq!([status(&gate, &bearer("a")), status(&gate, &bearer("j"))], [200, 401]);
    let left = redis.run(&["TTL", "authgate:revoked:jti:short"]);
    assert!(matches!(left, redis::Value::Int(900..=1001)), "{left:?}");
    let listed: Value = serde_json::from_str(&run(sealed_folder.path(), &["token", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(TOKENS));
    let listed: Value =
        serde_json::from_str(&run(sealed_folder.path(), &["token", "list", "--user", "7", "--json"])).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(5));
}

/// Every record of the layout has a seal.
fn is_sealed(redis: &Redis) {
    for (key, value) in everything(redis) {
        let is_plain = ["authgate:dpop:", "authgate:canary:", "authgate:other"];
        let is_ours = key.starts_with(PREFIX) && !is_plain.iter().any(|start| key.starts_with(start));
        assert_eq!(value.starts_with("s1."), is_ours, "{key}: {value}");
    }
}

/// How many commands Redis has executed.
fn commands(redis: &Redis) -> u64 {
    let info: String = redis::from_redis_value(redis.run(&["INFO", "stats"])).expect("text");
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.and_then(|count| count.trim().parse().ok()).expect("a number")
}

#[test]
fn a_reseal_that_is_killed_is_completed_by_the_next_one() {
    let redis = Redis::start_empty();
    let plain = folder(&table("redis", &redis, ""));
    fill(plain.path(), &redis);
    let folder = folder(&table("redis", &redis, SEAL));
    // While the records are counted, and in the middle of the run.
    for least in [1_000, 20_000, 30_000] {
        let before = commands(&redis);
        let mut child = program()
            .args(["token", "reseal"])
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        wait_until("a part is done", SOON, || {
            commands(&redis) >= before + least || child.try_wait().unwrap().is_some()
        });
        let _ = child.kill();
        child.wait().unwrap();
    }
    let ended = authgate(folder.path(), &["token", "reseal", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    is_sealed(&redis);
    let listed: Value = serde_json::from_str(&run(folder.path(), &["token", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(TOKENS));
    assert!(run(folder.path(), &["token", "show", "canary-1"]).contains("was revoked"));
}

#[test]
fn a_store_whose_layout_record_was_replaced_is_not_resealed() {
    let redis = Redis::start_empty();
    let folder = folder(&table("redis", &redis, SEAL));
    run(folder.path(), &["user", "put", "--id", "42", "--username", "ada"]);
    // Another program unseals the layout record, and writes a user.
    redis.put_layout("1");
    redis.set("user:1", r#"{"id":"1","groups":["staff"],"active":true}"#);
    let before: BTreeSet<_> = everything(&redis).into_iter().collect();
    let ended = authgate(folder.path(), &["token", "reseal"]);
    fails(
        &ended,
        1,
        &[
            "the layout record is not sealed",
            "Another program has replaced the layout record",
        ],
    );
    assert_eq!(
        everything(&redis).into_iter().collect::<BTreeSet<_>>(),
        before,
        "something was changed"
    );
    // Nor one with the layout record of an old, interrupted run.
    let writer = Writer::new(&redis, KEY);
    writer.put(
        "layout",
        r#"{"version":1,"epoch":"1","filling":true,"resealing":1700000000}"#,
    );
    fails(
        &authgate(folder.path(), &["token", "reseal"]),
        1,
        &["more than a day ago"],
    );
    // Nor is one with another seal.
    Writer::new(&redis, OTHER_KEY).put_layout();
    fails(
        &authgate(folder.path(), &["token", "reseal"]),
        1,
        &["has a seal that does not fit"],
    );
}

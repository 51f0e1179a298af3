//! `seal` of a store in Redis: records of other programs are refused. The programs of these tests may read and write everything in Redis.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::{Keys, Seal};
use authgate_core::secret::Secret;
use serde_json::json;

use crate::harness::mint::Signer;
use crate::harness::redis::PREFIX;
use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get, post, wait_until};

pub const SOON: Duration = Duration::from_secs(15);
/// Of the gateway, and of another one.
pub const KEY: &[u8] = &[7; 32];
pub const OTHER_KEY: &[u8] = &[8; 32];

/// A program with a key of its own, and with access to Redis.
pub struct Writer<'r> {
    redis: &'r Redis,
    seal: Seal,
}

impl<'r> Writer<'r> {
    pub fn new(redis: &'r Redis, key: &[u8]) -> Self {
        Self {
            redis,
            seal: Seal::new(&Secret::new(key.to_vec())).expect("32 bytes"),
        }
    }

    fn keys(&self) -> Keys<'_> {
        Keys::new(PREFIX, Some(&self.seal))
    }

    /// Stores a value with this program's seal. The key is without the prefix.
    pub fn put(&self, key: &str, value: &str) {
        let name = format!("{PREFIX}{key}");
        let stored = self.keys().stored(&name, value.as_bytes()).into_owned();
        self.redis.set(key, String::from_utf8(stored).expect("UTF-8"));
    }

    /// The key of a token's record, without the prefix.
    pub fn token(&self, key: &str) -> String {
        let name = self.keys().token(&TokenDigest::of(key.as_bytes()));
        name.strip_prefix(PREFIX).expect("it begins so").to_owned()
    }

    pub fn put_layout(&self) {
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

pub fn stored(redis: &Redis, key: &str) -> Option<String> {
    match redis.run(&["GET", &format!("{PREFIX}{key}")]) {
        redis::Value::BulkString(stored) => Some(String::from_utf8(stored).expect("UTF-8")),
        redis::Value::Nil => None,
        other => panic!("{other:?}"),
    }
}

/// A sealed store, and routes for tokens and JWTs of users by name.
pub fn sealed(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer, cache: &str) -> Config {
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

pub const NO_CACHE: &str = "cache = { entries = 0, negative_entries = 0 }";

pub fn signer() -> Signer {
    Signer::new(Algorithm::ES256).kid("main")
}

fn bad_seals(gate: &Gate) -> f64 {
    gate.metric("authgate_store_errors_total{store=\"redis\",reason=\"store_bad_seal\"}")
}

pub fn status(gate: &Gate, call: &Call) -> u16 {
    gate.call(call).status
}

/// Every key with its value, and every member of a set.
pub fn everything(redis: &Redis) -> Vec<(String, String)> {
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

/// Every record of the layout has a seal.
pub fn is_sealed(redis: &Redis) {
    for (key, value) in everything(redis) {
        let is_plain = ["authgate:dpop:", "authgate:canary:", "authgate:other"];
        let is_ours = key.starts_with(PREFIX) && !is_plain.iter().any(|start| key.starts_with(start));
        assert_eq!(value.starts_with("s1."), is_ours, "{key}: {value}");
    }
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

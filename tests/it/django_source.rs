//! `source`: Redis in front of Django's database.

use std::time::Duration;

use serde_json::json;

use crate::harness::database::{Database, Engine};
use crate::harness::program::authgate;
use crate::harness::redis::PREFIX;
use crate::harness::server::BASE_RIGHTS;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};

const SOON: Duration = Duration::from_secs(15);

pub struct Site {
    pub database: Database,
    pub redis: Redis,
    pub upstream: RecordingUpstream,
}

impl Site {
    pub fn start() -> Option<Self> {
        let database = Database::start(Engine::Postgres, "auth.User")?;
        database.python(
            "
from django.contrib.auth.models import Group, User
from rest_framework.authtoken.models import Token
staff = Group.objects.create(id=7, name='staff')
for id, name in [(42, 'ada'), (43, 'ben'), (44, 'zoe'), (45, 'eve')]:
    user = User.objects.create(id=id, username=name, is_active=(id != 45))
    user.groups.set([staff])
    Token.objects.create(user=user, key=f'canary-{name}')
",
        );
        let site = Self {
            database,
            redis: Redis::start(),
            upstream: RecordingUpstream::start(),
        };
        let folder = tempfile::tempdir().unwrap();
        site.config("").write(folder.path());
        let printed = authgate(folder.path(), &["django", "sql", "--triggers", "--role", "authgate"]).good();
        site.database.sql(&printed);
        Some(site)
    }

    pub fn config(&self, cache: &str) -> Config {
        let cache = match cache {
            "" => "cache = { entries = 0, negative_entries = 0 }",
            cache => cache,
        };
        let url = self.redis.url();
        config()
            .tables(&format!(
                "[stores.redis]\nkind = \"redis\"\nurl = \"{url}\"\ntimeout = \"2s\"\n"
            ))
            .tables(&self.database.store("timeout = \"2s\""))
            .token("store = \"redis\"\nsource = \"django\"\nsource_ttl = \"5m\"")
            .token(cache)
            .identity("headers = { X-User-Id = \"id\", X-Groups = \"groups\" }")
            .app(&self.upstream)
            .protected("/api/*")
    }

    fn gate(&self, cache: &str) -> Gate {
        Self::subscribed(&self.config(cache))
    }

    fn subscribed(config: &Config) -> Gate {
        let gate = Gate::start(config);
        wait_until("changes are reported", SOON, || {
            gate.metric("authgate_store_tracking{store=\"django\"}") == 1.0
        });
        gate
    }

    fn has(&self, key: &str) -> bool {
        self.redis.run(&["EXISTS", &format!("{PREFIX}{key}")]) == redis::Value::Int(1)
    }

    fn expires(&self, key: &str) -> i64 {
        match self.redis.run(&["TTL", &format!("{PREFIX}{key}")]) {
            redis::Value::Int(seconds) => seconds,
            other => panic!("{other:?}"),
        }
    }
}

fn status(gate: &Gate, key: &str) -> u16 {
    gate.call(&get("/api/x").token(key)).status
}

fn lookups(gate: &Gate) -> f64 {
    gate.metric("authgate_store_lookup_duration_seconds_count{store=\"django\"}")
}

#[test]
fn the_database_is_asked_once_and_redis_keeps_what_it_says() {
    let Some(mut site) = Site::start() else { return };
    let gate = site.gate("");
    let ada = Redis::token_key("canary-ada");
    assert_eq!(status(&gate, "canary-ada"), 200, "{}", gate.log());
    assert_eq!(site.upstream.last().header("x-groups"), Some("staff"));
    wait_until("it is in Redis", SOON, || site.has(&ada) && site.has("user:42"));
    for key in [ada.as_str(), "user:42"] {
        assert!((1..=300).contains(&site.expires(key)), "{key}: {}", site.expires(key));
    }
    let asked = lookups(&gate);
    for _ in 0..5 {
        assert_eq!(status(&gate, "canary-ada"), 200);
        assert_eq!(site.upstream.last().header("x-groups"), Some("staff"));
    }
    assert!(
        (lookups(&gate) - asked).abs() < f64::EPSILON,
        "the database was asked again"
    );
    // Refusals are those of the database, and unknown keys are not written.
    assert_eq!((status(&gate, "canary-eve"), status(&gate, "canary-none")), (401, 401));
    assert!(!site.has(&Redis::token_key("canary-none")));
    // A record of a user that ended before that of the token is looked up again.
    site.redis.del("user:42");
    assert_eq!(status(&gate, "canary-ada"), 200);
    wait_until("the user is in Redis", SOON, || site.has("user:42"));

    // Either of the two is down: 503 for whom the other does not know.
    site.database.kill();
    assert_eq!((status(&gate, "canary-ada"), status(&gate, "canary-ben")), (200, 503));
    site.database.restart();
    wait_until("the database is back", SOON, || status(&gate, "canary-ben") == 200);
    site.redis.kill();
    assert_eq!((status(&gate, "canary-ada"), status(&gate, "canary-zoe")), (503, 503));
}

#[test]
fn a_change_in_the_database_removes_what_redis_keeps() {
    let Some(site) = Site::start() else { return };
    let gates = [
        site.gate("cache = { ttl = \"1h\" }"),
        site.gate("cache = { ttl = \"1h\" }"),
    ];
    for gate in &gates {
        for key in ["canary-ada", "canary-ben", "canary-zoe"] {
            assert_eq!(status(gate, key), 200, "{}", gate.log());
        }
    }
    let ada = Redis::token_key("canary-ada");
    wait_until("all are in Redis", SOON, || {
        site.has(&ada) && site.has("user:42") && site.has("user:43") && site.has("user:44")
    });
    // A revoked token stays revoked, whatever happens in the database.
    let dead = Redis::token_key("canary-dead");
    site.redis
        .put_token("canary-dead", &json!({ "user": "42", "revoked": 1_700_000_000 }));
    site.database.sql("INSERT INTO authtoken_token VALUES ('canary-dead', now(), 45)  ON CONFLICT (user_id) DO UPDATE SET key = 'canary-dead'");
    site.database.sql("UPDATE auth_user SET is_active = true WHERE id = 45");
    // Redis keeps what was made there.
    site.redis.put_token("canary-own", &json!({ "user": "42" }));

    site.database
        .sql("DELETE FROM authtoken_token WHERE key = 'canary-ada'");
    site.database
        .sql("UPDATE auth_user SET is_active = false WHERE id = 43");
    site.database.sql("UPDATE auth_group SET name = 'team' WHERE id = 7");
    for gate in &gates {
        wait_until("ada's key is refused", SOON, || status(gate, "canary-ada") == 401);
        wait_until("ben is refused", SOON, || status(gate, "canary-ben") == 401);
        wait_until("the group has another name", SOON, || {
            status(gate, "canary-zoe") == 200 && site.upstream.last().header("x-groups") == Some("team")
        });
        assert_eq!(status(gate, "canary-dead"), 401);
    }
    assert!(site.has(&dead) && !site.has(&ada));
    site.database.sql("TRUNCATE authtoken_token");
    for gate in &gates {
        wait_until("all keys are refused", SOON, || status(gate, "canary-zoe") == 401);
    }
    wait_until("Redis has forgotten them", SOON, || {
        !site.has(&Redis::token_key("canary-zoe"))
    });
    assert!(site.has(&dead) && site.has(&Redis::token_key("canary-own")));
}

#[test]
fn beside_a_writer_the_other_role_only_reads() {
    let Some(site) = Site::start() else { return };
    site.redis.run(BASE_RIGHTS);
    let user = ["ACL", "SETUSER", "writer", "reset", "on", ">canary-writer"];
    let keys = ["%RW~authgate:token:*", "%RW~authgate:user:*"];
    let commands = [
        "+get", "+set", "+del", "+watch", "+unwatch", "+multi", "+exec", "+scan", "+pttl",
    ];
    let connecting = ["+hello", "+auth", "+ping", "+select"];
    site.redis.run(&[&user[..], &keys, &commands, &connecting].concat());
    let logins = "username = \"gateway\"\npassword = \"canary-redis\"\n\
                  writer = { username = \"writer\", password = \"canary-writer\" }";
    let config = site
        .config("cache = { ttl = \"1h\" }")
        .replacing("kind = \"redis\"", &format!("kind = \"redis\"\n{logins}"));
    let gate = Site::subscribed(&config);
    let [ada, ben] = ["canary-ada", "canary-ben"].map(Redis::token_key);
    assert_eq!((status(&gate, "canary-ada"), status(&gate, "canary-ben")), (200, 200));
    wait_until("both are in Redis", SOON, || site.has(&ada) && site.has(&ben));
    site.database
        .sql("DELETE FROM authtoken_token WHERE key = 'canary-ada'");
    wait_until("Redis has forgotten one", SOON, || !site.has(&ada));
    assert!(site.has(&ben));
    site.database.sql("TRUNCATE authtoken_token");
    wait_until("Redis has forgotten all", SOON, || !site.has(&ben));
}

#[test]
fn a_record_that_changes_while_it_is_written_is_not_kept() {
    let Some(site) = Site::start() else { return };
    let gate = site.gate("");
    let ada = Redis::token_key("canary-ada");
    // Redis answers reads and holds writes back.
    site.redis.run(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    assert_eq!(status(&gate, "canary-ada"), 200);
    let reported = gate.metric("authgate_store_invalidations_total{store=\"django\"}");
    site.database
        .sql("DELETE FROM authtoken_token WHERE key = 'canary-ada'");
    wait_until("the change is reported", SOON, || {
        gate.metric("authgate_store_invalidations_total{store=\"django\"}") > reported
    });
    site.redis.run(&["CLIENT", "UNPAUSE"]);
    // The next write is behind the one that was held back.
    assert_eq!(status(&gate, "canary-ben"), 200);
    wait_until("ben is in Redis", SOON, || site.has(&Redis::token_key("canary-ben")));
    assert!(!site.has(&ada), "a deleted key is in Redis");
    assert_eq!(status(&gate, "canary-ada"), 401);
}

#[test]
fn revocations_in_redis_are_obeyed_for_tokens_of_the_database() {
    let Some(site) = Site::start() else { return };
    let gate = site.gate("");
    site.redis.set("revoked:user:42", "4000000000");
    for _ in 0..3 {
        assert_eq!(status(&gate, "canary-ada"), 401, "{}", gate.log());
    }
    assert_eq!(status(&gate, "canary-ben"), 200);
}

#[test]
fn known_users_go_on_while_either_store_is_down() {
    let Some(mut site) = Site::start() else { return };
    let short = "cache = { ttl = \"1ms\", negative_ttl = \"1ms\" }\non_outage = \"serve-cached\"";
    let gate = site.gate(short);
    let ada = Redis::token_key("canary-ada");
    assert_eq!(
        (status(&gate, "canary-ada"), status(&gate, "canary-refused")),
        (200, 401)
    );
    wait_until("ada is in Redis", SOON, || site.has(&ada) && site.has("user:42"));
    // What was written to Redis is reported as a change, so she is looked up once more.
    let stale = "authgate_stale_decisions_total{authenticator=\"token\"}";
    assert_eq!(status(&gate, "canary-ada"), 200);
    site.database.kill();
    wait_until("the refusal is that of the cache", SOON, || {
        assert_eq!(status(&gate, "canary-refused"), 401);
        gate.metric(stale) > 0.0
    });
    assert_eq!((status(&gate, "canary-ada"), status(&gate, "canary-ben")), (200, 503));
    let before = gate.metric(stale);
    site.redis.kill();
    for (key, expected) in [("canary-ada", 200), ("canary-refused", 401), ("canary-ben", 503)] {
        assert_eq!(status(&gate, key), expected, "{key}");
    }
    assert!(gate.metric(stale) >= before + 2.0);
}

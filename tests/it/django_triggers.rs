//! Triggers and LISTEN: a change in PostgreSQL, by whatever program, is in force on every gateway.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::database::{Database, Engine};
use crate::harness::mint::Signer;
use crate::harness::program::authgate;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

/// A change is in force within a second; a test may run on a machine that is busy.
const SOON: Duration = Duration::from_secs(10);
const LONG_CACHE: &str = "cache = { ttl = \"1h\", negative_ttl = \"1h\" }";

struct Site {
    database: Database,
    upstream: RecordingUpstream,
    signer: Signer,
}

impl Site {
    /// The database, with the rights and the triggers that the command prints, and nothing more.
    fn start() -> Option<Self> {
        let database = Database::start(Engine::Postgres, "auth.User")?;
        database.python(
            "
from django.contrib.auth.models import Group, User
from rest_framework.authtoken.models import Token
staff = Group.objects.create(id=7, name='staff')
for id, name in [(42, 'ada'), (43, 'ben'), (44, 'zoe')]:
    user = User.objects.create(id=id, username=name, password='canary-hash')
    Token.objects.create(user=user, key=f'canary-{name}')
    if id == 42: user.groups.set([staff])
",
        );
        database.sql("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM authgate");
        let site = Self {
            database,
            upstream: RecordingUpstream::start(),
            signer: Signer::new(Algorithm::ES256),
        };
        let folder = tempfile::tempdir().unwrap();
        site.config("").write(folder.path());
        let printed = authgate(folder.path(), &["django", "sql", "--triggers", "--role", "authgate"]).good();
        site.database.sql(&printed);
        // It can be run again.
        site.database.sql(&printed);
        let checked = authgate(folder.path(), &["check", "--online"]);
        assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{checked:?}");
        Some(site)
    }

    fn config(&self, lines: &str) -> Config {
        let key = self.signer.key("jwt.key");
        let jwt = |name: &str, field: &str| {
            format!(
                "[authenticators.{name}]\nkind = \"jwt\"\nkeys = [{key}]\nusers = \"django\"\nuser_id_field = \"{field}\"\n\
                 check_revoke_token = true\n{LONG_CACHE}\n"
            )
        };
        config()
            .tables(&self.database.store(&format!("timeout = \"15s\"\n{lines}")))
            .token(LONG_CACHE)
            .tables(&jwt("by-id", "id"))
            .tables(&jwt("by-name", "username"))
            .file("jwt.key", self.signer.file())
            .identity("headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-Groups = \"groups\" }")
            .app(&self.upstream)
            .protected("/api/*")
            .route("/by-id", "authenticate = [\"by-id\"]")
            .route("/by-name", "authenticate = [\"by-name\"]")
    }

    fn gate(&self) -> Gate {
        let gate = Gate::start(&self.config(""));
        wait_until("changes are reported", SOON, || {
            gate.metric("authgate_store_tracking{store=\"django\"}") == 1.0
        });
        gate
    }

    fn token(gate: &Gate, key: &str) -> u16 {
        gate.call(&get("/api/x").token(key)).status
    }

    fn jwt(&self, gate: &Gate, path: &str, user: &str) -> u16 {
        let hash = {
            use md5::{Digest, Md5};
            let digest = Md5::digest("canary-hash");
            digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>()
        };
        // The same token each time, so that it is cached.
        let claims = json!({ "user_id": user, "hash_password": hash, "jti": "canary", "iat": 1_700_000_000, "exp": 4_000_000_000_u64 });
        gate.call(&get(path).bearer(&self.signer.with(&claims))).status
    }

    fn groups(&self, gate: &Gate) -> String {
        assert_eq!(Self::token(gate, "canary-ada"), 200);
        self.upstream.last().header("x-groups").unwrap_or_default().to_owned()
    }
}

#[test]
fn each_kind_of_change_takes_effect_on_two_gateways() {
    let Some(site) = Site::start() else { return };
    let gates = [site.gate(), site.gate()];
    type Observe<'s> = &'s dyn Fn(&Gate) -> String;
    let token = |key: &'static str| move |gate: &Gate| Site::token(gate, key).to_string();
    let by_name = |name: &'static str| {
        let site = &site;
        move |gate: &Gate| site.jwt(gate, "/by-name", name).to_string()
    };
    let by_id = |gate: &Gate| site.jwt(gate, "/by-id", "43").to_string();
    let groups = |gate: &Gate| site.groups(gate);
    let cases: [(&str, Observe<'_>, &str, &str); 15] = [
        (
            "UPDATE auth_user SET is_active = false WHERE id = 44",
            &token("canary-zoe"),
            "200",
            "401",
        ),
        (
            "UPDATE auth_user SET is_active = true WHERE id = 44",
            &token("canary-zoe"),
            "401",
            "200",
        ),
        (
            "INSERT INTO authtoken_token VALUES ('canary-new', now(), 44) ON CONFLICT (user_id) DO UPDATE SET key = 'canary-new'",
            &token("canary-new"),
            "401",
            "200",
        ),
        (
            "UPDATE authtoken_token SET key = 'canary-again' WHERE key = 'canary-new'",
            &token("canary-again"),
            "401",
            "200",
        ),
        ("SELECT 1", &token("canary-new"), "401", "401"),
        (
            "DELETE FROM authtoken_token WHERE key = 'canary-again'",
            &token("canary-again"),
            "200",
            "401",
        ),
        (
            "UPDATE auth_group SET name = 'team' WHERE id = 7",
            &groups,
            "staff",
            "team",
        ),
        ("DELETE FROM auth_user_groups WHERE user_id = 42", &groups, "team", ""),
        (
            "INSERT INTO auth_user_groups (user_id, group_id) VALUES (42, 7)",
            &groups,
            "",
            "team",
        ),
        (
            "UPDATE auth_user SET username = 'benjamin' WHERE id = 43",
            &by_name("ben"),
            "200",
            "401",
        ),
        (
            "UPDATE auth_user SET username = 'ben' WHERE id = 43",
            &by_name("ben"),
            "401",
            "200",
        ),
        (
            "UPDATE auth_user SET username = 'eve' WHERE id = 44",
            &by_name("eve"),
            "401",
            "200",
        ),
        (
            "UPDATE auth_user SET password = 'canary-other' WHERE id = 43",
            &by_id,
            "200",
            "401",
        ),
        (
            "UPDATE auth_user SET password = 'canary-hash' WHERE id = 43",
            &by_id,
            "401",
            "200",
        ),
        ("TRUNCATE authtoken_token", &token("canary-ada"), "200", "401"),
    ];
    for (sql, observe, before, after) in cases {
        for gate in &gates {
            assert_eq!(observe(gate), before, "before {sql}: {}", gate.log());
        }
        site.database.sql(sql);
        for gate in &gates {
            wait_until(sql, SOON, || observe(gate) == after);
        }
    }
    gates[0].metric_reaches("authgate_store_invalidations_total{store=\"django\"}", 10.0);
    gates[0].metric_reaches("authgate_store_invalidation_lag_seconds_count{store=\"django\"}", 1.0);
    // Two gateways: what each may have at most.
    assert!(site.database.connections() <= 8, "{}", site.database.connections());
}

#[test]
fn changes_by_django_itself_take_effect_and_a_log_in_changes_nothing() {
    let Some(site) = Site::start() else { return };
    let gate = site.gate();
    for key in ["canary-ada", "canary-ben", "canary-zoe"] {
        assert_eq!(Site::token(&gate, key), 200);
    }
    let reported = || gate.metric("authgate_store_invalidations_total{store=\"django\"}");
    let before = reported();
    site.database.python(
        "
from django.contrib.auth.models import User
from django.utils import timezone
ada = User.objects.get(pk=42)
ada.last_login = timezone.now()
ada.save(update_fields=['last_login'])
ada.save()
",
    );
    site.database
        .python("from django.contrib.auth.models import Group; Group.objects.get(name='staff').delete()");
    wait_until("the group is gone", SOON, || site.groups(&gate).is_empty());
    // The row of the member and the group, and nothing of the log-in.
    assert!(reported() - before <= 3.0, "{}", reported() - before);
    site.database
        .python("from django.contrib.auth.models import User; User.objects.filter(username='ben').delete()");
    wait_until("ben is gone", SOON, || Site::token(&gate, "canary-ben") == 401);
    site.database.python("from rest_framework.authtoken.models import Token; Token.objects.filter(user_id=44).update(key='canary-rotated')");
    wait_until("the key was rotated", SOON, || {
        Site::token(&gate, "canary-rotated") == 200
    });
    wait_until("the old key is refused", SOON, || {
        Site::token(&gate, "canary-zoe") == 401
    });
    site.database.manage(&["flush", "--no-input"]);
    wait_until("all are gone", SOON, || Site::token(&gate, "canary-ada") == 401);
}

#[test]
fn a_lost_connection_ends_all_verdicts_when_it_is_back() {
    let Some(site) = Site::start() else { return };
    let gate = site.gate();
    assert_eq!(
        (Site::token(&gate, "canary-ada"), Site::token(&gate, "canary-ben")),
        (200, 200)
    );
    // The change is made while the gateway cannot listen: its role may not log in.
    site.database.sql("ALTER ROLE authgate CONNECTION LIMIT 3");
    site.database.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'authgate-listen'; \
         ALTER ROLE authgate NOLOGIN",
    );
    wait_until("the loss is noticed", SOON, || {
        gate.metric("authgate_store_tracking{store=\"django\"}") == 0.0
    });
    site.database
        .sql("DELETE FROM authtoken_token WHERE key = 'canary-ada'");
    assert_eq!(
        Site::token(&gate, "canary-ada"),
        200,
        "cached until the connection is back"
    );
    gate.logged(&["changes of the store are not reported"]);
    site.database.sql("ALTER ROLE authgate LOGIN CONNECTION LIMIT 20");
    wait_until("the key is refused", SOON, || Site::token(&gate, "canary-ada") == 401);
    assert_eq!(Site::token(&gate, "canary-ben"), 200);
    assert!(site.database.connections() <= 4);
}

#[test]
fn without_triggers_the_log_and_check_say_what_is_missing() {
    let Some(site) = Site::start() else { return };
    let gate = site.gate();
    assert_eq!(Site::token(&gate, "canary-ada"), 200);
    site.database.sql("DROP TRIGGER authgate_row ON authtoken_token");
    let folder = tempfile::tempdir().unwrap();
    site.config("").write(folder.path());
    let checked = authgate(folder.path(), &["check", "--online"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    for word in [
        "no triggers on authtoken_token",
        "cache.ttl",
        "authgate django sql --triggers",
    ] {
        assert!(checked.err.contains(word), "{word}: {}", checked.err);
    }
    let later = site.config("").server("listen = [\"127.0.0.1:0\"]");
    let gate = Gate::start(&later);
    gate.logged(&["these tables have no triggers", "authtoken_token"]);
    gate.metric_becomes("authgate_store_tracking{store=\"django\"}", 0.0);
}

#[test]
fn the_sql_of_a_store_is_printed_for_its_kind_of_database() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RecordingUpstream::start();
    let write = |url: &str, lines: &str| {
        let store = format!("[stores.django]\nkind = \"django\"\nurl = \"{url}\"\n{lines}");
        config()
            .tables(&store)
            .token("store = \"django\"")
            .app(&upstream)
            .protected("/*")
            .write(folder.path());
    };
    let print = |words: &[&str]| authgate(folder.path(), &[&["django", "sql"], words].concat());
    write(
        "postgres://reader@db/app",
        "tokens = \"knox\"\n[stores.django.users]\ntable = \"my \\\"users\\\"\"\nemail = false",
    );
    let sql = print(&[]).good();
    assert!(
        sql.contains("GRANT SELECT (\"id\", \"username\", \"is_active\") ON \"my \"\"users\"\"\" TO \"reader\";"),
        "{sql}"
    );
    assert!(!sql.contains("password") || sql.contains("PASSWORD '...'"), "{sql}");
    assert!(!print(&["--triggers"]).good().contains("GRANT"));
    let sql = print(&["--triggers", "--role", "gate\"way"]).good();
    assert!(
        sql.contains("TO \"gate\"\"way\";") && sql.contains("authgate_notify('digest', 'digest')"),
        "{sql}"
    );
    write("mysql://reader@db/app", "");
    let sql = print(&["--role", "authgate@10.0.0.1"]).good();
    assert!(
        sql.contains("ON `app`.`authtoken_token` TO 'authgate'@'10.0.0.1';"),
        "{sql}"
    );
    let refused = print(&["--triggers"]);
    assert!(refused.code == 2 && refused.err.contains("cache.ttl"), "{refused:?}");
}

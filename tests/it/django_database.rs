//! `kind = "django"` against the tables of a real Django project, in PostgreSQL, MariaDB and SQLite.

use std::time::{Duration, Instant};

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::database::{Database, ENGINES, Engine};
use crate::harness::mint::Signer;
use crate::harness::program::authgate;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

const USER: &str = "auth.User";

/// Ada, who is in two groups; ben, who is inactive; and a token without a user.
const PEOPLE: &str = "
from django.contrib.auth.models import Group, User
from rest_framework.authtoken.models import Token
staff, night = Group.objects.create(name='staff'), Group.objects.create(name='équipe, nuit')
for id, name, active in [(1, 'root', True), (42, 'ada', True), (43, 'ben', False), (44, 'zoë', True)]:
    user = User.objects.create(id=id, username=name, is_active=active, password=f'canary-hash-{id}')
    Token.objects.create(user=user, key=f'canary-{name}')
    if id == 42:
        user.email = 'ada@example.com'
        user.save()
        user.groups.set([staff, night])
";

const NO_CACHE: &str = "cache = { entries = 0, negative_entries = 0 }";
const SLOW_MACHINE: &str = "timeout = \"15s\"";
const FIELDS: &str =
    "headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-Email = \"email\", X-Groups = \"groups\" }";

fn with_tokens(store: &str, upstream: &RecordingUpstream) -> Config {
    config()
        .tables(store)
        .token(NO_CACHE)
        .identity(FIELDS)
        .app(upstream)
        .protected("/api/*")
}

fn status(gate: &Gate, key: &str) -> u16 {
    gate.call(&get("/api/x").token(key)).status
}

fn header(upstream: &RecordingUpstream, name: &str) -> String {
    upstream.last().header(name).unwrap_or_default().to_owned()
}

fn tokens_are_accepted(engine: Engine) {
    let Some(database) = Database::start(engine, USER) else {
        return;
    };
    database.python(PEOPLE);
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&with_tokens(&database.store(SLOW_MACHINE), &upstream));
    assert_eq!(status(&gate, "canary-ada"), 200, "{}", gate.log());
    let seen = ["x-user-id", "x-user-name", "x-email", "x-groups"].map(|name| header(&upstream, name));
    assert_eq!(seen, ["42", "ada", "ada@example.com", "staff,%C3%A9quipe%2C%20nuit"]);
    assert_eq!(status(&gate, "canary-zoë"), 200);
    assert_eq!(header(&upstream, "x-user-name"), "zo%C3%AB");
    let calls = upstream.calls();
    for (key, detail) in [
        ("canary-ben", "User inactive or deleted."),
        ("canary-nobody", "Invalid token."),
        ("canary-ADA", "Invalid token."),
        ("CANARY-ADA", "Invalid token."),
        ("canary-zoe", "Invalid token."),
        ("canary-ad", "Invalid token."),
        ("canary-🗝", "Invalid token."),
        ("canary-%", "Invalid token."),
        ("canary-'ada", "Invalid token."),
    ] {
        let reply = gate.call(&get("/api/x").token(key));
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (401, detail),
            "{key}: {}",
            gate.log()
        );
    }
    assert_eq!(upstream.calls(), calls, "a refused request reached the upstream");
    if engine == Engine::MariaDb {
        // A key that the column cannot hold is in no row.
        database.sql("ALTER TABLE authtoken_token CONVERT TO CHARACTER SET latin1");
        assert_eq!(
            (status(&gate, "canary-🗝"), status(&gate, "canary-zoë")),
            (401, 200),
            "{}",
            gate.log()
        );
    }
    // What Django changes is in force at once where nothing is cached.
    database.python("from rest_framework.authtoken.models import Token; Token.objects.filter(user_id=44).delete()");
    assert_eq!(status(&gate, "canary-zoë"), 401);
    database
        .python("from django.contrib.auth.models import Group; Group.objects.filter(name='staff').update(name='team')");
    assert_eq!(status(&gate, "canary-ada"), 200);
    assert_eq!(header(&upstream, "x-groups"), "team,%C3%A9quipe%2C%20nuit");
    assert!(database.connections() <= 4, "{}", database.connections());
    gate.metric_reaches("authgate_store_lookup_duration_seconds_count{store=\"django\"}", 10.0);
}

#[test]
fn tokens_are_accepted_from_the_tables_of_postgresql() {
    tokens_are_accepted(Engine::Postgres);
}

#[test]
fn tokens_are_accepted_from_the_tables_of_mariadb() {
    tokens_are_accepted(Engine::MariaDb);
}

#[test]
fn tokens_are_accepted_from_the_tables_of_sqlite() {
    tokens_are_accepted(Engine::Sqlite);
}

/// A user model with UUIDs, an e-mail address as login name, and attributes of its own; JWTs by id and by name.
#[test]
fn uuids_and_mail_addresses_are_the_ids_and_names_of_users() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, "members.Member") else {
            return;
        };
        let id = "0b5e7f60-2c1d-4a6f-9a51-1d2f3a4b5c6d";
        database.python(&format!(
            "
from django.contrib.auth.models import Group
from members.models import Member
from rest_framework.authtoken.models import Token
ada = Member.objects.create(id='{id}', email='ada@example.com', password='canary-hash', beta=True, parent='{id}')
Token.objects.create(user=ada, key='canary-ada')
ada.groups.set([Group.objects.create(name='staff')])
"
        ));
        let upstream = RecordingUpstream::start();
        let signer = Signer::new(Algorithm::ES256);
        let users = "[stores.django.users]\ntable = \"members_member\"\nusername = \"email\"\n\
                     attributes = { tenant = \"tenant_code\", seats = \"seats\", beta = \"beta\", parent = \"parent\" }";
        let jwt = |name: &str, field: &str| {
            let keys = signer.key("jwt.key");
            format!(
                "[authenticators.{name}]\nkind = \"jwt\"\nkeys = [{keys}]\nusers = \"django\"\nuser_id_field = \"{field}\"\n\
                 check_revoke_token = true\n{NO_CACHE}\n"
            )
        };
        let fields = "headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-Groups = \"groups\", X-Tenant = \"attributes.tenant\", \
                      X-Seats = \"attributes.seats\", X-Beta = \"attributes.beta\", X-Parent = \"attributes.parent\" }";
        let gateway = config()
            .tables(&database.store(&format!("{SLOW_MACHINE}\n{users}")))
            .token(NO_CACHE)
            .tables(&jwt("by-id", "id"))
            .tables(&jwt("by-name", "username"))
            .file("jwt.key", signer.file())
            .identity(fields)
            .app(&upstream)
            .protected("/api/*")
            .route("/by-id", "authenticate = [\"by-id\"]")
            .route("/by-name", "authenticate = [\"by-name\"]");
        let gate = Gate::start(&gateway);
        let password = database.python("import hashlib; print(hashlib.md5(b'canary-hash').hexdigest().upper())");
        assert_eq!(password.lines().last(), Some(password_md5("canary-hash").as_str()));
        let claims = |user: &str, hash: &str| signer.with(&json!({ "user_id": user, "hash_password": hash }));
        let good = password_md5("canary-hash");
        for call in [
            get("/api/x").token("canary-ada"),
            get("/by-id").bearer(&claims(id, &good)),
            get("/by-name").bearer(&claims("ada@example.com", &good)),
        ] {
            assert_eq!(gate.call(&call).status, 200, "{engine:?}: {}", gate.log());
            let names = [
                "x-user-id",
                "x-user-name",
                "x-groups",
                "x-tenant",
                "x-seats",
                "x-beta",
                "x-parent",
            ];
            let seen = names.map(|name| header(&upstream, name));
            assert_eq!(
                seen,
                [id, "ada@example.com", "staff", "acme", "3", "true", id],
                "{engine:?}"
            );
        }
        for (path, user, hash, code) in [
            ("/by-id", id, "", "password_changed"),
            ("/by-id", &id.to_uppercase(), good.as_str(), "user_not_found"),
            ("/by-id", &id.replace('-', ""), &good, "user_not_found"),
            ("/by-id", "42", &good, "user_not_found"),
            ("/by-id", "x' OR '1'='1", &good, "user_not_found"),
            ("/by-name", "ADA@example.com", &good, "user_not_found"),
            ("/by-name", "ben@example.com", &good, "user_not_found"),
        ] {
            let reply = gate.call(&get(path).bearer(&claims(user, hash)));
            assert_eq!(
                (reply.status, &reply.json()["code"]),
                (401, &json!(code)),
                "{engine:?} {path} {user}"
            );
        }
        assert!(!gate.log().contains("canary-hash"));
    }
}

fn password_md5(password: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(password).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Text as primary key, no e-mail column, no column that says whether a user is active, no groups; names that have to be quoted.
#[test]
fn text_keys_and_names_that_have_to_be_quoted_are_read() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, "customers.Customer") else {
            return;
        };
        database.python(
            "
from customers.models import Customer
from rest_framework.authtoken.models import Token
for code in ['042', 'Ü 7']:
    Token.objects.create(user=Customer.objects.create(code=code, username=f'name of {code}'), key=f'canary-{code[-1]}')
",
        );
        let upstream = RecordingUpstream::start();
        let users = "groups = \"none\"\n[stores.django.users]\ntable = \"Sales Customers\"\nid = \"Customer Code\"\n\
                     username = \"Login Name\"\nemail = false\nactive = false";
        let gate = Gate::start(&with_tokens(
            &database.store(&format!("{SLOW_MACHINE}\n{users}")),
            &upstream,
        ));
        for (key, id, name) in [
            ("canary-2", "042", "name%20of%20042"),
            ("canary-7", "%C3%9C%207", "name%20of%20%C3%9C%207"),
        ] {
            assert_eq!(status(&gate, key), 200, "{engine:?}: {}", gate.log());
            assert_eq!(
                (header(&upstream, "x-user-id"), header(&upstream, "x-user-name")),
                (id.to_owned(), name.to_owned())
            );
        }
    }
}

#[test]
fn knox_tokens_are_found_by_their_digest_and_expire() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, USER) else {
            return;
        };
        let made = database.python(
            "
import json
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from knox.models import AuthToken
ada, ben = User.objects.create(id=42, username='ada'), User.objects.create(id=43, username='ben', is_active=False)
now, made = timezone.now(), {}
for name, user, expiry in [('later', ada, timedelta(hours=1)), ('never', ada, None), ('over', ada, timedelta(hours=-1)), ('ben', ben, None)]:
    instance, key = AuthToken.objects.create(user=user, expiry=expiry, prefix='canary-')
    made[name] = key
print(json.dumps(made))
",
        );
        let keys: Value = serde_json::from_str(made.lines().last().unwrap()).unwrap();
        let upstream = RecordingUpstream::start();
        let gate = Gate::start(&with_tokens(
            &database.store(&format!(
                "{SLOW_MACHINE}\ntokens = \"knox\"\ndigest = [\"sha512-hexkey\", \"sha512\"]"
            )),
            &upstream,
        ));
        let django = database.serve();
        let direct = django.url.trim_start_matches("http://").parse().unwrap();
        for (name, expected) in [("later", 200), ("never", 200), ("over", 401), ("ben", 401)] {
            let key = keys[name].as_str().unwrap();
            assert_eq!(status(&gate, key), expected, "{engine:?} {name}: {}", gate.log());
            let call = get("/api/whoami/knox/").token(key).echoes();
            let theirs = crate::harness::Conn::plain(direct).call(&call);
            assert_eq!(theirs.status, expected, "{engine:?} {name}: {}", theirs.text());
        }
        assert_eq!(status(&gate, "canary-00"), 401);
    }
}

const SHORT: &str = "timeout = \"1s\"";
/// A timeout of one second on a machine that is busy.
const SOON: Duration = Duration::from_secs(8);

fn unavailable(gate: &Gate, key: &str) {
    let asked = Instant::now();
    let reply = gate.call(&get("/api/x").token(key));
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (503, "Service temporarily unavailable, try again later."),
        "{key}: {}",
        gate.log()
    );
    assert!(reply.header("retry-after").is_some() && reply.header("www-authenticate").is_none());
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

fn comes_back(gate: &Gate) {
    wait_until("the store answers again", Duration::from_secs(30), || {
        status(gate, "canary-unknown") == 401
    });
}

/// `canary-ada` is remembered, the others are not.
fn with_cache(database: &Database, lines: &str, upstream: &RecordingUpstream) -> Gate {
    database.python(PEOPLE);
    let gate = Gate::start(
        &with_tokens(&database.store(lines), upstream).token("cache = { ttl = \"10m\", negative_entries = 0 }"),
    );
    if database.engine == Engine::Postgres && !lines.contains("invalidation") {
        // Connecting to it ends all verdicts.
        gate.logged(&["these tables have no triggers"]);
    }
    wait_until("ada is remembered", SOON, || status(&gate, "canary-ada") == 200);
    gate
}

#[test]
fn a_database_that_is_down_is_503_and_is_found_again() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(mut database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SHORT, &upstream);
        database.kill();
        for _ in 0..3 {
            unavailable(&gate, "canary-root");
            unavailable(&gate, "canary-unknown");
            assert_eq!(status(&gate, "canary-ada"), 200, "a known user is served");
        }
        wait_until("the metrics tell", SOON, || {
            gate.metric("authgate_store_usable{store=\"django\"}") == 0.0
        });
        assert_eq!(gate.probe("/readyz").status, 200, "it was reached once");
        gate.logged(&["cannot be reached"]);
        database.restart();
        comes_back(&gate);
        wait_until("the metrics tell", SOON, || {
            gate.metric("authgate_store_usable{store=\"django\"}") == 1.0
        });
    }
}

#[test]
fn a_database_that_is_restarted_between_two_requests_is_no_outage() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(mut database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SLOW_MACHINE, &upstream);
        // The database ends all connections; the next look-up opens another one.
        match engine {
            Engine::Postgres => {
                database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'authgate'")
            }
            _ => database.sql("KILL USER authgate@localhost"),
        };
        assert_eq!(status(&gate, "canary-root"), 200, "{}", gate.log());
        assert_eq!(status(&gate, "canary-zoë"), 200, "{}", gate.log());
        database.restart();
        comes_back(&gate);
    }
}

#[test]
fn a_locked_table_is_503_in_time_and_opens_no_further_connections() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SHORT, &upstream);
        let lock = database.sql_in_background(match engine {
            Engine::Postgres => "BEGIN; LOCK TABLE authtoken_token IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)",
            _ => "LOCK TABLES authtoken_token WRITE; SELECT SLEEP(60)",
        });
        wait_until("the table is locked", Duration::from_secs(20), || {
            status(&gate, "canary-unknown") == 503
        });
        let most = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..24)
                .map(|at| {
                    let gate = &gate;
                    scope.spawn(move || unavailable(gate, &format!("canary-unknown-{at}")))
                })
                .collect();
            let most = (0..10).map(|_| database.connections()).max().unwrap();
            clients.into_iter().for_each(|client| client.join().unwrap());
            most
        });
        assert!(most.max(database.connections()) <= 4, "{engine:?}: {most} connections");
        assert_eq!(status(&gate, "canary-ada"), 200, "a known user is served");
        drop(lock);
        if engine == Engine::Postgres {
            database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()");
        }
        comes_back(&gate);
        assert!(database.connections() <= 4);
    }
}

#[test]
fn a_database_that_hangs_is_503_in_time() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(database) = Database::start(engine, USER) else {
            return;
        };
        let upstream = RecordingUpstream::start();
        let gate = with_cache(&database, SHORT, &upstream);
        database.pause();
        for key in ["canary-root", "canary-unknown"] {
            unavailable(&gate, key);
        }
        assert_eq!(status(&gate, "canary-ada"), 200, "a known user is served");
        database.resume();
        comes_back(&gate);
    }
}

#[test]
fn a_database_that_has_no_connections_left_is_used_with_those_that_are_open() {
    let Some(database) = Database::start(Engine::Postgres, USER) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    database.sql("ALTER ROLE authgate CONNECTION LIMIT 1");
    let gate = with_cache(&database, "timeout = \"15s\"\ninvalidation = \"off\"", &upstream);
    assert_eq!(status(&gate, "canary-root"), 200);
    assert_eq!(status(&gate, "canary-unknown"), 401);
    gate.logged(&["a further connection to the store failed", "too many connections"]);
    assert_eq!(database.connections(), 1);
    // None at all.
    database.sql("ALTER ROLE authgate CONNECTION LIMIT 0");
    database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'authgate'");
    unavailable(&gate, "canary-unknown");
    database.sql("ALTER ROLE authgate CONNECTION LIMIT 20");
    comes_back(&gate);
}

#[test]
fn a_missing_right_or_column_is_503_and_the_log_has_the_remedy() {
    let Some(database) = Database::start(Engine::Postgres, USER) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let gate = with_cache(&database, SHORT, &upstream);
    database.sql("REVOKE SELECT ON authtoken_token FROM authgate");
    wait_until("the right is missed", SOON, || status(&gate, "canary-unknown") == 503);
    gate.logged(&["may not read column", "GRANT SELECT"]);
    database.grant();
    comes_back(&gate);
    // A migration while the gateway runs: the id becomes text.
    database.sql(
        "ALTER TABLE authtoken_token DROP CONSTRAINT IF EXISTS authtoken_token_user_id_35299eff_fk_auth_user_id; \
         ALTER TABLE auth_user ADD COLUMN nick text; ALTER TABLE auth_user RENAME COLUMN email TO mail",
    );
    wait_until("the column is missed", SOON, || status(&gate, "canary-unknown") == 503);
    gate.logged(&["has no column", "email = false"]);
    database.sql("ALTER TABLE auth_user RENAME COLUMN mail TO email");
    comes_back(&gate);
}

#[test]
fn a_missing_sqlite_file_is_never_created_and_a_replaced_one_is_opened() {
    let Some(database) = Database::start(Engine::Sqlite, USER) else {
        return;
    };
    database.python(PEOPLE);
    let (file, aside) = (database.file(), database.file().with_extension("aside"));
    std::fs::rename(&file, &aside).unwrap();
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(&with_tokens(&database.store(SHORT), &upstream));
    unavailable(&gate, "canary-ada");
    assert_eq!(gate.probe("/readyz").status, 503);
    assert!(!file.exists(), "the gateway has created it");
    std::fs::copy(&aside, &file).unwrap();
    comes_back(&gate);
    assert_eq!(gate.probe("/readyz").status, 200);
    // Another file in its place, where ada's key is gone.
    database.sql("DELETE FROM authtoken_token WHERE key = 'canary-ada'");
    let changed = database.file().with_extension("changed");
    std::fs::copy(&file, &changed).unwrap();
    std::fs::copy(&aside, file.with_extension("again")).unwrap();
    std::fs::rename(file.with_extension("again"), &file).unwrap();
    wait_until("the file is opened again", SOON, || status(&gate, "canary-ada") == 200);
    std::fs::rename(&changed, &file).unwrap();
    wait_until("the file is opened again", SOON, || status(&gate, "canary-ada") == 401);
    std::fs::remove_file(&file).unwrap();
    unavailable(&gate, "canary-zoë");
    assert!(!file.exists(), "the gateway has created it");
}

#[test]
fn a_sqlite_file_that_is_locked_is_503_in_time() {
    let Some(database) = Database::start(Engine::Sqlite, USER) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let gate = with_cache(&database, SHORT, &upstream);
    let mut python = std::process::Command::new("python3");
    let script = "import sqlite3, sys, time\n\
                  db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  db.execute('BEGIN EXCLUSIVE')\n\
                  time.sleep(60)";
    let mut lock = python.args(["-c", script]).arg(database.file()).spawn().unwrap();
    wait_until("the file is locked", SOON, || status(&gate, "canary-unknown") == 503);
    unavailable(&gate, "canary-unknown");
    assert_eq!(status(&gate, "canary-ada"), 200, "a known user is served");
    lock.kill().unwrap();
    lock.wait().unwrap();
    comes_back(&gate);
}

#[test]
fn the_command_line_does_not_write_to_the_database_of_an_application() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RecordingUpstream::start();
    with_tokens(
        "[stores.django]\nkind = \"django\"\nurl = \"sqlite:no.sqlite3\"\n",
        &upstream,
    )
    .write(folder.path());
    for words in [
        &["token", "create", "--user", "42"][..],
        &["token", "create", "--user", "42", "--store", "django"],
        &["user", "disable", "42"],
        &["revoke", "--user", "42"],
    ] {
        let ended = authgate(folder.path(), words);
        assert!(ended.code == 2 || ended.code == 1, "{words:?}: {ended:?}");
        assert!(ended.err.contains("only read"), "{words:?}: {ended:?}");
    }
    assert!(!folder.path().join("no.sqlite3").exists());
}

/// A file with a store on this database, for `check --online`.
fn checked(database: &Database, lines: &str) -> crate::harness::program::Ended {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RecordingUpstream::start();
    with_tokens(&database.store(lines), &upstream).write(folder.path());
    authgate(folder.path(), &["check", "--online"])
}

#[test]
fn check_online_names_what_is_missing_and_what_to_write_or_grant() {
    for engine in ENGINES {
        let Some(mut database) = Database::start(engine, USER) else {
            return;
        };
        let good = checked(&database, "invalidation = \"off\"");
        assert_eq!((good.code, good.err.as_str()), (0, ""), "{engine:?}");
        for (lines, words) in [
            (
                "users = { table = \"accounts_user\" }\ngroups = \"none\"",
                &[
                    "has no table \"accounts_user\"",
                    "stores.django.users.table",
                    "name the table",
                ][..],
            ),
            (
                "users = { email = \"mail\" }",
                &[
                    "has no column \"mail\"",
                    "stores.django.users.email",
                    "email = false",
                    "username",
                ],
            ),
            (
                "users = { attributes = { tenant = \"tenant_id\" } }",
                &["has no column \"tenant_id\"", "stores.django.users.attributes.tenant"],
            ),
            (
                "users = { groups = { table = \"auth_user_teams\" } }",
                &["has no table \"auth_user_teams\"", "groups = \"none\""],
            ),
            (
                "users = { groups = { table = \"auth_user_groups\", column = \"member_id\" } }",
                &["no column \"member_id\"", "user_id"],
            ),
            (
                "users = { id = \"date_joined\" }",
                &["no row is looked up by", "integers, UUIDs or text"],
            ),
        ] {
            let ended = checked(&database, lines);
            assert_eq!(ended.code, 2, "{engine:?} {lines}: {ended:?}");
            for word in words {
                assert!(ended.err.contains(word), "{engine:?} {word}: {}", ended.err);
            }
        }
        let (revoke, grant) = match engine {
            Engine::Postgres => (
                "REVOKE SELECT ON auth_user FROM authgate; GRANT SELECT (id, username, is_active) ON auth_user TO authgate",
                "GRANT SELECT (\"email\") ON \"auth_user\" TO authgate;",
            ),
            Engine::MariaDb => (
                "REVOKE SELECT ON app.* FROM authgate@localhost; GRANT SELECT ON app.auth_group TO authgate@localhost",
                "GRANT SELECT (`email`) ON `auth_user` TO 'authgate'@'localhost';",
            ),
            Engine::Sqlite => continue,
        };
        database.sql(revoke);
        let ended = checked(&database, "");
        assert_eq!(ended.code, 2, "{engine:?}: {ended:?}");
        if engine == Engine::Postgres {
            assert!(ended.err.contains(grant), "{}", ended.err);
            database.sql(grant);
            // The column with the password hash is not named: no authenticator compares it.
            let granted = checked(&database, "invalidation = \"off\"");
            assert_eq!(granted.code, 0, "{granted:?}");
        } else {
            assert!(ended.err.contains("or run: GRANT SELECT"), "{}", ended.err);
        }
        database.kill();
        let ended = checked(&database, "");
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(
            ended.err.contains("cannot be used") && ended.err.contains("stores.django.url"),
            "{}",
            ended.err
        );
    }
}

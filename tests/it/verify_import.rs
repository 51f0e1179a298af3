//! `authgate token verify-import` against the tables of a real Django project, in PostgreSQL, MariaDB and SQLite.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::database::{Database, ENGINES, Engine, ROLE};
use crate::harness::program::{Ended, authgate, authgate_with_input};
use crate::harness::{Config, RecordingUpstream, Redis, config, wait_until};

const PEOPLE: &str = "
from django.contrib.auth.models import Group, User
from rest_framework.authtoken.models import Token
staff, night = Group.objects.create(name='staff'), Group.objects.create(name='équipe, nuit')
for id in range(1, 9):
    user = User.objects.create(id=id, username=f'user{id}', email=f'user{id}@example.com', password=f'canary-hash-{id}')
    if id != 8:
        Token.objects.create(user=user, key=f'canary-{id}')
    user.groups.set([staff, night] if id % 2 else [])
";

/// One difference of each kind, and none in the token of user 7, which is revoked in the store.
const CHANGES: &str = "
from datetime import timedelta
from django.contrib.auth.models import Group, User
from rest_framework.authtoken.models import Token
User.objects.filter(id=1).update(username='ada')
User.objects.filter(id=2).update(email='ben@example.com')
User.objects.filter(id=3).update(is_active=False)
User.objects.get(id=4).groups.add(Group.objects.get(name='staff'))
User.objects.filter(id=5).update(password='canary-other')
User.objects.get(id=6).delete()
Token.objects.get(user_id=7).delete()
User.objects.filter(id=8).update(username='a\\nb')
Token.objects.create(user=User.objects.create(id=9, username='zoë'), key='canary-9')
token = Token.objects.get(user_id=1)
Token.objects.filter(user_id=1).update(created=token.created + timedelta(seconds=1))
Token.objects.filter(user_id=2).update(user_id=8)
";

fn written(stores: Config, upstream: &RecordingUpstream, authenticator: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let whole = stores.token(authenticator).app(upstream).protected("/*");
    whole.write(folder.path());
    folder
}

fn verify(folder: &Path, url: &str, more: &[&str]) -> Ended {
    let words = [&["token", "verify-import", "--database", url], more].concat();
    let ended = authgate(folder, &words);
    assert!(!format!("{ended:?}").contains("canary"), "{ended:?}");
    ended
}

/// The exit code, and the output as JSON.
fn verify_json(folder: &Path, url: &str, more: &[&str]) -> (i32, Value) {
    let ended = verify(folder, url, &[more, &["--json"]].concat());
    let found = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended.code, found)
}

fn counts(kinds: &Value) -> [u64; 4] {
    ["unstorable", "missing", "different", "unknown"].map(|kind| kinds[kind]["count"].as_u64().unwrap())
}

fn import(database: &Database, folder: &Path, models: &[&str], more: &[&str]) {
    let dump = database.manage(&[&["dumpdata"], models].concat());
    authgate_with_input(folder, &[&["token", "import", "-"], more].concat(), dump.as_bytes()).good();
}

fn each_kind_is_found(engine: Engine) {
    let Some(mut database) = Database::start(engine, "auth.User") else {
        return;
    };
    database.python(PEOPLE);
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start_empty());
    let folder = written(config().redis(&redis), &upstream, "cache = { ttl = \"1s\" }");
    let (folder, url) = (folder.path(), database.url());

    let empty = verify(folder, &url, &[]);
    assert!(
        empty.code == 1 && empty.out.is_empty() && empty.err.contains("holds no records yet"),
        "{empty:?}"
    );
    import(&database, folder, &["auth.user", "auth.group", "authtoken.token"], &[]);
    let same = verify(folder, &url, &[]);
    assert!(
        same.code == 0
            && same.err.is_empty()
            && same
                .out
                .contains("the same in Django and in the store: users 8, tokens 7"),
        "{same:?}"
    );

    // A tombstone is no difference, whether Django still has the token or not.
    authgate(folder, &["token", "revoke", "canary-7"]).good();
    let (code, found) = verify_json(folder, &url, &[]);
    assert_eq!(
        (code, &found["same"], &found["revoked_tokens"]),
        (0, &json!(true), &json!(1))
    );

    database.python(CHANGES);
    let (code, found) = verify_json(folder, &url, &[]);
    assert_eq!(code, 1, "{found:#}");
    assert_eq!(counts(&found["users"]), [1, 1, 5, 1], "{engine:?} {found:#}");
    assert_eq!(counts(&found["tokens"]), [0, 1, 2, 1], "{engine:?} {found:#}");
    assert_eq!(
        (&found["same"], &found["differences"], &found["revoked_tokens"]),
        (&json!(false), &json!(12), &json!(1))
    );
    assert_eq!(found["not_compared"], json!([]));
    let mut members: Vec<(String, Value)> = Vec::new();
    for each in found["users"]["different"]["examples"].as_array().unwrap() {
        members.push((each["user"].as_str().unwrap().to_owned(), each["members"][0].clone()));
    }
    let expected = ["username", "email", "active", "groups", "password_md5"];
    let expected: Vec<_> = (1..)
        .zip(expected)
        .map(|(id, name)| (id.to_string(), json!(name)))
        .collect();
    assert_eq!(members, expected, "{engine:?}");
    let kinds = &found["users"];
    assert_eq!(kinds["missing"]["examples"][0]["user"], "9");
    assert_eq!(kinds["unknown"]["examples"][0]["user"], "6");
    assert_eq!(kinds["unstorable"]["examples"][0]["user"], "8");
    let different = found["tokens"]["different"]["examples"].as_array().unwrap();
    let mut different: Vec<_> = different
        .iter()
        .map(|each| (each["user"].clone(), each["members"].clone()))
        .collect();
    different.sort_by_key(|(user, _)| user.to_string());
    assert_eq!(
        different,
        [(json!("1"), json!(["created"])), (json!("2"), json!(["user"]))]
    );

    let text = verify(folder, &url, &[]);
    for part in [
        "user \"1\" has another username",
        "users in the store, and not in Django: 1\n",
        "tokens that are not in the store: 1\n  token sha256:",
        "in Django: users 8, tokens 6; differences 12",
    ] {
        assert!(text.out.contains(part), "{part}: {text:?}");
    }
    assert!(
        text.code == 1 && text.err.contains("12 differences between Django and the store"),
        "{text:?}"
    );

    // Nothing can be compared: an error without output.
    let gone = match engine {
        Engine::Postgres | Engine::MariaDb => {
            database.kill();
            url
        }
        Engine::Sqlite => "sqlite:missing.sqlite3".to_owned(),
    };
    let down = verify(folder, &gone, &[]);
    assert!(
        down.code == 1 && down.out.is_empty() && down.err.contains("nothing was compared: the database"),
        "{down:?}"
    );
}

#[test]
fn each_kind_of_drift_from_the_tables_of_postgresql_is_found() {
    each_kind_is_found(Engine::Postgres);
}

#[test]
fn each_kind_of_drift_from_the_tables_of_mariadb_is_found() {
    each_kind_is_found(Engine::MariaDb);
}

#[test]
fn each_kind_of_drift_from_the_tables_of_sqlite_is_found() {
    each_kind_is_found(Engine::Sqlite);
}

/// Users with UUIDs and tokens of knox; the tables are those of a store of the file, and the records are in an embedded store.
#[test]
fn uuids_and_tokens_of_knox_are_compared_in_the_tables_that_the_file_names() {
    for engine in ENGINES {
        let Some(database) = Database::start(engine, "members.Member") else {
            return;
        };
        database.python(
            "
from django.contrib.auth.models import Group
from knox.models import AuthToken
from members.models import Member
for name in ['ada', 'ben']:
    user = Member.objects.create(email=f'{name}@example.com', password='canary-hash')
    user.groups.set([Group.objects.get_or_create(name='staff')[0]])
    AuthToken.objects.create(user=user)
",
        );
        let upstream = RecordingUpstream::start();
        let stores = database.store(
            "tokens = \"knox\"\nusers = { table = \"members_member\", username = \"email\" }\n\
             [stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\ndigest = [\"sha256\", \"sha512\"]",
        );
        let folder = written(config().tables(&stores), &upstream, "store = \"file\"");
        let (folder, url) = (folder.path(), database.url());
        let models = ["members.member", "auth.group", "knox.authtoken"];
        let names = [
            "--user-model",
            "members.member",
            "--username-field",
            "email",
            "--store",
            "file",
        ];
        import(&database, folder, &models, &names);
        let more = ["--store", "file"];
        let (code, found) = verify_json(folder, &url, &more);
        assert_eq!((code, &found["differences"]), (0, &json!(0)), "{engine:?} {found:#}");
        assert_eq!(
            (
                &found["users"]["rows"],
                &found["tokens"]["rows"],
                &found["not_compared"]
            ),
            (&json!(2), &json!(2), &json!([])),
            "{engine:?}"
        );
        let other = verify_json(folder, &url, &[&more[..], &["--tokens", "authtoken"]].concat()).1;
        assert_eq!(counts(&other["tokens"]), [0, 0, 0, 2], "{engine:?} {other:#}");

        let id = database.python(
            "
from datetime import timedelta
from knox.models import AuthToken
from members.models import Member
ada = Member.objects.get(email='ada@example.com')
token = AuthToken.objects.get(user=ada)
AuthToken.objects.filter(user=ada).update(expiry=token.expiry + timedelta(hours=1))
Member.objects.filter(pk=ada.pk).update(password='canary-other')
print(ada.pk)
",
        );
        let id = id.lines().last().unwrap();
        let (code, found) = verify_json(folder, &url, &more);
        assert_eq!(code, 1);
        assert_eq!(counts(&found["users"]), [0, 0, 1, 0], "{engine:?} {found:#}");
        assert_eq!(counts(&found["tokens"]), [0, 0, 1, 0], "{engine:?} {found:#}");
        let (user, token) = (
            &found["users"]["different"]["examples"][0],
            &found["tokens"]["different"]["examples"][0],
        );
        assert_eq!(
            (&user["user"], &user["members"]),
            (&json!(id), &json!(["password_md5"]))
        );
        assert_eq!((&token["user"], &token["members"]), (&json!(id), &json!(["expires"])));
        assert!(token["digest"].as_str().unwrap().starts_with("sha512:"), "{token}");

        if engine == Engine::Postgres {
            // The rights that `authgate django sql` prints do not include the password hash.
            database.sql(&format!(
                "REVOKE SELECT ON members_member FROM {ROLE}; GRANT SELECT (id, email, is_active) ON members_member TO {ROLE}"
            ));
            let (_, found) = verify_json(folder, &url, &more);
            assert_eq!(
                (&found["not_compared"], &found["differences"]),
                (&json!(["password_md5"]), &json!(1))
            );
            let noted = verify(folder, &url, &more);
            assert!(
                noted.err.contains("`password_md5` is not compared") && noted.err.contains("GRANT SELECT"),
                "{noted:?}"
            );
        }
    }
}

#[test]
fn a_wrong_url_or_store_is_a_usage_error_of_verify_import() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start_empty());
    let folder = written(config().redis(&redis), &upstream, "cache = { ttl = \"1s\" }");
    for url in [
        "oracle://canary@db/app",
        "postgres://authgate:canary@db",
        "postgres://authgate:canary@db/app?sslmod=canary",
        "sqlite::memory:",
        "",
    ] {
        let ended = verify(folder.path(), url, &[]);
        assert!(
            ended.code == 2 && ended.err.contains("--database: invalid URL: it "),
            "{url}: {ended:?}"
        );
    }
    let url = "sqlite:db.sqlite3";
    let store = verify(folder.path(), url, &["--store", "other"]);
    assert!(
        store.code == 2 && store.err.contains("there is no store other"),
        "{store:?}"
    );
    let none = authgate(folder.path(), &["token", "verify-import"]);
    assert!(none.code == 2 && none.err.contains("--database"), "{none:?}");
    // A file that is no database, and one without Django's tables.
    redis.put_layout("1");
    std::fs::write(
        folder.path().join("db.sqlite3"),
        "canary, and no database, but long enough to be read as one".repeat(20),
    )
    .unwrap();
    let broken = verify(folder.path(), url, &[]);
    assert!(
        broken.code == 1 && broken.err.contains("nothing was compared"),
        "{broken:?}"
    );
    std::fs::write(folder.path().join("db.sqlite3"), "").unwrap();
    let blank = verify(folder.path(), url, &[]);
    assert!(
        blank.code == 1 && blank.err.contains("has no table \"auth_user\""),
        "{blank:?}"
    );
}

/// The tokens are deleted after the users were read, and before the tokens are.
#[test]
fn verify_import_reads_all_tables_as_they_were_at_one_moment() {
    let Some(database) = Database::start(Engine::Postgres, "auth.User") else {
        return;
    };
    database.python(PEOPLE);
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start_empty());
    let folder = written(config().redis(&redis), &upstream, "cache = { ttl = \"1s\" }");
    let (folder, url) = (folder.path(), database.url());
    import(&database, folder, &["auth.user", "auth.group", "authtoken.token"], &[]);
    let becomes = |what: &str, sql: &str| wait_until(what, Duration::from_secs(30), || database.sql(sql) == "1");

    let _barrier = database.sql_in_background("SELECT pg_advisory_lock(1), pg_sleep(600)");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND";
    becomes("the barrier is there", &format!("{locks} granted"));
    let _deleting = database.sql_in_background(
        "BEGIN; LOCK TABLE authtoken_token; SELECT pg_advisory_lock(1); DELETE FROM authtoken_token; COMMIT",
    );
    becomes("the other session has its lock", &format!("{locks} NOT granted"));
    let ended = thread::scope(|scope| {
        let verifying = scope.spawn(|| verify(folder, &url, &[]));
        let waits =
            format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}' AND wait_event_type = 'Lock'");
        becomes("the tokens are being read", &waits);
        database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()");
        verifying.join().unwrap()
    });
    assert_eq!(ended.code, 0, "{ended:?}");
    let (code, found) = verify_json(folder, &url, &[]);
    assert_eq!((code, counts(&found["tokens"])), (1, [0, 0, 0, 7]), "{found:#}");
}

#[test]
fn a_store_that_is_being_filled_is_not_the_same() {
    let Some(database) = Database::start(Engine::Sqlite, "auth.User") else {
        return;
    };
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start_empty());
    redis.set(
        "layout",
        json!({ "version": 1, "epoch": "1", "filling": true }).to_string(),
    );
    let folder = written(config().redis(&redis), &upstream, "cache = { ttl = \"1s\" }");
    let (code, found) = verify_json(folder.path(), &database.url(), &[]);
    assert_eq!(
        (code, &found["same"], &found["complete"], &found["differences"]),
        (1, &json!(false), &json!(false), &json!(0))
    );
    assert!(
        verify(folder.path(), &database.url(), &[])
            .err
            .contains("the store is not complete")
    );
}

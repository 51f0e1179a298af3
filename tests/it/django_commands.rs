//! The command line on a store with `kind = "django"`.

use crate::django_database::{USER, with_tokens};
use crate::harness::RecordingUpstream;
use crate::harness::database::{Database, ENGINES, Engine};
use crate::harness::program::{Ended, authgate};

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
fn checked(database: &Database, lines: &str) -> Ended {
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

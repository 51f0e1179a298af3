//! `kind = "django"` of `[stores.*]`.

use authgate_auth::store::django::{DjangoSettings, TokenKey};
use authgate_auth::store::{DigestKind, StoreKind};

use super::{MINIMAL, check, valid, warnings};
use crate::config::tests::read;

const URL: &str = "redis://127.0.0.1:6379/0\"\n";

/// The minimal file on a Django database, with these further lines in its table.
fn on(url: &str, lines: &str) -> String {
    MINIMAL
        .replace("redis://127.0.0.1:6379/0\"\n", &format!("{url}\"\n{lines}\n"))
        .replace("kind = \"redis\"", "kind = \"django\"")
        .replace("redis", "django")
}

fn on_postgres(lines: &str) -> String {
    on("postgres://authgate@db/app", lines)
}

fn settings(text: &str) -> DjangoSettings {
    let config = valid(text);
    let StoreKind::Django(settings) = &config.stores[0].kind else {
        panic!("{:?}", config.stores);
    };
    settings.clone()
}

#[test]
fn tables_and_columns_have_the_names_of_django() {
    assert!(MINIMAL.contains(URL));
    let default = settings(&on_postgres(""));
    let tokens = default.tokens.expect("authtoken");
    assert_eq!(
        (tokens.table.as_str(), tokens.key),
        ("authtoken_token", TokenKey::Plain("key".to_owned()))
    );
    assert_eq!(
        (default.users.table.as_str(), default.users.active.as_deref()),
        ("auth_user", Some("is_active"))
    );
    assert_eq!(
        default.groups.map(|groups| groups.members).as_deref(),
        Some("auth_user_groups")
    );
    assert_eq!((default.timeout.as_millis(), default.connections), (1000, 4));

    let knox = settings(&on_postgres("tokens = \"knox\""));
    let key = knox.tokens.expect("knox").key;
    assert!(matches!(key, TokenKey::Digest { expiry: Some(_), .. }), "{key:?}");
    assert!(knox.digests.contains(DigestKind::Sha512) && !knox.digests.contains(DigestKind::Sha256));

    let custom = settings(&on_postgres(
        "tokens = { table = \"t\", key = \"k\", user = \"u\" }\n\
         users = { table = \"members\", username = \"email\", active = false, attributes = { tenant = \"tenant_id\" } }",
    ));
    assert_eq!(custom.tokens.expect("a table").created, None);
    assert_eq!(
        custom.groups.map(|groups| groups.members).as_deref(),
        Some("members_groups")
    );
    assert_eq!((custom.users.active, custom.users.attributes.len()), (None, 1));
}

#[test]
fn errors_of_a_django_store_say_what_to_write() {
    let line = |lines: &str| on_postgres(lines);
    for (text, words) in [
        (on("postgres://authgate:canary@db", ""), "it names no database"),
        (on("postgres://authgate@db/app?sslmod=require", ""), "unknown parameter"),
        (on("sqlite::memory:", ""), "no path of a file"),
        (line("tokens = \"auth\""), "\"auth\" is not a valid value"),
        (line("tokens = { key = \"k\" }"), "`table` is missing"),
        (
            line("tokens = { table = \"t\" }"),
            "the column that a key is looked up by is missing",
        ),
        (
            line("tokens = { table = \"t\", key = \"k\", digest = \"d\" }"),
            "keys or digests, not both",
        ),
        (
            line("tokens = { table = \"t\", key = \"k\", expiry = \"e\" }"),
            "`expiry` has no effect",
        ),
        (line("digest = [\"sha512\"]"), "`digest` has no effect"),
        (line("connections = 0"), "out of range"),
        (line("users = { activ = false }"), "did you mean `active`?"),
        (
            line("groups = \"none\"\nusers = { groups = { table = \"t\" } }"),
            "`users.groups` has no effect",
        ),
        (line("invalidation = \"tracking\""), "\"tracking\" is not a valid value"),
    ] {
        check(&text, &[&[words]]);
    }
    let jwt = on_postgres("").replace("users = \"django\"\n", "users = \"django\"\nrevocation = \"django\"\n");
    check(
        &jwt,
        &[&["store \"django\" has no revocations", "revocation = \"none\""]],
    );
    check(
        &line("tokens = \"none\""),
        &[&["has no tokens", "tokens = \"authtoken\""]],
    );
    let no_password = line("users = { password = false }").replace(
        "users = \"django\"\n",
        "users = \"django\"\ncheck_revoke_token = true\n",
    );
    check(&no_password, &[&["has no passwords", "remove `password = false`"]]);
}

#[test]
fn a_source_is_a_django_store_behind_a_redis() {
    let with = |redis: &str, lines: &str| {
        let source = "[stores.app]\nkind = \"django\"\nurl = \"postgres://authgate@db/app\"\n";
        MINIMAL
            .replace(
                "[authenticators.token]\nkind = \"token\"\n",
                &format!("{source}[authenticators.token]\nkind = \"token\"\n{lines}\n"),
            )
            .replace("kind = \"redis\"\n", &format!("kind = \"redis\"\n{redis}\n"))
    };
    let both = "store = \"redis\"\nsource = \"app\"";
    valid(&with("", both));
    valid(&with(
        "digest = [\"sha512\", \"sha256\"]",
        &format!("{both}\nsource_ttl = \"1m\""),
    ));
    for (redis, lines, words) in [
        ("", "source = \"app\"", "`store` is missing"),
        ("", "store = \"redis\"\nsource = \"redis\"", "cannot be a source"),
        ("", "store = \"app\"\nsource = \"app\"", "cannot write to store \"app\""),
        (
            "",
            "store = \"redis\"\nsource_ttl = \"1m\"",
            "no effect without `source`",
        ),
        ("", "store = \"redis\"\nsource = \"ap\"", "did you mean \"app\"?"),
        ("digest = [\"sha512\"]", both, "does not look tokens up by the digests"),
    ] {
        let Err(error) = read(&with(redis, lines)) else {
            panic!("{lines}")
        };
        assert!(error.to_string().contains(words), "{lines}: {error}");
    }
}

#[test]
fn a_sqlite_file_that_is_missing_is_a_warning() {
    let loaded = read(&on("sqlite:missing.sqlite3", "invalidation = \"off\"")).expect("valid");
    let found = warnings(&loaded);
    assert!(
        found
            .iter()
            .any(|problem| problem.message.contains("missing.sqlite3 does not exist")),
        "{found:?}"
    );
}

//! `[[authenticators.NAME.issuers]]`.

use authgate_auth::jwt::{Issuers, KeySet, UserIdField, Users};

use super::{MINIMAL, check, read, valid, warnings};
use crate::config::Severity;

const KEYS: &str = "keys = [{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }]\n";

/// [`MINIMAL`] with these tables of issuers, each of which gets the keys. `more` are further lines of the authenticator.
fn tables(more: &str, tables: &[&str]) -> String {
    let own = format!("users = \"redis\"\n{KEYS}");
    assert!(MINIMAL.contains(&own));
    let issuers: String = tables
        .iter()
        .map(|table| {
            format!(
                "[[authenticators.jwt.issuers]]\n{}{table}\n",
                if table.contains("keys") { "" } else { KEYS }
            )
        })
        .collect();
    MINIMAL.replacen(&own, &format!("profile = \"plain\"\n{more}{issuers}"), 1)
}

#[test]
fn each_issuer_has_its_own_keys_and_rules() {
    let config = valid(&tables(
        "revocation = \"none\"\n",
        &[
            "issuer = \"https://a\"\naudience = \"api\"\nnamespace = \"\"\nusers = \"redis\"\nuser_id_field = \"username\"",
            "issuer = \"https://b\"\nnamespace = \"b:\"\nuser_id_claim = \"oid\"\nleeway = \"7s\"\ntoken_bytes = \"32KiB\"",
            "issuer = \"https://c\"\nnamespace = \"c:\"\n\
             keys = [{ algorithm = \"ES256\", file = \"jwt-es256.pub.pem\", kid = \"one\" }]",
        ],
    ));
    let jwt = config.authenticators["jwt"].kind.as_jwt().expect("JWT settings");
    let Issuers::ByName(table) = &jwt.issuers else {
        panic!("{:?}", jwt.issuers)
    };
    assert_eq!(
        table.names().map(AsRef::as_ref).collect::<Vec<_>>(),
        ["https://a", "https://b", "https://c"]
    );
    let all: Vec<_> = jwt.issuers.all().collect();
    assert!(
        all.iter()
            .zip(table.names())
            .all(|(issuer, name)| issuer.rules.issuer == [name.to_string()])
    );
    assert!(matches!(
        all[0].users,
        Users::Store {
            field: UserIdField::Username,
            ..
        }
    ));
    assert!(matches!(all[1].users, Users::Claims { .. }));
    assert_eq!((all[0].rules.audience.len(), all[1].rules.audience.len()), (1, 0));
    assert_eq!(
        (all[0].rules.user_id_claim.as_str(), all[1].rules.user_id_claim.as_str()),
        ("sub", "oid")
    );
    assert_eq!(
        all.iter().map(|issuer| issuer.namespace.as_str()).collect::<Vec<_>>(),
        ["", "b:", "c:"]
    );
    assert_eq!((all[0].token_bytes, all[1].token_bytes), (16 * 1024, 32 * 1024));
    assert!(matches!(&all[2].keys, KeySet::Static(keys) if keys[0].kid() == Some("one")));
    assert_eq!(config.largest_leeway(), std::time::Duration::from_secs(7));
    assert_eq!(
        config.authenticators["jwt"].kind.stores().len(),
        1,
        "a store of several issuers is one store"
    );
    // One table is enough; then nothing needs to be kept apart.
    valid(&tables("", &["issuer = \"https://a\""]));
}

#[test]
fn a_table_has_one_issuer_and_an_issuer_has_one_table() {
    check(
        &tables("", &["issuer = [\"https://a\", \"https://b\"]"]),
        &[&[
            "authenticators.jwt.issuers[0].issuer",
            "the name of one issuer",
            "a table for each further issuer",
        ]],
    );
    check(
        &tables("", &["issuer = false"]),
        &[&["the name of one issuer, found true or false"]],
    );
    check(
        &tables("", &["issuer = \"\""]),
        &[&["is empty", "exactly as the `iss`"]],
    );
    check(
        &tables("", &["namespace = \"a\""]),
        &[&["`issuer` is missing", "write `issuer = "]],
    );
    check(
        &tables(
            "",
            &[
                "issuer = \"https://a\"\nnamespace = \"a:\"",
                "issuer = \"https://a\"\nnamespace = \"b:\"",
            ],
        ),
        &[&[
            "issuer \"https://a\" has two tables",
            "remove one of them",
            "the other one",
        ]],
    );
    check(
        &tables("issuers = []\n", &[]),
        &[&["the list is empty", "write `[[authenticators.jwt.issuers]]`"]],
    );
    let single = tables("", &["issuer = \"https://a\""])
        .replace("[[authenticators.jwt.issuers]]", "[authenticators.jwt.issuers]");
    check(
        &single,
        &[&[
            "expected a list, found a table",
            "write `[[authenticators.jwt.issuers]]`",
        ]],
    );
}

#[test]
fn keys_of_an_issuer_are_errors_beside_its_tables() {
    for line in [
        "issuer = \"https://a\"",
        "audience = \"api\"",
        "users = \"redis\"",
        "leeway = \"1s\"",
        "token_types = [\"access\"]",
        "namespace = \"a:\"",
        "algorithms = [\"HS256\"]",
        KEYS,
    ] {
        let name = line.split(' ').next().expect("a name");
        check(
            &tables(&format!("{line}\n"), &["issuer = \"https://a\""]),
            &[&[
                &format!("authenticators.jwt.{name}"),
                &format!("`{name}` is a key of one issuer"),
                "write it in the tables `[[authenticators.jwt.issuers]]`",
            ]],
        );
    }
    // And the other way round.
    check(
        &tables(
            "",
            &["issuer = \"https://a\"\nrevocation = \"redis\"\nscheme = \"JWT\""],
        ),
        &[&["unknown key `revocation`"], &["unknown key `scheme`"]],
    );
    let plain = MINIMAL.replacen("users = \"redis\"", "users = \"redis\"\nnamespace = \"a:\"", 1);
    check(
        &plain,
        &[&["`namespace` has no effect", "[[authenticators.jwt.issuers]]"]],
    );
}

#[test]
fn issuers_that_could_name_the_same_user_are_an_error_unless_both_say_so() {
    let two = |one: &str, other: &str| {
        tables(
            "",
            &[
                &format!("issuer = \"https://a\"\n{one}"),
                &format!("issuer = \"https://b\"\n{other}"),
            ],
        )
    };
    for (one, other) in [
        ("", ""),
        ("", "namespace = \"\""),
        ("namespace = \"\"", ""),
        ("users = \"redis\"", "users = \"redis\""),
    ] {
        check(
            &two(one, other),
            &[&[
                "\"https://a\" and \"https://b\" could name the same user",
                "the user 42 of this issuer is then \"partner:42\"",
                "write the same `namespace` in both tables",
            ]],
        );
    }
    for namespace in ["", "same:"] {
        let line = format!("namespace = {namespace:?}");
        let loaded = read(&two(&line, &line)).unwrap_or_else(|error| panic!("{error}"));
        let warnings = warnings(&loaded);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].severity, Severity::Warning);
        assert_eq!(warnings[0].key, "authenticators.jwt.issuers[1].namespace");
        assert!(
            warnings[0].message.contains("with the same id are one user"),
            "{warnings:?}"
        );
    }
    for (one, other) in [
        ("", "namespace = \"b:\""),
        ("namespace = \"a:\"", ""),
        ("namespace = \"b\"", "namespace = \"bc\""),
    ] {
        valid(&two(one, other));
    }
    let long = format!("namespace = \"{}\"", "x".repeat(129));
    for bad in [
        "namespace = \"a\\u0007\"",
        "namespace = \" a\"",
        "namespace = \"a\\n\"",
        &long,
    ] {
        check(
            &two("", bad),
            &[&["must have at most 128 bytes", "authenticators.jwt.issuers[1].namespace"]],
        );
    }
}

#[test]
fn example_keys_and_missing_audiences_are_found_in_each_table() {
    let text = tables(
        "",
        &[
            "issuer = \"https://a\"\nnamespace = \"a:\"",
            "issuer = \"https://b\"\nnamespace = \"b:\"\nkeys = [{ algorithm = \"ES256\", file = \"jwt-es256.pub.pem\" }]",
        ],
    );
    let config = valid(&text);
    let used: Vec<String> = crate::examples::used_by(&config)
        .into_iter()
        .map(|used| used.key)
        .collect();
    assert_eq!(used, ["authenticators.jwt.issuers[1].keys[0]"]);

    let loaded = read(&text.replace("\"plain\"", "\"rfc9068\"")).unwrap_or_else(|error| panic!("{error}"));
    let keys: Vec<&str> = warnings(&loaded).iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["authenticators.jwt.issuers[0]", "authenticators.jwt.issuers[1]"]);
}

/// A key that is read in tables, and forgotten in the list of those that an authenticator with tables must not have, would be reported there
/// as an unknown one.
#[test]
fn every_key_of_a_table_is_a_key_of_one_issuer() {
    let Err(error) = read(&tables("", &["issuer = \"https://a\"\nzzzzzzzzzzzz = 1"])) else {
        panic!("it was taken")
    };
    let shown = error.to_string();
    let known = shown.split("known keys: ").nth(1).expect("a list of keys");
    let known: Vec<&str> = known.lines().next().expect("a line").split(", ").collect();
    assert!(known.len() > 15 && known.contains(&"jwks"), "{known:?}");
    for key in known {
        check(
            &tables(&format!("{key} = 1\n"), &["issuer = \"https://a\""]),
            &[&[&format!("`{key}` is a key of one issuer")]],
        );
    }
}

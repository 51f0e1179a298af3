//! The command line on a sealed store: names of tokens, exports and imports.

use std::collections::BTreeSet;
use std::path::Path;

use authgate_auth::store::TokenDigest;
use serde_json::Value;

use crate::harness::Redis;
use crate::harness::program::{Ended, authgate, authgate_with_input};
use crate::sealed_store::{KEY, OTHER_KEY, Writer, stored};

pub fn run(folder: &Path, words: &[&str]) -> String {
    authgate(folder, words).good()
}

pub fn fails(ended: &Ended, code: i32, words: &[&str]) {
    assert!(
        ended.code == code && words.iter().all(|word| ended.err.contains(word)),
        "{ended:?}"
    );
}

/// A folder with a configuration for the command line.
pub fn folder(stores: &str) -> tempfile::TempDir {
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

pub fn table(name: &str, redis: &Redis, more: &str) -> String {
    let url = redis.url();
    format!("[stores.{name}]\nkind = \"redis\"\nurl = \"{url}\"\n{more}\n")
}

pub const SEAL: &str = "seal = { file = \"seal.key\" }";

/// Creates a token of user 42.
fn create(folder: &Path, words: &[&str]) {
    run(folder, &[&["token", "create", "--user", "42"], words].concat());
}

#[test]
fn the_command_line_names_tokens_of_a_sealed_store_by_their_digest_and_by_their_sealed_digest() {
    let redis = Redis::start_empty();
    let folder = folder(&table("redis", &redis, SEAL));
    let run = |words: &[&str]| run(folder.path(), words);
    create(folder.path(), &["--username", "ada", "--key", "canary-ada"]);
    create(folder.path(), &["--key", "canary-two"]);
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
    create(
        folder.path(),
        &["--username", "ada", "--key", "canary-ada", "--store", "redis"],
    );
    create(folder.path(), &["--key", "canary-two", "--store", "redis"]);
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
    create(folder.path(), &["--key", "canary-ada", "--store", "plain"]);
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

//! `authgate token import`: what it refuses, keeps and removes, and tokens of django-rest-knox.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use authgate_auth::store::{DigestKind, TokenDigest};
use serde_json::{Value, json};

use crate::harness::program::{Ended, authgate, authgate_with_input};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};

/// Runs the same story on a file and on an empty Redis; `lines` are added to the table of the store.
fn on_both(lines: &str, story: impl Fn(&Gate, &RecordingUpstream)) {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start_empty());
    let start = |stores: Config| {
        Gate::spawn(
            &stores
                .tables(lines)
                .token("cache = { entries = 0, negative_entries = 0 }")
                .identity("headers = { X-User-Id = \"id\", X-Groups = \"groups\", X-Tier = \"attributes.tier\" }")
                .app(&upstream)
                .protected("/*"),
        )
    };
    story(&start(config().redis(&redis)), &upstream);
    let file = config().tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"");
    story(&start(file), &upstream);
}

fn run(gate: &Gate, words: &[&str]) -> Ended {
    let ended = authgate(gate.folder.path(), words);
    assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
    ended
}

fn import(gate: &Gate, dump: &Value, more: &[&str]) -> Ended {
    let words = [&["token", "import", "-"], more].concat();
    authgate_with_input(gate.folder.path(), &words, dump.to_string().as_bytes())
}

fn imported(gate: &Gate, dump: &Value, more: &[&str]) -> Ended {
    let ended = import(gate, dump, more);
    assert_eq!(ended.code, 0, "{ended:?}");
    ended
}

fn becomes(gate: &Gate, key: &str, status: u16) {
    wait_until(&format!("{key} is answered {status}"), Duration::from_secs(5), || {
        gate.call(&get("/x").token(key)).status == status
    });
}

fn user(model: &str, id: u32, more: &Value) -> Value {
    let mut fields = json!({ "username": format!("user{id}"), "password": "x", "is_active": true });
    for (name, value) in more.as_object().expect("an object") {
        fields[name] = value.clone();
    }
    json!({ "model": model, "pk": id, "fields": fields })
}

fn token(key: &str, user: u32) -> Value {
    json!({ "model": "authtoken.token", "pk": key, "fields": { "user": user, "created": "2026-11-23T23:39:10.837Z" } })
}

#[test]
fn a_dump_with_another_user_model_is_an_error_that_names_it() {
    on_both("", |gate, _| {
        let dump = json!([user("accounts.user", 1, &json!({})), token("canary-one", 1)]);
        let ended = import(gate, &dump, &[]);
        assert!(
            ended.code == 1 && ended.err.contains("--user-model accounts.user") && !ended.err.contains("canary"),
            "{ended:?}"
        );
        let empty = authgate(gate.folder.path(), &["token", "list"]);
        assert!(empty.code == 1 && empty.err.contains("holds no records"), "{empty:?}");
        imported(gate, &dump, &["--user-model", "accounts.user"]);
        becomes(gate, "canary-one", 200);
        // The users are in the store by now: tokens alone are enough.
        imported(gate, &json!([token("canary-two", 1)]), &[]);
        becomes(gate, "canary-two", 200);
        let ended = import(gate, &json!([token("canary-three", 9)]), &[]);
        assert_eq!(ended.code, 1, "{ended:?}");
    });
}

#[test]
fn records_that_are_not_in_the_dump_stay() {
    on_both("", |gate, upstream| {
        let put = [
            "user",
            "put",
            "--id",
            "1",
            "--username",
            "ada",
            "--group",
            "staff",
            "--attribute",
            "tier=3",
        ];
        run(gate, &put);
        run(
            gate,
            &[
                "token",
                "create",
                "--user",
                "1",
                "--key",
                "canary-one",
                "--scope",
                "r",
                "--name",
                "ci",
            ],
        );
        run(gate, &["user", "disable", "1"]);
        // A model with neither groups nor `is_active`.
        let plain = json!({ "model": "auth.user", "pk": 1, "fields": { "username": "ada", "password": "x" } });
        imported(gate, &json!([plain, token("canary-one", 1)]), &[]);
        becomes(gate, "canary-one", 401);
        run(gate, &["user", "enable", "1"]);
        becomes(gate, "canary-one", 200);
        let seen = upstream.last();
        assert_eq!(
            (seen.header("x-groups"), seen.header("x-tier")),
            (Some("staff"), Some("3"))
        );
        let shown = run(gate, &["token", "show", "canary-one", "--json"]).out;
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!((&shown["name"], &shown["scopes"]), (&json!("ci"), &json!(["r"])));
        // One that has groups says who is in them.
        let group = json!({ "model": "auth.group", "pk": 7, "fields": { "name": "night" } });
        imported(
            gate,
            &json!([user("auth.user", 1, &json!({ "groups": [7] })), group]),
            &[],
        );
        wait_until("the groups are the dump's", Duration::from_secs(5), || {
            assert_eq!(gate.call(&get("/x").token("canary-one")).status, 200);
            upstream.last().header("x-groups") == Some("night")
        });
        assert_eq!(upstream.last().header("x-tier"), Some("3"));
    });
}

#[test]
fn prune_removes_missing_records_and_restores_no_revoked_token() {
    on_both("", |gate, _| {
        let whole = json!([
            user("auth.user", 1, &json!({})),
            user("auth.user", 2, &json!({})),
            token("canary-1a", 1),
            token("canary-1b", 1),
            token("canary-2a", 2),
            token("canary-2b", 2)
        ]);
        imported(gate, &whole, &[]);
        for key in ["canary-1a", "canary-1b", "canary-2a", "canary-2b"] {
            becomes(gate, key, 200);
        }
        run(gate, &["token", "revoke", "canary-1b"]);
        run(gate, &["token", "revoke", "canary-2b"]);
        let less = json!([user("auth.user", 1, &json!({})), token("canary-new", 1)]);
        assert_eq!(import(gate, &less, &["--prune"]).code, 2, "the model is to be named");
        let wrong = import(gate, &less, &["--prune", "--user-model", "accounts.user"]);
        assert!(wrong.code == 1 && wrong.err.contains("would remove"), "{wrong:?}");
        becomes(gate, "canary-2a", 200);
        let pruned = imported(gate, &less, &["--prune", "--user-model", "auth.user"]);
        assert!(pruned.out.contains("removed users 1, removed tokens 2"), "{pruned:?}");
        becomes(gate, "canary-new", 200);
        for key in ["canary-1a", "canary-2a"] {
            becomes(gate, key, 401);
        }
        let unknown = authgate(gate.folder.path(), &["user", "show", "2"]);
        assert_eq!(unknown.code, 1, "{unknown:?}");
        imported(gate, &whole, &[]);
        becomes(gate, "canary-1a", 200);
        becomes(gate, "canary-2a", 200);
        for key in ["canary-1b", "canary-2b"] {
            assert_eq!(gate.call(&get("/x").token(key)).status, 401, "{key} was revoked");
        }
        // Users alone: the dump says nothing of tokens.
        let users = json!([user("auth.user", 1, &json!({}))]);
        imported(gate, &users, &["--prune", "--user-model", "auth.user"]);
        becomes(gate, "canary-2a", 401);
        assert_eq!(gate.call(&get("/x").token("canary-1a")).status, 200);
    });
}

#[test]
fn token_create_with_a_key_can_be_repeated() {
    on_both("", |gate, _| {
        let create = |more: &[&str]| {
            let words = [
                &[
                    "token",
                    "create",
                    "--user",
                    "1",
                    "--username",
                    "ada",
                    "--key",
                    "canary-one",
                ],
                more,
            ];
            authgate(gate.folder.path(), &words.concat())
        };
        for _ in 0..2 {
            let ended = create(&["--scope", "r"]);
            assert!(ended.code == 0 && ended.out.trim() == "canary-one", "{ended:?}");
        }
        let other = create(&[]);
        assert!(other.code == 1 && other.err.contains("other scopes"), "{other:?}");
        run(gate, &["token", "revoke", "canary-one"]);
        let revoked = create(&["--scope", "r"]);
        assert!(revoked.code == 1 && revoked.err.contains("is revoked"), "{revoked:?}");
    });
}

#[test]
fn revocations_before_a_dump_apply_to_it() {
    on_both("", |gate, _| {
        let digest = TokenDigest::of(b"canary-dead").to_hex();
        let dump = json!([
            user("auth.user", 1, &json!({})),
            token("canary-dead", 1),
            token("canary-one", 1),
            user("auth.user", 2, &json!({})),
            token("canary-two", 2)
        ]);
        let lines = [
            json!({ "token": digest, "user": "1", "revoked": 1_700_000_000 }),
            json!({ "revoked_user": "2", "before": crate::harness::mint::now() }),
            dump,
        ];
        let input = lines.map(|line| line.to_string()).join("\n");
        let ended = authgate_with_input(gate.folder.path(), &["token", "import", "-"], input.as_bytes());
        assert!(
            ended.code == 0 && ended.out.contains("skipped because revoked 1"),
            "{ended:?}"
        );
        becomes(gate, "canary-one", 200);
        for key in ["canary-dead", "canary-two"] {
            assert_eq!(gate.call(&get("/x").token(key)).status, 401, "{key}");
        }
    });
}

#[test]
fn an_import_of_many_batches_can_be_repeated() {
    on_both("", |gate, _| {
        const MANY: u32 = 1_201;
        let users = (0..MANY).map(|id| user("auth.user", id, &json!({ "groups": [7] })));
        let tokens = (0..MANY).map(|id| token(&format!("canary-{id}"), id));
        let group = json!({ "model": "auth.group", "pk": 7, "fields": { "name": "night" } });
        let dump: Value = tokens.chain(users).chain([group]).collect();
        for _ in 0..2 {
            let ended = imported(gate, &dump, &[]);
            assert!(ended.out.starts_with("users 1201, tokens 1201,"), "{ended:?}");
        }
        for id in [0, 500, 1_200] {
            becomes(gate, &format!("canary-{id}"), 200);
        }
        // Every name moves on to the next user, over the ends of batches.
        let renamed = (0..MANY).map(|id| {
            let name = format!("user{}", (id + 1) % MANY);
            user("auth.user", id, &json!({ "username": name, "groups": [] }))
        });
        imported(gate, &renamed.collect(), &[]);
        for id in [0, 499, 1_200] {
            let shown = run(
                gate,
                &["user", "show", "--username", &format!("user{}", (id + 1) % MANY)],
            );
            assert!(shown.out.starts_with(&format!("user {id} (")), "{shown:?}");
        }
    });
}

#[test]
fn a_command_waits_for_the_lock_and_names_its_holder() {
    let (upstream, folder) = (RecordingUpstream::start(), tempfile::tempdir().expect("a folder"));
    let file = config().tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"");
    file.token("").app(&upstream).protected("/*").write(folder.path());
    let put = || authgate(folder.path(), &["user", "put", "--id", "1", "--username", "ada"]);
    assert_eq!(put().code, 0);
    let path = folder.path().join("tokens.toml.lock");
    assert!(!path.exists(), "nothing is left behind");
    let lock = File::create(&path).expect("writable");
    lock.lock().expect("free");
    let ended = put();
    let holder = format!("locked by process {}", std::process::id());
    assert!(
        ended.code == 1 && ended.err.contains(&holder) && ended.err.contains("10 s"),
        "{ended:?}"
    );
    let mode = lock.metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only the owner may open the lock");
    drop(lock);
    assert_eq!(put().code, 0);
}

#[test]
fn knox_tokens_are_imported_and_found_by_their_digests() {
    let key = "9f4d0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4canary";
    let hex_key = "9f4d0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7";
    let of = |kind: DigestKind, key: &str| kind.of(key.as_bytes()).expect("a digest").to_hex();
    let knox = |digest: String, expiry: Value| {
        json!({ "model": "knox.authtoken", "pk": digest,
            "fields": { "token_key": "9f4d0a1b2c3d4e5", "user": 1, "created": "2026-11-23T23:39:10.837Z", "expiry": expiry } })
    };
    for (kind, name, key) in [
        (DigestKind::Sha512, "sha512", key),
        (DigestKind::Sha512HexKey, "sha512-hexkey", hex_key),
    ] {
        let dump = json!([user("auth.user", 1, &json!({})), knox(of(kind, key), Value::Null)]);
        on_both("", |gate, _| {
            let ended = import(gate, &dump, &[]);
            assert!(ended.code == 1 && ended.err.contains("sha512-hexkey"), "{ended:?}");
        });
        on_both(&format!("digest = [\"sha256\", \"{name}\"]\n"), |gate, _| {
            imported(gate, &dump, &[]);
            becomes(gate, key, 200);
            assert_eq!(gate.call(&get("/x").token(&key.to_uppercase())).status, 401);
            // Keys of DRF and of the tools are beside them.
            run(gate, &["token", "create", "--user", "1", "--key", "canary-other"]);
            becomes(gate, "canary-other", 200);
            let shown = run(gate, &["token", "show", key]);
            assert!(
                shown.out.contains("sha512:") && shown.out.contains("accepted"),
                "{shown:?}"
            );
            let over = json!([knox(of(kind, key), json!("2020-01-01T00:00:00Z"))]);
            imported(gate, &over, &[]);
            becomes(gate, key, 401);
            imported(gate, &dump, &[]);
            becomes(gate, key, 200);
            let exported = run(gate, &["token", "export"]).out;
            run(gate, &["token", "revoke", key]);
            becomes(gate, key, 401);
            let again = authgate_with_input(gate.folder.path(), &["token", "import", "-"], exported.as_bytes());
            assert_eq!(again.code, 0, "{again:?}");
            run(gate, &["token", "create", "--user", "1", "--key", "canary-marker"]);
            becomes(gate, "canary-marker", 200);
            assert_eq!(
                gate.call(&get("/x").token(key)).status,
                401,
                "what was revoked stays revoked"
            );
        });
    }
}

//! `authgate token`, `user` and `revoke`, against both kinds of stores, with a gateway that sees what they did.

use std::path::Path;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::Signer;
use crate::harness::program::{Ended, authgate, authgate_with_input};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};

/// A gateway that asks its store each time, for tokens and for JWTs.
fn start(stores: Config, signer: &Signer, upstream: &RecordingUpstream, store: &str) -> Gate {
    Gate::spawn(
        &stores
            .token("cache = { entries = 0, negative_entries = 0 }")
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt(&format!("users = \"{store}\""))
            .jwt(&format!("revocation = \"{store}\""))
            .app(upstream)
            .route("/*", "authenticate = [\"token\", \"jwt\"]"),
    )
}

/// Runs the same story on a file, on an empty Redis, and on one with a seal.
fn on_all(story: impl Fn(&Gate, &Signer, &RecordingUpstream)) {
    on_both(&story);
    let (upstream, signer) = (
        RecordingUpstream::start(),
        Signer::new(Algorithm::ES256).kid("canary-kid"),
    );
    let redis = Redis::start_empty();
    let stores = config()
        .redis(&redis)
        .tables("seal = { file = \"seal.key\" }\n")
        .file("seal.key", [7; 32]);
    story(&start(stores, &signer, &upstream, "redis"), &signer, &upstream);
}

/// Runs the same story on a file and on an empty Redis.
fn on_both(story: impl Fn(&Gate, &Signer, &RecordingUpstream)) {
    let (upstream, signer) = (
        RecordingUpstream::start(),
        Signer::new(Algorithm::ES256).kid("canary-kid"),
    );
    let redis = Redis::start_empty();
    story(
        &start(config().redis(&redis), &signer, &upstream, "redis"),
        &signer,
        &upstream,
    );
    let file = config().tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n");
    story(&start(file, &signer, &upstream, "file"), &signer, &upstream);
}

fn run(gate: &Gate, words: &[&str]) -> Ended {
    let ended = authgate(gate.folder.path(), words);
    assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
    ended
}

fn json_of(gate: &Gate, words: &[&str]) -> Value {
    serde_json::from_str(&run(gate, words).out).unwrap_or_else(|_| panic!("{words:?}"))
}

/// Waits until a credential is answered so; a file is looked at a few times a second.
fn becomes(gate: &Gate, value: &str, status: u16) {
    wait_until(&format!("{value} is answered {status}"), Duration::from_secs(5), || {
        gate.call(&get("/x").authorization(value)).status == status
    });
}

#[test]
fn a_token_is_accepted_from_creation_to_revocation() {
    on_all(|gate, _, upstream| {
        let key = run(
            gate,
            &["token", "create", "--user", "7", "--username", "ada", "--scope", "r"],
        )
        .out
        .trim()
        .to_owned();
        assert!(
            key.len() == 40 && key.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{key}"
        );
        let value = format!("Token {key}");
        becomes(gate, &value, 200);
        assert_eq!(
            (
                upstream.last().header("x-user-id"),
                upstream.last().header("x-user-name")
            ),
            (Some("7"), Some("ada"))
        );
        let shown = run(gate, &["token", "show", &key]);
        assert!(shown.out.contains("accepted") && !shown.out.contains(&key), "{shown:?}");
        assert_eq!(
            json_of(gate, &["token", "list", "--json"]).as_array().map(Vec::len),
            Some(1)
        );
        run(gate, &["token", "revoke", &key]);
        becomes(gate, &value, 401);
        assert_eq!(json_of(gate, &["token", "show", &key, "--json"])["accepted"], false);
        let own = authgate_with_input(
            gate.folder.path(),
            &["token", "create", "--user", "7", "--key", "-"],
            b"canary-own\n",
        );
        assert_eq!(own.code, 0, "{own:?}");
        becomes(gate, "Token canary-own", 200);
        let ended = authgate(gate.folder.path(), &["token", "create", "--user", "unknown"]);
        assert!(ended.code == 1 && ended.err.contains("authgate user put"), "{ended:?}");
    });
}

#[test]
fn a_user_can_be_put_disabled_enabled_and_deleted() {
    on_all(|gate, signer, upstream| {
        run(
            gate,
            &[
                "user",
                "put",
                "--id",
                "42",
                "--username",
                "ada",
                "--group",
                "staff",
                "--attribute",
                "tier=3",
            ],
        );
        run(gate, &["token", "create", "--user", "42", "--key", "canary-ada"]);
        let bearer = format!("Bearer {}", signer.with(&json!({ "user_id": "42" })));
        for value in ["Token canary-ada", &bearer] {
            becomes(gate, value, 200);
            assert_eq!(upstream.last().header("x-user-name"), Some("ada"));
        }
        run(gate, &["user", "disable", "42"]);
        for (value, detail) in [
            ("Token canary-ada", "User inactive or deleted."),
            (&bearer, "User is inactive"),
        ] {
            becomes(gate, value, 401);
            assert_eq!(gate.call(&get("/x").authorization(value)).detail(), detail);
        }
        run(gate, &["user", "enable", "42"]);
        becomes(gate, "Token canary-ada", 200);
        assert!(run(gate, &["user", "show", "42"]).out.contains("ada"));
        run(gate, &["user", "delete", "42"]);
        becomes(gate, "Token canary-ada", 401);
        assert_eq!(
            gate.call(&get("/x").authorization("Token canary-ada")).detail(),
            "Invalid token."
        );
        assert_eq!(gate.call(&get("/x").authorization(&bearer)).detail(), "User not found");
    });
}

#[test]
fn revoked_credentials_are_refused() {
    on_all(|gate, signer, _| {
        run(gate, &["user", "put", "--id", "42", "--username", "ada"]);
        let bearer = |jti: &str| format!("Bearer {}", signer.with(&json!({ "user_id": "42", "jti": jti })));
        let (one, two) = (bearer("one"), bearer("two"));
        becomes(gate, &one, 200);
        run(gate, &["revoke", "--jti", "one"]);
        becomes(gate, &one, 401);
        assert_eq!(
            gate.call(&get("/x").authorization(&one)).json()["messages"][0]["message"],
            "Token is blacklisted"
        );
        becomes(gate, &two, 200);
        run(gate, &["token", "create", "--user", "42", "--key", "canary-ada"]);
        becomes(gate, "Token canary-ada", 200);
        let said = run(gate, &["revoke", "--user", "42"]);
        assert!(
            said.err.contains("user disable") || said.out.contains("user disable"),
            "{said:?}"
        );
        becomes(gate, &two, 401);
        becomes(gate, "Token canary-ada", 401);
        run(gate, &["user", "put", "--id", "43", "--username", "ben"]);
        let ben = format!("Bearer {}", signer.with(&json!({ "user_id": "43" })));
        becomes(gate, &ben, 200);
        run(gate, &["revoke", "--kid", "canary-kid"]);
        becomes(gate, &ben, 401);
    });
}

#[test]
fn a_django_dump_and_an_export_can_be_imported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django");
    for name in ["dump-sample.json", "dump-sample-natural.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let dump: Value = serde_json::from_str(&text).unwrap();
        let tokens: Vec<&Value> = dump
            .as_array()
            .unwrap()
            .iter()
            .filter(|object| object["model"] == "authtoken.token")
            .collect();
        on_both(|gate, _, upstream| {
            let imported = authgate_with_input(gate.folder.path(), &["token", "import", "-"], text.as_bytes());
            assert!(imported.code == 0 && !imported.out.contains("canary"), "{imported:?}");
            let ada = tokens
                .iter()
                .find(|token| token["fields"]["user"] == 42 || token["fields"]["user"] == json!(["ada"]))
                .unwrap();
            let value = format!("Token {}", ada["pk"].as_str().unwrap());
            becomes(gate, &value, 200);
            assert_eq!(upstream.last().header("x-user-id"), Some("42"));
            run(gate, &["token", "revoke", ada["pk"].as_str().unwrap()]);
            becomes(gate, &value, 401);
            let again = authgate_with_input(gate.folder.path(), &["token", "import", "-"], text.as_bytes());
            assert_eq!(again.code, 0, "{again:?}");
            assert_eq!(
                gate.call(&get("/x").authorization(&value)).status,
                401,
                "what was revoked stays revoked"
            );
            let exported = run(gate, &["token", "export"]).out;
            assert!(!exported.contains("canary") && exported.lines().count() >= tokens.len());
            let other = tempfile::tempdir().unwrap();
            let text = std::fs::read_to_string(gate.folder.path().join("gateway.toml")).unwrap();
            let alone = "[stores.file]\nkind = \"embedded\"\nfile = \"copy.toml\"\n";
            let start = text.find("[stores.").unwrap();
            let end = text[start..].find("[[routes]]").unwrap() + start;
            let text = text[..start].to_owned() + alone + &text[end..];
            std::fs::copy(gate.folder.path().join("jwt.key"), other.path().join("jwt.key")).unwrap();
            std::fs::write(other.path().join("gateway.toml"), text.replace("\"redis\"", "\"file\"")).unwrap();
            let copied = authgate_with_input(other.path(), &["token", "import", "-"], exported.as_bytes());
            assert_eq!(copied.code, 0, "{copied:?}");
            let copied = authgate(other.path(), &["token", "export"]);
            assert_eq!(copied.out, exported);
        });
    }
}

#[test]
fn several_stores_require_the_store_flag() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let config = config()
        .tokens(&redis)
        .token("store = \"redis\"")
        .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
        .app(&upstream)
        .protected("/*");
    let folder = tempfile::tempdir().unwrap();
    config.write(folder.path());
    let ended = authgate(folder.path(), &["token", "list"]);
    assert!(
        ended.code == 2 && ended.err.contains("redis") && ended.err.contains("file"),
        "{ended:?}"
    );
    assert_eq!(authgate(folder.path(), &["token", "list", "--store", "redis"]).code, 0);
}

#[test]
fn a_token_can_be_revoked_by_key_digest_or_standard_input() {
    on_both(|gate, _, _| {
        run(gate, &["user", "put", "--id", "42", "--username", "ada"]);
        let keys = ["canary-1", "canary-2", "canary-3", "canary-4"];
        for key in keys {
            run(gate, &["token", "create", "--user", "42", "--key", key]);
            becomes(gate, &format!("Token {key}"), 200);
        }
        run(gate, &["revoke", "--token", "canary-1"]);
        let read = authgate_with_input(gate.folder.path(), &["revoke", "--token", "-"], b"canary-2\n");
        assert_eq!(read.code, 0, "{read:?}");
        let digest = format!("sha256:{}", Redis::token_key("canary-3").replace("token:", ""));
        run(gate, &["revoke", "--token", &digest]);
        for key in &keys[..3] {
            becomes(gate, &format!("Token {key}"), 401);
            assert_eq!(
                json_of(gate, &["token", "show", key, "--json"])["accepted"],
                false,
                "{key}"
            );
        }
        becomes(gate, "Token canary-4", 200);
        let listed = json_of(gate, &["token", "list", "--user", "42", "--json"]).to_string();
        assert!(listed.contains(&digest) && !listed.contains("canary"), "{listed}");
        let unknown = authgate(gate.folder.path(), &["revoke", "--token", "canary-unknown"]);
        assert!(unknown.code == 1 && !unknown.err.contains("canary"), "{unknown:?}");
        let both = authgate(gate.folder.path(), &["revoke", "--token", "x", "--user", "42"]);
        assert_eq!(both.code, 2, "{both:?}");
    });
}

#[test]
fn a_revocation_by_time_does_not_affect_later_credentials() {
    on_both(|gate, signer, _| {
        run(gate, &["user", "put", "--id", "42", "--username", "ada"]);
        let now = crate::harness::mint::now();
        let issued = |iat: i64| format!("Bearer {}", signer.with(&json!({ "user_id": "42", "iat": iat })));
        let (old, new) = (issued(now - 1000), issued(now - 100));
        run(gate, &["token", "create", "--user", "42", "--key", "canary-new"]);
        for value in [&old, &new, "Token canary-new"] {
            becomes(gate, value, 200);
        }
        run(gate, &["revoke", "--user", "42", "--before", &(now - 500).to_string()]);
        becomes(gate, &old, 401);
        for value in [&new, "Token canary-new"] {
            assert_eq!(gate.call(&get("/x").authorization(value)).status, 200);
        }
        // A revocation is only ever widened.
        run(gate, &["revoke", "--user", "42", "--before", &(now - 2000).to_string()]);
        run(gate, &["token", "create", "--user", "42", "--key", "canary-marker"]);
        becomes(gate, "Token canary-marker", 200);
        assert_eq!(gate.call(&get("/x").authorization(&old)).status, 401);
        let ahead = (now + 100_000).to_string();
        let ended = authgate(gate.folder.path(), &["revoke", "--user", "42", "--before", &ahead]);
        assert_eq!(ended.code, 2, "{ended:?}");
    });
}

#[test]
fn revocations_are_stored_only_for_jwts_that_have_not_expired() {
    on_both(|gate, signer, _| {
        run(gate, &["user", "put", "--id", "42", "--username", "ada"]);
        let now = crate::harness::mint::now();
        let bearer = |jti: &str| format!("Bearer {}", signer.with(&json!({ "user_id": "42", "jti": jti })));
        let (one, two) = (bearer("canary-jti-1"), bearer("canary-jti-2"));
        becomes(gate, &one, 200);
        let ended = run(
            gate,
            &[
                "revoke",
                "--jti",
                "canary-jti-1",
                "--expires",
                &(now - 10_000).to_string(),
            ],
        );
        assert!(ended.out.contains("nothing to revoke"), "{ended:?}");
        run(
            gate,
            &["revoke", "--jti", "canary-jti-2", "--expires", &(now + 300).to_string()],
        );
        becomes(gate, &two, 401);
        assert_eq!(gate.call(&get("/x").authorization(&one)).status, 200);
    });
}

#[test]
fn an_imported_dump_keeps_django_s_user_states_and_restores_no_revoked_token() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django");
    for name in ["dump-sample.json", "dump-sample-natural.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let dump: Value = serde_json::from_str(&text).unwrap();
        let key_of = |id: &str| {
            let tokens = dump
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|object| object["pk"].as_str());
            let key = tokens.into_iter().find(|key| key.starts_with(&format!("canary-{id}-")));
            format!("Token {}", key.unwrap())
        };
        on_both(|gate, _, upstream| {
            let import = || {
                let ended = authgate_with_input(gate.folder.path(), &["token", "import", "-"], text.as_bytes());
                assert_eq!(ended.code, 0, "{ended:?}");
            };
            import();
            becomes(gate, &key_of("44"), 200);
            assert_eq!(upstream.last().header("x-user-name"), Some("zo%C3%AB"), "{name}");
            let reply = gate.call(&get("/x").authorization(&key_of("43")));
            assert_eq!(
                (reply.status, reply.detail().as_str()),
                (401, "User inactive or deleted."),
                "{name}"
            );
            let groups = |id: &str| json_of(gate, &["user", "show", id, "--json"])["groups"].clone();
            assert_eq!(groups("42"), json!(["editors", "staff"]), "{name}");
            assert_eq!(groups("44"), json!(["équipe, nuit"]), "{name}");
            run(gate, &["token", "revoke", key_of("44").trim_start_matches("Token ")]);
            becomes(gate, &key_of("44"), 401);
            import();
            // Once the gateway sees this, it sees what was imported before it too.
            run(gate, &["token", "create", "--user", "42", "--key", "canary-marker"]);
            becomes(gate, "Token canary-marker", 200);
            assert_eq!(gate.call(&get("/x").authorization(&key_of("44"))).status, 401, "{name}");
        });
    }
}

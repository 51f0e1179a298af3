//! Text of strangers on its way to a terminal or a log: no control character and no mark that reorders text comes through.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::{Signer, forged, now};
use crate::harness::program::{authgate, authgate_with_input};
use crate::harness::{Gate, RecordingUpstream, config, get};

/// A control sequence that begins with one character, DEL, two marks that turn the direction of text, ESC, and a newline.
const EVIL: &str = "a\u{9b}31m\u{7f}b\u{202e}c\u{2066}d\u{1b}[2Je\nf";

fn assert_printable(text: &str) {
    let bad = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{200e}'..='\u{202e}' | '\u{2060}'..='\u{206f}'));
    assert!(!text.contains(bad), "{text:?}");
}

/// A store whose free texts are evil.
fn store() -> String {
    let user = json!({ "bio": EVIL }).to_string();
    let attributes: toml::Table = serde_json::from_str(&user).unwrap();
    let mut users = toml::Table::new();
    let mut ada: toml::Table = serde_json::from_value(
        json!({ "id": "1\u{202e}", "username": "a\u{202e}b", "email": "\u{2066}", "active": true,
            "groups": ["x\u{202e}"] }),
    )
    .unwrap();
    ada.insert("attributes".to_owned(), attributes.into());
    users.insert("1\u{202e}".to_owned(), ada.into());
    let digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let tokens: toml::Table = serde_json::from_value(json!({ digest: { "user": "1\u{202e}", "name": EVIL } })).unwrap();
    let mut file = toml::Table::new();
    file.insert(
        "layout".to_owned(),
        serde_json::from_value(json!({ "version": 1, "epoch": "e" })).unwrap(),
    );
    file.insert("users".to_owned(), users.into());
    file.insert("tokens".to_owned(), tokens.into());
    file.to_string()
}

#[test]
fn commands_escape_control_characters_and_their_json_has_the_same_values() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let gate = Gate::start(
        &config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .file("tokens.toml", store())
            .file("key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("key")))
            .jwt("users = \"none\"")
            .token("store = \"file\"")
            .app(&upstream)
            .route("/api/*", "authenticate = [\"token\", \"jwt\"]"),
    );
    let folder = gate.folder.path();
    let digest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    for words in [
        &["user", "show", "1\u{202e}"][..],
        &["user", "show", "--username", "a\u{202e}b"],
        &["token", "list"],
        &["token", "show", digest],
    ] {
        let text = authgate(folder, words).good();
        assert_printable(&text);
        let json = authgate(folder, &[words, &["--json"]].concat()).good();
        assert_printable(&json);
        let value: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
        let holds = value.to_string().contains("\u{202e}");
        assert!(holds, "the JSON means another text: {json}");
    }
    let export = authgate(folder, &["token", "export"]).good();
    assert_printable(&export);
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);

    let header = json!({ "alg": "HS256", "kid": EVIL });
    let claims = json!({ "user_id": EVIL, "iss": EVIL, "exp": now() + 60, EVIL: 5 });
    for token in [forged(&header, &claims, b"another"), signer.sign(&claims)] {
        for words in [&["jwt", "inspect", "-"][..], &["jwt", "inspect", "-", "--json"]] {
            let ended = authgate_with_input(folder, words, token.as_bytes());
            assert_printable(&ended.out);
            assert!(ended.out.contains("\\u009b31m\\u007fb\\u202ec"), "{ended:?}");
        }
    }
    let unknown = authgate(folder, &["user", "show", "a\u{202e}b"]);
    assert_eq!(unknown.code, 1);
    assert_printable(&unknown.err);
}

#[test]
fn a_log_line_is_one_line_of_printable_text_in_either_format() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    for format in ["text", "json"] {
        let mut gate = Gate::start(
            &config()
                .log(&format!("format = \"{format}\""))
                .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
                .file("tokens.toml", "layout = { version = 1, epoch = \"e\" }\n")
                .file("key", signer.file())
                .jwt(&format!("keys = [{}]", signer.key("key")))
                .jwt("users = \"none\"")
                .token("store = \"file\"")
                .app(&upstream)
                .route("/api/*", "authenticate = [\"token\", \"jwt\"]"),
        );
        let jwt = signer.with(&json!({ "user_id": "a\u{202e}b" }));
        assert_eq!(gate.call(&get("/api/x").bearer(&jwt)).status, 200);
        // The message of the TOML reader names the key.
        let broken = "layout = { version = 1, epoch = \"e\" }\n\"x\u{9b}y\u{202e}\" = 5\n";
        std::fs::write(gate.folder.path().join("tokens.toml"), broken).unwrap();
        gate.logged(&["tokens.toml", "unknown field"]);
        assert!(!gate.has_ended());
        let log = gate.stop();
        assert_printable(&log);
        if format == "json" {
            for line in log.lines().filter(|line| line.starts_with('{')) {
                serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
}

#[test]
fn check_escapes_control_characters_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("gateway.toml"),
        "[server]\nlisten = [\"127.0.0.1:0\u{9b}2J\"]\n\"a\u{9b}\u{202e}\" = 5\n[log]\nlevel = \"\u{202e}\"\n",
    )
    .unwrap();
    let ended = authgate(folder.path(), &["check"]);
    assert_eq!(ended.code, 2);
    assert_printable(&ended.err);
    assert!(ended.err.contains("unknown key"), "{}", ended.err);
}

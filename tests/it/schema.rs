//! The JSON Schema of gateway.toml, as it is committed. `config/tests/schema.rs` compares it with the reader on many files.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::floors::root;
use crate::harness::program::{Ended, authgate};

fn validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let schema = fs::read_to_string(root().join("docs/reference/gateway.schema.json")).unwrap();
        let schema: Value = serde_json::from_str(&schema).unwrap();
        jsonschema::draft7::new(&schema).unwrap()
    })
}

/// Why the schema rejects a file, if it does.
pub fn rejections(text: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let value = serde_json::to_value(table).unwrap();
    let errors = validator().iter_errors(&value);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// Fails if the schema and `authgate check` disagree about a file: about a valid one, or one with an error that a schema can find.
pub fn compare(text: &str, ended: &Ended) {
    if toml::from_str::<toml::Table>(text).is_err() {
        return;
    }
    let rejections = rejections(text);
    let can_be_found = [
        "unknown key `",
        ": expected ",
        "\" is not a valid value",
        "\" is not a duration",
    ];
    if ended.code == 0 {
        assert!(rejections.is_empty(), "{text}\n{rejections:#?}");
    } else if can_be_found.iter().any(|words| ended.err.contains(words)) {
        assert!(!rejections.is_empty(), "{text}\n{}", ended.err);
    }
}

/// Every TOML file below a folder.
fn toml_files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git", "node_modules"].contains(&name.as_str()) {
            toml_files(&path, found);
        } else if name.ends_with(".toml") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_schema_accepts_every_configuration_that_is_shipped() {
    let mut files = Vec::new();
    for folder in ["deploy", "certs-example", "bench"] {
        toml_files(&root().join(folder), &mut files);
    }
    files.push(fs::read_to_string(root().join("gateway.toml")).unwrap());
    let configurations = files
        .iter()
        .filter(|text| text.lines().any(|line| line.trim() == "[server]"));
    let mut checked = 0;
    for text in configurations {
        let rejections = rejections(text);
        assert!(rejections.is_empty(), "{text}\n{rejections:#?}");
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn a_key_is_explained_in_the_terminal() {
    let folder = Path::new(".");
    let entry = authgate(folder, &["check", "--key", "server.limits.header_timeout"]).good();
    for text in ["server.limits.header_timeout\n", "\"10s\"", "since     0.1.0"] {
        assert!(entry.contains(text), "{entry}");
    }
    let table = authgate(folder, &["check", "--key", "server.limits"]).good();
    assert!(table.contains("h2_streams"), "{table}");
    let wrong = authgate(folder, &["check", "--key", "server.limits.header_timout"]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.err.contains("did you mean \"server.limits.header_timeout\"?"),
        "{wrong:?}"
    );
}

#[test]
fn a_key_of_another_table_is_named_there() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[server]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = \"5s\"\nconnections = 5\n\
                [upstreams.app]\nservers = [\"http://127.0.0.1:8000\"]\n[[routes]]\npath = \"/*\"\npublic = true\nupstream = \"app\"\n";
    fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let ended = authgate(folder.path(), &["check", "gateway.toml"]);
    assert_eq!(ended.code, 2);
    for words in [
        "it is a key of `server.limits`;",
        "it is a key of `server.limits` and `stores.NAME`;",
    ] {
        assert!(ended.err.contains(words), "{}", ended.err);
    }
    assert!(!rejections(text).is_empty());
}

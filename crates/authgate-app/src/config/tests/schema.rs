//! The JSON Schema agrees with the reader, on every file of these tests.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::config::schema::schema;
use crate::config::{ConfigError, Loaded, Problem, Severity};

fn validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| jsonschema::draft7::new(&schema()).expect("a schema"))
}

/// Why the schema rejects a file. `None`: it is no TOML.
fn rejections(text: &str) -> Option<Vec<String>> {
    let table: toml::Table = toml::from_str(text).ok()?;
    let value: Value = serde_json::to_value(table).ok()?;
    let errors = validator().iter_errors(&value);
    Some(
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect(),
    )
}

/// Whether a schema can find a problem: keys, types and words, which concern one value alone.
fn can_be_found(problem: &Problem) -> bool {
    // What the environment has is not in the file.
    let is_written = !problem.message.starts_with("the value of $") && !problem.message.starts_with("the content of ");
    problem.severity == Severity::Error
        && is_written
        && (problem.message.starts_with("unknown key")
            || problem.message.starts_with("expected ")
            || problem.message.ends_with("is not a valid value")
            || problem.message.ends_with("is not a duration")
            || problem.message.ends_with("is not a size")
            || problem.message.ends_with("is not above zero")
            || problem.message == "the number is out of range"
            || problem.message == "the list is empty")
}

/// Fails if the schema rejects a valid file, or accepts a file with an error that it can find.
pub(super) fn compare(text: &str, result: Result<&Loaded, &ConfigError>) {
    // Tests of time have files of thousands of routes.
    const MAX_BYTES: usize = 64 * 1024;
    let small = Some(text).filter(|text| text.len() < MAX_BYTES);
    let Some(rejections) = small.and_then(rejections) else {
        return;
    };
    match result {
        Ok(_) => assert!(
            rejections.is_empty(),
            "the schema rejects a valid file:\n{text}\n{rejections:#?}"
        ),
        Err(error) => {
            let found = error.report().problems().iter().find(|problem| can_be_found(problem));
            if let (Some(problem), true) = (found, rejections.is_empty()) {
                panic!("the schema accepts a file with an error that it can find:\n{text}\n{problem:#?}");
            }
        }
    }
}

#[test]
fn the_schema_is_valid() {
    assert!(jsonschema::meta::is_valid(&schema()));
}

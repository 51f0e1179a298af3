//! `status.md`: every member of `/status.json`, with the comment of its field.

use std::fmt::Write;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::GENERATED;
use crate::control::status::document::Status;

const INTRODUCTION: &str = "\
# /status.json

`GET /status.json` of the [admin listener](../operations/monitor.md) returns the state of the process. Later versions may add members, and remove
none. Times are in UTC (RFC 3339). There is no secret in it: no login at a store, no token, no key. `[]` is an element of a list.
";

/// The text of the page.
pub(super) fn page() -> String {
    let schema = schema();
    let mut page = format!("{GENERATED}{INTRODUCTION}\n## The process\n{TABLE}");
    for (name, member) in members(schema.as_value()) {
        if !is_nested(member) {
            row(&mut page, name, member);
        }
    }
    for (name, member) in members(schema.as_value()) {
        if is_nested(member) {
            let _ = write!(page, "\n## {name}\n\n{}\n{TABLE}", description(member));
            rows(&mut page, name, member);
        }
    }
    page
}

const TABLE: &str = "\n| member | type | meaning |\n| --- | --- | --- |\n";

fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Status>()
}

/// Writes a row for each member of an object, or of the objects of a list.
fn rows(page: &mut String, path: &str, schema: &Value) {
    let (path, object) = match objects(schema) {
        Some(Objects::One(object)) => (path.to_owned(), object),
        Some(Objects::Listed(object)) => (format!("{path}[]"), object),
        None => return,
    };
    for (name, member) in members(object) {
        let path = format!("{path}.{name}");
        row(page, &path, member);
        rows(page, &path, member);
    }
}

fn row(page: &mut String, path: &str, member: &Value) {
    let _ = writeln!(page, "| `{path}` | {} | {} |", kind(member), description(member));
}

enum Objects<'s> {
    One(&'s Value),
    Listed(&'s Value),
}

/// The schema of the object, or of the objects of the list, that a member is.
fn objects(schema: &Value) -> Option<Objects<'_>> {
    let schema = without_null(schema);
    if schema.get("properties").is_some() {
        return Some(Objects::One(schema));
    }
    let items = schema.get("items").filter(|items| items.get("properties").is_some());
    items.map(Objects::Listed)
}

fn is_nested(schema: &Value) -> bool {
    objects(schema).is_some()
}

/// The schema of a value that may also be null.
fn without_null(schema: &Value) -> &Value {
    let either = schema.get("anyOf").and_then(Value::as_array);
    let either = either.and_then(|schemas| schemas.iter().find(|schema| schema["type"] != "null"));
    either.unwrap_or(schema)
}

fn members(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = schema.get("properties").and_then(Value::as_object);
    let members: Option<&Map<String, Value>> = members;
    members.into_iter().flatten().map(|(name, member)| (&**name, member))
}

fn kind(schema: &Value) -> String {
    let null = if schema.get("anyOf").is_some() { " or null" } else { "" };
    let schema = without_null(schema);
    let named = |kind: &str| match kind {
        "array" => format!("list of {}", plural(&schema["items"])),
        "object" => "object".to_owned(),
        "integer" => "integer".to_owned(),
        "null" => "null".to_owned(),
        kind => kind.to_owned(),
    };
    let kind = match &schema["type"] {
        Value::String(kind) => named(kind),
        Value::Array(kinds) => {
            let kinds: Vec<String> = kinds.iter().filter_map(Value::as_str).map(named).collect();
            kinds.join(" or ")
        }
        // An enum whose values have comments.
        _ if schema.get("oneOf").is_some() => "string".to_owned(),
        _ => "any".to_owned(),
    };
    format!("{kind}{null}")
}

fn plural(items: &Value) -> String {
    match kind(items).as_str() {
        "object" => "objects".to_owned(),
        "string" => "strings".to_owned(),
        "number" => "numbers".to_owned(),
        "number or null" => "numbers or null".to_owned(),
        "any" => "objects".to_owned(),
        other => other.to_owned(),
    }
}

/// The comment of the field on one line. That of its type, if the field has none.
fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_described() {
        let page = page();
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let bare: Vec<&str> = rows.filter(|row| row.ends_with("|  |")).collect();
        assert!(bare.is_empty(), "{bare:#?}");
        for row in [
            "| `health.problems[].severity` | string | ",
            "| `traffic.history.p99_seconds` | list of numbers or null | ",
            "| `stores[].outage.cached_decisions[].authenticator` | string | ",
            "| `routes.busiest[].outcomes` | object | ",
        ] {
            assert!(page.contains(row), "{row} is not in\n{page}");
        }
    }
}

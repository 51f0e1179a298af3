//! The JSON Schema of gateway.toml, for editors: made from the declarations of the keys.
//!
//! It is draft 7, which taplo and other editors of TOML know. It rejects unknown keys, values of another type, and other words. It does not
//! compare keys with each other, and reads no files: that is what `authgate check` does.

use serde_json::{Map, Value, json};

use super::keys::ROOT;
use super::reader::text_source as source;
use super::reader::{Declared, Form, Presence, Shape, Table};

/// The definition of a string that comes from elsewhere.
const SOURCE: &str = "#/definitions/source";
/// The definition of a required claim.
const CLAIM: &str = "#/definitions/claim";

/// The whole schema.
pub(crate) fn schema() -> Value {
    let mut schema = table(&ROOT);
    let mut source = table(&source::TABLE);
    source["anyOf"] = json!([{ "required": ["env"] }, { "required": ["file"] }]);
    for value in source["properties"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        // These strings must be written in the file itself.
        if let Some(value) = value.as_object_mut() {
            value.remove("anyOf");
            value.insert("type".to_owned(), json!("string"));
        }
    }
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("gateway.toml of authgate");
    schema["definitions"] = json!({
        "source": source,
        "claim": {
            "anyOf": [
                { "type": ["string", "integer", "boolean"] },
                { "type": "object", "minProperties": 1, "additionalProperties": { "$ref": CLAIM } },
            ],
        },
    });
    schema
}

/// An object with the keys of a table, and no other ones.
fn table(table: &Table) -> Value {
    let required: Vec<&str> = table
        .keys
        .iter()
        .filter(|key| key.about().presence == Presence::Required)
        .map(|key| key.name())
        .collect();
    let mut object = json!({
        "type": "object",
        "description": table.text,
        "properties": table.keys.iter().map(|key| (key.name().to_owned(), property(*key))).collect::<Map<_, _>>(),
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// The value of a key, with its words.
fn property(key: &dyn Declared) -> Value {
    let mut schema = shape(&key.shape());
    schema["description"] = json!(description(key));
    if let Some(default) = key.default_toml().and_then(|toml| value(&toml)) {
        schema["default"] = default;
    }
    schema
}

fn description(key: &dyn Declared) -> String {
    let about = key.about();
    let default = match (key.default_toml(), about.absent) {
        (Some(default), _) => format!("\n\nDefault: `{default}`."),
        (None, "") => String::new(),
        (None, absent) => format!("\n\nDefault: {absent}."),
    };
    let required = match about.presence {
        Presence::Optional | Presence::Required => String::new(),
        Presence::RequiredIf(when) => format!("\n\nRequired {when}."),
    };
    format!("{}{default}{required}\n\nSince {}.", about.text, about.since)
}

/// A value of TOML as JSON.
fn value(toml: &str) -> Option<Value> {
    let text = format!("value = {toml}");
    let table: toml::Table = toml::from_str(&text).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

fn shape(of: &Shape) -> Value {
    match of {
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::False => json!({ "const": false }),
        Shape::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Duration { min, .. } if min.is_zero() => string("^[0-9]+(ms|s|m|h|d)$"),
        Shape::Duration { .. } => string("^0*[1-9][0-9]*(ms|s|m|h|d)$"),
        Shape::Size { .. } => string("^[0-9]+[A-Za-z]*B$"),
        Shape::Words(words) => or_source(&json!({ "enum": words })),
        Shape::Text(Form { pattern: None, .. }) | Shape::Secret => or_source(&json!({ "type": "string" })),
        Shape::Text(Form { pattern: Some("."), .. }) => or_source(&json!({ "type": "string", "minLength": 1 })),
        Shape::Text(Form {
            pattern: Some(pattern), ..
        }) => string(pattern),
        Shape::List { of, min } => json!({ "type": "array", "items": shape(of), "minItems": min }),
        Shape::OneOf(all) => {
            let alternatives = all.iter().map(shape).flat_map(|one| match one.get("anyOf") {
                Some(Value::Array(inner)) => inner.clone(),
                Some(_) | None => vec![one],
            });
            let mut different: Vec<Value> = Vec::new();
            for one in alternatives {
                if !different.contains(&one) {
                    different.push(one);
                }
            }
            json!({ "anyOf": different })
        }
        Shape::Table(inner) => table(inner),
        Shape::Kinds(tables) => kinds(tables),
        Shape::Names { of, .. } => json!({ "type": "object", "additionalProperties": shape(of) }),
        Shape::Claim => json!({ "$ref": CLAIM }),
    }
}

/// A string that matches a pattern.
fn string(pattern: &str) -> Value {
    or_source(&json!({ "type": "string", "pattern": pattern }))
}

/// The same, or where it comes from.
fn or_source(string: &Value) -> Value {
    json!({ "anyOf": [string, { "$ref": SOURCE }] })
}

/// A table whose `kind` says which keys it has. The keys of all kinds are listed, because editors do not complete those of a condition.
fn kinds(tables: &[&'static Table]) -> Value {
    let mut all = Map::new();
    let mut conditions = Vec::new();
    for one in tables {
        for key in one.keys {
            let property = property(*key);
            match all.get_mut(key.name()) {
                None => {
                    all.insert(key.name().to_owned(), property);
                }
                Some(known) if *known == property => {}
                Some(known) => {
                    // The kinds differ: the condition has the type.
                    let texts =
                        [&*known, &property].map(|one| one["description"].as_str().unwrap_or_default().to_owned());
                    *known = json!({ "description": texts.join("\n\nOr: ") });
                }
            }
        }
        let mut then = table(one);
        if let Some(then) = then.as_object_mut() {
            then.remove("type");
        }
        conditions.push(json!({
            "if": { "properties": { "kind": { "const": one.kind } }, "required": ["kind"] },
            "then": then,
        }));
    }
    json!({ "type": "object", "properties": all, "required": ["kind"], "allOf": conditions })
}

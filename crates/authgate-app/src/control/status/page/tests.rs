use serde_json::Value;

use super::*;

/// A status in which every text is this one, and every list has one element.
fn with_texts(text: &str) -> Status {
    let fill = |schema: &Value| filled(schema, text);
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Status>();
    serde_json::from_value(fill(schema.as_value())).expect("it follows its own schema")
}

fn filled(schema: &Value, text: &str) -> Value {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values[values.len() - 1].clone();
    }
    if let Some(values) = schema.get("oneOf").and_then(Value::as_array) {
        return values[values.len() - 1]["const"].clone();
    }
    if let Some(either) = schema.get("anyOf").and_then(Value::as_array) {
        return filled(&either[0], text);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("string") => text.into(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => Value::Array(vec![filled(&schema["items"], text)]),
        Some("object") => match schema.get("properties").and_then(Value::as_object) {
            Some(members) => {
                let members = members
                    .iter()
                    .map(|(name, member)| (name.clone(), filled(member, text)));
                Value::Object(members.collect())
            }
            None => serde_json::json!({ text: 1 }),
        },
        _ => serde_json::json!({ "key": text, "message": text, "help": text }),
    }
}

#[test]
fn every_text_is_escaped() {
    let hostile = "<script>alert('1')</script>\" onload=x &amp;\ndata: <b>";
    let status = with_texts(hostile);
    for html in [page(&status).expect("a page"), event(&status).expect("an event")] {
        assert!(html.matches("alert(").count() > 30, "the texts are shown");
        assert!(!html.contains("<script>alert") && !html.contains("\" onload") && !html.contains("<b>\""));
        assert_eq!(html.matches("<script").count(), html.matches("</script>").count());
        assert!(html.matches("<script").count() <= 1);
    }
}

#[test]
fn an_event_has_one_field_and_ends_with_an_empty_line() {
    let event = event(&with_texts("a\r\nevent: other\n\ndata: x")).expect("an event");
    let (body, end) = event.split_at(event.len() - 2);
    assert_eq!(end, "\n\n");
    let lines: Vec<&str> = body
        .split(['\n', '\r'])
        .filter(|line| !line.starts_with("data: "))
        .collect();
    assert!(lines.iter().all(|line| line.is_empty()), "{lines:?}");
}

#[test]
fn the_policy_permits_nothing_but_the_style_and_the_script_of_the_page() {
    let policy = POLICY.to_str().expect("ASCII");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
}

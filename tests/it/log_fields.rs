//! Log fields have the same names in all events.

use std::fs;
use std::path::PathBuf;

use authgate_app::reference::log::{EVENTS, FIELDS};

use crate::floors::{files, sources};

/// Field names that must not be used for errors: the name is `reason`.
const SYNONYMS: [&str; 7] = ["cause", "err", "error", "excess", "fault", "problem", "why"];

/// The fields of each log macro: the text between its parenthesis and its message.
fn fields(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for name in ["trace!(", "debug!(", "info!(", "warn!(", "error!("] {
        let calls = text.match_indices(name).map(|(at, _)| &text[at + name.len()..]);
        // A message is the first text that follows a comma or the parenthesis.
        found.extend(calls.map(|call| call.find([';', '"']).map_or(call, |end| &call[..end])));
    }
    found
}

#[test]
fn errors_are_logged_in_the_field_reason() {
    let mut paths: Vec<PathBuf> = Vec::new();
    for source in sources() {
        files(&source, &mut paths);
    }
    let (mut events, mut reasons) = (0, 0);
    for file in paths {
        let text = fs::read_to_string(&file).unwrap();
        for fields in fields(&text) {
            events += 1;
            for field in fields.split(',') {
                let name = field.split('=').next().unwrap_or_default();
                let name = name.trim().trim_start_matches(['%', '?']);
                reasons += usize::from(name == "reason");
                assert!(
                    !SYNONYMS.contains(&name),
                    "{}: the field `{name}` of a log event is called `reason`: {fields}",
                    file.display()
                );
            }
        }
    }
    assert!(events > 30 && reasons > 20, "{reasons} reasons in {events} events");
}

/// A call of `info!`, `warn!` or `error!`.
#[derive(Debug)]
struct Call {
    level: &'static str,
    message: String,
    fields: Vec<String>,
    place: String,
}

/// The arguments of a macro, whose text begins after the parenthesis.
fn arguments(text: &str) -> Vec<String> {
    let (mut found, mut argument) = (Vec::new(), String::new());
    let (mut depth, mut in_text, mut is_escaped) = (0, false, false);
    for c in text.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_text => is_escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' | ';' if depth == 0 => {
                found.push(std::mem::take(&mut argument).trim().to_owned());
                continue;
            }
            _ => {}
        }
        argument.push(c);
    }
    found.push(argument.trim().to_owned());
    found.retain(|argument| !argument.is_empty());
    found
}

/// The text of a literal.
fn unescaped(literal: &str) -> String {
    let inside = literal.trim_matches('"').replace("\\\"", "\"");
    let mut lines = inside.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// All calls of the sources.
fn calls() -> Vec<Call> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for source in sources() {
        files(&source, &mut paths);
    }
    let mut found = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for (level, name) in [("info", "info!("), ("warn", "warn!("), ("error", "error!(")] {
            for (at, _) in text.match_indices(name) {
                let before = &text[..at];
                let is_whole = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                if !is_whole || before.rsplit('\n').next().is_some_and(|line| line.contains("//")) {
                    continue;
                }
                let mut call = Call {
                    level,
                    message: String::new(),
                    fields: Vec::new(),
                    place: format!("{}:{}", path.display(), before.lines().count()),
                };
                for argument in arguments(&text[at + name.len()..]) {
                    if argument.starts_with('"') {
                        call.message = unescaped(&argument);
                        break; // values of the text follow
                    }
                    let name = argument.split('=').next().unwrap_or_default();
                    call.fields.push(name.trim().trim_start_matches(['%', '?']).to_owned());
                }
                found.push(call);
            }
        }
    }
    found
}

#[test]
fn every_event_and_its_fields_are_in_the_reference() {
    let calls = calls();
    assert!(calls.len() > 80, "{} events", calls.len());
    for call in &calls {
        assert!(!call.message.is_empty(), "an event has a text: {call:?}");
        for name in &call.fields {
            assert!(
                FIELDS.iter().any(|field| field.name == name),
                "the field {name} of {} is not in crates/authgate-app/src/reference/log/mod.rs",
                call.place
            );
        }
        if call.message == "request" {
            let described = FIELDS.iter().filter(|field| !field.in_request.is_empty());
            let described: Vec<&str> = described.map(|field| field.name).collect();
            assert_eq!(call.fields, described, "{}", call.place);
            continue;
        }
        let events = EVENTS
            .iter()
            .filter(|event| event.level == call.level && event.message == call.message);
        let events: Vec<_> = events.collect();
        assert!(
            !events.is_empty(),
            "not in crates/authgate-app/src/reference/log/events.rs: {call:?}"
        );
        for name in &call.fields {
            let is_there = events.iter().any(|event| event.fields.contains(&name.as_str()));
            assert!(is_there, "{events:?} of the reference lacks {name}: {call:?}");
        }
    }
    for event in EVENTS {
        let of_event = calls
            .iter()
            .filter(|call| call.level == event.level && call.message == event.message);
        let logged: Vec<&Vec<String>> = of_event.map(|call| &call.fields).collect();
        assert!(
            !logged.is_empty(),
            "nothing logs {event:?}: remove it from crates/authgate-app/src/reference/log/events.rs"
        );
        for name in event.fields {
            let is_logged = logged.iter().any(|fields| fields.iter().any(|field| field == name));
            assert!(is_logged, "no event has the field {name} of {event:?}");
        }
    }
    for field in FIELDS {
        let is_logged = calls
            .iter()
            .any(|call| call.fields.iter().any(|name| name == field.name));
        assert!(
            is_logged,
            "no event has the field {}: remove it from crates/authgate-app/src/reference/log/mod.rs",
            field.name
        );
    }
}

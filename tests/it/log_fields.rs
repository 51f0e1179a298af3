//! Log fields have the same names in all events.

use std::fs;
use std::path::PathBuf;

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

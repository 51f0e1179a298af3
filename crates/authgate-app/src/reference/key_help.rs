//! The entry of a key in the reference, for a terminal: `authgate check --key`.

use std::fmt::Write;

use super::configuration::{Entry, first_sentence, key_title, table_title};
use crate::config::declarations::{Declared, Place, Shape, for_each_table, nearest_name};

/// So many entries are printed in full. Of more, only the names are.
const MANY: usize = 4;

/// The entry of a key or table. `query` is its path, with or without names of one's own, or its last part. The error says what to write.
///
/// # Errors
/// There is no such key.
pub fn key_help(query: &str) -> Result<String, String> {
    let asked = segments(query);
    let (mut keys, mut tables) = (Vec::new(), Vec::new());
    let mut places: Vec<Place> = Vec::new();
    for_each_table(&mut |place| places.push(place.clone()));
    for place in &places {
        if !place.path.is_empty() && matches(&segments(&place.path), &asked) {
            tables.push(place);
        }
        for key in place.table.keys {
            let path = segments(&place.path_of(key.name()));
            if matches(&path, &asked) || is_inside(&path, *key, &asked) {
                keys.push((place, *key));
            }
        }
    }
    if keys.is_empty()
        && let [name] = asked.as_slice()
    {
        let named = places.iter().filter_map(|place| Some((place, place.table.find(name)?)));
        keys = without_repetitions(named.collect());
    }
    match (tables.as_slice(), keys.as_slice()) {
        ([], []) => Err(unknown(query, &asked, &places)),
        // The key of a table says less than the table itself.
        ([_, ..], _) => Ok(joined(tables.iter().map(|place| table_text(place)))),
        ([], keys) if keys.len() > MANY => {
            let paths = keys
                .iter()
                .map(|(place, key)| format!("  {}\n", key_title(place, key.name())));
            Ok(format!(
                "{query} is a key of several tables. Name one of them:\n{}",
                paths.collect::<String>()
            ))
        }
        ([], keys) => Ok(joined(keys.iter().map(|(place, key)| key_text(place, *key)))),
    }
}

/// A key that several tables share is shown at its first place.
fn without_repetitions<'p>(keys: Vec<(&'p Place, &'static dyn Declared)>) -> Vec<(&'p Place, &'static dyn Declared)> {
    let mut once: Vec<(&Place, &dyn Declared)> = Vec::new();
    for (place, key) in keys {
        if !once.iter().any(|(_, before)| std::ptr::addr_eq(*before, key)) {
            once.push((place, key));
        }
    }
    once
}

/// The parts of a path, without brackets: `[[routes]]`, `routes[2].path` and `routes[].path` are read alike.
fn segments(path: &str) -> Vec<String> {
    let path = path.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or_default().trim_matches(['"', '\'']));
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Whether a path is the one that was asked for. `NAME` stands for any name.
fn matches(path: &[String], asked: &[String]) -> bool {
    let is_any = |part: &str| part.bytes().all(|byte| byte.is_ascii_uppercase());
    path.len() == asked.len()
        && path
            .iter()
            .zip(asked)
            .all(|(part, asked)| part == asked || is_any(part))
}

/// Whether a name of one's own below a key was asked for, such as `identity.headers.X-User-Id`.
fn is_inside(path: &[String], key: &dyn Declared, asked: &[String]) -> bool {
    matches!(key.shape(), Shape::Names { .. }) && asked.split_last().is_some_and(|(_, outer)| matches(path, outer))
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}

fn table_text(place: &Place) -> String {
    let mut text = format!("{}\n\n  {}\n\n", table_title(place), place.table.text);
    let width = place.table.names().map(str::len).max().unwrap_or_default();
    for key in place.table.keys {
        let _ = writeln!(text, "  {:width$}  {}", key.name(), first_sentence(key.about().text));
    }
    text
}

fn key_text(place: &Place, key: &dyn Declared) -> String {
    let entry = Entry::of(key);
    let mut text = format!("{}\n\n  {}\n\n", key_title(place, key.name()), key.about().text);
    let mut fact = |label: &str, value: &str| {
        let value = value.replace('\n', "\n            ");
        let _ = writeln!(text, "  {label:9} {value}");
    };
    fact("type", &entry.kind);
    if let Some(default) = &entry.default {
        fact("default", default.trim_matches('`'));
    }
    if let Some(required) = &entry.required {
        fact("required", required);
    }
    fact("example", &entry.example);
    for (label, text) in entry.problems() {
        fact(&label.to_lowercase(), text);
    }
    fact("since", entry.since);
    text
}

fn unknown(query: &str, asked: &[String], places: &[Place]) -> String {
    let mut known: Vec<String> = Vec::new();
    for place in places {
        known.extend(place.table.names().map(|name| place.path_of(name)));
    }
    let wanted = asked.join(".");
    let by_path = nearest_name(&wanted, known.iter().map(String::as_str));
    let last = asked.last().map_or("", String::as_str);
    let by_name = || nearest_name(last, places.iter().flat_map(|place| place.table.names()));
    match by_path.or_else(by_name) {
        Some(name) => format!("there is no key {query:?}: did you mean {name:?}?"),
        None => format!(
            "there is no key {query:?}: write its path, such as \"server.limits.header_timeout\", or a table, such as \"server\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_path_its_name_and_names_of_ones_own() {
        for (query, title) in [
            ("server.limits.header_timeout", "server.limits.header_timeout\n"),
            ("header_timeout", "server.limits.header_timeout\n"),
            ("stores.mine.seal", "stores.NAME.seal (redis)\n"),
            ("routes[2].path", "routes[].path\n"),
            ("identity.headers.X-User-Id", "identity.headers\n"),
            ("authenticators.api.keys[0].kid", "authenticators.NAME.keys[].kid\n"),
        ] {
            let text = key_help(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert!(text.starts_with(title), "{query}: {text}");
            assert!(text.contains("type ") && text.contains("since "), "{text}");
        }
        let text = key_help("server.limits.header_timeout").expect("an entry");
        assert!(
            text.contains("default   \"10s\"") && text.contains("a duration above zero"),
            "{text}"
        );
    }

    #[test]
    fn a_table_lists_its_keys() {
        for query in ["server.limits", "[server.limits]"] {
            let text = key_help(query).expect("a table");
            assert!(text.starts_with("Table [server.limits]\n"), "{text}");
            assert!(
                text.contains("  h2_streams ") && text.contains("  in_flight "),
                "{text}"
            );
        }
        assert!(key_help("[[routes]]").expect("a table").starts_with("Table [[routes]]"));
        let stores = key_help("stores.redis").expect("tables");
        for kind in ["redis", "embedded", "django"] {
            assert!(
                stores.contains(&format!("Table [stores.NAME] of the kind {kind}")),
                "{stores}"
            );
        }
    }

    #[test]
    fn a_misspelled_key_has_a_suggestion() {
        for (query, nearest) in [
            ("server.limits.header_timout", "\"server.limits.header_timeout\""),
            ("heder_timeout", "\"header_timeout\""),
        ] {
            let error = key_help(query).expect_err(query);
            assert!(error.contains(&format!("did you mean {nearest}?")), "{error}");
        }
        assert!(key_help("zzzzzzzz").is_err_and(|error| error.contains("write its path")));
    }

    #[test]
    fn a_key_of_many_tables_lists_them() {
        let text = key_help("file").expect("a list");
        assert!(
            text.contains("several tables") && text.contains("  stores.NAME.file (embedded)\n"),
            "{text}"
        );
    }
}

//! Which strings of a file are secret, wherever they stand: no problem may show them, not even one with something else on their line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problems;

/// Keys whose strings are secret.
const SECRET: [&str; 2] = ["password", "secret"];
/// A table with a name that is none and a value that is one.
const SECRET_HEADER: &str = "secret_header";

/// Hides every secret that is written in the file itself. The tree need not be right: a file with mistakes has secrets too.
pub(super) fn hide(problems: &Problems, text: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        if SECRET.contains(&&**key.get_ref()) {
            hide_whole(problems, value);
        } else if key.get_ref() == SECRET_HEADER {
            match value.get_ref() {
                DeValue::Table(table) => table
                    .get("value")
                    .into_iter()
                    .for_each(|value| hide_whole(problems, value)),
                _ => hide_whole(problems, value),
            }
        } else {
            hide_within(problems, text, value);
        }
    }
}

fn hide_within(problems: &Problems, text: &str, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => hide(problems, text, table),
        DeValue::Array(elements) => elements.iter().for_each(|element| hide_within(problems, text, element)),
        DeValue::String(_) => {
            let span = value.span();
            if let Some(login) = text.get(span.clone()).and_then(login) {
                problems.hide(span.start + login.start..span.start + login.end);
            }
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

/// A string; or, where it comes from the environment, what stands in for it.
fn hide_whole(problems: &Problems, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            if let Some(default) = table.get("default") {
                hide_whole(problems, default);
            }
        }
        DeValue::String(_) => problems.hide(value.span().start + 1..value.span().end.saturating_sub(1)),
        _ => problems.hide(value.span()),
    }
}

/// Where in a URL its password is, or a login that may be one.
fn login(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    password(url).or_else(|| url[start..].rfind('@').map(|end| start..start + end))
}

/// Where in a URL its password is: behind the first `:` of the login, or as `pass=` of a socket's URL. Up to the last `@`, since
/// people write `/` and `@` in passwords as they are.
pub(super) fn password(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    let rest = &url[start..];
    if let Some(end) = rest.rfind('@') {
        let colon = rest[..end].find(':')?;
        return Some(start + colon + 1..start + end);
    }
    let at = start + rest.find("?pass=").or(rest.find("&pass="))? + "?pass=".len();
    let end = url[at..].find(['&', '#', '"', '\'']).map_or(url.len(), |end| at + end);
    Some(at..end)
}

/// The text with its login left out.
pub(super) fn redacted(text: &str) -> String {
    match login(text) {
        Some(login) => format!("{}***{}", &text[..login.start], &text[login.end..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_urls() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379/0", None),
            ("redis://:canary@127.0.0.1/0", Some("canary")),
            ("\"rediss://ada:ca:na@ry@127.0.0.1:6379\"", Some("ca:na@ry")),
            ("redis://:ca/n@ry@127.0.0.1/0", Some("ca/n@ry")),
            ("redis://token@127.0.0.1", Some("token")),
            ("unix:///run/redis.sock?db=1&pass=canary&user=x", Some("canary")),
            ("'unix:///run/redis.sock?pass=canary'", Some("canary")),
            ("unix:///run/redis.sock?bypass=x", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(login(url).map(|range| &url[range]), expected, "{url}");
            assert!(!redacted(url).contains("canary"), "{url}");
        }
    }
}

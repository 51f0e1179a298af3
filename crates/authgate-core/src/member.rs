//! [`MemberPath`]: the path to a member of a JSON object. The configuration uses such paths for claims of JWTs and attributes of users.

use std::fmt;

use serde_json::{Map, Value};

/// Member names, from the outermost object inwards; at least one.
///
/// Written as TOML writes dotted keys: `realm_access.roles` is `roles` in `realm_access`, and a name with a dot or any other character
/// is in quotes: `"https://example.com/role"`. Beyond TOML, `:` needs no quotes (`cognito:groups`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberPath {
    first: String,
    inner_names: Box<[String]>,
}

/// The text is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberPathError {
    /// A name is empty.
    #[error("has an empty name")]
    Empty,
    /// A name without quotes has a character that needs them.
    #[error("has a character that needs quotes around its name")]
    NeedsQuotes,
    /// A quoted name does not end, or something other than a dot follows it.
    #[error("has quotes that do not end with the name")]
    Unclosed,
}

impl MemberPath {
    /// Reads a path.
    ///
    /// # Errors
    /// It is not written as described above.
    pub fn parse(text: &str) -> Result<Self, MemberPathError> {
        let (first, mut remaining) = parse_name(text)?;
        let mut inner_names = Vec::new();
        while let Some(text) = remaining {
            let (next, after) = parse_name(text)?;
            inner_names.push(next);
            remaining = after;
        }
        Ok(Self {
            first,
            inner_names: inner_names.into(),
        })
    }

    /// The path to a direct member of the object, with any name.
    pub fn from_name(name: impl Into<String>) -> Self {
        Self {
            first: name.into(),
            inner_names: Box::default(),
        }
    }

    /// The path to a member of the object at this path.
    pub fn join(&self, inner: Self) -> Self {
        let Self { first, inner_names } = inner;
        let names = self.inner_names.iter().cloned().chain([first]).chain(inner_names);
        Self {
            first: self.first.clone(),
            inner_names: names.collect(),
        }
    }

    /// The name of the member of the object itself.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// All names, from the outermost object inwards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first)
            .chain(&self.inner_names)
            .map(String::as_str)
    }

    /// The value at this path.
    pub fn find<'v>(&self, object: &'v Map<String, Value>) -> Option<&'v Value> {
        let mut inner_names = self.inner_names.iter();
        inner_names.try_fold(object.get(&self.first)?, |value, name| value.as_object()?.get(name))
    }
}

/// Writes the shortest form.
impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in std::iter::once(&self.first).chain(&self.inner_names).enumerate() {
            let dot = if at == 0 { "" } else { "." };
            if name.is_empty() || !name.bytes().all(is_bare) {
                let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "{dot}\"{quoted}\"")?;
            } else {
                write!(f, "{dot}{name}")?;
            }
        }
        Ok(())
    }
}

/// Whether a character may occur in a name without quotes.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-:".contains(&byte)
}

/// Splits a path into its first name and the part after the dot.
fn parse_name(text: &str) -> Result<(String, Option<&str>), MemberPathError> {
    let (name, remaining) = match text.chars().next() {
        Some('"') => unescape(&text[1..])?,
        Some('\'') => {
            let (name, remaining) = text[1..].split_once('\'').ok_or(MemberPathError::Unclosed)?;
            (name.to_owned(), remaining)
        }
        _ => {
            let end = text.bytes().position(|byte| !is_bare(byte)).unwrap_or(text.len());
            let (name, remaining) = text.split_at(end);
            if !remaining.is_empty() && !remaining.starts_with('.') {
                return Err(MemberPathError::NeedsQuotes);
            }
            (name.to_owned(), remaining)
        }
    };
    if name.is_empty() {
        return Err(MemberPathError::Empty);
    }
    match remaining.strip_prefix('.') {
        Some(remaining) => Ok((name, Some(remaining))),
        None if remaining.is_empty() => Ok((name, None)),
        None => Err(MemberPathError::Unclosed),
    }
}

/// Parses a name up to its closing `"`, and returns it with the remaining text; `\"` and `\\` encode `"` and `\`.
fn unescape(text: &str) -> Result<(String, &str), MemberPathError> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((name, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => name.push(escaped),
                Some(_) | None => return Err(MemberPathError::Unclosed),
            },
            character => name.push(character),
        }
    }
    Err(MemberPathError::Unclosed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn path_finds_the_member_at_its_names() {
        let claims = json!({
            "role": "a",
            "realm_access": { "roles": "b", "x.y": "c" },
            "https://example.com/role": "d",
            "cognito:groups": "e",
            "a \"b\" \\": { "c": "f" },
            "role.x": "g",
        });
        let claims = claims.as_object().expect("an object");
        for (text, expected, shown) in [
            ("role", Some("a"), "role"),
            ("\"role\"", Some("a"), "role"),
            ("'role'", Some("a"), "role"),
            ("realm_access.roles", Some("b"), "realm_access.roles"),
            ("realm_access.\"x.y\"", Some("c"), "realm_access.\"x.y\""),
            (
                "\"https://example.com/role\"",
                Some("d"),
                "\"https://example.com/role\"",
            ),
            ("'https://example.com/role'", Some("d"), "\"https://example.com/role\""),
            ("cognito:groups", Some("e"), "cognito:groups"),
            ("\"a \\\"b\\\" \\\\\".c", Some("f"), "\"a \\\"b\\\" \\\\\".c"),
            ("'a \"b\" \\'.c", Some("f"), "\"a \\\"b\\\" \\\\\".c"),
            ("\"role.x\"", Some("g"), "\"role.x\""),
            ("role.x", None, "role.x"),
            ("realm_access.roles.x", None, "realm_access.roles.x"),
            ("absent", None, "absent"),
        ] {
            let path = MemberPath::parse(text).expect(text);
            assert_eq!(path.find(claims).and_then(Value::as_str), expected, "{text}");
            assert_eq!(path.to_string(), shown);
            assert_eq!(MemberPath::parse(shown), Ok(path), "{text}");
        }
    }

    #[test]
    fn ambiguous_text_is_refused() {
        use MemberPathError::{Empty, NeedsQuotes, Unclosed};
        for (text, expected) in [
            ("", Empty),
            (".a", Empty),
            ("a.", Empty),
            ("a..b", Empty),
            ("\"\"", Empty),
            ("''.a", Empty),
            ("https://example.com/role", NeedsQuotes),
            ("a b", NeedsQuotes),
            (" a", NeedsQuotes),
            ("zo\u{eb}", NeedsQuotes),
            ("a\"b\"", NeedsQuotes),
            ("a[0]", NeedsQuotes),
            ("\"a", Unclosed),
            ("'a", Unclosed),
            ("\"a\"b", Unclosed),
            ("'a' .b", Unclosed),
            ("\"a\\", Unclosed),
            ("\"a\\n\"", Unclosed),
        ] {
            assert_eq!(MemberPath::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn joined_path_continues_in_the_inner_object() {
        let path = MemberPath::from_name("a.b").join(MemberPath::from_name("c"));
        assert_eq!(Ok(path), MemberPath::parse("\"a.b\".c"));
    }
}

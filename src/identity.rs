//! Who a request comes from, in texts that were proven to be sayable in a header when they were made.
//!
//! An [`Identity`] is built once per credential and shared by all its requests; the header values that upstreams are told are made
//! with it ([`Identity::new`]), so a name that cannot travel is refused there and never cleaned on the way out.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use serde_json::{Map, Value};

use crate::outbound::identity::{IdentityTable, TableId};

/// Text without control characters and without blanks at its ends; what RFC 9110 calls a field value, in any script.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Box<str>);

/// The text cannot travel in a header without being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("control characters or outer blanks")]
pub struct NotText;

/// A fact of somebody that no header can carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fact} {problem}")]
pub struct Unsayable {
    /// What `[identity]` calls it, such as `claims.tenant`.
    pub fact: String,
    /// What is wrong with it, as in `is an object`.
    pub problem: &'static str,
}

/// [`NotText`], as it is said of a fact.
pub const NOT_TEXT: &str = "has control characters or outer blanks";

impl Text {
    /// Takes any text that needs no cleaning.
    ///
    /// # Errors
    /// Control characters anywhere, blanks at either end.
    pub fn new(text: &str) -> Result<Self, NotText> {
        let outer_blank = text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace);
        if outer_blank || text.chars().any(char::is_control) {
            Err(NotText)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's id: [`Text`] of 1 to 255 bytes, compared exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Text);

impl UserId {
    /// Takes a text that can be an id.
    ///
    /// # Errors
    /// Empty, longer than 255 bytes, or not a [`Text`].
    pub fn new(id: &str) -> Result<Self, NotText> {
        if (1..=255).contains(&id.len()) {
            Text::new(id).map(Self)
        } else {
            Err(NotText)
        }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The id as text.
    pub fn as_text(&self) -> &Text {
        &self.0
    }
}

/// What is known of somebody: from a user record, from a token's claims, or both.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Name of the authenticator that vouches for the rest.
    pub authenticator: Arc<str>,
    /// The id that everything else belongs to.
    pub id: UserId,
    /// The name people log in with.
    pub username: Option<Text>,
    /// Mail address.
    pub email: Option<Text>,
    /// Groups, in the order of their source.
    pub groups: Vec<Text>,
    /// Scopes of the credential.
    pub scopes: Vec<Text>,
    /// Those claims of a JWT that the configuration mentions.
    pub claims: Map<String, Value>,
    /// Free attributes of the user record.
    pub attributes: Map<String, Value>,
}

/// Somebody, and what upstreams are told about them.
#[derive(Debug)]
pub struct Identity {
    facts: Facts,
    fields: Box<[Fields]>,
}

/// Ready-made header values for one `[identity]` table.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// One value for each header of the table, in its order; `None` sends nothing.
    pub values: Box<[Option<HeaderValue>]>,
    /// The stand-in for the credential: `Authgate <digest of who this is>`.
    pub opaque: Option<HeaderValue>,
}

impl Identity {
    /// Makes an identity, and its header values for every table that some route uses.
    ///
    /// # Errors
    /// A value that one of the tables sends cannot be a header value.
    pub fn new(facts: Facts, tables: &[IdentityTable]) -> Result<Self, Unsayable> {
        let fields = tables
            .iter()
            .map(|table| table.render(&facts))
            .collect::<Result<_, _>>()?;
        Ok(Self { facts, fields })
    }

    /// What is known.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let texts = |texts: &[Text]| texts.iter().map(|text| size_of::<Text>() + text.0.len()).sum::<usize>();
        let optional = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.0.len());
        let facts = &self.facts;
        let values = self.fields.iter().map(|fields| {
            let values = fields.values.iter().chain([&fields.opaque]);
            // A value that was made of a text of its own has a count and two pointers beside it.
            size_of::<Fields>()
                + values
                    .map(|value| value.as_ref().map_or(40, |value| 80 + value.len()))
                    .sum::<usize>()
        });
        size_of::<Self>()
            + facts.id.as_str().len()
            + optional(&facts.username)
            + optional(&facts.email)
            + texts(&facts.groups)
            + texts(&facts.scopes)
            + object_bytes(&facts.claims)
            + object_bytes(&facts.attributes)
            + values.sum::<usize>()
    }

    /// The header values for one table.
    pub fn fields(&self, table: TableId) -> Option<&Fields> {
        self.fields.get(table.index())
    }
}

/// About how much memory an object takes beside its own place; names and values lie in the nodes of a tree.
fn object_bytes(object: &Map<String, Value>) -> usize {
    // A node has room for eleven of each, and may be half empty.
    let places = object.len().next_multiple_of(11) * size_of::<(String, Value)>() * usize::from(!object.is_empty());
    places
        + object
            .iter()
            .map(|(name, value)| name.len() + value_bytes(value))
            .sum::<usize>()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(elements) => elements
            .iter()
            .map(|element| size_of::<Value>() + value_bytes(element))
            .sum(),
        Value::Object(object) => object_bytes(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_would_need_cleaning_is_refused() {
        for bad in [
            "a\r\nX-User-Id: 13",
            "a\0",
            " a",
            "a ",
            "a\t",
            "\u{85}a",
            "\u{a0}a",
            "a\u{7f}b",
        ] {
            assert_eq!(Text::new(bad), Err(NotText), "{bad:?}");
        }
        for good in ["", "ada", "a b", "zo\u{eb}", "日本語"] {
            assert!(Text::new(good).is_ok(), "{good:?}");
        }
        assert!(UserId::new("").is_err() && UserId::new(&"x".repeat(256)).is_err());
    }
}

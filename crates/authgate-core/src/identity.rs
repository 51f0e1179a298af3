//! The identity of a user, in texts that are valid as header values; this is checked when they are made.
//!
//! An [`Identity`] is built once per credential and shared by all its requests. It has ready-made header values for upstreams, so a value
//! that a header cannot carry is refused when it is built and never altered later.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use serde_json::{Map, Value};

use crate::token_slot::{SignedToken, TokenSlot};

/// Text without control characters and without outer blanks: a field value of RFC 9110, but in any script.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Box<str>);

/// A header cannot carry the text unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("control characters or outer blanks")]
pub struct InvalidText;

/// A value of a user that a header cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub struct InvalidIdentityValue {
    /// Its name in `[identity]`, such as `claims.tenant`.
    pub name: String,
    /// What is wrong with it, as in `is an object`.
    pub problem: &'static str,
}

/// Bytes of a signed token beside the facts: header, signature, dates and names.
const MAX_TOKEN_OVERHEAD: usize = 1024;

/// The message for [`InvalidText`].
pub const INVALID_TEXT: &str = "has control characters or outer blanks";

impl Text {
    /// Checks a text.
    ///
    /// # Errors
    /// Control characters anywhere, blanks at either end.
    pub fn new(text: &str) -> Result<Self, InvalidText> {
        let outer_blank = text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace);
        if outer_blank || text.chars().any(char::is_control) {
            Err(InvalidText)
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
    /// Checks a text that is used as an id.
    ///
    /// # Errors
    /// Empty, longer than 255 bytes, or not a [`Text`].
    pub fn new(id: &str) -> Result<Self, InvalidText> {
        if (1..=255).contains(&id.len()) {
            Text::new(id).map(Self)
        } else {
            Err(InvalidText)
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

/// Identifies a key that verifies credentials. Equal ones verify the same signatures of the same credentials, and are revoked by the same
/// name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyIdentity {
    /// The algorithm that the key is bound to.
    pub algorithm: &'static str,
    /// Its key id, if it has one.
    pub kid: Option<Box<str>>,
    /// SHA-256 of its material.
    pub fingerprint: [u8; 32],
}

/// Without the fingerprint: a weak shared secret could be guessed from it.
impl fmt::Debug for KeyIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIdentity")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// What is known about a user: from a user record, from the claims of a token, or both.
#[derive(Debug, Clone)]
pub struct UserInfo {
    /// Name of the authenticator that accepted the credential.
    pub authenticator: Arc<str>,
    /// The issuer of the credential, if its authenticator has several.
    pub issuer: Option<Arc<str>>,
    /// The key that has verified the credential. `None`: the credential has no signature.
    pub key: Option<Arc<KeyIdentity>>,
    /// The id of the user.
    pub id: UserId,
    /// Login name.
    pub username: Option<Text>,
    /// Mail address.
    pub email: Option<Text>,
    /// Groups, in the order of their source.
    pub groups: Vec<Text>,
    /// Scopes of the credential.
    pub scopes: Vec<Text>,
    /// The claims of a JWT that the configuration needs.
    pub claims: Map<String, Value>,
    /// Further attributes of the user record.
    pub attributes: Map<String, Value>,
}

/// A user, with the header values for upstreams.
#[derive(Debug)]
pub struct Identity {
    user_info: UserInfo,
    tables: TableSet,
    /// One for each table of `tables`, in order.
    headers: Box<[IdentityHeaders]>,
    /// One for each audience of signed identities.
    token_slots: Box<[TokenSlot]>,
}

/// The identity of a set of `[identity]` tables: each configuration has its own set. No two sets of a process are equal, so an identity
/// that was made for the tables of one configuration has no header values for the tables of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableSet(u64);

/// One table of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableId {
    set: TableSet,
    index: usize,
}

impl TableSet {
    /// A new set.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The table at this position of the set.
    pub fn table(self, index: usize) -> TableId {
        TableId { set: self, index }
    }
}

impl TableId {
    /// Its position in this set; `None`: it belongs to another set.
    pub fn index_in(self, set: TableSet) -> Option<usize> {
        (self.set == set).then_some(self.index)
    }
}

/// Ready-made header values for one `[identity]` table.
#[derive(Debug, Clone, Default)]
pub struct IdentityHeaders {
    /// One value for each header of the table, in order; `None`: the header is not sent.
    pub values: Box<[Option<HeaderValue>]>,
    /// The substitute for the credential: `Authgate <digest of the identity>`.
    pub opaque: Option<HeaderValue>,
}

impl Identity {
    /// Makes an identity with the header values for each table of a set, in order, and with room for so many signed tokens.
    pub fn new(user_info: UserInfo, tables: TableSet, headers: Box<[IdentityHeaders]>, token_slots: usize) -> Self {
        Self {
            user_info,
            tables,
            headers,
            token_slots: (0..token_slots).map(|_| TokenSlot::default()).collect(),
        }
    }

    /// What is known about the user.
    pub fn user_info(&self) -> &UserInfo {
        &self.user_info
    }

    /// Approximate memory size in bytes.
    pub fn bytes(&self) -> usize {
        let texts = |texts: &[Text]| texts.iter().map(|text| size_of::<Text>() + text.0.len()).sum::<usize>();
        let optional = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.0.len());
        let user_info = &self.user_info;
        let values = self.headers.iter().map(|headers| {
            let values = headers.values.iter().chain([&headers.opaque]);
            // A value with its own text also has a reference count and two pointers.
            size_of::<IdentityHeaders>()
                + values
                    .map(|value| value.as_ref().map_or(40, |value| 80 + value.len()))
                    .sum::<usize>()
        });
        let info = user_info.id.as_str().len()
            + optional(&user_info.username)
            + optional(&user_info.email)
            + texts(&user_info.groups)
            + texts(&user_info.scopes)
            + object_bytes(&user_info.claims)
            + object_bytes(&user_info.attributes);
        // Tokens are signed later, and an RSA signature is the longest part of most.
        let token = size_of::<TokenSlot>() + size_of::<SignedToken>() + MAX_TOKEN_OVERHEAD + 2 * info;
        size_of::<Self>() + info + values.sum::<usize>() + self.token_slots.len() * token
    }

    /// The place of the token for one audience; `None`: the identity was made for a configuration with fewer audiences.
    pub fn token_slot(&self, index: usize) -> Option<&TokenSlot> {
        self.token_slots.get(index)
    }

    /// The header values for one table; `None`: the identity was made for the tables of another configuration.
    pub fn headers(&self, table: TableId) -> Option<&IdentityHeaders> {
        self.headers.get(table.index_in(self.tables)?)
    }
}

/// Approximate heap size of an object in bytes; names and values are stored in tree nodes.
fn object_bytes(object: &Map<String, Value>) -> usize {
    // A node holds eleven names and values, and may be half empty.
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
    fn text_that_no_header_can_carry_is_refused() {
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
            assert_eq!(Text::new(bad), Err(InvalidText), "{bad:?}");
        }
        for good in ["", "ada", "a b", "zo\u{eb}", "日本語"] {
            assert!(Text::new(good).is_ok(), "{good:?}");
        }
        assert!(UserId::new("").is_err() && UserId::new(&"x".repeat(256)).is_err());
    }
}

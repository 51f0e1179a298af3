//! Stored bytes to records, and back: the JSON values of the store's layout. Pure; it knows no store.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::{Text, UserId};
use crate::printable::without_values;

/// One opaque token. The key itself is in no store; its digest is the record's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Whose token it is.
    #[serde(with = "user_id")]
    pub user: UserId,
    /// When it was made, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// When it ends, in Unix seconds; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// What it may be used for.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "texts")]
    pub scopes: Vec<Text>,
    /// What its maker calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was revoked, in Unix seconds. A revoked token is dead for good; nothing overwrites it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
}

/// One user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Who it is.
    #[serde(with = "user_id")]
    pub id: UserId,
    /// The name to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub username: Option<Text>,
    /// Mail address; empty is as good as absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub email: Option<Text>,
    /// Names of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "texts")]
    pub groups: Vec<Text>,
    /// Whether the user may log in.
    pub active: bool,
    /// Upper-case hexadecimal MD5 of the stored password hash, for SimpleJWT's `CHECK_REVOKE_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_md5: Option<String>,
    /// Whatever else upstreams are to be told.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
}

/// The mark that a store holds our records; its epoch tells one filling of the store from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Always 1.
    pub version: u32,
    /// Any text, made once.
    pub epoch: String,
    /// An import is filling the empty store: it is not to be used before the import is complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filling: bool,
}

impl Layout {
    /// The version that this program reads and writes.
    pub const VERSION: u32 = 1;
}

impl UserRecord {
    /// Holds the record against the id under whose key it is stored.
    ///
    /// # Errors
    /// It is another user's.
    pub fn under(self, id: &str) -> Result<Self, BadRecord> {
        if self.id.as_str() == id {
            Ok(self)
        } else {
            Err(BadRecord::OtherId {
                key: id.to_owned(),
                id: self.id.as_str().to_owned(),
            })
        }
    }

    /// Whether this is the user's login name.
    pub fn is_called(&self, name: &str) -> bool {
        self.username.as_ref().is_some_and(|username| username.as_str() == name)
    }
}

/// Stored bytes are not what the layout says they are.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// They have another shape.
    #[error("the record of {what} is not as the layout says: {}", without_values(&source.to_string()))]
    Shape {
        /// Of what the record is.
        what: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A user's record is stored under another id's key.
    #[error("the record of user {key:?} holds the id {id:?}")]
    OtherId {
        /// The id of the key.
        key: String,
        /// The id in the record.
        id: String,
    },
    /// The index of names leads to a user who is not called so, or who is not there.
    #[error("user-by-name {name:?} leads to user {id:?}, who is not there or is called otherwise")]
    StaleName {
        /// The login name.
        name: String,
        /// Whom it leads to.
        id: String,
    },
    /// Several users have one login name.
    #[error("several users are called {name:?}")]
    SharedName {
        /// The login name.
        name: String,
    },
}

/// Reads one record.
///
/// # Errors
/// The bytes are not JSON of that record's shape.
pub fn parse<R: serde::de::DeserializeOwned>(what: impl fmt::Display, bytes: &[u8]) -> Result<R, BadRecord> {
    serde_json::from_slice(bytes).map_err(|source| BadRecord::Shape {
        what: what.to_string(),
        source,
    })
}

/// Reads the Unix seconds of a `revoked:user:` entry.
///
/// # Errors
/// The bytes are not a decimal number.
pub fn parse_seconds(bytes: &[u8]) -> Result<i64, BadRecord> {
    parse("a user's revocation", bytes)
}

mod user_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::identity::UserId;

    pub(super) fn serialize<S: Serializer>(id: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
        UserId::new(&String::deserialize(deserializer)?)
            .map_err(|_| D::Error::custom("an id is 1 to 255 bytes without control characters or outer blanks"))
    }
}

mod optional_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::identity::Text;

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(text: &Option<Text>, serializer: S) -> Result<S::Ok, S::Error> {
        match text {
            Some(text) => serializer.serialize_some(text.as_str()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Text::new(&text)).transpose().map_err(D::Error::custom)
    }
}

mod texts {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::identity::Text;

    pub(super) fn serialize<S: Serializer>(texts: &[Text], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(texts.iter().map(Text::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Text>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
        texts
            .iter()
            .map(|text| Text::new(text).map_err(D::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_required_members_are_required() {
        let token: TokenRecord = parse("a token", br#"{"user":"42"}"#).expect("enough");
        assert_eq!((token.user.as_str(), token.created, token.revoked), ("42", None, None));
        let full = br#"{"user":"42","created":1700000000,"expires":null,"scopes":["a"],"name":"ci","later":1}"#;
        let token: TokenRecord = parse("a token", full).expect("the documented shape");
        assert_eq!(
            (token.created, token.expires, token.scopes.len()),
            (Some(1_700_000_000), None, 1)
        );
        let user = br#"{"id":"42","username":"ada","email":"","groups":["staff"],"active":true,"password_md5":null,"attributes":{}}"#;
        let user: UserRecord = parse("a user", user).expect("the documented shape");
        assert_eq!((user.id.as_str(), user.active, user.groups.len()), ("42", true, 1));
        assert!(
            parse::<UserRecord>("a user", br#"{"id":"42"}"#).is_err(),
            "active is required"
        );
    }

    #[test]
    fn records_of_another_shape_are_errors() {
        for bad in [
            "",
            "42",
            "{}",
            r#"{"user":42}"#,
            r#"{"user":""}"#,
            r#"{"user":"a\nb"}"#,
            r#"{"user":"1","created":"x"}"#,
        ] {
            assert!(parse::<TokenRecord>("a token", bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse_seconds(b"1700000000").expect("seconds"), 1_700_000_000);
        assert!(parse_seconds(b"soon").is_err());
    }

    #[test]
    fn a_record_that_is_written_is_read_back() {
        let user: UserRecord = parse(
            "a user",
            br#"{"id":"1","username":"ada","groups":["staff"],"active":false}"#,
        )
        .expect("a user");
        let bytes = serde_json::to_vec(&user).expect("JSON");
        assert_eq!(parse::<UserRecord>("a user", &bytes).expect("the same"), user);
    }
}

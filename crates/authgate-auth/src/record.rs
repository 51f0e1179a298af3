//! Parses and serializes records: the JSON values of the store layout. Pure; independent of any store.

use std::fmt;

use authgate_core::identity::{Text, UserId};
use authgate_core::printable::without_values;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One opaque token. Stores hold the digest of its key, never the key itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The id of the token's user.
    #[serde(with = "user_id")]
    pub user: UserId,
    /// Creation time, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Expiry, in Unix seconds; without it the token never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// Scopes of the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "texts")]
    pub scopes: Vec<Text>,
    /// A name for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time of revocation, in Unix seconds. A revoked token stays revoked; no write removes this mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
}

/// One user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The id.
    #[serde(with = "user_id")]
    pub id: UserId,
    /// Login name.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub username: Option<Text>,
    /// Mail address; an empty one means the same as none.
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
    /// Further attributes, for headers to upstreams.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
}

/// The layout record. It shows that a store holds authgate records. A store that is filled again gets another epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Always 1.
    pub version: u32,
    /// Any text; a random one is made when the store is first filled.
    pub epoch: String,
    /// An import is filling the empty store. Gateways do not use the store before the import is complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filling: bool,
    /// `authgate token reseal` began at this Unix second to seal the records. Gateways and other tools do not use the store before it is
    /// complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resealing: Option<i64>,
}

impl Layout {
    /// The layout version that this program reads and writes.
    pub const VERSION: u32 = 1;
}

impl UserRecord {
    /// Checks the record against the id in the key that it is stored under.
    ///
    /// # Errors
    /// The record has another id.
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

/// Stored bytes that do not match the layout.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// They cannot be parsed as this record.
    #[error("invalid record of {what}: {}", without_values(&source.to_string()))]
    Shape {
        /// What the record belongs to.
        what: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A user record is stored under the key of another id.
    #[error("the record of user {key:?} holds the id {id:?}")]
    OtherId {
        /// The id of the key.
        key: String,
        /// The id in the record.
        id: String,
    },
    /// The username index points to a user that does not exist or has another username.
    #[error("user-by-name {name:?} points to user {id:?}, which does not exist or has another username")]
    StaleName {
        /// The login name.
        name: String,
        /// The id that it points to.
        id: String,
    },
    /// A column holds a value that a header cannot carry, or that is not of its type.
    #[error("{what}: the column of `{column}` has an invalid value")]
    Column {
        /// What the row belongs to.
        what: String,
        /// The key of the column in the configuration.
        column: &'static str,
    },
    /// Several users have the same username.
    #[error("several users have the username {name:?}")]
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

    use authgate_core::identity::UserId;

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

    use authgate_core::identity::Text;

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

    use authgate_core::identity::Text;

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

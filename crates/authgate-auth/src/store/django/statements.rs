//! The statements of one connection, and the records that their rows hold.
//!
//! Every column is selected as text, so that all databases and types are read in one way. A user with several groups is several rows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use authgate_core::identity::{Text, UserId};
use md5::{Digest, Md5};
use serde_json::{Map, Number, Value};

use super::connection::{Parameter, Row, Sql};
use super::quoted;
use super::schema::{ColumnKind, Schema};
use super::settings::{DjangoSettings, Engine, GroupTable, TokenKey, UserTable};
use crate::record::{BadRecord, TokenRecord, UserRecord};
use crate::store::TokenDigest;

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Query {
    /// A token by its key, or by one of its digests; and its user.
    Token(Vec<String>),
    /// A user by id.
    UserById(String),
    /// A user by login name.
    UserByName(String),
    /// The members of a group, by its id.
    Members(String),
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) token: Option<TokenRecord>,
    pub(super) user: Option<UserRecord>,
    /// The digest that the token was found under, if the table holds digests.
    pub(super) digest: Option<TokenDigest>,
    /// Ids of users, at most one more than [`MAX_MEMBERS`].
    pub(super) members: Vec<String>,
}

/// The most members of a group that are looked up one by one.
pub(super) const MAX_MEMBERS: usize = 1000;

/// The statements for one schema.
pub(super) struct Statements {
    token: Option<Statement>,
    by_id: Statement,
    by_name: Statement,
    members: Option<Statement>,
    /// The table of tokens holds digests, and no keys.
    has_digests: bool,
    columns: UserColumns,
}

/// A statement that looks rows up by one column.
struct Statement {
    sql: Sql,
    key: ColumnKind,
}

/// How the columns of the user are converted. They are in the order of `USER_*`, and then the attributes.
struct UserColumns {
    id: ColumnKind,
    user_of_token: ColumnKind,
    has_active: bool,
    attributes: Vec<(String, ColumnKind)>,
}

/// The columns of a token, which precede those of its user.
pub(super) const TOKEN_KEY: usize = 0;
const TOKEN_USER: usize = 1;
const TOKEN_CREATED: usize = 2;
const TOKEN_EXPIRY: usize = 3;
const TOKEN_COLUMNS: usize = 4;

const USER_ID: usize = 0;
const USER_NAME: usize = 1;
const USER_EMAIL: usize = 2;
const USER_ACTIVE: usize = 3;
const USER_PASSWORD: usize = 4;
const USER_GROUP: usize = 5;
const USER_COLUMNS: usize = 6;

impl Statements {
    pub(super) fn new(engine: Engine, settings: &DjangoSettings, schema: &Schema) -> Self {
        let (writer, users) = (Writer { engine }, &settings.users);
        let groups = match (&settings.groups, &schema.member) {
            (Some(groups), Some(member)) => writer.groups(groups, member, users),
            (_, _) => String::new(),
        };
        let select = |password: bool| writer.user_columns(users, password, !groups.is_empty());
        let from = format!("{} u", writer.name(&users.table));
        let by = |column: &str| {
            let key = schema.kind(&users.table, column);
            Statement {
                sql: Arc::from(format!(
                    "SELECT {} FROM {from} {groups} WHERE u.{} = {}",
                    select(true),
                    writer.name(column),
                    writer.placeholder(1, key)
                )),
                key,
            }
        };
        let token = settings.tokens.as_ref().map(|tokens| {
            // Django's own columns of keys and digests are text. 32 digits are no UUID here.
            let key = match schema.kind(&tokens.table, tokens.key.column()) {
                ColumnKind::UuidDigits => ColumnKind::Text,
                kind => kind,
            };
            let created = tokens.created.as_deref();
            let (expiry, count) = match &tokens.key {
                TokenKey::Plain(_) => (None, 1),
                TokenKey::Digest { expiry, .. } => (expiry.as_deref(), settings.digests.count()),
            };
            let places: Vec<String> = (1..=count).map(|at| writer.placeholder(at, key)).collect();
            let sql = format!(
                "SELECT {}, {}, {}, {}, {} FROM {} t LEFT JOIN {from} ON u.{} = t.{} {groups} WHERE t.{} IN ({})",
                writer.text("t", tokens.key.column()),
                writer.text("t", &tokens.user),
                writer.seconds("t", created),
                writer.seconds("t", expiry),
                select(false),
                writer.name(&tokens.table),
                writer.name(&users.id),
                writer.name(&tokens.user),
                writer.name(tokens.key.column()),
                places.join(", ")
            );
            Statement {
                sql: Arc::from(sql),
                key,
            }
        });
        let members = match (&settings.groups, &schema.member) {
            (Some(groups), Some(member)) => Some(Statement {
                sql: Arc::from(format!(
                    "SELECT {} FROM {} m WHERE m.{} = {} LIMIT {}",
                    writer.text("m", member),
                    writer.name(&groups.members),
                    writer.name("group_id"),
                    writer.placeholder(1, ColumnKind::Integer),
                    MAX_MEMBERS + 1
                )),
                key: ColumnKind::Integer,
            }),
            (_, _) => None,
        };
        let kind = |column: &str| schema.kind(&users.table, column);
        let attributes = users.attributes.iter();
        Self {
            token,
            by_id: by(&users.id),
            by_name: by(&users.username),
            members,
            has_digests: matches!(
                settings.tokens.as_ref().map(|tokens| &tokens.key),
                Some(TokenKey::Digest { .. })
            ),
            columns: UserColumns {
                id: kind(&users.id),
                user_of_token: settings
                    .tokens
                    .as_ref()
                    .map_or(ColumnKind::Text, |tokens| schema.kind(&tokens.table, &tokens.user)),
                has_active: users.active.is_some(),
                attributes: attributes.map(|(name, column)| (name.clone(), kind(column))).collect(),
            },
        }
    }

    /// The statement of a query, with its parameters. `None`: no row can match.
    pub(super) fn of(&self, query: &Query) -> Option<(&Sql, Vec<Parameter>)> {
        let (statement, texts) = match query {
            Query::Token(keys) => (self.token.as_ref()?, keys.as_slice()),
            Query::UserById(id) => (&self.by_id, std::slice::from_ref(id)),
            Query::UserByName(name) => (&self.by_name, std::slice::from_ref(name)),
            Query::Members(group) => (self.members.as_ref()?, std::slice::from_ref(group)),
        };
        let parameters: Vec<Parameter> = texts.iter().filter_map(|text| statement.key.parameter(text)).collect();
        (parameters.len() == texts.len()).then_some((&statement.sql, parameters))
    }

    /// Reads the rows of a query.
    ///
    /// The database may compare texts more loosely than byte for byte, so the rows are compared again.
    pub(super) fn facts(&self, query: &Query, mut rows: Vec<Row>) -> Result<Facts, BadRecord> {
        match query {
            Query::Token(keys) => {
                let is_of = |row: &Row, key: &String| row.text(TOKEN_KEY) == Some(key.as_str());
                // Of several digests, the first one that has a token.
                let Some(key) = keys.iter().find(|key| rows.iter().any(|row| is_of(row, key))) else {
                    return Ok(Facts::default());
                };
                let digest = TokenDigest::from_hex(key).filter(|_| self.has_digests);
                rows.retain(|row| is_of(row, key));
                let token = match rows.first() {
                    Some(row) => Some(self.token(row)?),
                    None => None,
                };
                let user = self.user(rows, TOKEN_COLUMNS)?;
                Ok(Facts {
                    token,
                    user,
                    digest,
                    ..Facts::default()
                })
            }
            Query::UserById(id) => {
                rows.retain(|row| self.columns.id.of(row.text(USER_ID)).as_ref() == Some(id));
                let user = self.user(rows, 0)?;
                Ok(Facts {
                    user,
                    ..Facts::default()
                })
            }
            Query::Members(_) => Ok(Facts {
                members: rows.iter().filter_map(|row| self.columns.id.of(row.text(0))).collect(),
                ..Facts::default()
            }),
            Query::UserByName(name) => {
                rows.retain(|row| row.text(USER_NAME) == Some(name.as_str()));
                let ids: BTreeSet<Option<&str>> = rows.iter().map(|row| row.text(USER_ID)).collect();
                if ids.len() > 1 {
                    return Err(BadRecord::SharedName { name: name.clone() });
                }
                let user = self.user(rows, 0)?;
                Ok(Facts {
                    user,
                    ..Facts::default()
                })
            }
        }
    }

    pub(super) fn token(&self, row: &Row) -> Result<TokenRecord, BadRecord> {
        let invalid = |column: &'static str| BadRecord::Column {
            what: "a token".to_owned(),
            column,
        };
        let seconds = |at: usize, name| {
            let text = row.text(at);
            text.map(|text| text.parse().map_err(|_| invalid(name))).transpose()
        };
        let user = self.columns.user_of_token.of(row.text(TOKEN_USER));
        let user = user.and_then(|id| UserId::new(&id).ok()).ok_or(invalid("user"))?;
        Ok(TokenRecord {
            user,
            created: seconds(TOKEN_CREATED, "created")?,
            expires: seconds(TOKEN_EXPIRY, "expiry")?,
            scopes: Vec::new(),
            name: None,
            revoked: None,
        })
    }

    /// The id of a user, as `str()` writes it.
    pub(super) fn user_id(&self, stored: Option<&str>) -> Option<String> {
        self.columns.id.of(stored)
    }

    /// Reads the user whose columns begin at `from`. All rows are of one user, each with another group.
    pub(super) fn user(&self, mut rows: Vec<Row>, from: usize) -> Result<Option<UserRecord>, BadRecord> {
        let Some(first) = rows.first_mut() else { return Ok(None) };
        let Some(id) = self.columns.id.of(first.text(from + USER_ID)) else {
            return Ok(None);
        };
        let invalid = |column: &'static str| BadRecord::Column {
            what: format!("user {id:?}"),
            column,
        };
        let password = first.take_secret(from + USER_PASSWORD);
        let password_md5 = password.map(|password| upper_hex(&Md5::digest(password.expose().as_bytes())));
        let first = &*first;
        let text = |at: usize, name| match first.text(from + at) {
            None | Some("") => Ok(None),
            Some(text) => Text::new(text).map(Some).map_err(|_| invalid(name)),
        };
        let active = match first.text(from + USER_ACTIVE) {
            None => !self.columns.has_active,
            Some("1" | "t" | "true") => true,
            Some("0" | "f" | "false") => false,
            Some(_) => return Err(invalid("active")),
        };
        let (username, email) = (text(USER_NAME, "username")?, text(USER_EMAIL, "email")?);
        let mut attributes = Map::new();
        for (at, (name, kind)) in self.columns.attributes.iter().enumerate() {
            let value = kind.value(first.text(from + USER_COLUMNS + at));
            attributes.insert(name.clone(), value.ok_or(invalid("attributes"))?);
        }
        let groups: BTreeSet<&str> = rows.iter().filter_map(|row| row.text(from + USER_GROUP)).collect();
        let groups = groups
            .into_iter()
            .map(|name| Text::new(name).map_err(|_| invalid("groups")));
        Ok(Some(UserRecord {
            groups: groups.collect::<Result<_, _>>()?,
            id: UserId::new(&id).map_err(|_| invalid("id"))?,
            username,
            email,
            active,
            password_md5,
            attributes,
        }))
    }
}

fn upper_hex(bytes: &[u8]) -> String {
    hex::encode_upper(bytes)
}

impl ColumnKind {
    /// The value to look rows up by. `None`: no row has this id, because `str()` of no value is written so.
    fn parameter(self, text: &str) -> Option<Parameter> {
        match self {
            Self::Integer => {
                let number: i64 = text.parse().ok()?;
                (number.to_string() == text).then_some(Parameter::Integer(number))
            }
            Self::Uuid => is_uuid(text).then(|| Parameter::Text(text.to_owned())),
            Self::UuidDigits if is_uuid(text) => Some(Parameter::Text(text.replace('-', ""))),
            Self::UuidDigits | Self::Text | Self::Float | Self::Boolean | Self::Json | Self::Other => {
                Some(Parameter::Text(text.to_owned()))
            }
        }
    }

    /// The text of an id as `str()` writes it.
    fn of(self, stored: Option<&str>) -> Option<String> {
        let stored = stored?;
        Some(match self {
            Self::UuidDigits => with_dashes(stored).unwrap_or_else(|| stored.to_owned()),
            _ => stored.to_owned(),
        })
    }

    /// The value of an attribute.
    fn value(self, stored: Option<&str>) -> Option<Value> {
        let Some(text) = stored else {
            return Some(Value::Null);
        };
        match self {
            Self::Integer => text.parse().ok().map(|number: i64| Value::Number(number.into())),
            Self::Float => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
            Self::Boolean => match text {
                "1" | "t" | "true" => Some(Value::Bool(true)),
                "0" | "f" | "false" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Json => serde_json::from_str(text).ok(),
            Self::Uuid | Self::UuidDigits | Self::Text | Self::Other => self.of(stored).map(Value::String),
        }
    }
}

/// The form that `str()` of a UUID has: lower case, with dashes.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn with_dashes(digits: &str) -> Option<String> {
    let is_digits = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digits.then(|| {
        let digits = digits.to_ascii_lowercase();
        let parts = [
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..],
        ];
        parts.join("-")
    })
}

/// Writes statements for one kind of database.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    pub(super) engine: Engine,
}

impl Writer {
    pub(super) fn name(self, name: &str) -> String {
        quoted(self.engine, name)
    }

    fn placeholder(self, at: usize, kind: ColumnKind) -> String {
        match (self.engine, kind) {
            (Engine::Postgres, ColumnKind::Uuid) => format!("${at}::uuid"),
            (Engine::Postgres, _) => format!("${at}"),
            (Engine::MySql | Engine::Sqlite, _) => "?".to_owned(),
        }
    }

    fn as_text(self, expression: impl fmt::Display) -> String {
        match self.engine {
            Engine::Postgres => format!("{expression}::text"),
            Engine::MySql => format!("CAST({expression} AS CHAR)"),
            Engine::Sqlite => format!("CAST({expression} AS TEXT)"),
        }
    }

    pub(super) fn text(self, table: &str, column: &str) -> String {
        self.as_text(format_args!("{table}.{}", self.name(column)))
    }

    /// The text of a column that may not be there.
    pub(super) fn optional(self, table: &str, column: Option<&str>) -> String {
        match column {
            Some(column) => self.text(table, column),
            None => self.as_text("NULL"),
        }
    }

    /// A time as Unix seconds. All of them are stored in UTC.
    pub(super) fn seconds(self, table: &str, column: Option<&str>) -> String {
        let Some(column) = column else {
            return self.as_text("NULL");
        };
        let column = format!("{table}.{}", self.name(column));
        match self.engine {
            Engine::Postgres => format!("floor(extract(epoch from {column}))::bigint::text"),
            Engine::MySql => self.as_text(format_args!("TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', {column})")),
            // A text that is no time is an error, and not a token that never expires.
            Engine::Sqlite => {
                format!("CASE WHEN {column} IS NULL THEN NULL ELSE COALESCE(strftime('%s', {column}), 'invalid') END")
            }
        }
    }

    pub(super) fn user_columns(self, users: &UserTable, password: bool, groups: bool) -> String {
        let password = users.password.as_deref().filter(|_| password);
        let mut columns = vec![
            self.text("u", &users.id),
            self.text("u", &users.username),
            self.optional("u", users.email.as_deref()),
            self.optional("u", users.active.as_deref()),
            self.optional("u", password),
            self.optional("g", groups.then_some("name")),
        ];
        columns.extend(users.attributes.iter().map(|(_, column)| self.text("u", column)));
        columns.join(", ")
    }

    fn groups(self, groups: &GroupTable, member: &str, users: &UserTable) -> String {
        format!(
            "LEFT JOIN {} m ON m.{} = u.{} LEFT JOIN {} g ON g.{} = m.{}",
            self.name(&groups.members),
            self.name(member),
            self.name(&users.id),
            self.name(GroupTable::GROUPS),
            self.name("id"),
            self.name("group_id"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_that_python_writes_finds_an_id() {
        let uuid = "0b5e7f60-2c1d-4a6f-9a51-1d2f3a4b5c6d";
        for (kind, text, expected) in [
            (ColumnKind::Integer, "42", Some(Parameter::Integer(42))),
            (ColumnKind::Integer, "-1", Some(Parameter::Integer(-1))),
            (ColumnKind::Integer, "042", None),
            (ColumnKind::Integer, "+42", None),
            (ColumnKind::Integer, "9223372036854775808", None),
            (ColumnKind::Integer, "ada", None),
            (ColumnKind::Uuid, uuid, Some(Parameter::Text(uuid.to_owned()))),
            (ColumnKind::Uuid, &uuid.to_uppercase(), None),
            (ColumnKind::Uuid, &uuid.replace('-', ""), None),
            (
                ColumnKind::UuidDigits,
                uuid,
                Some(Parameter::Text(uuid.replace('-', ""))),
            ),
            (ColumnKind::Text, "042", Some(Parameter::Text("042".to_owned()))),
        ] {
            assert_eq!(kind.parameter(text), expected, "{kind:?} {text}");
        }
        let digits = uuid.replace('-', "");
        assert_eq!(ColumnKind::UuidDigits.of(Some(&digits)).as_deref(), Some(uuid));
        assert_eq!(ColumnKind::UuidDigits.of(Some("x")).as_deref(), Some("x"));
        assert_eq!(ColumnKind::Text.of(Some(&digits)), Some(digits));
    }

    #[test]
    fn attributes_have_the_type_of_their_column() {
        for (kind, stored, expected) in [
            (ColumnKind::Integer, "7", Value::from(7)),
            (ColumnKind::Boolean, "1", Value::from(true)),
            (ColumnKind::Boolean, "false", Value::from(false)),
            (ColumnKind::Json, "{\"a\":[1]}", serde_json::json!({ "a": [1] })),
            (ColumnKind::Text, "7", Value::from("7")),
            (ColumnKind::Other, "12.50", Value::from("12.50")),
        ] {
            assert_eq!(kind.value(Some(stored)), Some(expected), "{kind:?}");
        }
        assert_eq!(ColumnKind::Text.value(None), Some(Value::Null));
        assert_eq!(ColumnKind::Integer.value(Some("x")), None);
    }
}

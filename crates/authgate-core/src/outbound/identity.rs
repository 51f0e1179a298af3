//! `[identity]`: the headers that describe the user to the upstream. A client may therefore never send these names.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::identity::{
    INVALID_TEXT, Identity, IdentityHeaders, InvalidIdentityValue, InvalidText, TableId, TableSet, Text, UserInfo,
};
use crate::member::MemberPath;
use crate::policy::{Permit, Principal};

/// The `[identity]` tables of a configuration.
#[derive(Debug)]
pub struct IdentityTables {
    set: TableSet,
    /// Each at the position of its id in `set`.
    tables: Vec<Arc<IdentityTable>>,
    /// How many signed tokens an identity has room for.
    token_slots: usize,
}

/// One `[identity]` table: header names, the sources of their values, and the encoding.
#[derive(Debug, Clone)]
pub struct IdentityTable {
    id: TableId,
    headers: Box<[(HeaderName, ValueSource)]>,
    encoding: Encoding,
    anonymous: IdentityHeaders,
    unknown: IdentityHeaders,
    public: IdentityHeaders,
}

/// The source of an identity header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// The user's id.
    Id,
    /// The user's login name.
    Username,
    /// The user's mail address.
    Email,
    /// The user's groups.
    Groups,
    /// The credential's scopes.
    Scopes,
    /// The name of the authenticator that accepted the credential, `anonymous` or `public`.
    Authenticator,
    /// A claim of the JWT.
    Claim(MemberPath),
    /// An attribute of the user record.
    Attribute(MemberPath),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("id"),
            Self::Username => f.write_str("username"),
            Self::Email => f.write_str("email"),
            Self::Groups => f.write_str("groups"),
            Self::Scopes => f.write_str("scopes"),
            Self::Authenticator => f.write_str("authenticator"),
            Self::Claim(path) => write!(f, "claims.{path}"),
            Self::Attribute(path) => write!(f, "attributes.{path}"),
        }
    }
}

/// The encoding of a header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Visible ASCII as it is. Every other byte, and `%`, as `%XX`.
    Percent,
    /// The bytes as they are.
    Utf8,
}

/// What the gateway does with the header that carried the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialMode {
    /// Replaces it with `Authorization: Authgate <digest>`, so that caches behind the gateway keep users apart.
    Opaque,
    /// Forwards it unchanged.
    Keep,
    /// Removes it.
    Remove,
}

/// The scheme of the opaque credential. Only the gateway may send it, and no authenticator may read it.
pub const OPAQUE_SCHEME: &str = "Authgate";

/// The authenticator name for a permitted request without a credential. No authenticator may have this name.
pub const ANONYMOUS: &str = "anonymous";
/// The authenticator name for a credential that no record knows. No authenticator may have this name.
pub const UNKNOWN: &str = "unknown";
/// The authenticator name on public routes. No authenticator may have this name.
pub const PUBLIC: &str = "public";

const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
const ENCODED_IN_LIST: &AsciiSet = &ENCODED.add(b',');

impl Default for IdentityTables {
    /// No tables.
    fn default() -> Self {
        Self {
            set: TableSet::unique(),
            tables: Vec::new(),
            token_slots: 0,
        }
    }
}

impl IdentityTables {
    /// The id that the next table will have.
    pub fn next_id(&self) -> TableId {
        self.set.table(self.tables.len())
    }

    /// Adds a table.
    pub fn add(&mut self, headers: Vec<(HeaderName, ValueSource)>, encoding: Encoding) -> TableId {
        let id = self.next_id();
        self.tables.push(Arc::new(IdentityTable::new(id, headers, encoding)));
        id
    }

    /// Adds room for a signed token, and returns its index.
    pub fn add_token_slot(&mut self) -> usize {
        self.token_slots += 1;
        self.token_slots - 1
    }

    /// Whether both have tables with the same headers and encodings, in the same order, and room for as many signed tokens.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        let pairs = self.iter().zip(other.iter());
        (self.tables.len(), self.token_slots) == (other.tables.len(), other.token_slots)
            && pairs
                .into_iter()
                .all(|(one, other)| one.headers == other.headers && one.encoding == other.encoding)
    }

    /// The id of the table at the same position as the table `id` of `other`.
    ///
    /// Panics if `id` does not belong to `other`.
    pub fn counterpart(&self, other: &Self, id: TableId) -> TableId {
        self.set
            .table(id.index_in(other.set).expect("a table of that configuration"))
    }

    /// All tables, in order.
    pub fn iter(&self) -> impl Iterator<Item = &IdentityTable> {
        self.tables.iter().map(AsRef::as_ref)
    }

    /// Makes an identity, with its header values for each table.
    ///
    /// # Errors
    /// A value of one of the tables is not a valid header value.
    pub fn identity(&self, user_info: UserInfo) -> Result<Identity, InvalidIdentityValue> {
        let fields = self
            .iter()
            .map(|table| table.render(&user_info))
            .collect::<Result<_, _>>()?;
        Ok(Identity::new(user_info, self.set, fields, self.token_slots))
    }
}

impl Index<TableId> for IdentityTables {
    type Output = Arc<IdentityTable>;

    /// Panics if the table belongs to another configuration.
    fn index(&self, id: TableId) -> &Self::Output {
        let index = id.index_in(self.set).expect("a table of this configuration");
        &self.tables[index]
    }
}

impl IdentityTable {
    fn new(id: TableId, headers: Vec<(HeaderName, ValueSource)>, encoding: Encoding) -> Self {
        let headers = headers.into_boxed_slice();
        let without_user = |name: &'static str| IdentityHeaders {
            values: headers
                .iter()
                .map(|(_, source)| (*source == ValueSource::Authenticator).then(|| HeaderValue::from_static(name)))
                .collect(),
            opaque: None,
        };
        Self {
            id,
            anonymous: without_user(ANONYMOUS),
            unknown: without_user(UNKNOWN),
            public: without_user(PUBLIC),
            headers,
            encoding,
        }
    }

    /// The header names of this table.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name)
    }

    /// The header names and the sources of their values.
    pub fn headers(&self) -> &[(HeaderName, ValueSource)] {
        &self.headers
    }

    /// The encoding of the values.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Renders the header values for a user.
    ///
    /// # Errors
    /// The first value that cannot be a header value: an object, or text with control characters or outer spaces.
    pub fn render(&self, user_info: &UserInfo) -> Result<IdentityHeaders, InvalidIdentityValue> {
        let render = |source: &ValueSource| {
            self.value(source, user_info).map_err(|problem| InvalidIdentityValue {
                name: source.to_string(),
                problem,
            })
        };
        let values = self
            .headers
            .iter()
            .map(|(_, source)| render(source))
            .collect::<Result<_, _>>()?;
        Ok(IdentityHeaders {
            values,
            opaque: Some(opaque_credential(user_info)),
        })
    }

    fn value(&self, source: &ValueSource, user_info: &UserInfo) -> Result<Option<HeaderValue>, &'static str> {
        match source {
            ValueSource::Id => self.text_value(user_info.id.as_text()),
            ValueSource::Username => user_info
                .username
                .as_ref()
                .map_or(Ok(None), |name| self.text_value(name)),
            ValueSource::Email => user_info
                .email
                .as_ref()
                .map_or(Ok(None), |email| self.text_value(email)),
            ValueSource::Groups => list_value(&user_info.groups),
            ValueSource::Scopes => list_value(&user_info.scopes),
            ValueSource::Authenticator => {
                self.text_value(&Text::new(&user_info.authenticator).map_err(|InvalidText| INVALID_TEXT)?)
            }
            ValueSource::Claim(path) => self.json_value(path.find(&user_info.claims)),
            ValueSource::Attribute(path) => self.json_value(path.find(&user_info.attributes)),
        }
    }

    /// Empty text has no value: no header is sent for it.
    fn text_value(&self, text: &Text) -> Result<Option<HeaderValue>, &'static str> {
        let text = text.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let value = match self.encoding {
            Encoding::Percent => HeaderValue::from_str(&utf8_percent_encode(text, ENCODED).to_string()),
            Encoding::Utf8 => HeaderValue::from_bytes(text.as_bytes()),
        };
        value.map(Some).map_err(|_: InvalidHeaderValue| INVALID_TEXT)
    }

    fn json_value(&self, value: Option<&Value>) -> Result<Option<HeaderValue>, &'static str> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(elements)) => {
                list_value(&elements.iter().map(element_text).collect::<Result<Vec<_>, _>>()?)
            }
            Some(Value::Object(_)) => Err("is an object; name one of its members"),
            Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
                self.text_value(&scalar_text(value)?)
            }
        }
    }

    /// Sets each field of this table to one line, or removes it, whatever the client sent.
    pub fn insert(&self, headers: &mut HeaderMap, permit: &Permit) {
        let user_headers = match permit.principal() {
            Principal::Public => Some(&self.public),
            Principal::Anonymous => Some(&self.anonymous),
            Principal::Unknown => Some(&self.unknown),
            Principal::User(identity) => identity.headers(self.id),
            Principal::Observed => None,
        };
        for (at, (name, _)) in self.headers.iter().enumerate() {
            match user_headers.and_then(|headers| headers.values.get(at)) {
                Some(Some(value)) => headers.insert(name, value.clone()),
                _ => headers.remove(name),
            };
        }
    }

    /// The opaque credential of the permitted user.
    pub fn opaque<'p>(&self, permit: &'p Permit) -> Option<&'p HeaderValue> {
        match permit.principal() {
            Principal::Public | Principal::Anonymous | Principal::Unknown | Principal::Observed => None,
            Principal::User(identity) => identity.headers(self.id).and_then(|headers| headers.opaque.as_ref()),
        }
    }
}

/// List elements are always escaped, so that a `,` inside an element does not split it.
fn list_value(elements: &[Text]) -> Result<Option<HeaderValue>, &'static str> {
    if elements.is_empty() {
        return Ok(None);
    }
    let escaped: Vec<String> = elements
        .iter()
        .map(|element| utf8_percent_encode(element.as_str(), ENCODED_IN_LIST).to_string())
        .collect();
    HeaderValue::from_str(&escaped.join(","))
        .map(Some)
        .map_err(|_: InvalidHeaderValue| INVALID_TEXT)
}

fn element_text(value: &Value) -> Result<Text, &'static str> {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => scalar_text(value),
        Value::Null => Err("is a list with null in it"),
        Value::Array(_) => Err("is a list with a list in it"),
        Value::Object(_) => Err("is a list with an object in it"),
    }
}

fn scalar_text(value: &Value) -> Result<Text, &'static str> {
    let text = match value {
        Value::String(text) => Text::new(text),
        Value::Number(number) => Text::new(&number.to_string()),
        Value::Bool(flag) => Text::new(if *flag { "true" } else { "false" }),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(InvalidText),
    };
    text.map_err(|InvalidText| INVALID_TEXT)
}

fn opaque_credential(user_info: &UserInfo) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(user_info.authenticator.as_bytes());
    hash.update(&[0]);
    hash.update(user_info.id.as_str().as_bytes());
    let text = format!("{OPAQUE_SCHEME} {}", URL_SAFE_NO_PAD.encode(hash.finish()));
    HeaderValue::try_from(text).expect("base64url is visible ASCII")
}

/// Whether some server may read a value of `Authorization` as the gateway's opaque credential. This is so if the value begins
/// with the scheme, or if an element does, for servers that read the value as a list. The check ignores case, leading
/// bytes that servers trim, and all text after the scheme.
pub fn is_opaque_credential(value: &HeaderValue) -> bool {
    let begins = |element: &[u8]| {
        let start = element.iter().position(u8::is_ascii_graphic).unwrap_or(element.len());
        let word = element[start..].get(..OPAQUE_SCHEME.len());
        word.is_some_and(|word| word.eq_ignore_ascii_case(OPAQUE_SCHEME.as_bytes()))
    };
    // Credentials are long and rarely contain a comma.
    let value = value.as_bytes();
    begins(value) || memchr::memchr_iter(b',', value).any(|comma| begins(&value[comma + 1..]))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::identity::UserId;

    fn user_info(username: &str, attributes: &Value) -> UserInfo {
        let text = |text: &str| Text::new(text).expect("plain text");
        UserInfo {
            authenticator: "token".into(),
            issuer: None,
            key: None,
            id: UserId::new("42").expect("an id"),
            username: Some(text(username)),
            email: None,
            groups: vec![text("a b"), text("c,d"), text("100%")],
            scopes: Vec::new(),
            claims: Map::new(),
            attributes: attributes.as_object().cloned().unwrap_or_default(),
        }
    }

    fn rendered(
        source: ValueSource,
        encoding: Encoding,
        user_info: &UserInfo,
    ) -> Result<Option<Vec<u8>>, InvalidIdentityValue> {
        let name = HeaderName::from_static("x-it");
        let mut tables = IdentityTables::default();
        tables.add(vec![(name, source)], encoding);
        tables.tables[0]
            .render(user_info)
            .map(|fields| fields.values[0].as_ref().map(|value| value.as_bytes().to_vec()))
    }

    #[test]
    fn values_have_the_source_and_encoding_of_the_table() {
        let check = |source, encoding, expected: Option<&str>| {
            let user_info = user_info(
                "zo\u{eb} 5%",
                &json!({ "org": { "name": "Acme", "tags": ["x", 2] }, "none": null }),
            );
            assert_eq!(
                rendered(source, encoding, &user_info),
                Ok(expected.map(|text| text.as_bytes().to_vec()))
            );
        };
        let attribute = |path| ValueSource::Attribute(MemberPath::parse(path).expect("a path"));
        check(ValueSource::Id, Encoding::Percent, Some("42"));
        check(ValueSource::Username, Encoding::Percent, Some("zo%C3%AB%205%25"));
        check(ValueSource::Username, Encoding::Utf8, Some("zo\u{eb} 5%"));
        check(ValueSource::Groups, Encoding::Utf8, Some("a%20b,c%2Cd,100%25"));
        check(ValueSource::Email, Encoding::Utf8, None);
        check(ValueSource::Scopes, Encoding::Utf8, None);
        check(ValueSource::Authenticator, Encoding::Utf8, Some("token"));
        check(attribute("org.name"), Encoding::Utf8, Some("Acme"));
        check(attribute("org.tags"), Encoding::Utf8, Some("x,2"));
        check(attribute("none"), Encoding::Utf8, None);
        check(attribute("org.none.x"), Encoding::Utf8, None);
    }

    #[test]
    fn invalid_header_value_refuses_the_identity() {
        let attribute = || ValueSource::Attribute(MemberPath::from_name("a"));
        for (bad, problem) in [
            (json!("x\r\ny"), "has control characters"),
            (json!(" x"), "outer blanks"),
            (json!({ "b": 1 }), "is an object"),
            (json!(["ok", "x\0"]), "has control characters"),
            (json!([[1]]), "is a list with a list in it"),
            (json!([null]), "is a list with null in it"),
            (json!([{}]), "is a list with an object in it"),
        ] {
            let user_info = user_info("ada", &json!({ "a": bad }));
            let error = rendered(attribute(), Encoding::Percent, &user_info).expect_err("no value");
            assert_eq!(error.name, "attributes.a");
            assert!(error.problem.contains(problem), "{bad}: {error}");
        }
    }

    #[test]
    fn opaque_credential_is_found_in_every_form_that_a_server_may_read() {
        let check = |value: &[u8], expected| {
            let value = HeaderValue::from_bytes(value).expect("a legal value");
            assert_eq!(is_opaque_credential(&value), expected, "{value:?}");
        };
        for forged in [
            &b"Authgate x"[..],
            b"authgate x",
            b"AUTHGATE\tx",
            b"Authgate",
            b"  \t Authgate x",
            b"\xa0Authgate x",
            b"\xc2\xa0Authgate x",
            b"\xef\xbb\xbfAuthgate x",
            b"Authgate=x",
            b"Authgatex",
            b"Basic eA==,Authgate x",
            b"Basic eA==, \tauthgate x",
            b",Authgate x",
            b"Authgate x, Basic eA==",
        ] {
            check(forged, true);
        }
        for other in [
            &b""[..],
            b",",
            b"Auth",
            b"Authgat",
            b"Token authgate",
            b"Token authgate-key",
            b"Bearer a.authgate.c",
            b"Basic QXV0aGdhdGUgeA==",
        ] {
            check(other, false);
        }
    }

    #[test]
    fn an_identity_has_no_values_for_the_tables_of_another_configuration() {
        let with_table = |name| {
            let mut tables = IdentityTables::default();
            let id = tables.add(
                vec![(HeaderName::from_static(name), ValueSource::Id)],
                Encoding::Percent,
            );
            (tables, id)
        };
        let ((before, id_before), (_, id_after)) = (with_table("x-id"), with_table("x-role"));
        let identity = before.identity(user_info("ada", &json!({}))).expect("plain values");
        assert!(identity.headers(id_before).is_some() && identity.headers(id_after).is_none());
    }

    #[test]
    fn the_stand_in_tells_users_and_authenticators_apart() {
        let identity = IdentityTables::default()
            .identity(user_info("ada", &json!({})))
            .expect("plain values");
        let mut other = identity.user_info().clone();
        assert_eq!(opaque_credential(&other), opaque_credential(identity.user_info()));
        other.authenticator = "jwt".into();
        assert_ne!(opaque_credential(&other), opaque_credential(identity.user_info()));
    }
}

//! The export format of a store: JSON lines, one record each: `{"user": {…}}`, `{"token": "<digest>", …}` and revocations.
//!
//! A token of a sealed store is `{"token": "hmac-sha256:<digest>", "seal": "<id>", …}`: only stores with that seal can have it.

use authgate_auth::record::{TokenRecord, UserRecord};
use authgate_auth::store::TokenDigest;
use authgate_auth::store::redis::SealId;
use authgate_core::identity::UserId;
use authgate_core::printable::without_values;
use serde_json::{Map, Value, json};

use super::dump_token::{DumpToken, Owner};
use crate::provisioning::Revocation;

/// The line of a user.
pub(super) fn user(user: &UserRecord) -> Value {
    json!({ "user": user })
}

/// The line of a token. `seal`: that of its store.
pub(super) fn token(digest: &TokenDigest, token: &TokenRecord, seal: Option<&SealId>) -> Value {
    let mut line = json!(token);
    line["token"] = digest.to_name().into();
    if let (TokenDigest::Sealed(_), Some(seal)) = (digest, seal) {
        line["seal"] = seal.to_string().into();
    }
    line
}

/// The line of a revocation.
pub(super) fn revocation(revocation: &Revocation) -> Value {
    match revocation {
        Revocation::User { id, before } => json!({ "revoked_user": id.as_str(), "before": before }),
        Revocation::Jti { jti, forget: None } => json!({ "revoked_jti": jti }),
        Revocation::Jti {
            jti,
            forget: Some(forget),
        } => json!({ "revoked_jti": jti, "forget": forget }),
        Revocation::Kid { kid } => json!({ "revoked_kid": kid }),
    }
}

/// A parsed line.
#[derive(Debug)]
pub(super) enum Line {
    User(UserRecord),
    /// With the seal of the store that had it, if that was sealed.
    Token(TokenDigest, DumpToken, Option<SealId>),
    Revocation(Revocation),
}

/// Parses one line.
///
/// # Errors
/// The problem, without text of the line: the digest may be a key by mistake.
pub(super) fn read(mut line: Map<String, Value>) -> Result<Line, String> {
    let number = |line: &Map<String, Value>, name: &str| match line.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or(format!("`{name}` is not an integer")),
    };
    let non_empty_text = |value: &Value, name: &str| match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{name}` is not a non-empty string")),
    };
    if let Some(digest) = line.remove("token") {
        let digest = digest.as_str().and_then(TokenDigest::from_name);
        let digest = digest.ok_or("`token` is not a digest of 64 or 128 lower-case hexadecimal digits")?;
        let seal = match (&digest, line.remove("seal")) {
            (TokenDigest::Sealed(_), seal) => {
                let seal = seal.as_ref().and_then(Value::as_str).and_then(SealId::parse);
                Some(seal.ok_or("`seal` is not the id of a seal, and `token` is a sealed digest")?)
            }
            (TokenDigest::Sha256(_) | TokenDigest::Sha512(_), _) => None,
        };
        let record: TokenRecord = serde_json::from_value(Value::Object(line)).map_err(|error| problem(&error))?;
        Ok(Line::Token(digest, dump_token(&digest, record), seal))
    } else if let Some(user) = line.remove("user") {
        let user = serde_json::from_value(user).map_err(|error| problem(&error))?;
        Ok(Line::User(user))
    } else if let Some(id) = line.get("revoked_user") {
        let id = UserId::new(id.as_str().unwrap_or_default()).map_err(|_| "`revoked_user` is not a valid id")?;
        let before = number(&line, "before")?.ok_or("`before` is missing")?;
        Ok(Line::Revocation(Revocation::User { id, before }))
    } else if let Some(jti) = line.get("revoked_jti") {
        let (jti, forget) = (non_empty_text(jti, "revoked_jti")?, number(&line, "forget")?);
        Ok(Line::Revocation(Revocation::Jti { jti, forget }))
    } else if let Some(kid) = line.get("revoked_kid") {
        let kid = non_empty_text(kid, "revoked_kid")?;
        Ok(Line::Revocation(Revocation::Kid { kid }))
    } else {
        Err("this is neither an object of a Django dump nor a record of `token export`".to_owned())
    }
}

fn dump_token(digest: &TokenDigest, record: TokenRecord) -> DumpToken {
    let mut token = DumpToken::new(digest, Owner::Id(record.user.as_str().to_owned()));
    token.created = record.created;
    token.expires = record.expires;
    token.scopes = record.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    token.name = record.name;
    token.revoked = record.revoked;
    token
}

/// serde_json's message without values of the record.
fn problem(error: &serde_json::Error) -> String {
    without_values(&error.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_records_can_be_read_back() {
        let digest = TokenDigest::of(b"x").to_hex();
        let lines = [
            r#"{"user":{"active":true,"attributes":{"a":[1]},"groups":["staff"],"id":"1","username":"ada"}}"#
                .to_owned(),
            format!(r#"{{"created":1,"name":"ci","scopes":["a"],"token":"{digest}","user":"1"}}"#),
            format!(r#"{{"seal":"0123456789abcdef","token":"hmac-sha256:{digest}","user":"1"}}"#),
            r#"{"before":1700000000,"revoked_user":"1"}"#.to_owned(),
            r#"{"forget":1700000000,"revoked_jti":"j"}"#.to_owned(),
            r#"{"revoked_jti":"k"}"#.to_owned(),
            r#"{"revoked_kid":"main"}"#.to_owned(),
        ];
        for line in &lines {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let Value::Object(object) = line.clone() else {
                panic!("{line}")
            };
            let written = match read(object).expect("a record") {
                Line::User(record) => user(&record),
                Line::Token(digest, record, seal) => {
                    let Owner::Id(id) = &record.owner else {
                        panic!("{record:?}")
                    };
                    let user = UserId::new(id).expect("an id");
                    let (_, update) = record.for_user(user).expect("a token");
                    token(&digest, &update.record, seal.as_ref())
                }
                Line::Revocation(record) => revocation(&record),
            };
            assert_eq!(written, line);
        }
    }

    #[test]
    fn invalid_lines_are_errors_without_their_values() {
        for line in [
            "{}",
            r#"{"token":"canary","user":"1"}"#,
            r#"{"token":"hmac-sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","user":"1"}"#,
            r#"{"token":"hmac-sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","seal":"canary","user":"1"}"#,
            r#"{"token":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}"#,
            r#"{"user":{"id":"1"}}"#,
            r#"{"user":"1"}"#,
            r#"{"user":"canary"}"#,
            r#"{"user":{"id":"1","active":"canary"}}"#,
            r#"{"token":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","user":"1","created":"canary"}"#,
            r#"{"revoked_user":"","before":1}"#,
            r#"{"revoked_user":"1"}"#,
            r#"{"revoked_jti":"j","forget":"soon"}"#,
            r#"{"revoked_kid":""}"#,
        ] {
            let problem = read(serde_json::from_str(line).expect("JSON")).expect_err(line);
            assert!(!problem.contains("canary"), "{problem}");
        }
    }
}

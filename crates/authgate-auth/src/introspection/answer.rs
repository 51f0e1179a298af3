//! [`Answer`]: what an endpoint says about a token (RFC 7662, section 2.2).

use serde_json::{Map, Value};

use crate::claims::json;

/// What an endpoint says about a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is not active: unknown, expired, revoked, or not for this client. The endpoint does not say which.
    Inactive,
    /// It is active, and these are its claims. Members that are null are left out.
    Active(Map<String, Value>),
}

/// Why an answer cannot be used. It is a fault of the endpoint, whatever the token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It is not one JSON object, has duplicate members, or is nested too deeply.
    #[error("it is not one JSON object without duplicate members")]
    NotAnObject,
    /// A member has another type than RFC 7662, section 2.2, requires.
    #[error("{0:?} is not {1}")]
    Type(&'static str, &'static str),
}

impl Answer {
    /// Reads the body of a response.
    ///
    /// # Errors
    /// It is not an answer.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, BadAnswer> {
        let mut members = json::object(body).map_err(|json::Malformed| BadAnswer::NotAnObject)?;
        match members.remove("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(Self::Inactive),
            Some(_) | None => return Err(BadAnswer::Type("active", "true or false")),
        }
        members.retain(|_, value| !value.is_null());
        let check = |names: &[&'static str], is_right: fn(&Value) -> bool, expected| {
            let is_wrong = |name: &&&'static str| members.get(**name).is_some_and(|value| !is_right(value));
            match names.iter().find(is_wrong) {
                None => Ok(()),
                Some(name) => Err(BadAnswer::Type(name, expected)),
            }
        };
        check(&["exp", "iat", "nbf"], Value::is_number, "a number")?;
        check(&["iss", "sub", "jti"], Value::is_string, "a string")?;
        check(&["aud"], is_audience, "a string or a list of strings")?;
        Ok(Self::Active(members))
    }
}

fn is_audience(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(elements) => elements.iter().all(Value::is_string),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_active_only_if_the_answer_says_true() {
        for active in [json!("true"), json!(1), json!(null), json!([true]), json!({})] {
            let body = json!({ "active": active, "sub": "1" }).to_string();
            let expected = Err(BadAnswer::Type("active", "true or false"));
            assert_eq!(Answer::parse(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(
            Answer::parse(br#"{"sub":"1"}"#),
            Err(BadAnswer::Type("active", "true or false"))
        );
        // Whatever else it says.
        let body = br#"{"active":false,"exp":"soon","sub":5}"#;
        assert_eq!(Answer::parse(body), Ok(Answer::Inactive));
        let body = br#" {"active":true,"sub":"1","exp":5,"username":null} "#;
        let members = json!({ "sub": "1", "exp": 5 }).as_object().cloned().expect("an object");
        assert_eq!(Answer::parse(body), Ok(Answer::Active(members)));
    }

    #[test]
    fn members_of_a_wrong_type_are_faults_of_the_endpoint() {
        for (name, value, expected) in [
            ("exp", json!("1"), "a number"),
            ("iat", json!(true), "a number"),
            ("nbf", json!([1]), "a number"),
            ("iss", json!(["i"]), "a string"),
            ("sub", json!(5), "a string"),
            ("jti", json!(5), "a string"),
            ("aud", json!(["a", 1]), "a string or a list of strings"),
            ("aud", json!({}), "a string or a list of strings"),
        ] {
            let mut body = json!({ "active": true });
            body[name] = value;
            let answer = Answer::parse(body.to_string().as_bytes());
            assert_eq!(answer, Err(BadAnswer::Type(name, expected)), "{body}");
        }
        for body in [
            "",
            "null",
            "[]",
            "true",
            "{",
            r#"{"active":true} x"#,
            r#"{"active":false,"active":true}"#,
            r#"{"active":true,"\u0061ctive":true}"#,
            "<html>",
        ] {
            assert_eq!(Answer::parse(body.as_bytes()), Err(BadAnswer::NotAnObject), "{body}");
        }
    }
}

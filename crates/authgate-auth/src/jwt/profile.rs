//! What the profile of a JWT authenticator requires of the claims, beyond the checks that every kind of token has.

use authgate_core::credential::{Defect, JwtFault, TypeMismatch};
use serde_json::{Map, Value};

use super::rules::{Profile, Rules, TokenType};
use crate::claims::Claims;
use crate::now::Now;

/// All checks before revocation.
pub(super) fn check(members: Map<String, Value>, rules: &Rules, now: Now) -> Result<Claims, JwtFault> {
    let claims = Claims::check(members, rules.claims(), now)?;
    match has_required(&claims, rules.profile) {
        true => Ok(claims),
        false => Err(Defect::Required.into()),
    }
}

/// The checks after revocation: required claims and the token type.
pub(super) fn check_kind(claims: &Claims, rules: &Rules, accepted: &[TokenType]) -> Result<(), TypeMismatch> {
    if !claims.has("exp") {
        return Err(TypeMismatch::NoExpiry);
    }
    if rules.jti_claim.as_ref().is_some_and(|name| !claims.has(name)) {
        return Err(TypeMismatch::NoId);
    }
    let Some(name) = &rules.token_type_claim else {
        return Ok(());
    };
    match claims.get(name) {
        None => Err(TypeMismatch::NoType),
        Some(Value::String(kind)) if accepted.iter().any(|wanted| wanted.as_str() == kind) => Ok(()),
        Some(_) => Err(TypeMismatch::WrongType),
    }
}

/// RFC 9068, section 2.2. `exp` and `jti` have checks of their own.
fn has_required(claims: &Claims, profile: Profile) -> bool {
    match profile {
        Profile::SimpleJwt | Profile::Plain => true,
        Profile::Rfc9068 => {
            ["iss", "sub", "client_id"]
                .iter()
                .all(|name| claims.get(name).is_some_and(Value::is_string))
                && claims.get("iat").is_some_and(Value::is_number)
                && claims.get("exp").is_none_or(Value::is_number)
                && match claims.get("aud") {
                    Some(Value::String(_)) => true,
                    Some(Value::Array(elements)) => !elements.is_empty() && elements.iter().all(Value::is_string),
                    _ => false,
                }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Now = Now {
        unix_ms: 1_700_000_000_500,
        uptime_ms: 0,
    };

    fn verify(rules: &Rules, claims: &Value, expected: Result<(), JwtFault>) {
        let members = claims.as_object().cloned().expect("an object");
        let outcome = check(members, rules, NOW)
            .and_then(|claims| check_kind(&claims, rules, &rules.token_types).map_err(JwtFault::TypeMismatch));
        assert_eq!(outcome, expected, "{claims}");
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = json!({ "exp": 1_700_000_300, "jti": "j", "token_type": "access", "user_id": "1" });
        claims[name] = value;
        claims
    }

    #[test]
    fn missing_claims_are_reported_in_simplejwts_order() {
        let rules = Rules::simplejwt();
        verify(&rules, &json!({}), Err(TypeMismatch::NoExpiry.into()));
        verify(&rules, &json!({ "exp": 1_700_000_300 }), Err(TypeMismatch::NoId.into()));
        verify(
            &rules,
            &json!({ "exp": 1_700_000_300, "jti": "" }),
            Err(TypeMismatch::NoType.into()),
        );
        verify(
            &rules,
            &with("token_type", json!("refresh")),
            Err(TypeMismatch::WrongType.into()),
        );
        verify(&rules, &with("jti", json!(5)), Err(Defect::Texts.into()));
        verify(&rules, &with("sub", json!(5)), Err(Defect::Texts.into()));
        verify(
            &rules,
            &json!({ "exp": 1_600_000_000, "token_type": "refresh" }),
            Err(JwtFault::Expired),
        );
        verify(
            &rules,
            &json!({ "exp": 1_600_000_000, "iat": 1_800_000_000 }),
            Err(Defect::IssuedAt.into()),
        );
    }

    #[test]
    fn an_access_token_of_rfc_9068_has_all_that_it_must_have() {
        let rules = Rules::rfc9068();
        let good = json!({
            "iss": "https://as.example", "sub": "5", "client_id": "app", "aud": ["api"], "jti": "j",
            "iat": 1_700_000_000, "exp": 1_700_000_300,
        });
        verify(&rules, &good, Ok(()));
        let without = |name: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().expect("an object").remove(name);
            claims
        };
        for name in ["iss", "sub", "client_id", "aud", "iat"] {
            verify(&rules, &without(name), Err(Defect::Required.into()));
        }
        verify(&rules, &without("exp"), Err(TypeMismatch::NoExpiry.into()));
        verify(&rules, &without("jti"), Err(TypeMismatch::NoId.into()));
        for (name, value) in [
            ("iss", json!(["https://as.example"])),
            ("client_id", json!(5)),
            ("aud", json!([])),
            ("aud", json!(["api", 5])),
            ("iat", json!("1700000000")),
            ("iat", json!(true)),
            ("exp", json!(1_700_000_300.0)),
        ] {
            let mut claims = good.clone();
            claims[name] = value;
            let expected = if name == "exp" {
                Ok(())
            } else {
                Err(Defect::Required.into())
            };
            verify(&rules, &claims, expected);
        }
    }
}

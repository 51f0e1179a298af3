//! The claims of a token, from its payload or from an introspection endpoint: checked in SimpleJWT's order, in whole seconds.

pub(crate) mod json;
pub(crate) mod user;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::{Defect, IntrospectionFault, JwtFault};
use serde_json::{Map, Number, Value};

use crate::now::Now;
use crate::revocable::{Irrevocable, Revocable};
use crate::validity::Validity;

/// The last second of the year 9999, the maximum of Python's `datetime`. No real token exceeds it.
const LAST_SECOND: i128 = 253_402_300_799;

/// The most digits that Python's `int()` reads from a string, by default.
const MAX_DIGITS: usize = 4300;

/// What the claims of every kind of token must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimRules<'r> {
    /// Accepted issuers; empty: not checked.
    pub(crate) issuer: &'r [String],
    /// Accepted audiences; empty: not checked.
    pub(crate) audience: &'r [String],
    /// Accepted clock difference.
    pub(crate) leeway: Duration,
    /// Maximum lifetime of a token.
    pub(crate) max_lifetime: Option<Duration>,
}

impl ClaimRules<'_> {
    /// Whether these rules accept every token that `previous` has accepted. The age of a token is not considered.
    pub(crate) fn accept_all_of(&self, previous: ClaimRules<'_>) -> bool {
        let is_wider = |own: &[String], previous: &[String]| {
            let includes_all = previous.iter().all(|name| own.contains(name));
            own.is_empty() || (!previous.is_empty() && includes_all)
        };
        let is_not_shorter = |longest: Duration| previous.max_lifetime.is_some_and(|previous| longest >= previous);
        let ClaimRules {
            issuer,
            audience,
            leeway: _,
            max_lifetime,
        } = self;
        is_wider(issuer, previous.issuer)
            && is_wider(audience, previous.audience)
            && max_lifetime.is_none_or(is_not_shorter)
    }
}

/// Why claims are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimFault {
    /// `exp` has passed.
    Expired,
    /// A claim has another fault.
    Invalid(Defect),
}

impl From<Defect> for ClaimFault {
    fn from(defect: Defect) -> Self {
        Self::Invalid(defect)
    }
}

impl From<ClaimFault> for JwtFault {
    fn from(fault: ClaimFault) -> Self {
        match fault {
            ClaimFault::Expired => Self::Expired,
            ClaimFault::Invalid(defect) => Self::Invalid(defect),
        }
    }
}

impl From<ClaimFault> for IntrospectionFault {
    fn from(fault: ClaimFault) -> Self {
        match fault {
            ClaimFault::Expired => Self::Expired,
            ClaimFault::Invalid(defect) => Self::Invalid(defect),
        }
    }
}

/// Claims that passed the checks of [`ClaimRules`].
#[derive(Debug)]
pub(crate) struct Claims {
    members: Map<String, Value>,
    issued_at: Option<i128>,
    pub(crate) validity: Validity,
}

impl Claims {
    /// Checks times, issuer, audience and the types of `sub` and `jti`.
    pub(crate) fn check(members: Map<String, Value>, rules: ClaimRules<'_>, now: Now) -> Result<Self, ClaimFault> {
        let (now_ms, leeway) = (i128::from(now.unix_ms), millis(rules.leeway));
        let mut from_ms = i128::MIN;
        let mut issued_at = None;
        for (name, defect) in [("iat", Defect::IssuedAt), ("nbf", Defect::NotBefore)] {
            let Some(value) = members.get(name) else { continue };
            let at = integer(value).ok_or(defect)?;
            if defect == Defect::IssuedAt {
                issued_at = Some(at);
            }
            let valid_from = at.saturating_mul(1000).saturating_sub(leeway);
            if valid_from > now_ms {
                return Err(defect.into());
            }
            from_ms = from_ms.max(valid_from);
        }
        let mut until_ms = i128::MAX;
        if let Some(value) = members.get("exp") {
            let at = integer(value).ok_or(Defect::Expiry)?;
            until_ms = at.saturating_mul(1000).saturating_add(leeway);
            if until_ms <= now_ms {
                return Err(ClaimFault::Expired);
            }
            if value.is_string() || at > LAST_SECOND {
                return Err(Defect::Expiry.into());
            }
            let begun = issued_at.map_or(now_ms, |at| at.saturating_mul(1000));
            let lifetime = at.saturating_mul(1000).saturating_sub(begun);
            if rules.max_lifetime.is_some_and(|most| lifetime > millis(most)) {
                return Err(Defect::Lifetime.into());
            }
        }
        if !issuer_matches(members.get("iss"), rules.issuer) {
            return Err(Defect::Issuer.into());
        }
        if !audience_matches(members.get("aud"), rules.audience) {
            return Err(Defect::Audience.into());
        }
        if ["sub", "jti"]
            .iter()
            .any(|name| members.get(*name).is_some_and(|value| !value.is_string()))
        {
            return Err(Defect::Texts.into());
        }
        let clamp = |ms: i128| i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX });
        Ok(Self {
            members,
            issued_at,
            validity: Validity {
                from_ms: clamp(from_ms),
                until_ms: clamp(until_ms),
            },
        })
    }

    /// The id by which the token can be revoked; `None`: the claim is absent.
    ///
    /// # Errors
    /// The value cannot be revoked: it is neither a string nor a number, or a number without a plain decimal form.
    pub(crate) fn revocable_id(&self, name: &str) -> Result<Option<Cow<'_, str>>, Defect> {
        let id = match self.members.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(Value::Number(number)) => Cow::Owned(decimal(number).ok_or(Defect::TokenId)?),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(Defect::TokenId);
            }
        };
        Ok(Some(id))
    }

    /// By which id the token is revoked in this store. `name`: the claim with the id, if ids are read.
    pub(crate) fn revocable(&self, name: Option<&str>, store: &Arc<str>) -> Revocable {
        let id = match name.map(|name| self.revocable_id(name)) {
            // Such a token is refused.
            Some(Err(_)) => return Revocable::NotAccepted,
            Some(Ok(id)) => id.filter(|id| !id.is_empty()),
            None => None,
        };
        let expires = self.members.get("exp").and_then(integer);
        match id {
            None => Revocable::Irrevocable(Irrevocable::NoId),
            Some(id) => Revocable::ById {
                store: Arc::clone(store),
                id: id.into_owned(),
                expires: expires.map(|at| i64::try_from(at).unwrap_or(i64::MAX)),
            },
        }
    }

    /// The first time at which `iat` and `nbf` permit the token; now, if that is later.
    pub(crate) fn begin(members: &Map<String, Value>, leeway: Duration, now: Now) -> Now {
        let times = ["iat", "nbf"]
            .into_iter()
            .filter_map(|name| integer(members.get(name)?));
        let begin = times
            .max()
            .map_or(i128::MIN, |at| at.saturating_mul(1000) - millis(leeway));
        let unix_ms = i64::try_from(begin.max(i128::from(now.unix_ms))).unwrap_or(i64::MAX);
        Now { unix_ms, ..now }
    }

    /// Whether the token was issued up to that second, or has no `iat`.
    pub(crate) fn issued_by(&self, second: i64) -> bool {
        self.issued_at.is_none_or(|issued| issued <= i128::from(second))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// Keeps only the claims that the configuration needs.
    pub(crate) fn only(mut self, names: &[String]) -> Map<String, Value> {
        names
            .iter()
            .filter_map(|name| self.members.remove_entry(name))
            .collect()
    }
}

fn millis(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX)
}

/// Converts a JSON value as Python's `int()` does, saturating: a truncated number, `true`, a string of digits.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(flag) => Some(i128::from(*flag)),
        Value::Number(number) => number
            .as_i128()
            .or_else(|| number.as_u128().map(|_| i128::MAX))
            .or_else(|| number.as_f64().map(whole_part)),
        Value::String(text) => digits(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text of a number as Django writes it into a text column; `None` above 53 bits, where the digits that were sent are lost.
fn decimal(number: &Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let text = format!(
        "{:?}",
        number.as_f64().filter(|float| float.abs() < 9_007_199_254_740_992.0)?
    );
    (!text.contains('e')).then_some(text)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float is cut to whole as Python's int() does; the cast saturates"
)]
fn whole_part(number: f64) -> i128 {
    number as i128
}

/// ASCII only: outer blanks, a sign, digits with single `_` between them.
fn digits(text: &str) -> Option<i128> {
    let text = text.trim_matches(|c: char| matches!(c, '\t'..='\r' | ' '));
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let well_formed = digits
        .split('_')
        .all(|run| !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_digit()));
    if !well_formed || digits.bytes().filter(u8::is_ascii_digit).count() > MAX_DIGITS {
        return None;
    }
    let value = digits.bytes().filter(u8::is_ascii_digit).fold(0_i128, |value, digit| {
        value.saturating_mul(10).saturating_add(i128::from(digit - b'0'))
    });
    Some(if negative { -value } else { value })
}

/// RFC 7519, section 4.1.1: one string, equal to an expected issuer.
fn issuer_matches(claim: Option<&Value>, expected: &[String]) -> bool {
    expected.is_empty()
        || claim
            .and_then(Value::as_str)
            .is_some_and(|iss| expected.iter().any(|wanted| wanted == iss))
}

/// RFC 7519, section 4.1.3: a string or a list of strings only, at least one in common.
fn audience_matches(claim: Option<&Value>, expected: &[String]) -> bool {
    let wanted = |aud: &str| expected.iter().any(|wanted| wanted == aud);
    match claim {
        _ if expected.is_empty() => true,
        Some(Value::String(aud)) => wanted(aud),
        Some(Value::Array(elements)) => {
            elements.iter().all(Value::is_string) && elements.iter().filter_map(Value::as_str).any(wanted)
        }
        _ => false,
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
    const ANY: ClaimRules<'_> = ClaimRules {
        issuer: &[],
        audience: &[],
        leeway: Duration::ZERO,
        max_lifetime: None,
    };

    fn check(rules: ClaimRules<'_>, claims: &Value, expected: Result<(), ClaimFault>) {
        let members = claims.as_object().cloned().expect("an object");
        assert_eq!(Claims::check(members, rules, NOW).map(drop), expected, "{claims}");
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = json!({ "exp": 1_700_000_300, "jti": "j", "user_id": "1" });
        claims[name] = value;
        claims
    }

    #[test]
    fn times_are_whole_seconds_against_a_clock_with_a_fraction() {
        for (name, value, expected) in [
            ("exp", json!(1_700_000_001), Ok(())),
            ("exp", json!(1_700_000_000), Err(ClaimFault::Expired)),
            ("exp", json!(1_700_000_001.9), Ok(())),
            ("exp", json!(1_700_000_000.9), Err(ClaimFault::Expired)),
            ("exp", json!("1600000000"), Err(ClaimFault::Expired)),
            ("exp", json!("1800000000"), Err(ClaimFault::Invalid(Defect::Expiry))),
            ("exp", json!(true), Err(ClaimFault::Expired)),
            ("exp", json!(null), Err(ClaimFault::Invalid(Defect::Expiry))),
            ("exp", json!([1]), Err(ClaimFault::Invalid(Defect::Expiry))),
            ("exp", json!("soon"), Err(ClaimFault::Invalid(Defect::Expiry))),
            ("exp", json!(253_402_300_799_i64), Ok(())),
            (
                "exp",
                json!(253_402_300_800_i64),
                Err(ClaimFault::Invalid(Defect::Expiry)),
            ),
            ("exp", json!(1e300), Err(ClaimFault::Invalid(Defect::Expiry))),
            ("exp", json!(-1), Err(ClaimFault::Expired)),
            ("nbf", json!(1_700_000_000.9), Ok(())),
            ("nbf", json!(1_700_000_001), Err(ClaimFault::Invalid(Defect::NotBefore))),
            ("iat", json!(1_700_000_001), Err(ClaimFault::Invalid(Defect::IssuedAt))),
            ("iat", json!(" +1_700 "), Ok(())),
            ("iat", json!("0".repeat(4300)), Ok(())),
            (
                "iat",
                json!("0".repeat(4301)),
                Err(ClaimFault::Invalid(Defect::IssuedAt)),
            ),
            ("exp", json!("0".repeat(4301)), Err(ClaimFault::Invalid(Defect::Expiry))),
            ("iat", json!("1__0"), Err(ClaimFault::Invalid(Defect::IssuedAt))),
            ("iat", json!(u64::MAX), Err(ClaimFault::Invalid(Defect::IssuedAt))),
            ("iat", json!(-1e300), Ok(())),
        ] {
            check(ANY, &with(name, value), expected);
        }
        let later = ClaimRules {
            leeway: Duration::from_secs(30),
            ..ANY
        };
        check(later, &with("exp", json!(1_699_999_971)), Ok(()));
        check(later, &with("exp", json!(1_699_999_970)), Err(ClaimFault::Expired));
        check(later, &with("nbf", json!(1_700_000_030)), Ok(()));
        check(
            later,
            &with("nbf", json!(1_700_000_031)),
            Err(ClaimFault::Invalid(Defect::NotBefore)),
        );
    }

    #[test]
    fn issuer_and_audience_must_be_there_where_they_are_configured() {
        let (issuer, audience) = (["i".to_owned()], ["a".to_owned(), "b".to_owned()]);
        let rules = ClaimRules {
            issuer: &issuer,
            audience: &audience,
            ..ANY
        };
        let both = |iss: Value, aud: Value| {
            let mut claims = with("iss", iss);
            claims["aud"] = aud;
            claims
        };
        check(rules, &both(json!("i"), json!("a")), Ok(()));
        check(rules, &both(json!("i"), json!(["x", "b"])), Ok(()));
        for bad in [
            json!(["x"]),
            json!([]),
            json!(["a", 1]),
            json!(1),
            json!(null),
            json!({ "a": 1 }),
        ] {
            check(rules, &both(json!("i"), bad), Err(Defect::Audience.into()));
        }
        for bad in [json!("j"), json!(["i"]), json!(null)] {
            check(rules, &both(bad, json!("a")), Err(Defect::Issuer.into()));
        }
        check(rules, &with("iss", json!("i")), Err(Defect::Audience.into()));
        check(ANY, &both(json!(5), json!({})), Ok(()));
    }

    #[test]
    fn subject_and_id_are_strings_and_times_are_checked_first() {
        check(ANY, &json!({}), Ok(()));
        check(ANY, &with("jti", json!(5)), Err(Defect::Texts.into()));
        check(ANY, &with("sub", json!(5)), Err(Defect::Texts.into()));
        check(
            ANY,
            &json!({ "exp": 1_600_000_000, "iat": 1_800_000_000 }),
            Err(Defect::IssuedAt.into()),
        );
    }

    #[test]
    fn a_token_without_a_revocable_id_is_refused() {
        for (value, expected) in [
            (json!("a"), Ok(Some("a"))),
            (json!(" a "), Ok(Some(" a "))),
            (json!(5), Ok(Some("5"))),
            (json!(-5), Ok(Some("-5"))),
            (json!(u64::MAX), Ok(Some("18446744073709551615"))),
            (json!(1.5), Ok(Some("1.5"))),
            (json!(1.0), Ok(Some("1.0"))),
            // 2^64: the reader keeps 53 bits of it, and a revocation of the digits would not be found.
            (json!(18_446_744_073_709_551_616.0), Err(Defect::TokenId)),
            (json!(1e-7), Err(Defect::TokenId)),
            (json!(""), Ok(Some(""))),
            (json!(null), Err(Defect::TokenId)),
            (json!(true), Err(Defect::TokenId)),
            (json!(["a"]), Err(Defect::TokenId)),
            (json!({ "a": 1 }), Err(Defect::TokenId)),
        ] {
            let members = with("tid", value.clone()).as_object().cloned().expect("an object");
            let claims = Claims::check(members, ANY, NOW).expect("good claims");
            let id = claims.revocable_id("tid");
            assert_eq!(
                id.as_ref().map(|id| id.as_deref()).map_err(|defect| *defect),
                expected,
                "{value}"
            );
            assert_eq!(claims.revocable_id("absent"), Ok(None));
        }
    }

    #[test]
    fn a_lifetime_can_be_bounded() {
        let rules = ClaimRules {
            max_lifetime: Some(Duration::from_mins(5)),
            ..ANY
        };
        check(rules, &with("iat", json!(1_700_000_000)), Ok(()));
        check(rules, &with("iat", json!(1_699_999_999)), Err(Defect::Lifetime.into()));
        check(rules, &with("iat", json!(-1e300)), Err(Defect::Lifetime.into()));
    }
}

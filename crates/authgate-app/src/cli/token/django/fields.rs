//! Single values of a dump: keys, strings, times.

use authgate_core::identity::Text;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use md5::{Digest, Md5};
use serde_json::{Map, Value};

/// A primary key as text.
pub(super) fn key(pk: &Value) -> Option<String> {
    match pk {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// A natural key with one part: `["ada"]`.
pub(super) fn natural(key: &Value) -> Option<&str> {
    match key.as_array()?.as_slice() {
        [Value::String(name)] => Some(name),
        _ => None,
    }
}

/// A string field; empty counts as absent.
pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<Text>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) if value.is_empty() => Ok(None),
        Some(Value::String(value)) => match Text::new(value) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(format!("`{name}` has {problem}, which cannot be sent in a header")),
        },
        Some(_) => Err(format!("`{name}` is not a string")),
    }
}

/// The result of SimpleJWT's `get_md5_hash_password` for a stored password hash.
pub(super) fn password_md5(password: &str) -> String {
    Md5::digest(password.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// Parses a time as Django writes it. With `USE_TZ = False` it has no time zone: the earliest possible time is used, so that
/// `revoke --user` revokes too many tokens rather than too few.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        let earliest = TimeZone::fixed(Offset::from_hours(14).ok()?);
        earliest.to_timestamp(text.parse::<DateTime>().ok()?).ok()
    })?;
    Some(time.as_millisecond().div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_zone_is_the_earliest_possible_time() {
        assert_eq!(seconds("2023-11-14T22:13:20.999Z"), Some(1_700_000_000));
        assert_eq!(seconds("2023-11-14T22:13:20.999"), Some(1_700_000_000 - 14 * 3600));
        assert_eq!(seconds("soon"), None);
    }
}

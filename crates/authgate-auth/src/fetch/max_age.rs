//! How long a response is fresh (RFC 9111, section 4.2).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// How much longer the response is fresh by `Cache-Control: max-age`, less its `Age`. `None`: it does not say. A number that cannot be read
/// is 0, and of several the smallest counts.
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).iter();
    let directives = directives.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let ages = directives.filter_map(|directive| {
        let directive = directive.trim_ascii();
        let (name, value) = directive.split_at(directive.iter().position(|byte| *byte == b'=')?);
        let is_max_age = name.trim_ascii().eq_ignore_ascii_case(b"max-age");
        let value = value[1..].trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        is_max_age.then(|| seconds(unquoted.unwrap_or(value)))
    });
    let age = headers
        .get(AGE)
        .map_or(0, |value| seconds(value.as_bytes().trim_ascii()));
    Some(Duration::from_secs(ages.min()?.saturating_sub(age)))
}

/// A number of seconds; more than 2^31 are 2^31 (RFC 9111, section 1.2.2).
fn seconds(digits: &[u8]) -> u64 {
    const MAX: u64 = 1 << 31;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    digits
        .iter()
        .fold(0, |number: u64, digit| MAX.min(number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn max_age_is_read_as_in_rfc_9111() {
        for (lines, age, expected) in [
            (&["max-age=60"][..], None, Some(60)),
            (&["public, Max-Age=60, must-revalidate"], None, Some(60)),
            (&["max-age=\"60\""], None, Some(60)),
            (&["public", "max-age=0"], None, Some(0)),
            (&["max-age=60", "max-age=30"], None, Some(30)),
            (&["max-age=60"], Some("50"), Some(10)),
            (&["max-age=60"], Some("70"), Some(0)),
            (&["max-age=60"], Some("?"), Some(60)),
            (&["max-age=99999999999999999999999"], None, Some(1 << 31)),
            (&["max-age=-1"], None, Some(0)),
            (&["max-age="], None, Some(0)),
            (&["max-age"], None, None),
            (&["s-maxage=60"], None, None),
            (&["no-store"], None, None),
            (&[], Some("5"), None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
            }
            if let Some(age) = age {
                headers.insert(AGE, HeaderValue::from_static(age));
            }
            assert_eq!(
                max_age(&headers),
                expected.map(Duration::from_secs),
                "{lines:?} {age:?}"
            );
        }
    }
}

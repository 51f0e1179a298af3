//! Times as operators and clients write them: Unix seconds, or RFC 3339.

use jiff::Timestamp;

/// The last second of the year 9999. Larger numbers are refused: they are probably milliseconds.
const LAST_SECOND: i64 = 253_402_300_799;

/// Parses a time: Unix seconds, or RFC 3339.
///
/// # Errors
/// The text is neither.
pub fn parse_time(text: &str) -> Result<i64, &'static str> {
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        text.parse()
            .ok()
            .map(|time: Timestamp| time.as_millisecond().div_euclid(1000))
    };
    match seconds {
        Some(seconds) if seconds > LAST_SECOND => Err("too large: write Unix seconds, not milliseconds"),
        Some(seconds) => Ok(seconds),
        None => Err("expected Unix seconds, or a time like 2026-11-23T10:00:00Z"),
    }
}

/// Formats a time so that [`parse_time`] can parse it.
pub fn time_text(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// The current time in Unix seconds.
pub fn unix_now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1700000000", Some(1_700_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000)),
            ("2023-11-14T23:13:20.9+01:00", Some(1_700_000_000)),
            ("1969-12-31T23:59:59.5Z", Some(-1)),
            ("1700000000000", None),
            ("99999999999999999999", None),
            ("", None),
            ("-1", None),
            ("tomorrow", None),
            ("2023-11-14", None),
            ("2023-11-14T22:13:20", None),
        ] {
            assert_eq!(parse_time(text).ok(), expected, "{text}");
        }
        assert_eq!(time_text(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
    }
}

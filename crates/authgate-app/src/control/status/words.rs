//! Numbers and times of the status page as text.

/// Separates thousands; it is narrow and does not break.
const THOUSANDS: char = '\u{202f}';

/// A number of things.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(THOUSANDS);
        }
        text.push(digit);
    }
    text
}

/// A number for each second. Only 0 itself is written as 0.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        ..1.0 => format!("{rate:.2}"),
        ..100.0 => format!("{rate:.1}"),
        _ => count(rate.round() as u64),
    }
}

/// A time of requests.
pub(super) fn milliseconds(seconds: Option<f64>) -> String {
    let Some(ms) = seconds.map(|seconds| seconds * 1000.0) else {
        return "–".to_owned();
    };
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..10_000.0 => format!("{} ms", count(ms.round() as u64)),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

/// A share from 0 to 1.
pub(super) fn percent(share: Option<f64>) -> String {
    match share.map(|share| share * 100.0) {
        None => "–".to_owned(),
        // 100 % is written only if it is all.
        Some(percent) if percent < 100.0 => format!("{:.1}%", percent.min(99.9)),
        Some(_) => "100%".to_owned(),
    }
}

/// A duration, in its two greatest units.
pub(super) fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min {} s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// A number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        format!("{mib:.1} MiB")
    } else {
        format!("{:.2} GiB", mib / 1024.0)
    }
}

/// A time as the document has it, for people: `2026-11-28 23:01:05 UTC`.
pub(super) fn time(time: &str) -> String {
    match time.strip_suffix('Z').and_then(|time| time.split_once('T')) {
        Some((date, clock)) => format!("{date} {clock} UTC"),
        None => time.to_owned(),
    }
}

/// A number with its noun.
pub(super) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!(
            [0.0, 0.004, 0.25, 12.34, 99.96, 12_345.6].map(rate),
            ["0", "0.00", "0.25", "12.3", "100.0", "12\u{202f}346"]
        );
        assert_eq!(
            [None, Some(0.000_84), Some(0.0123), Some(1.5), Some(61.0)].map(milliseconds),
            ["–", "0.8 ms", "12 ms", "1\u{202f}500 ms", "61.0 s"]
        );
        assert_eq!(
            [None, Some(1.0), Some(0.999_5), Some(0.5)].map(percent),
            ["–", "100%", "99.9%", "50.0%"]
        );
        assert_eq!(
            [59, 61, 3_660, 90_000].map(duration),
            ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([15 << 20, 3 << 30].map(bytes), ["15.0 MiB", "3.00 GiB"]);
        assert_eq!(time("2026-11-28T23:01:05Z"), "2026-11-28 23:01:05 UTC");
    }
}

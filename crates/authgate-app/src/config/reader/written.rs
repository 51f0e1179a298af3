//! How values are written in TOML, and in sentences.

use std::time::Duration;

use bytesize::ByteSize;

/// A string of TOML.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A duration, as it is written.
pub(crate) fn duration(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.as_millis());
    // `24h` and `60s` are more usual than `1d` and `1m`.
    for (unit, each, least) in [("d", 86_400, 86_401), ("h", 3_600, 3_600), ("m", 60, 61)] {
        if seconds >= least && seconds.is_multiple_of(each) {
            return format!("{}{unit}", seconds / each);
        }
    }
    if milliseconds.is_multiple_of(1000) {
        format!("{seconds}s")
    } else {
        format!("{milliseconds}ms")
    }
}

/// A size, as it is written.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes)
        .display()
        .iec()
        .to_string()
        .replace(".0 ", "")
        .replace(' ', "")
}

/// `a, b and c`.
pub(crate) fn listed(words: &[String], and: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {and} {last}", most.join(", ")),
    }
}

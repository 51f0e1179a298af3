//! Numbers as people read them: short, with a unit.

/// Events for each second: `0`, `3.4`, `120`, `12.3k`.
pub(super) fn rate(value: f64) -> String {
    match value {
        _ if value <= 0.0 || value.is_nan() => "0".to_owned(),
        _ if value < 10.0 => format!("{value:.1}"),
        _ if value < 1_000.0 => format!("{value:.0}"),
        _ if value < 1_000_000.0 => format!("{:.1}k", value / 1_000.0),
        _ => format!("{:.1}M", value / 1_000_000.0),
    }
}

/// `120`, `12.3k`, `4.5M`.
pub(super) fn count(value: u64) -> String {
    if value < 10_000 {
        value.to_string()
    } else {
        rate(value as f64)
    }
}

/// A time that something has taken, in seconds: `850 µs`, `1.2 ms`, `3.4 s`.
pub(super) fn duration(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// How long something lasts: `12 s`, `5 min`, `3 h 20 min`, `4 d 3 h`.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `12 MiB`.
pub(super) fn bytes(value: u64) -> String {
    match value {
        0..1024 => format!("{value} B"),
        1024..1_048_576 => format!("{} KiB", value >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", value >> 20),
        _ => format!("{:.1} GiB", value as f64 / (1u64 << 30) as f64),
    }
}

/// A share from 0 to 1.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// The last values as a line of bars of this width at most, the newest at the right.
pub(super) fn bars(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = &values[values.len().saturating_sub(width)..];
    let max = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let height = if max > 0.0 { value / max * 7.0 } else { 0.0 };
        BARS[(height.round() as usize).min(7)]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [
            rate(0.0),
            rate(3.44),
            rate(999.6),
            rate(12_345.0),
            rate(f64::NAN),
            count(9_999),
            count(4_500_000),
            duration(Some(0.000_85)),
            duration(Some(0.001_23)),
            duration(Some(0.25)),
            duration(Some(3.4)),
            duration(None),
            age(59),
            age(3_600),
            age(90_000),
            bytes(123 << 20),
            percent(Some(0.987)),
        ];
        let expected = [
            "0",
            "3.4",
            "1000",
            "12.3k",
            "0",
            "9999",
            "4.5M",
            "850 µs",
            "1.2 ms",
            "250 ms",
            "3.4 s",
            "–",
            "59 s",
            "1 h 0 min",
            "1 d 1 h",
            "123 MiB",
            "99 %",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn bars_show_the_newest_values() {
        assert_eq!(bars(&[9.0, 0.0, 1.0, 2.0], 3), "▁▅█");
        assert_eq!(bars(&[0.0, 0.0], 3), "▁▁");
        assert_eq!(bars(&[], 3), "");
    }
}

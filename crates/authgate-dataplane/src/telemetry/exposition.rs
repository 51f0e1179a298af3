//! The two text formats of `/metrics`, and the choice between them by `Accept`.

use std::fmt::Write;

/// A text format that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// Prometheus text format 0.0.4, the default; all tools support it.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl ExpositionFormat {
    /// Chooses by an `Accept` field (RFC 9110, section 12.5.1). If both are equally acceptable, or neither is, it is [`ExpositionFormat::Text`]: for
    /// a scraper, a format that it can read is better than a 406.
    pub fn accepted(accept: &str) -> Self {
        if quality(accept, &OPEN_METRICS) > quality(accept, &TEXT) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

struct MediaType {
    group: &'static str,
    name: &'static str,
    /// The `version` that is written.
    version: &'static str,
}

const TEXT: MediaType = MediaType {
    group: "text",
    name: "plain",
    version: "0.0.4",
};
const OPEN_METRICS: MediaType = MediaType {
    group: "application",
    name: "openmetrics-text",
    version: "1.0.0",
};

/// The quality of a media type, in thousandths. The most specific matching range decides; among several of these, the highest quality.
fn quality(accept: &str, wanted: &MediaType) -> u16 {
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match name.split_once('/') {
            Some(("*", "*")) => 1,
            Some((group, "*")) if group == wanted.group => 2,
            Some((group, name)) if (group, name) == (wanted.group, wanted.name) => 3,
            Some(_) | None => continue,
        };
        let (mut quality, mut readable) = (1000, true);
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("q") {
                quality = thousandths(value);
            } else if name.trim().eq_ignore_ascii_case("version") {
                readable = value == wanted.version;
            }
        }
        if readable {
            best = best.max((specific, quality));
        }
    }
    best.1
}

/// `0.75` is 750; an invalid weight is 0.
fn thousandths(weight: &str) -> u16 {
    let weight: f32 = weight.parse().unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1000.0).round() as u16
}

/// Converts OpenMetrics text to Prometheus text format 0.0.4. For counters, gauges and histograms, the formats differ in metadata only:
/// 0.0.4 describes a counter by the name of its samples, with `_total`, and has neither units nor an end mark.
pub(super) fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(description) = line.strip_prefix("# HELP ") {
            help = description.split_once(' '); // HELP comes before TYPE, which says whether it is a counter
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_the_format() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let protobuf_first = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                              application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus_2, ExpositionFormat::OpenMetrics),
            (prometheus_3, ExpositionFormat::OpenMetrics),
            (protobuf_first, ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text", ExpositionFormat::OpenMetrics),
            (
                "APPLICATION/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.2",
                ExpositionFormat::OpenMetrics,
            ),
            ("application/*", ExpositionFormat::OpenMetrics),
            (
                "application/openmetrics-text;q=0.2, */*;q=0.1",
                ExpositionFormat::OpenMetrics,
            ),
            ("", ExpositionFormat::Text),
            ("*/*", ExpositionFormat::Text),
            ("text/plain", ExpositionFormat::Text),
            (
                "text/plain;version=0.0.4;q=0.7, application/openmetrics-text;q=0.3",
                ExpositionFormat::Text,
            ),
            ("application/openmetrics-text;q=0, */*", ExpositionFormat::Text),
            ("application/openmetrics-text;version=2.0.0", ExpositionFormat::Text),
            (
                "application/openmetrics-text;version=0.0.1, text/plain;version=0.0.4;q=0.5",
                ExpositionFormat::Text,
            ),
            ("application/openmetrics-text;q=nan", ExpositionFormat::Text),
            ("text/html, application/json", ExpositionFormat::Text),
        ] {
            assert_eq!(ExpositionFormat::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let open_metrics = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{x=\"# TYPE\\n\"} 1\n\
                            # HELP b_seconds B.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2.5\n# EOF\n";
        let text = "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\na_requests_total{x=\"# TYPE\\n\"} 1\n\
                    # HELP b_seconds B.\n# TYPE b_seconds gauge\nb_seconds 2.5\n";
        assert_eq!(to_text(open_metrics), text);
    }
}

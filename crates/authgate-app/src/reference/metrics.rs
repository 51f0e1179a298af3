//! `metrics.md`: every metric, with what its labels can be.

use std::fmt::Write;

use authgate_auth::metrics::description::{LabelValues, MetricDescription};
use authgate_dataplane::telemetry::metrics::table::GROUPS;

use super::GENERATED;

const INTRODUCTION: &str = "\
# Metrics

`/metrics` of the [admin listener](../operations/monitor.md) has these metrics, in Prometheus text format 0.0.4, or in OpenMetrics 1.0 where
`Accept` prefers it. No label holds a user, a token or a path: labels are names of the configuration, or have one of a fixed list of values.
Series of requests, credentials and errors appear when they are first counted. A histogram has the series `_bucket`, `_sum` and `_count`.
";

/// The text of the page.
pub(super) fn page() -> String {
    let mut page = format!("{GENERATED}{INTRODUCTION}");
    for (title, tables) in GROUPS {
        let _ = write!(page, "\n## {title}\n");
        for description in tables.iter().copied().flatten() {
            write_metric(&mut page, description);
        }
    }
    page
}

fn write_metric(page: &mut String, description: &MetricDescription) {
    let MetricDescription {
        name,
        kind,
        labels,
        help,
        note,
        since,
    } = description;
    let unit = match description.unit_name() {
        "" => String::new(),
        unit => format!(" in {unit}"),
    };
    let _ = write!(page, "\n### {name}\n\n*{}{unit}, since {since}.* {help}", kind.name());
    if !note.is_empty() {
        let _ = write!(page, " {note}");
    }
    page.push('\n');
    if labels.is_empty() {
        return;
    }
    page.push('\n');
    for label in *labels {
        let _ = match label.values {
            LabelValues::Named(text) => writeln!(page, "- `{}`: {text}", label.name),
            LabelValues::Listed(link, _) => writeln!(page, "- `{}`: {link}", label.name),
            LabelValues::Fixed(lists) => {
                let _ = writeln!(page, "- `{}`:", label.name);
                lists
                    .iter()
                    .copied()
                    .flatten()
                    .try_for_each(|value| writeln!(page, "  - `{}`: {}", value.text, value.meaning))
            }
        };
    }
}

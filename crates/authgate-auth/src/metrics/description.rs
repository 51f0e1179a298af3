//! [`MetricDescription`]: what is declared once about a metric, for `/metrics` and for the reference.

use std::fmt;

use authgate_core::label_value::LabelValue;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// The prefix of all names but those of the process.
const PREFIX: &str = "authgate_";

/// The description of a metric. Its unit is the end of its name.
#[derive(Debug)]
pub struct MetricDescription {
    /// The name on `/metrics`, without the suffixes of a histogram.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its labels, in order.
    pub labels: &'static [LabelDescription],
    /// One sentence, which `/metrics` has too.
    pub help: &'static str,
    /// What the reference adds to it, as Markdown; may be empty.
    pub note: &'static str,
    /// The first version that has it.
    pub since: &'static str,
}

/// A type of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only rises. The name ends with `_total`.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Numbers of observations up to each bound, their number and their sum.
    Histogram,
}

/// A label of a metric.
#[derive(Debug)]
pub struct LabelDescription {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub values: LabelValues,
}

/// What a label can be.
#[derive(Debug, Clone, Copy)]
pub enum LabelValues {
    /// A name of the configuration, or of the build; described in Markdown.
    Named(&'static str),
    /// A value of these tables.
    Fixed(&'static [&'static [&'static LabelValue]]),
    /// A value of these tables, which another page explains; a text in Markdown with a link to it.
    Listed(&'static str, &'static [&'static [&'static LabelValue]]),
}

impl LabelDescription {
    /// A label whose values are names of the configuration.
    pub const fn named(name: &'static str, values: &'static str) -> Self {
        let values = LabelValues::Named(values);
        Self { name, values }
    }

    /// A label with one of the values of these tables.
    pub const fn fixed(name: &'static str, tables: &'static [&'static [&'static LabelValue]]) -> Self {
        let values = LabelValues::Fixed(tables);
        Self { name, values }
    }

    /// A label with one of the values of these tables, which another page explains; a text with a link to it.
    pub const fn listed(
        name: &'static str,
        link: &'static str,
        tables: &'static [&'static [&'static LabelValue]],
    ) -> Self {
        let values = LabelValues::Listed(link, tables);
        Self { name, values }
    }
}

impl MetricKind {
    /// The type of the client library.
    pub fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }

    /// Its name in `# TYPE` lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl MetricDescription {
    /// Writes the description, and returns the encoder of its samples.
    ///
    /// # Errors
    /// It cannot be written as text.
    pub fn encode<'e>(&self, to: &'e mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'e>, fmt::Error> {
        to.encode_descriptor(self.stem(), self.help, self.unit(), self.kind.metric_type())
    }

    /// Writes a metric with its description.
    ///
    /// # Errors
    /// It cannot be written as text.
    pub fn write(&self, to: &mut DescriptorEncoder<'_>, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.encode(to)?)
    }

    /// The name without prefix, unit and `_total`, which the client library adds.
    pub fn stem(&self) -> &'static str {
        let name = self.name.strip_prefix(PREFIX).unwrap_or(self.name);
        let name = name.strip_suffix("_total").unwrap_or(name);
        let unit = self.unit_name();
        let name = name.strip_suffix(unit).unwrap_or(name);
        name.strip_suffix('_').unwrap_or(name)
    }

    /// The unit, if it has one.
    pub fn unit(&self) -> Option<&'static Unit> {
        match self.unit_name() {
            "seconds" => Some(&Unit::Seconds),
            "bytes" => Some(&Unit::Bytes),
            _ => None,
        }
    }

    /// The name of the unit, or an empty text.
    pub fn unit_name(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        match name.rsplit_once('_') {
            Some((_, unit @ ("seconds" | "bytes"))) => unit,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_end_of_the_name() {
        for (name, stem, unit) in [
            ("authgate_requests_total", "requests", ""),
            ("authgate_request_duration_seconds", "request_duration", "seconds"),
            ("process_cpu_seconds_total", "process_cpu", "seconds"),
            ("process_resident_memory_bytes", "process_resident_memory", "bytes"),
            ("authgate_connections", "connections", ""),
        ] {
            let description = MetricDescription {
                name,
                kind: MetricKind::Gauge,
                labels: &[],
                help: "",
                note: "",
                since: "0.1.0",
            };
            assert_eq!((description.stem(), description.unit_name()), (stem, unit));
        }
    }
}

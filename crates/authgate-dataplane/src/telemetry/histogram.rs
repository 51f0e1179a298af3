//! [`HistogramValues`]: what a histogram has counted by now. prometheus-client can only write it as text, so this reads the text.

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The values of a histogram at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramValues {
    /// The number of observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// By upper bound: the number of observations up to it. The bounds increase; the last one is infinite.
    buckets: Vec<(f64, u64)>,
}

impl HistogramValues {
    /// Reads a histogram.
    pub fn read(histogram: &Histogram) -> Self {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("h", "", histogram.clone());
        // A String takes all text.
        let _ = encode_registry(&mut text, &registry);
        let mut values = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            match name {
                "h_sum" => values.sum = value.parse().unwrap_or(0.0),
                "h_count" => values.count = value.parse().unwrap_or(0),
                _ => {
                    let bound = name.strip_prefix("h_bucket{le=\"");
                    if let Some(bound) = bound.and_then(|bound| bound.strip_suffix("\"}")) {
                        let bound = bound.parse().unwrap_or(f64::INFINITY); // `+Inf`
                        values.buckets.push((bound, value.parse().unwrap_or(0)));
                    }
                }
            }
        }
        values
    }

    /// The quantile of the observations since `earlier`, as `histogram_quantile` of Prometheus estimates it: linear inside a bucket. Above the last
    /// finite bound it is that bound. `None`: there are no observations.
    pub fn quantile_since(&self, earlier: &Self, quantile: f64) -> Option<f64> {
        let before = |at: usize| earlier.buckets.get(at).map_or(0, |(_, count)| *count);
        let counts = self.buckets.iter().enumerate();
        let counts = counts.map(|(at, (bound, count))| (*bound, count.saturating_sub(before(at)) as f64));
        let counts: Vec<(f64, f64)> = counts.collect();
        let total = counts.last()?.1;
        if total == 0.0 {
            return None;
        }
        let rank = quantile * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in counts {
            if bound.is_infinite() {
                break;
            }
            if count >= rank && count > below {
                return Some(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_observations_in_between() {
        let histogram = Histogram::new([0.1, 0.2, 0.4]);
        let empty = HistogramValues::read(&histogram);
        assert_eq!((empty.count, empty.buckets.len()), (0, 4));
        assert_eq!(empty.quantile_since(&HistogramValues::default(), 0.5), None);
        for _ in 0..10 {
            histogram.observe(0.05);
        }
        let first = HistogramValues::read(&histogram);
        assert_eq!(first.quantile_since(&empty, 0.5), Some(0.05));
        for _ in 0..3 {
            histogram.observe(0.3);
        }
        histogram.observe(9.0);
        let second = HistogramValues::read(&histogram);
        assert_eq!((second.count, second.sum.round()), (14, 10.0));
        let median = second.quantile_since(&first, 0.5).expect("four observations");
        assert!((median - (0.2 + 0.2 * 2.0 / 3.0)).abs() < 1e-9, "{median}");
        assert_eq!(second.quantile_since(&first, 0.99), Some(0.4), "above the last bound");
    }
}

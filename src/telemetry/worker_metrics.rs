//! [`WorkerMetrics`]: one worker's handles on the request counters. A metric family finds a counter under a lock that all workers share,
//! and hashes its labels. So each worker keeps the handles that it has used, by the address of their labels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::metrics::{Metrics, RequestLabels};

/// Bounded by the configured routes and upstreams, and the fixed lists of outcomes and status classes. Each label whose address is a key is
/// kept alive, so that no other text can get that address.
pub struct WorkerMetrics {
    metrics: Arc<Metrics>,
    requests: RefCell<Handles<[TextAddress; 3], Counter>>,
    upstreams: RefCell<Handles<TextAddress, Histogram>>,
}

type Handles<K, V> = HashMap<K, (Arc<str>, V), RandomState>;

/// The address and the length of a text.
type TextAddress = (usize, usize);

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

impl WorkerMetrics {
    /// Makes handles on these metrics.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            requests: RefCell::default(),
            upstreams: RefCell::default(),
        }
    }

    /// All metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a request that has ended.
    pub fn record_request(&self, route: &Arc<str>, outcome: &'static str, status: &'static str, took: Duration) {
        let key = [address_of(route), address_of(outcome), address_of(status)];
        let mut requests = self.requests.borrow_mut();
        let (_, counter) = requests.entry(key).or_insert_with(|| {
            let counter = self.metrics.request_counter(&RequestLabels {
                route: Arc::clone(route),
                outcome,
                status,
            });
            (Arc::clone(route), counter)
        });
        counter.inc();
        self.metrics.record_request_duration(took);
    }

    /// Records the time until an upstream began its response.
    pub fn record_upstream_duration(&self, upstream: &Arc<str>, took: Duration) {
        let mut upstreams = self.upstreams.borrow_mut();
        let (_, durations) = upstreams
            .entry(address_of(upstream))
            .or_insert_with(|| (Arc::clone(upstream), self.metrics.upstream_histogram(upstream)));
        durations.observe(took.as_secs_f64());
    }
}

fn address_of(text: &str) -> TextAddress {
    (text.as_ptr() as usize, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::ExpositionFormat;

    #[test]
    fn workers_share_counters() {
        let metrics = Arc::new(Metrics::default());
        let (one, two) = (WorkerMetrics::new(&metrics), WorkerMetrics::new(&metrics));
        let routes: [Arc<str>; 2] = ["/a/*".into(), "/b/*".into()];
        for worker_metrics in [&one, &two, &one] {
            for route in &routes {
                worker_metrics.record_request(route, "forwarded", "2xx", Duration::from_millis(3));
                // The same text in another place is the same label.
                worker_metrics.record_request(&Arc::from(&**route), "forwarded", "2xx", Duration::from_millis(3));
            }
            worker_metrics.record_upstream_duration(&"app".into(), Duration::from_millis(2));
        }
        let text = metrics.render(ExpositionFormat::Text).expect("text");
        for line in [
            r#"authgate_requests_total{route="/a/*",outcome="forwarded",status="2xx"} 6"#,
            r#"authgate_requests_total{route="/b/*",outcome="forwarded",status="2xx"} 6"#,
            "authgate_request_duration_seconds_count 12",
            r#"authgate_upstream_duration_seconds_count{upstream="app"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

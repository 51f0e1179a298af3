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
    requests: RefCell<Known<[Place; 3], Counter>>,
    upstreams: RefCell<Known<Place, Histogram>>,
}

type Known<K, V> = HashMap<K, (Arc<str>, V), RandomState>;

/// The address and the length of a text.
type Place = (usize, usize);

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
    pub fn request_ended(&self, route: &Arc<str>, outcome: &'static str, status: &'static str, took: Duration) {
        let place = [place(route), place(outcome), place(status)];
        let mut requests = self.requests.borrow_mut();
        let (_, counter) = requests.entry(place).or_insert_with(|| {
            let counter = self.metrics.requests_ended(&RequestLabels {
                route: Arc::clone(route),
                outcome,
                status,
            });
            (Arc::clone(route), counter)
        });
        counter.inc();
        self.metrics.request_took(took);
    }

    /// Records the time until an upstream began its response.
    pub fn upstream_answered(&self, upstream: &Arc<str>, took: Duration) {
        let mut upstreams = self.upstreams.borrow_mut();
        let (_, durations) = upstreams
            .entry(place(upstream))
            .or_insert_with(|| (Arc::clone(upstream), self.metrics.upstream_durations(upstream)));
        durations.observe(took.as_secs_f64());
    }
}

fn place(text: &str) -> Place {
    (text.as_ptr() as usize, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::Format;

    #[test]
    fn workers_count_together() {
        let metrics = Arc::new(Metrics::default());
        let (one, two) = (WorkerMetrics::new(&metrics), WorkerMetrics::new(&metrics));
        let routes: [Arc<str>; 2] = ["/a/*".into(), "/b/*".into()];
        for worker_metrics in [&one, &two, &one] {
            for route in &routes {
                worker_metrics.request_ended(route, "forwarded", "2xx", Duration::from_millis(3));
                // The same text in another place is the same label.
                worker_metrics.request_ended(&Arc::from(&**route), "forwarded", "2xx", Duration::from_millis(3));
            }
            worker_metrics.upstream_answered(&"app".into(), Duration::from_millis(2));
        }
        let text = metrics.render(Format::Text).expect("text");
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

//! [`Tally`]: one worker's handles on the counters of requests. Looking one up among all is a lock that workers share and a hash of texts;
//! but the same few come again and again, and are known by where their labels stand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::metrics::{Metrics, RequestLabels};

/// As many as there are routes, outcomes and classes of statuses, and upstreams: the file's, and fixed lists. What is known by its place is
/// kept, so that nothing else can come to stand there.
pub struct Tally {
    metrics: Arc<Metrics>,
    requests: RefCell<Known<[Place; 3], Counter>>,
    upstreams: RefCell<Known<Place, Histogram>>,
}

type Known<K, V> = HashMap<K, (Arc<str>, V), RandomState>;

/// Where a text begins, and its length.
type Place = (usize, usize);

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

impl Tally {
    /// Of these metrics.
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

    /// One request has ended.
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

    /// One upstream has begun its response.
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
        let (one, two) = (Tally::new(&metrics), Tally::new(&metrics));
        let routes: [Arc<str>; 2] = ["/a/*".into(), "/b/*".into()];
        for tally in [&one, &two, &one] {
            for route in &routes {
                tally.request_ended(route, "forwarded", "2xx", Duration::from_millis(3));
                // The same text in another place is the same label.
                tally.request_ended(&Arc::from(&**route), "forwarded", "2xx", Duration::from_millis(3));
            }
            tally.upstream_answered(&"app".into(), Duration::from_millis(2));
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

//! [`RouteMetrics`]: one worker's handles on the metrics of one route. A metric family finds a counter under a lock that
//! all workers share, and hashes its labels. So each worker keeps the handles that it has used.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::label_value::LabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::metrics::{AuthenticationLabels, Metrics, ObservationLabels, RequestLabels};

/// The metrics of one route, or of all requests without a route.
pub struct RouteMetrics {
    /// The name of the route in metrics and logs.
    label: Arc<str>,
    upstream: Option<Arc<str>>,
    metrics: Arc<Metrics>,
    requests: Handles<RequestLabels>,
    authentications: Handles<AuthenticationLabels>,
    observations: Handles<ObservationLabels>,
    upstream_durations: OnceCell<Histogram>,
}

/// The counters that were used, with their labels. Bounded by the authenticators of the route and the fixed lists of
/// outcomes and status classes; most routes use a few of them.
type Handles<L> = RefCell<Vec<(L, Counter)>>;

impl fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RouteMetrics").field(&self.label).finish()
    }
}

impl RouteMetrics {
    /// The metrics of a route with this name and upstream.
    pub fn new(metrics: &Arc<Metrics>, label: Arc<str>, upstream: Option<&Arc<str>>) -> Self {
        Self {
            label,
            upstream: upstream.cloned(),
            metrics: Arc::clone(metrics),
            requests: RefCell::default(),
            authentications: RefCell::default(),
            observations: RefCell::default(),
            upstream_durations: OnceCell::new(),
        }
    }

    /// The name of the route in metrics and logs.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Counts a request that has begun.
    pub fn record_request_start(&self) {
        self.metrics.in_flight.inc();
    }

    /// Counts a request that has ended.
    pub fn record_request_end(&self, outcome: &'static LabelValue, status: &'static LabelValue, took: Duration) {
        let (outcome, status) = (outcome.text, status.text);
        self.metrics.in_flight.dec();
        self.metrics.record_request_duration(took);
        let is_same = |labels: &RequestLabels| labels.outcome == outcome && labels.status == status;
        increment(&self.requests, is_same, || {
            let labels = RequestLabels {
                route: Arc::clone(&self.label),
                outcome,
                status,
            };
            let counter = self.metrics.request_counter(&labels);
            (labels, counter)
        });
    }

    /// Counts one authentication.
    pub fn record_authentication(&self, authenticator: &Arc<str>, outcome: &'static LabelValue) {
        let outcome = outcome.text;
        // Nearly always both are at the same address. After a reload, names may be at another one.
        let is_same = |labels: &AuthenticationLabels| {
            let AuthenticationLabels {
                authenticator: name,
                outcome: label,
            } = labels;
            (std::ptr::eq(*label, outcome) || *label == outcome)
                && (Arc::ptr_eq(name, authenticator) || name == authenticator)
        };
        increment(&self.authentications, is_same, || {
            let labels = AuthenticationLabels {
                authenticator: Arc::clone(authenticator),
                outcome,
            };
            let counter = self.metrics.authentication_counter(&labels);
            (labels, counter)
        });
    }

    /// Counts one observed request.
    pub fn record_observation(&self, ours: &'static str, theirs: &'static str, reason: &'static str) {
        let is_same =
            |labels: &ObservationLabels| (labels.ours, labels.theirs, labels.reason) == (ours, theirs, reason);
        increment(&self.observations, is_same, || {
            let labels = ObservationLabels {
                route: Arc::clone(&self.label),
                ours,
                theirs,
                reason,
            };
            let counter = self.metrics.observation_counter(&labels);
            (labels, counter)
        });
    }

    /// Records the time until the upstream began its response.
    pub fn record_upstream_response(&self, took: Duration) {
        let Some(upstream) = &self.upstream else { return };
        self.upstream_durations
            .get_or_init(|| self.metrics.upstream_histogram(upstream))
            .observe(took.as_secs_f64());
    }
}

/// Increments the counter with the labels for which `is_same` is true. `create` gets it from its family at the first use.
fn increment<L>(handles: &Handles<L>, is_same: impl Fn(&L) -> bool, create: impl FnOnce() -> (L, Counter)) {
    let mut handles = handles.borrow_mut();
    if let Some((_, counter)) = handles.iter().find(|(labels, _)| is_same(labels)) {
        counter.inc();
        return;
    }
    let handle = create();
    handle.1.inc();
    handles.push(handle);
}

#[cfg(test)]
mod tests {
    use super::*;
    use authgate_core::credential::labels::TOKEN_UNKNOWN;

    use crate::telemetry::exposition::ExpositionFormat;
    use crate::telemetry::labels;

    #[test]
    fn workers_and_routes_share_the_counters_of_equal_labels() {
        let metrics = Arc::new(Metrics::default());
        let (app, token) = (Arc::from("app"), Arc::from("token"));
        let route = |label: &str| RouteMetrics::new(&metrics, label.into(), Some(&app));
        let (one, two, other) = (route("/a/*"), route("/a/*"), route("/b/*"));
        for route in [&one, &two, &other, &one] {
            route.record_request_start();
            route.record_authentication(&token, &labels::ACCEPTED);
            route.record_upstream_response(Duration::from_millis(2));
            route.record_request_end(&labels::FORWARDED, &labels::SUCCESSFUL, Duration::from_millis(3));
        }
        one.record_authentication(&token, &TOKEN_UNKNOWN);
        one.record_request_end(&labels::FORWARDED, &labels::CLIENT_ERROR, Duration::from_millis(3));
        let text = metrics.render(ExpositionFormat::Text).expect("text");
        for line in [
            r#"authgate_requests_total{route="/a/*",outcome="forwarded",status="2xx"} 3"#,
            r#"authgate_requests_total{route="/a/*",outcome="forwarded",status="4xx"} 1"#,
            r#"authgate_requests_total{route="/b/*",outcome="forwarded",status="2xx"} 1"#,
            r#"authgate_authentications_total{authenticator="token",outcome="accepted"} 4"#,
            r#"authgate_authentications_total{authenticator="token",outcome="token_unknown"} 1"#,
            "authgate_request_duration_seconds_count 5",
            r#"authgate_upstream_duration_seconds_count{upstream="app"} 4"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

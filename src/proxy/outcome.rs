//! [`Outcome`]: one log event and one count a request, however it ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Uri};
use tracing::{Level, event_enabled, info};

use crate::concurrency::ConcurrencyPermit;
use crate::identity::Identity;
use crate::outbound::forwarded::{RequestId, Source};
use crate::telemetry::worker_metrics::WorkerMetrics;

/// What is written of requests.
#[derive(Debug, Clone, Copy)]
pub struct AccessLog {
    /// One event a request.
    pub on: bool,
    /// With the query of its target.
    pub query: bool,
}

/// The story of one request. It is told when it is dropped: when the response has gone out, or when nobody is left to read it.
#[derive(Debug)]
pub struct Outcome {
    worker_metrics: Rc<WorkerMetrics>,
    log: AccessLog,
    started: Instant,
    source: Source,
    request: Option<(Method, Uri)>,
    route: Arc<str>,
    label: &'static str,
    status: Option<StatusCode>,
    user: Option<Arc<Identity>>,
    reason: Option<String>,
    upstream: Option<Duration>,
    sent: u64,
    complete: bool,
    slot: Option<ConcurrencyPermit>,
}

impl Outcome {
    /// A request has come, or as much of one as could be read.
    pub fn open(
        worker_metrics: &Rc<WorkerMetrics>,
        log: AccessLog,
        source: Source,
        request: Option<(Method, Uri)>,
        route: &Arc<str>,
    ) -> Self {
        worker_metrics.metrics().in_flight.inc();
        Self {
            worker_metrics: Rc::clone(worker_metrics),
            log,
            started: Instant::now(),
            source,
            request,
            route: Arc::clone(route),
            label: "client_gone",
            status: None,
            user: None,
            reason: None,
            upstream: None,
            sent: 0,
            complete: false,
            slot: None,
        }
    }

    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.source.id
    }

    /// Where it came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its route was found.
    pub fn on_route(&mut self, route: &Arc<str>) {
        self.route = Arc::clone(route);
    }

    /// It is counted among those at once, until its end.
    pub fn holds(&mut self, slot: ConcurrencyPermit) {
        self.slot = Some(slot);
    }

    /// Who asks was found out.
    pub fn by(&mut self, user: &Arc<Identity>) {
        self.user = Some(Arc::clone(user));
    }

    /// The upstream has begun its response.
    pub fn answered(&mut self, status: StatusCode, took: Duration) {
        (self.status, self.label, self.upstream) = (Some(status), "forwarded", Some(took));
    }

    /// The request ended here; `reason` is for the log alone.
    pub fn rejected(&mut self, status: StatusCode, label: &'static str, reason: Option<String>) {
        (self.status, self.label, self.reason) = (Some(status), label, reason);
    }

    /// The upstream has broken off its response; the client sees that it is not whole.
    pub fn cut(&mut self, label: &'static str, reason: String) {
        (self.label, self.reason) = (label, Some(reason));
    }

    /// So many bytes of the body went out.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// The body came to its end.
    pub fn completed(&mut self) {
        self.complete = true;
    }

    fn status_class(&self) -> &'static str {
        match self.status.map_or(0, |status| status.as_u16() / 100) {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "none",
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.worker_metrics.metrics().in_flight.dec();
        self.worker_metrics
            .request_ended(&self.route, self.label, self.status_class(), took);
        if !self.log.on || !event_enabled!(Level::INFO) {
            return;
        }
        let target = self.request.as_ref().map(|(_, target)| match target.path_and_query() {
            Some(whole) if self.log.query => whole.as_str(),
            _ => target.path(),
        });
        info!(
            http.method = self.request.as_ref().map(|(method, _)| method.as_str()),
            http.target = target,
            http.status = self.status.map(|status| status.as_u16()),
            outcome = self.label,
            reason = self.reason.as_deref(),
            route = &*self.route,
            user.id = self.user.as_ref().map(|user| user.facts().id.as_str()),
            authenticator = self.user.as_ref().map(|user| &*user.facts().authenticator),
            client.ip = %self.source.client,
            duration_ms = millis(took),
            upstream_ms = self.upstream.map(millis),
            bytes = self.sent,
            complete = self.complete,
            request.id = self.id().as_str(),
            "request"
        );
    }
}

/// Milliseconds with three places: what a person compares at a glance.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

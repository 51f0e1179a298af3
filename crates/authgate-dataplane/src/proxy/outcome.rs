//! [`Outcome`]: one log event and one metric count for each request, however the request ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authgate_core::identity::Identity;
use authgate_core::label_value::LabelValue;
use authgate_core::outbound::forwarded::ForwardedInfo;
use authgate_core::outbound::request_id::RequestId;
use authgate_http::concurrency::ConcurrencyPermit;
use authgate_http::upstream::body::RequestBody;
use http::{Method, StatusCode, Uri};
use tracing::{Level, event_enabled};

use super::access_event::AccessEvent;
use super::rejection::Rejection;
use super::stream_end::StreamEnd;
use crate::recording::Recording;
use crate::telemetry::labels;
use crate::telemetry::route_metrics::RouteMetrics;

/// The settings of the access log.
#[derive(Debug, Clone, Copy)]
pub struct AccessLog {
    /// Whether the gateway logs one event for each request.
    pub on: bool,
    /// Whether the event contains the query of the target.
    pub query: bool,
}

/// The outcome of one request. It is recorded when it is dropped: after the response was sent, or when the client has
/// disconnected.
#[derive(Debug)]
pub struct Outcome {
    route: Rc<RouteMetrics>,
    log: AccessLog,
    started: Instant,
    forwarded: ForwardedInfo,
    request: Option<(Method, Uri)>,
    label: &'static LabelValue,
    status: Option<StatusCode>,
    user: Option<Arc<Identity>>,
    reason: Option<String>,
    upstream: Option<Duration>,
    sent: u64,
    complete: bool,
    /// Counts against the limit of concurrent requests until the request ends.
    in_flight: Option<ConcurrencyPermit>,
    /// Is written when the body is known, or else at the end of the request.
    recording: Option<Box<Recording>>,
}

impl Outcome {
    /// Starts the outcome of a request. `no_route` are the metrics of requests without a route. `request` is `None` if
    /// its head could not be read.
    pub fn open(
        no_route: &Rc<RouteMetrics>,
        log: AccessLog,
        forwarded: ForwardedInfo,
        request: Option<(Method, Uri)>,
    ) -> Self {
        no_route.record_request_start();
        Self {
            route: Rc::clone(no_route),
            log,
            started: Instant::now(),
            forwarded,
            request,
            label: &labels::CLIENT_GONE,
            status: None,
            user: None,
            reason: None,
            upstream: None,
            sent: 0,
            complete: false,
            in_flight: None,
            recording: None,
        }
    }

    /// The request id.
    pub fn id(&self) -> &RequestId {
        &self.forwarded.id
    }

    /// The origin of the request.
    pub fn forwarded(&self) -> &ForwardedInfo {
        &self.forwarded
    }

    /// Records the route.
    pub fn set_route(&mut self, route: &Rc<RouteMetrics>) {
        self.route = Rc::clone(route);
    }

    /// Holds a concurrency permit until the request ends.
    pub fn hold(&mut self, in_flight: Option<ConcurrencyPermit>) {
        self.in_flight = in_flight;
    }

    /// Writes the request to the recording once its body is known.
    pub fn record(&mut self, recording: Recording) {
        self.recording = Some(Box::new(recording));
    }

    /// Writes the request to the recording, with the body if it is in memory.
    pub fn record_body(&mut self, body: &RequestBody) {
        if let Some(mut recording) = self.recording.take()
            && let Some(bytes) = body.whole()
        {
            recording.set_body(bytes);
        }
    }

    /// Records the authenticated user, if there is one.
    pub fn set_user(&mut self, user: Option<Arc<Identity>>) {
        if user.is_some() {
            self.user = user;
        }
    }

    /// The authenticated user, if there is one.
    pub fn user(&self) -> Option<&Arc<Identity>> {
        self.user.as_ref()
    }

    /// The method and the target of the request, if its head could be read.
    pub fn request(&self) -> Option<&(Method, Uri)> {
        self.request.as_ref()
    }

    /// Records the start of the upstream's response.
    pub fn upstream_responded(&mut self, status: StatusCode, took: Duration) {
        (self.status, self.label, self.upstream) = (Some(status), &labels::FORWARDED, Some(took));
    }

    /// Records that the gateway has answered with its key set.
    pub fn answered_with_key_set(&mut self, status: StatusCode) {
        (self.status, self.label) = (Some(status), &labels::KEY_SET);
    }

    /// Records a rejection, with the status that the client gets.
    pub fn rejected(&mut self, status: StatusCode, rejection: &Rejection) {
        (self.status, self.label, self.reason) = (Some(status), rejection.label_value(), rejection.reason());
    }

    /// Records that the upstream's response ended too early. The client can detect that it is incomplete.
    pub fn body_failed(&mut self, label: &'static LabelValue, reason: String) {
        (self.label, self.reason) = (label, Some(reason));
    }

    /// Records that the gateway has ended a stream.
    pub fn stream_ended(&mut self, end: StreamEnd) {
        (self.label, self.reason) = (&labels::STREAM_ENDED, Some(end.to_string()));
    }

    /// Adds bytes of the response body that were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Records that the body was sent completely.
    pub fn completed(&mut self) {
        self.complete = true;
    }

    fn status_class(&self) -> &'static LabelValue {
        match self.status.map_or(0, |status| status.as_u16() / 100) {
            1 => &labels::INFORMATIONAL,
            2 => &labels::SUCCESSFUL,
            3 => &labels::REDIRECTION,
            4 => &labels::CLIENT_ERROR,
            5 => &labels::SERVER_ERROR,
            _ => &labels::NO_STATUS,
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.route.record_request_end(self.label, self.status_class(), took);
        if !self.log.on || !event_enabled!(Level::INFO) {
            return;
        }
        let target = self.request.as_ref().map(|(_, target)| match target.path_and_query() {
            Some(whole) if self.log.query => whole.as_str(),
            _ => target.path(),
        });
        let user = self.user.as_ref().map(|user| user.user_info());
        let event = AccessEvent {
            method: self.request.as_ref().map(|(method, _)| method.as_str()),
            target,
            status: self.status,
            outcome: self.label.text,
            reason: self.reason.as_deref(),
            route: self.route.label(),
            user: user.map(|user| user.id.as_str()),
            authenticator: user.map(|user| &*user.authenticator),
            client: self.forwarded.client,
            took,
            upstream: self.upstream,
            sent: self.sent,
            complete: self.complete,
            id: self.id().as_str(),
        };
        event.log();
    }
}

//! [`AccessEvent`]: the event that the log has for each request.

use std::time::Duration;

use authgate_http::node::Node;
use http::StatusCode;
use tracing::info;

/// The fields of the event. The log leaves out those that are `None`. The reference describes them: `crates/authgate-app/src/reference/log`.
#[derive(Debug)]
pub struct AccessEvent<'r> {
    /// The method, if the head could be read.
    pub method: Option<&'r str>,
    /// The path, with the query if the settings say so.
    pub target: Option<&'r str>,
    /// The status of the response.
    pub status: Option<StatusCode>,
    /// How the request ended.
    pub outcome: &'static str,
    /// Details of the outcome.
    pub reason: Option<&'r str>,
    /// The name of the route.
    pub route: &'r str,
    /// The id of the user.
    pub user: Option<&'r str>,
    /// The authenticator that has accepted the credential.
    pub authenticator: Option<&'r str>,
    /// The client.
    pub client: Node,
    /// The time until the end of the response.
    pub took: Duration,
    /// The time until the head of the upstream's response.
    pub upstream: Option<Duration>,
    /// Bytes of the response body that were sent.
    pub sent: u64,
    /// Whether the body was sent completely.
    pub complete: bool,
    /// The request id.
    pub id: &'r str,
}

impl AccessEvent<'_> {
    /// Writes the event.
    pub fn log(&self) {
        info!(
            http.method = self.method,
            http.target = self.target,
            http.status = self.status.map(|status| status.as_u16()),
            outcome = self.outcome,
            reason = self.reason,
            route = self.route,
            user.id = self.user,
            authenticator = self.authenticator,
            client.ip = %self.client,
            duration_ms = millis(self.took),
            upstream_ms = self.upstream.map(millis),
            bytes = self.sent,
            complete = self.complete,
            request.id = self.id,
            "request"
        );
    }
}

/// Milliseconds with three decimal places, for readable logs.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

//! [`Upstream`]: the only way to an application server. It takes an [`Outbound`], so nothing is forwarded without a `Permit`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::outbound::Outbound;
use authgate_http::framing::header_case::ConfiguredNames;
use authgate_http::upstream::body::RequestBody;
use authgate_http::upstream::{
    self, ClientSide, Forwarded, HealthChecks, Resolver, UpstreamError, UpstreamLimits, UpstreamSettings,
};
use http::Request;

/// One worker's access to an upstream.
#[derive(Debug, Clone)]
pub struct Upstream(upstream::Upstream);

impl Upstream {
    /// An upstream without connections. `resolver` belongs to the worker; `own_names`: the case of the names that the gateway adds.
    pub fn new(
        settings: Arc<UpstreamSettings>,
        limits: UpstreamLimits,
        own_names: Arc<ConfiguredNames>,
        resolver: &Resolver,
    ) -> Self {
        Self(upstream::Upstream::new(settings, limits, own_names, resolver))
    }

    /// The same upstream with changed settings: it keeps connections and health of the servers that both have.
    #[must_use]
    pub fn with_settings(
        &self,
        settings: Arc<UpstreamSettings>,
        limits: UpstreamLimits,
        own_names: Arc<ConfiguredNames>,
        resolver: &Resolver,
    ) -> Self {
        Self(self.0.with_settings(settings, limits, own_names, resolver))
    }

    /// Starts the active health checks, if they are configured. Call it on the worker that owns this.
    pub fn start_health_checks(&self) -> HealthChecks {
        self.0.start_health_checks()
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        self.0.name()
    }

    /// Buffers a small body before a server is chosen.
    ///
    /// # Errors
    /// The client does not send the body, there is no room for it, or the upstream does not accept it.
    pub async fn buffer_body(&self, request: &mut Request<RequestBody>) -> Result<(), UpstreamError> {
        self.0.buffer_body(request).await
    }

    /// Forwards a request and waits for the head of its response. `response_timeout`: the timeout of the route, if it has one.
    ///
    /// # Errors
    /// There is no response, or it did not come in time.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that forwards: the request comes from an Outbound"
    )]
    pub fn forward(
        &self,
        outbound: Outbound<RequestBody>,
        response_timeout: Option<Duration>,
        client: &ClientSide<'_>,
    ) -> impl Future<Output = Result<Forwarded, UpstreamError>> {
        let wants_upgrade = outbound.is_upgrade();
        self.0
            .forward(outbound.into_request(), wants_upgrade, response_timeout, client)
    }
}

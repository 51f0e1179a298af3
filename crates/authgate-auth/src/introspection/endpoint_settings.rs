//! [`EndpointSettings`]: how an endpoint is reached.

use std::time::Duration;

use super::client::IntrospectionClient;
use super::location::Location;
use crate::fetch::FetchTls;

/// How an endpoint is reached.
#[derive(Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it is.
    pub location: Location,
    /// Whom the gateway asks as.
    pub client: IntrospectionClient,
    /// The deadline for one answer, with all waiting.
    pub timeout: Duration,
    /// TLS to the endpoint.
    pub tls: FetchTls,
}

impl EndpointSettings {
    /// Whether it is the same endpoint, asked by the same client. The secret of the client makes no difference.
    pub(super) fn has_tokens_of(&self, previous: &Self) -> bool {
        self.location == previous.location && self.client.id == previous.client.id
    }
}

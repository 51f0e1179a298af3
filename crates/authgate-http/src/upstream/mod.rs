//! The application servers: every request is forwarded by [`Upstream::forward`].

pub mod body;
mod client;
mod connector;
mod health;
mod health_check;
pub mod http1;
mod http2;
mod idle_estimate;
mod limits;
mod pool;
mod read_ahead;
mod resolve;
pub mod response;
mod settings;
mod spool;

use std::cell::RefCell;

pub use self::client::{Forwarded, NoResponseCause, Upstream, UpstreamError, is_grpc};
pub use self::connector::Tunnel;
pub use self::limits::UpstreamLimits;
pub use self::pool::TunnelGuard;
pub use self::resolve::Resolver;
pub use self::settings::{
    Balance, HealthCheck, HostMode, Server, SpoolSettings, Tls, Transport, UnsizedBodies, UpstreamSettings,
};
use crate::framing::header_case::HeaderCase;
use crate::transfer::early_hints::EarlyHints;

/// What the upstream side needs from the client side, besides the messages.
#[derive(Debug, Clone, Copy)]
pub struct ClientSide<'c> {
    /// How the client wrote the field names of the request.
    pub request_header_case: &'c HeaderCase,
    /// Receives early hints; `None`: the client cannot read them.
    pub early_hints: Option<&'c EarlyHints>,
    /// Receives the case of the response fields; `None`: the client gets them in lower case.
    pub response_header_case: Option<&'c RefCell<HeaderCase>>,
}

impl<'c> ClientSide<'c> {
    /// For requests without a client, such as health checks.
    pub fn without_client(request: &'c HeaderCase) -> Self {
        Self {
            request_header_case: request,
            early_hints: None,
            response_header_case: None,
        }
    }
}

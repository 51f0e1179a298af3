//! The application servers: every request is forwarded by [`Upstream::forward`].

pub mod body;
mod body_error;
mod client;
mod client_side;
mod connector;
mod content_type;
mod error;
mod exhaustion;
mod health;
mod health_check;
mod health_reports;
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

pub use self::client::{Forwarded, HealthChecks, Upstream};
pub use self::client_side::ClientSide;
pub use self::connector::Tunnel;
pub use self::content_type::{StreamKind, is_grpc};
pub use self::error::{NoResponseCause, UpstreamError};
pub use self::health_reports::{ServerFault, ServerStatus};
pub use self::limits::UpstreamLimits;
pub use self::pool::TunnelGuard;
pub use self::resolve::Resolver;
pub use self::settings::{
    Balance, HealthCheck, HostMode, Server, SpoolSettings, Tls, Transport, UnsizedBodies, UpstreamSettings,
};

//! [`AppError`]: why a gateway does not start, or stops unexpectedly.

use std::io;

use authgate_http::server::address::Address;
use authgate_http::server::inherited::InheritedError;
use authgate_http::server::listen;

/// Why a gateway does not start, or stops unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The gateway cannot listen on an address.
    #[error("cannot listen on {address} ({key}): {source}{}", remedy(address, source))]
    Bind {
        /// The address.
        address: Address,
        /// The configuration key of the address.
        key: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The configuration does not fit a socket that the service manager has passed.
    #[error("{0}")]
    Inherited(#[from] InheritedError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A shutdown has begun.
    #[error("the gateway is shutting down")]
    Stopping,
    /// An operating system error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A worker has stopped.
    #[error("a worker has stopped unexpectedly: {0}")]
    Worker(String),
}

/// The remedy for a failed bind, if one is known.
fn remedy(address: &Address, problem: &io::Error) -> String {
    match address.tcp() {
        Some(tcp) if problem.kind() == io::ErrorKind::PermissionDenied && listen::lacks_bind_permission(tcp) => {
            format!("; {}", listen::BIND_PERMISSION_HELP)
        }
        Some(_) | None => String::new(),
    }
}

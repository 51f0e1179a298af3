//! Why an upstream gave no response.

use std::io;

use super::body_error::RequestBodyError;
use super::connector::ConnectError;
use super::http1::ExchangeError;

/// Why an upstream gave no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No server could be connected to.
    #[error("no connection to {server}: {source}")]
    Connect {
        /// The last server that was tried.
        server: String,
        /// The reason.
        source: ConnectError,
    },
    /// No connection was opened in time.
    #[error("no connection to {server} in time")]
    ConnectTimeout {
        /// The last server that was tried.
        server: String,
    },
    /// The limit of concurrent requests is reached.
    #[error("the limit of concurrent requests is reached")]
    InFlightLimit,
    /// The connection ended before a response, or the response was no valid HTTP.
    #[error("no response: {0}")]
    NoResponse(NoResponseCause),
    /// The server switched protocols, but the request did not ask for it.
    #[error("the server switched protocols, but the request did not ask for it")]
    UnexpectedUpgrade,
    /// The server answered a WebSocket request with success, but did not switch.
    #[error("the server answered with success, but did not switch protocols")]
    UpgradeIgnored,
    /// The server speaks HTTP/2, over which the gateway cannot switch protocols.
    #[error("the server speaks HTTP/2, over which the gateway cannot switch protocols")]
    UpgradeUnsupported,
    /// No response came in time.
    #[error("no response in time")]
    ResponseTimeout,
    /// The request body did not reach its end.
    #[error(transparent)]
    RequestBody(RequestBodyError),
}

/// What came instead of a response.
#[derive(Debug, thiserror::Error)]
pub enum NoResponseCause {
    /// The connection ended or failed.
    #[error("the connection failed: {0}")]
    ConnectionFailed(io::Error),
    /// The bytes are invalid or ambiguous as HTTP.
    #[error("invalid HTTP: {0}")]
    InvalidHttp(&'static str),
}

impl From<ExchangeError> for UpstreamError {
    fn from(failure: ExchangeError) -> Self {
        match failure {
            ExchangeError::RequestBody(error) => Self::RequestBody(error),
            ExchangeError::Timeout => Self::ResponseTimeout,
            ExchangeError::Unsent(_, error)
            | ExchangeError::ClosedEarly(error)
            | ExchangeError::ConnectionFailed(error) => Self::NoResponse(NoResponseCause::ConnectionFailed(error)),
            ExchangeError::InvalidHttp(what) => Self::NoResponse(NoResponseCause::InvalidHttp(what)),
        }
    }
}

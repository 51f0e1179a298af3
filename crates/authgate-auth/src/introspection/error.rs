//! [`IntrospectionError`]: why an endpoint has not said whether a token is active.

use std::sync::Arc;

use authgate_core::label_value::LabelValue;
use http::StatusCode;

use super::answer::BadAnswer;
use crate::fetch::FetchError;
use crate::labels;

/// An endpoint has not said whether a token is active. The message is for operators, and has nothing of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntrospectionError {
    /// The endpoint has not answered, or with another status than 200.
    #[error("the introspection endpoint: {}", described(.0))]
    Fetch(FetchError),
    /// The answer cannot be used.
    #[error("the answer of the introspection endpoint cannot be used: {0}")]
    Answer(BadAnswer),
    /// There is no metadata of the issuer, which names the endpoint.
    #[error("the metadata of the issuer, which names the introspection endpoint: {0}")]
    Discovery(Arc<str>),
    /// As many tokens as allowed are being introspected, and none was finished in time.
    #[error("too many tokens are being introspected at once; the endpoint is too slow for them")]
    Busy,
}

/// What a status means here.
fn described(error: &FetchError) -> String {
    match error {
        FetchError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            format!("{error}: it does not accept the gateway as a client; check `client`")
        }
        other => other.to_string(),
    }
}

impl IntrospectionError {
    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self.cause() {
            Cause::Unreachable => &labels::INTROSPECTION_UNREACHABLE,
            Cause::Timeout => &labels::INTROSPECTION_TIMEOUT,
            Cause::Client => &labels::INTROSPECTION_CLIENT,
            Cause::Status => &labels::INTROSPECTION_STATUS,
            Cause::Answer => &labels::INTROSPECTION_ANSWER,
            Cause::Busy => &labels::INTROSPECTION_BUSY,
            Cause::Discovery => &labels::INTROSPECTION_DISCOVERY,
        }
    }

    /// Whether the endpoint could not answer. An error that says anything about the token or the gateway as a client is no outage.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Status(status)) => {
                status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
            }
            Self::Fetch(
                FetchError::Timeout
                | FetchError::Connect(_)
                | FetchError::Proxy { .. }
                | FetchError::Tls(_)
                | FetchError::Cut(_)
                | FetchError::ShutDown,
            )
            | Self::Discovery(_) => true,
            Self::Fetch(
                FetchError::Redirect { .. } | FetchError::Protocol(_) | FetchError::Compressed | FetchError::TooLarge,
            )
            // Clients can cause this one.
            | Self::Busy
            | Self::Answer(_) => false,
        }
    }

    /// The outcome of the introspection in its metrics.
    pub(super) fn outcome(&self) -> &'static LabelValue {
        match self.cause() {
            Cause::Unreachable => &labels::UNREACHABLE,
            Cause::Timeout => &labels::TIMEOUT,
            Cause::Client => &labels::CLIENT,
            Cause::Status => &labels::STATUS,
            Cause::Answer => &labels::ANSWER,
            Cause::Busy => &labels::ENDPOINT_BUSY,
            Cause::Discovery => &labels::DISCOVERY,
        }
    }

    fn cause(&self) -> Cause {
        match self {
            Self::Fetch(FetchError::Timeout) => Cause::Timeout,
            Self::Fetch(FetchError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => Cause::Client,
            Self::Fetch(FetchError::Status(_) | FetchError::Redirect { .. }) => Cause::Status,
            Self::Fetch(FetchError::Protocol(_) | FetchError::Compressed | FetchError::TooLarge) | Self::Answer(_) => {
                Cause::Answer
            }
            Self::Fetch(
                FetchError::Connect(_)
                | FetchError::Proxy { .. }
                | FetchError::Tls(_)
                | FetchError::Cut(_)
                | FetchError::ShutDown,
            ) => Cause::Unreachable,
            Self::Busy => Cause::Busy,
            Self::Discovery(_) => Cause::Discovery,
        }
    }
}

/// The causes that operators tell apart.
enum Cause {
    /// There is no connection, or it was lost.
    Unreachable,
    /// The endpoint is too slow.
    Timeout,
    /// The endpoint does not accept the gateway as a client.
    Client,
    /// Another status than 200.
    Status,
    /// The response is not an answer.
    Answer,
    /// Too many at once.
    Busy,
    /// The endpoint is not known.
    Discovery,
}

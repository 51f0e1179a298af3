//! [`Rejection`]: every reason why the gateway answers a request itself, with its status and its label.

use authgate_auth::jwt::sign::SignError;
use authgate_auth::{Refused, Unavailable};
use authgate_core::credential::{BindingFault, Refusal};
use authgate_core::policy::Unmet;
use authgate_http::server::handler::HeadFault;
use authgate_http::upstream::UpstreamError;
use authgate_http::upstream::body::RequestBodyError;
use http::{Method, StatusCode};

use super::refusal::format::RefusalFormat;
use super::stream_end::StreamEnd;

/// Why the gateway answers a request instead of an upstream.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The Host, target or path can be read in more than one way.
    #[error("the request can be read in more than one way: {0}")]
    Malformed(&'static str),
    /// The path has no reading, or its readings lead to different policies. The text is for the log.
    #[error("the request can be read in more than one way: {0}")]
    AmbiguousPath(String),
    /// The target is longer than the limit.
    #[error("the target exceeds the limit")]
    TargetTooLong,
    /// The head has too many fields or too many bytes.
    #[error("the head exceeds the limit")]
    HeadTooLarge,
    /// The head was not complete in time.
    #[error("the head of the request did not arrive in time")]
    HeadTooSlow,
    /// No route matches.
    #[error("no route")]
    NoRoute,
    /// The path's routes do not list the method.
    #[error("the route does not allow the method {sent}")]
    MethodNotAllowed {
        /// The method that the client sent.
        sent: Method,
        /// The methods that the path's routes list.
        allowed: Vec<Method>,
    },
    /// The host belongs to a certificate other than the one that the client received.
    #[error("the host belongs to another certificate")]
    Misdirected,
    /// The connection was made under another `client_auth`, below the present `min_version`, or before TLS was switched on.
    #[error("the connection was made under other rules for clients")]
    OutdatedConnection,
    /// The limit of concurrent requests is reached.
    #[error("too many concurrent requests")]
    Overloaded,
    /// The method is CONNECT or TRACE.
    #[error("the method is not implemented")]
    NotImplemented,
    /// The request has no credential, and the route requires one.
    #[error("no credential")]
    Unauthenticated,
    /// The credential was refused.
    #[error("the credential was refused: {}", .0.refusal.label())]
    Refused(Refused),
    /// The user does not meet the route's requirements.
    #[error("the requirements of the route are not met: {0}")]
    NotAllowed(Unmet),
    /// The credential's header has several lines, on a route with problem details; DRF has another answer to them. Or a
    /// WebSocket has several credentials, for which DRF has no answer.
    #[error("several credentials")]
    RepeatedCredential,
    /// A page from an unlisted origin has sent a credential for a WebSocket.
    #[error("a page whose origin is not listed has sent a credential")]
    OriginNotListed,
    /// The gateway could not authenticate the request, for example because a store is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The gateway could not sign the identity of the user.
    #[error(transparent)]
    NotSigned(#[from] SignError),
    /// The request body was too large or too slow, broke off, has no length, or could not be buffered.
    #[error(transparent)]
    Body(#[from] RequestBodyError),
    /// The gateway has ended a gRPC stream before its response began.
    #[error("the stream was ended: {0}")]
    StreamEnded(StreamEnd),
    /// The upstream sent no usable response.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl From<HeadFault> for Rejection {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed(what) => Self::Malformed(what),
            HeadFault::TargetTooLong => Self::TargetTooLong,
            HeadFault::TooLarge => Self::HeadTooLarge,
            HeadFault::TooSlow => Self::HeadTooSlow,
        }
    }
}

impl Rejection {
    /// The status, before [`RefusalFormat`] can change it.
    fn default_status(&self) -> StatusCode {
        match self {
            Self::Malformed(_)
            | Self::AmbiguousPath(_)
            | Self::RepeatedCredential
            | Self::Refused(Refused {
                refusal: Refusal::Binding(BindingFault::SeveralProofs),
                ..
            }) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unauthenticated | Self::Refused(_) | Self::StreamEnded(_) => StatusCode::UNAUTHORIZED,
            // For an unlisted origin, see RFC 6455, section 4.2.2.
            Self::NotAllowed(_) | Self::OriginNotListed => StatusCode::FORBIDDEN,
            Self::Misdirected | Self::OutdatedConnection => StatusCode::MISDIRECTED_REQUEST,
            Self::Unavailable(_)
            | Self::NotSigned(_)
            | Self::Overloaded
            | Self::Upstream(UpstreamError::InFlightLimit) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body(fault) | Self::Upstream(UpstreamError::RequestBody(fault)) => match fault {
                RequestBodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                RequestBodyError::Timeout => StatusCode::REQUEST_TIMEOUT,
                RequestBodyError::Broken => StatusCode::BAD_REQUEST,
                RequestBodyError::LengthRequired => StatusCode::LENGTH_REQUIRED,
                RequestBodyError::BufferFull | RequestBodyError::Spool(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Upstream(
                UpstreamError::Connect { .. }
                | UpstreamError::NoResponse(_)
                | UpstreamError::UnexpectedUpgrade
                | UpstreamError::UpgradeIgnored
                | UpstreamError::UpgradeUnsupported,
            ) => StatusCode::BAD_GATEWAY,
            Self::Upstream(UpstreamError::ConnectTimeout { .. } | UpstreamError::ResponseTimeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// The status for the client. A route without a challenge sends 403 instead of 401, as DRF does.
    pub fn status(&self, format: &RefusalFormat) -> StatusCode {
        match self.default_status() {
            StatusCode::UNAUTHORIZED if !format.has_challenge() => StatusCode::FORBIDDEN,
            status => status,
        }
    }

    /// The details for the log beside the label: which component failed, and why. They are not sent to clients.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Malformed(what) => Some((*what).to_owned()),
            Self::AmbiguousPath(why) => Some(why.clone()),
            Self::NotAllowed(unmet) => Some(unmet.to_string()),
            // The response does not say which check failed.
            Self::Refused(Refused { refusal, .. }) => refusal.detail().map(str::to_owned),
            Self::StreamEnded(end) => Some(end.to_string()),
            Self::Unavailable(Unavailable { authenticator, source }) => {
                Some(format!("authenticator {authenticator}: {source}"))
            }
            Self::NotSigned(error) => Some(error.to_string()),
            Self::Body(fault) | Self::Upstream(UpstreamError::RequestBody(fault)) => match fault {
                RequestBodyError::BufferFull | RequestBodyError::Spool(_) => Some(fault.to_string()),
                RequestBodyError::TooLarge
                | RequestBodyError::Timeout
                | RequestBodyError::Broken
                | RequestBodyError::LengthRequired => None,
            },
            Self::Upstream(
                error @ (UpstreamError::Connect { .. }
                | UpstreamError::ConnectTimeout { .. }
                | UpstreamError::InFlightLimit
                | UpstreamError::NoResponse(_)
                | UpstreamError::ResponseTimeout),
            ) => Some(error.to_string()),
            // The label says it all.
            Self::Upstream(
                UpstreamError::UnexpectedUpgrade | UpstreamError::UpgradeIgnored | UpstreamError::UpgradeUnsupported,
            )
            | Self::TargetTooLong
            | Self::HeadTooLarge
            | Self::HeadTooSlow
            | Self::NoRoute
            | Self::MethodNotAllowed { .. }
            | Self::Misdirected
            | Self::OutdatedConnection
            | Self::Overloaded
            | Self::NotImplemented
            | Self::Unauthenticated
            | Self::RepeatedCredential
            | Self::OriginNotListed => None,
        }
    }

    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::AmbiguousPath(_) => "malformed",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTooSlow => "head_too_slow",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Misdirected => "misdirected",
            Self::OutdatedConnection => "outdated_connection",
            Self::Overloaded => "overloaded",
            Self::NotImplemented => "not_implemented",
            Self::Unauthenticated => "no_credential",
            Self::Refused(refused) => refused.refusal.label(),
            Self::NotAllowed(_) => "not_allowed",
            Self::RepeatedCredential => "repeated_credential",
            Self::OriginNotListed => "origin_not_listed",
            Self::Unavailable(unavailable) => unavailable.source.label(),
            Self::NotSigned(_) => "identity_not_signed",
            Self::StreamEnded(_) => StreamEnd::LABEL,
            Self::Body(fault) | Self::Upstream(UpstreamError::RequestBody(fault)) => match fault {
                RequestBodyError::TooLarge => "body_too_large",
                RequestBodyError::Timeout => "body_too_slow",
                RequestBodyError::Broken => "body_broken",
                RequestBodyError::LengthRequired => "body_without_length",
                RequestBodyError::BufferFull => "spool_full",
                RequestBodyError::Spool(_) => "spool_failed",
            },
            Self::Upstream(UpstreamError::Connect { .. }) => "upstream_unreachable",
            Self::Upstream(UpstreamError::ConnectTimeout { .. }) => "upstream_connect_timeout",
            Self::Upstream(UpstreamError::NoResponse(_)) => "upstream_no_response",
            Self::Upstream(UpstreamError::InFlightLimit) => "upstream_full",
            Self::Upstream(UpstreamError::UpgradeUnsupported) => "upstream_no_upgrade",
            Self::Upstream(UpstreamError::UpgradeIgnored) => "upstream_not_switched",
            Self::Upstream(UpstreamError::UnexpectedUpgrade) => "upstream_unasked_upgrade",
            Self::Upstream(UpstreamError::ResponseTimeout) => "upstream_timeout",
        }
    }
}

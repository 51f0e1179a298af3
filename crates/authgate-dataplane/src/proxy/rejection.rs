//! [`Rejection`]: every reason why the gateway answers a request itself, with its status and its label.

use authgate_auth::jwt::sign::SignError;
use authgate_auth::{Refused, Unavailable};
use authgate_core::credential::{BindingFault, Refusal};
use authgate_core::label_value::LabelValue;
use authgate_core::policy::Unmet;
use authgate_http::server::handler::HeadFault;
use authgate_http::upstream::UpstreamError;
use authgate_http::upstream::body::RequestBodyError;
use http::{Method, StatusCode};

use super::refusal::format::RefusalFormat;
use super::stream_end::StreamEnd;
use crate::telemetry::labels;

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
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::Malformed(_) | Self::AmbiguousPath(_) => &labels::MALFORMED,
            Self::TargetTooLong => &labels::TARGET_TOO_LONG,
            Self::HeadTooLarge => &labels::HEAD_TOO_LARGE,
            Self::HeadTooSlow => &labels::HEAD_TOO_SLOW,
            Self::NoRoute => &labels::NO_ROUTE,
            Self::MethodNotAllowed { .. } => &labels::METHOD_NOT_ALLOWED,
            Self::Misdirected => &labels::MISDIRECTED,
            Self::OutdatedConnection => &labels::OUTDATED_CONNECTION,
            Self::Overloaded => &labels::OVERLOADED,
            Self::NotImplemented => &labels::NOT_IMPLEMENTED,
            Self::Unauthenticated => &labels::NO_CREDENTIAL,
            Self::Refused(refused) => refused.refusal.label_value(),
            Self::NotAllowed(_) => &labels::NOT_ALLOWED,
            Self::RepeatedCredential => &labels::REPEATED_CREDENTIAL,
            Self::OriginNotListed => &labels::ORIGIN_NOT_LISTED,
            Self::Unavailable(unavailable) => unavailable.source.label_value(),
            Self::NotSigned(_) => &labels::IDENTITY_NOT_SIGNED,
            Self::StreamEnded(_) => &labels::STREAM_ENDED,
            Self::Body(fault) | Self::Upstream(UpstreamError::RequestBody(fault)) => match fault {
                RequestBodyError::TooLarge => &labels::BODY_TOO_LARGE,
                RequestBodyError::Timeout => &labels::BODY_TOO_SLOW,
                RequestBodyError::Broken => &labels::BODY_BROKEN,
                RequestBodyError::LengthRequired => &labels::BODY_WITHOUT_LENGTH,
                RequestBodyError::BufferFull => &labels::SPOOL_FULL,
                RequestBodyError::Spool(_) => &labels::SPOOL_FAILED,
            },
            Self::Upstream(UpstreamError::Connect { .. }) => &labels::UPSTREAM_UNREACHABLE,
            Self::Upstream(UpstreamError::ConnectTimeout { .. }) => &labels::UPSTREAM_CONNECT_TIMEOUT,
            Self::Upstream(UpstreamError::NoResponse(_)) => &labels::UPSTREAM_NO_RESPONSE,
            Self::Upstream(UpstreamError::InFlightLimit) => &labels::UPSTREAM_FULL,
            Self::Upstream(UpstreamError::UpgradeUnsupported) => &labels::UPSTREAM_NO_UPGRADE,
            Self::Upstream(UpstreamError::UpgradeIgnored) => &labels::UPSTREAM_NOT_SWITCHED,
            Self::Upstream(UpstreamError::UnexpectedUpgrade) => &labels::UPSTREAM_UNEXPECTED_UPGRADE,
            Self::Upstream(UpstreamError::ResponseTimeout) => &labels::UPSTREAM_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use authgate_auth::{EvaluationError, labels as auth};
    use authgate_core::credential::labels as credential;
    use authgate_http::upstream::NoResponseCause;

    use super::*;

    fn refused(refusal: Refusal) -> Rejection {
        let (by, user) = (0, None);
        Rejection::Refused(Refused { by, refusal, user })
    }

    /// One of each kind that is not made by a policy, a key or a socket.
    fn rejections() -> Vec<Rejection> {
        let upstream = [
            UpstreamError::ConnectTimeout {
                server: "http://127.0.0.1:8000".to_owned(),
            },
            UpstreamError::InFlightLimit,
            UpstreamError::NoResponse(NoResponseCause::InvalidHttp("a status line")),
            UpstreamError::UnexpectedUpgrade,
            UpstreamError::UpgradeIgnored,
            UpstreamError::UpgradeUnsupported,
            UpstreamError::ResponseTimeout,
        ];
        let bodies = [
            RequestBodyError::TooLarge,
            RequestBodyError::Timeout,
            RequestBodyError::Broken,
            RequestBodyError::LengthRequired,
            RequestBodyError::BufferFull,
            RequestBodyError::Spool(io::ErrorKind::StorageFull),
        ];
        let others = [
            Rejection::Malformed("Host"),
            Rejection::AmbiguousPath(String::new()),
            Rejection::TargetTooLong,
            Rejection::HeadTooLarge,
            Rejection::HeadTooSlow,
            Rejection::NoRoute,
            Rejection::MethodNotAllowed {
                sent: Method::PUT,
                allowed: vec![Method::GET],
            },
            Rejection::Misdirected,
            Rejection::OutdatedConnection,
            Rejection::Overloaded,
            Rejection::NotImplemented,
            Rejection::Unauthenticated,
            Rejection::RepeatedCredential,
            Rejection::OriginNotListed,
            refused(Refusal::TokenMissing),
            refused(Refusal::Binding(BindingFault::SeveralProofs)),
            refused(Refusal::Binding(BindingFault::NoProof)),
            Rejection::Unavailable(Unavailable {
                authenticator: "token".into(),
                source: EvaluationError::Busy,
            }),
        ];
        let upstream = upstream.into_iter().map(Rejection::Upstream);
        let bodies = bodies.into_iter().map(Rejection::Body);
        others.into_iter().chain(upstream).chain(bodies).collect()
    }

    #[test]
    fn the_reference_has_the_status_of_each_rejection() {
        let rejections = rejections();
        for rejection in &rejections {
            let status = rejection.default_status();
            assert_eq!(status.as_str(), rejection.label_value().status, "{rejection:?}");
        }
        // A policy, a key and a socket make these.
        let others = ["not_allowed", "identity_not_signed", "upstream_unreachable"];
        let tables = [labels::REQUESTS, labels::BODIES, labels::RULES, labels::UPSTREAMS];
        for value in tables.into_iter().flatten() {
            let is_checked = rejections.iter().any(|rejection| rejection.label_value() == *value);
            assert!(is_checked || others.contains(&value.text), "{value:?}");
        }
    }

    #[test]
    fn all_refusals_have_one_status_and_all_failures_another() {
        let refusals = [
            credential::TOKENS,
            credential::JWTS,
            credential::INTROSPECTED,
            credential::BOUND,
        ];
        for value in refusals.into_iter().flatten() {
            let expected = if value.text == "dpop_several_proofs" {
                "400"
            } else {
                "401"
            };
            assert_eq!(value.status, expected, "{value:?}");
        }
        let failures = [auth::STORES, auth::KEYS, auth::INTROSPECTION, auth::EVALUATION];
        for value in failures.into_iter().flatten() {
            assert_eq!(value.status, "503", "{value:?}");
        }
    }
}

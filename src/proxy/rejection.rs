//! [`Rejection`]: every way in which a request can end here, its status, and its label.

use http::{Method, StatusCode};

use super::answers::Answers;
use crate::auth::{Refused, Unavailable};
use crate::policy::Unmet;
use crate::upstream::UpstreamError;
use crate::upstream::body::BodyFault;

/// Why a request is answered by us and not by an upstream.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It cannot be read in one way only: its Host, its target, its path.
    #[error("the request can be read in more than one way: {0}")]
    Malformed(&'static str),
    /// Readings of its path lead to different policies, or it has none; for the log, why.
    #[error("the request can be read in more than one way: {0}")]
    AmbiguousPath(String),
    /// Its target is longer than it may be.
    #[error("the target is longer than it may be")]
    TargetTooLong,
    /// Its fields are more or longer than they may be.
    #[error("the head is larger than it may be")]
    HeadTooLarge,
    /// Its head did not come to its end in time.
    #[error("the head of the request came too slowly")]
    HeadTooSlow,
    /// No route is for it.
    #[error("no route")]
    NoRoute,
    /// Its route does not list its method.
    #[error("the route does not take {sent}")]
    MethodNotAllowed {
        /// What was sent.
        sent: Method,
        /// What the route takes.
        allowed: Vec<Method>,
    },
    /// Its host belongs to another certificate than the one that the client was shown.
    #[error("the host belongs to another certificate")]
    Misdirected,
    /// More requests at once than there may be.
    #[error("too many requests at once")]
    Overloaded,
    /// CONNECT and TRACE.
    #[error("the method is not implemented")]
    NotImplemented,
    /// No credential, where one is needed.
    #[error("no credential")]
    NobodyKnown,
    /// A credential that is no good.
    #[error("the credential was refused: {}", .0.refusal.label())]
    Refused(Refused),
    /// Somebody who does not meet the route's requirements.
    #[error("the requirements of the route are not met: {0}")]
    NotAllowed(Unmet),
    /// Several lines of a credential's header, where that is said plainly; DRF has another answer to them. Or several credentials of a
    /// WebSocket, which DRF knows nothing of.
    #[error("several credentials")]
    RepeatedCredential,
    /// A credential that a page has sent where only pages of listed origins may.
    #[error("a page of an origin that is not listed has sent a credential")]
    OriginNotListed,
    /// Nobody could find out who it is.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The body is longer than it may be.
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// The upstream gave no response.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Rejection {
    /// The status, before [`Answers`] have their say.
    fn plain_status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::AmbiguousPath(_) | Self::RepeatedCredential => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::NobodyKnown | Self::Refused(_) => StatusCode::UNAUTHORIZED,
            // For the origin: RFC 6455, section 4.2.2.
            Self::NotAllowed(_) | Self::OriginNotListed => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Unavailable(_) | Self::Overloaded | Self::Upstream(UpstreamError::Full) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Body(fault) | Self::Upstream(UpstreamError::RequestBody(fault)) => match fault {
                BodyFault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                BodyFault::TooSlow => StatusCode::REQUEST_TIMEOUT,
                BodyFault::Broken => StatusCode::BAD_REQUEST,
                BodyFault::NoLength => StatusCode::LENGTH_REQUIRED,
                BodyFault::NoRoom | BodyFault::Spool(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Upstream(
                UpstreamError::Connect { .. }
                | UpstreamError::NoResponse(_)
                | UpstreamError::UnaskedUpgrade
                | UpstreamError::NotSwitched
                | UpstreamError::NoUpgrade,
            ) => StatusCode::BAD_GATEWAY,
            Self::Upstream(UpstreamError::ConnectTimeout { .. } | UpstreamError::ResponseTimeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// The status that the client gets. A route without a challenge has no 401, as DRF has none there.
    pub fn status(&self, answers: &Answers) -> StatusCode {
        match self.plain_status() {
            StatusCode::UNAUTHORIZED if !answers.challenges() => StatusCode::FORBIDDEN,
            status => status,
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
            Self::Overloaded => "overloaded",
            Self::NotImplemented => "not_implemented",
            Self::NobodyKnown => "no_credential",
            Self::Refused(refused) => refused.refusal.label(),
            Self::NotAllowed(_) => "not_allowed",
            Self::RepeatedCredential => "repeated_credential",
            Self::OriginNotListed => "origin_not_listed",
            Self::Unavailable(unavailable) => unavailable.source.label(),
            Self::Body(fault) | Self::Upstream(UpstreamError::RequestBody(fault)) => match fault {
                BodyFault::TooLarge => "body_too_large",
                BodyFault::TooSlow => "body_too_slow",
                BodyFault::Broken => "body_broken",
                BodyFault::NoLength => "body_without_length",
                BodyFault::NoRoom => "spool_full",
                BodyFault::Spool(_) => "spool_failed",
            },
            Self::Upstream(UpstreamError::Connect { .. }) => "upstream_unreachable",
            Self::Upstream(UpstreamError::ConnectTimeout { .. }) => "upstream_connect_timeout",
            Self::Upstream(UpstreamError::NoResponse(_)) => "upstream_no_response",
            Self::Upstream(UpstreamError::Full) => "upstream_full",
            Self::Upstream(UpstreamError::NoUpgrade) => "upstream_no_upgrade",
            Self::Upstream(UpstreamError::NotSwitched) => "upstream_not_switched",
            Self::Upstream(UpstreamError::UnaskedUpgrade) => "upstream_unasked_upgrade",
            Self::Upstream(UpstreamError::ResponseTimeout) => "upstream_timeout",
        }
    }
}

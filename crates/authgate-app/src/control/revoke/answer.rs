//! The responses of `POST /revoke`: 200, or problem details (RFC 9457) with the `error` of RFC 7009, section 2.2.1.

use std::borrow::Cow;

use authgate_core::label_value::LabelValue;
use authgate_dataplane::telemetry::labels;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::control::access::Denied;
use crate::control::{json as json_response, response};

/// What came of a request, for the log and the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Revoked,
    /// Revoked, and no replica has confirmed it.
    Unconfirmed,
    /// No authenticator accepts the token.
    Unknown,
    Refused,
    /// The token may still be valid.
    Unavailable,
}

impl Outcome {
    /// Its label, with the text for the reference.
    pub(super) fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Revoked => &labels::REVOKED,
            Self::Unconfirmed => &labels::UNCONFIRMED,
            Self::Unknown => &labels::UNKNOWN,
            Self::Refused => &labels::REFUSED,
            Self::Unavailable => &labels::UNAVAILABLE,
        }
    }
}

/// Why nothing is revoked, or not all of it.
#[derive(Debug)]
pub(in crate::control) struct Problem {
    kind: ProblemKind,
    detail: Cow<'static, str>,
}

/// The status and the error of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProblemKind {
    /// The request cannot be read, or asks for what does not exist.
    Invalid,
    /// The token cannot be revoked here.
    UnsupportedToken,
    /// The body is no form.
    MediaType,
    TooLarge,
    TooSlow,
    /// The store, or what would verify the token, does not answer. The token may still be valid.
    Unavailable,
    /// The request does not have the token of `[admin]`.
    Unauthorized,
    /// No request may do this.
    Forbidden,
    /// The connection does not follow the `tls` of `[admin]`.
    Misdirected,
    /// A fault of this program.
    Internal,
}

impl ProblemKind {
    fn status(self) -> StatusCode {
        match self {
            Self::Invalid | Self::UnsupportedToken => StatusCode::BAD_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error code of OAuth 2.0 (RFC 6749, section 5.2, and RFC 7009).
    fn error(self) -> &'static str {
        match self {
            Self::Invalid | Self::MediaType | Self::TooLarge | Self::TooSlow | Self::Misdirected => "invalid_request",
            Self::UnsupportedToken => "unsupported_token_type",
            Self::Unavailable => "temporarily_unavailable",
            Self::Unauthorized => "invalid_client",
            Self::Forbidden => "unauthorized_client",
            Self::Internal => "server_error",
        }
    }
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::Invalid, detail)
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self.kind {
            ProblemKind::Unavailable | ProblemKind::Internal => Outcome::Unavailable,
            ProblemKind::Invalid
            | ProblemKind::UnsupportedToken
            | ProblemKind::MediaType
            | ProblemKind::TooLarge
            | ProblemKind::TooSlow
            | ProblemKind::Unauthorized
            | ProblemKind::Forbidden
            | ProblemKind::Misdirected => Outcome::Refused,
        }
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(in crate::control) fn response(&self) -> Response<Full<Bytes>> {
        let status = self.kind.status();
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.detail,
            "error": self.kind.error(),
        });
        let mut response = json_response(status, &body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.kind {
            ProblemKind::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // The rest of the body is not read.
            ProblemKind::TooLarge | ProblemKind::TooSlow | ProblemKind::MediaType => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            ProblemKind::Invalid
            | ProblemKind::UnsupportedToken
            | ProblemKind::Unauthorized
            | ProblemKind::Forbidden
            | ProblemKind::Misdirected
            | ProblemKind::Internal => {}
        }
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let kind = match denied {
            Denied::Security => ProblemKind::Misdirected,
            Denied::NoToken => ProblemKind::Unauthorized,
            Denied::Host
            | Denied::Origin
            | Denied::OtherSite
            | Denied::CommandWithoutToken
            | Denied::CommandWithoutField
            | Denied::NoTokenConfigured => ProblemKind::Forbidden,
        };
        Self::new(kind, denied.text().trim_end())
    }
}

/// RFC 7009, section 2.2: clients read only the status.
pub(super) fn done() -> Response<Full<Bytes>> {
    let mut done = response(StatusCode::OK, "text/plain; charset=utf-8", Bytes::new());
    done.headers_mut().remove(CONTENT_TYPE);
    done
}

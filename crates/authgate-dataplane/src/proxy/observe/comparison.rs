//! Compares the gateway's decision about a request with the application's response. Pure.

use std::sync::Arc;

use authgate_core::identity::Identity;
use authgate_core::outbound::request_id::RequestId;
use authgate_core::policy::Principal;
use authgate_http::framing::fields::single_value;
use http::header::{CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::proxy::authorization::Authorization;
use crate::proxy::refusal;
use crate::proxy::refusal::format::RefusalFormat;

/// The label of a request that is not refused.
const ACCEPTED: &str = "accepted";
/// The reason of a request about which both decide the same.
const SAME: &str = "same";
/// The reason of a request that both refuse with one status, but with different challenges.
const CHALLENGE: &str = "challenge";
/// The most bytes of an application's challenge that are logged.
const SHOWN_CHALLENGE: usize = 200;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What the gateway would do.
#[derive(Debug)]
pub(super) struct Ours {
    label: &'static str,
    /// Why it would refuse the request, or as whom it would accept it.
    reason: &'static str,
    pub(super) detail: Option<String>,
    /// All of `WWW-Authenticate`, if it would refuse the request.
    pub(super) challenge: Option<String>,
    pub(super) user: Option<Arc<Identity>>,
}

impl Ours {
    pub(super) fn of(authorization: Authorization, format: &RefusalFormat, id: &RequestId) -> Self {
        let user = authorization.user;
        match authorization.decision {
            Ok(permit) => Self {
                label: ACCEPTED,
                reason: match permit.principal() {
                    Principal::User(_) => "authenticated",
                    Principal::Unknown => "unknown",
                    Principal::Anonymous | Principal::Public | Principal::Observed => "anonymous",
                },
                detail: None,
                challenge: None,
                user,
            },
            Err(rejection) => Self {
                label: match rejection.status(format) {
                    StatusCode::BAD_REQUEST => "400",
                    StatusCode::UNAUTHORIZED => "401",
                    StatusCode::FORBIDDEN => "403",
                    // Without an upstream, a rejection of another status means that the gateway could not decide.
                    _ => "503",
                },
                reason: rejection.label(),
                detail: rejection.reason(),
                challenge: Some(challenge(refusal::response(&rejection, format, id).headers())),
                user,
            },
        }
    }
}

/// What the application did.
#[derive(Debug)]
pub(super) struct Theirs {
    label: &'static str,
    pub(super) status: StatusCode,
    /// All of `WWW-Authenticate`, if it refuses the request. gRPC has no challenges.
    challenge: Option<String>,
}

impl Theirs {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if let Some(label) = grpc_label(headers) {
            return Self {
                label,
                status,
                challenge: None,
            };
        }
        let label = match status {
            StatusCode::UNAUTHORIZED => "401",
            StatusCode::FORBIDDEN => "403",
            status if status.is_server_error() => "5xx",
            // The application has processed the request, also if it has not found something in it.
            _ => ACCEPTED,
        };
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        Self {
            label,
            status,
            challenge: is_refused.then(|| challenge(headers)),
        }
    }

    pub(super) fn shown_challenge(&self) -> Option<&str> {
        let challenge = self.challenge.as_deref()?;
        Some(&challenge[..challenge.floor_char_boundary(SHOWN_CHALLENGE)])
    }
}

/// The label of a gRPC response, whose status is a field if it has no content (gRPC over HTTP/2, "Trailers-Only").
fn grpc_label(headers: &HeaderMap) -> Option<&'static str> {
    let content_type = single_value(headers, &CONTENT_TYPE)?;
    if !content_type.as_bytes().starts_with(b"application/grpc") {
        return None;
    }
    Some(match single_value(headers, &GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(b"16") => "401",
        Some(b"7") => "403",
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
        Some(b"2" | b"4" | b"13" | b"14" | b"15") => "5xx",
        Some(_) | None => ACCEPTED,
    })
}

/// All lines of `WWW-Authenticate`, joined as a client may join them.
fn challenge(headers: &HeaderMap) -> String {
    let lines = headers.get_all(WWW_AUTHENTICATE).iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    lines.join(", ")
}

/// The result of a comparison: the labels of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// `accepted`, `400`, `401`, `403` or `503`.
    pub(super) ours: &'static str,
    /// `accepted`, `401`, `403`, `5xx` or `none`.
    pub(super) theirs: &'static str,
    /// `same`, `challenge`, or why the gateway decided as it did.
    pub(super) reason: &'static str,
}

impl Kind {
    /// `theirs` is `None` if there was no response.
    pub(super) fn of(ours: &Ours, theirs: Option<&Theirs>) -> Self {
        let reason = match theirs {
            // A 400 of the application has no label of its own.
            Some(theirs) if ours.label == "400" && theirs.status == StatusCode::BAD_REQUEST => SAME,
            Some(theirs) if theirs.label == ours.label => match (&ours.challenge, &theirs.challenge) {
                (Some(ours), Some(theirs)) if ours != theirs => CHALLENGE,
                _ => SAME,
            },
            Some(_) | None => ours.reason,
        };
        Self {
            ours: ours.label,
            theirs: theirs.map_or("none", |theirs| theirs.label),
            reason,
        }
    }

    /// Whether clients would notice the change to enforcement. A failure on either side says nothing about that.
    pub(super) fn is_difference(&self) -> bool {
        self.reason != SAME && self.ours != "503" && !["5xx", "none"].contains(&self.theirs)
    }
}

#[cfg(test)]
mod tests {
    use authgate_auth::Refused;
    use authgate_core::credential::Refusal;
    use authgate_core::policy::{Policy, Requirements};

    use super::*;
    use crate::proxy::rejection::Rejection;

    fn format(challenge: Option<&'static str>) -> RefusalFormat {
        RefusalFormat::Drf {
            challenge: challenge.map(HeaderValue::from_static),
            token_types: vec![Vec::new()],
        }
    }

    fn ours(rejection: Option<Rejection>, format: &RefusalFormat) -> Ours {
        let optional = Policy::Authenticated {
            optional: true,
            require: Requirements::default(),
        };
        let decision = match rejection {
            None => Ok(optional.permit(None).expect("optional")),
            Some(rejection) => Err(rejection),
        };
        Ours::of(Authorization { user: None, decision }, format, &RequestId::random())
    }

    fn theirs(status: u16, fields: &[(&'static str, &'static str)]) -> Theirs {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Theirs::of(StatusCode::from_u16(status).expect("a status"), &headers)
    }

    fn unknown() -> Option<Rejection> {
        Some(Rejection::Refused(Refused {
            by: 0,
            refusal: Refusal::TokenUnknown,
            user: None,
        }))
    }

    #[test]
    fn each_pair_of_decisions_has_its_labels() {
        let token = format(Some("Token"));
        let check = |rejection, format: &RefusalFormat, theirs: Option<Theirs>, expected, is_difference| {
            let kind = Kind::of(&ours(rejection, format), theirs.as_ref());
            assert_eq!((kind.ours, kind.theirs, kind.reason), expected);
            assert_eq!(kind.is_difference(), is_difference, "{kind:?}");
        };
        let challenged = || Some(theirs(401, &[("www-authenticate", "Token")]));
        check(unknown(), &token, challenged(), ("401", "401", "same"), false);
        check(
            unknown(),
            &token,
            Some(theirs(401, &[("www-authenticate", "Bearer realm=\"api\"")])),
            ("401", "401", "challenge"),
            true,
        );
        check(
            unknown(),
            &token,
            Some(theirs(200, &[])),
            ("401", "accepted", "token_unknown"),
            true,
        );
        check(
            unknown(),
            &token,
            Some(theirs(403, &[])),
            ("401", "403", "token_unknown"),
            true,
        );
        check(
            unknown(),
            &format(None),
            Some(theirs(403, &[])),
            ("403", "403", "same"),
            false,
        );
        check(
            unknown(),
            &token,
            Some(theirs(500, &[])),
            ("401", "5xx", "token_unknown"),
            false,
        );
        check(unknown(), &token, None, ("401", "none", "token_unknown"), false);
        for status in [101, 200, 204, 302, 304, 400, 404, 405, 429] {
            check(
                None,
                &token,
                Some(theirs(status, &[])),
                ("accepted", "accepted", "same"),
                false,
            );
        }
        check(None, &token, challenged(), ("accepted", "401", "anonymous"), true);
        let repeated = || Some(Rejection::RepeatedCredential);
        check(
            repeated(),
            &token,
            Some(theirs(400, &[])),
            ("400", "accepted", "same"),
            false,
        );
        check(
            repeated(),
            &token,
            challenged(),
            ("400", "401", "repeated_credential"),
            true,
        );
        check(
            Some(Rejection::Overloaded),
            &token,
            challenged(),
            ("503", "401", "overloaded"),
            false,
        );
    }

    #[test]
    fn a_refusal_of_grpc_is_read_from_its_status_field() {
        let grpc = |status: &'static str| {
            let fields = [("content-type", "application/grpc+proto"), ("grpc-status", status)];
            theirs(200, &fields).label
        };
        assert_eq!(
            [grpc("0"), grpc("16"), grpc("7"), grpc("14")],
            ["accepted", "401", "403", "5xx"]
        );
        assert_eq!(theirs(200, &[("content-type", "application/grpc")]).label, ACCEPTED);
        let refused = Kind::of(
            &ours(unknown(), &format(Some("Token"))),
            Some(&theirs(
                200,
                &[("content-type", "application/grpc"), ("grpc-status", "16")],
            )),
        );
        assert!(!refused.is_difference(), "{refused:?}");
    }
}

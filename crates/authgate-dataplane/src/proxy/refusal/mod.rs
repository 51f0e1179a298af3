//! Refusals: the responses to rejected requests. `drf.rs` and `problem.rs` write the bodies and challenges of the two formats.

mod drf;
pub mod format;
mod problem;

use authgate_core::outbound::request_id::{RequestId, X_REQUEST_ID};
use authgate_http::upstream::is_grpc;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use self::format::RefusalFormat;
use super::Route;
use super::rejection::Rejection;
use super::stream_end::StreamEnd;

/// The value of `Retry-After`, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// What the refusal of a request depends on, besides the rejection and the route. It is read before the request is
/// forwarded.
#[derive(Debug)]
pub(super) struct RefusalContext {
    pub(super) is_grpc: bool,
    is_head: bool,
    /// The origin of the application that may read the refusal. `None` if there is none.
    pub(super) origin: Option<HeaderValue>,
}

impl RefusalContext {
    pub(super) fn of(head: &Parts, route: Option<&Route>) -> Self {
        let cors = route.and_then(|route| route.settings.cors.as_ref());
        Self {
            is_grpc: is_grpc(head.version, &head.headers),
            is_head: head.method == Method::HEAD,
            origin: cors.and_then(|cors| cors.origin(&head.headers)).cloned(),
        }
    }

    /// The response to the rejected request, without CORS fields.
    pub(super) fn response(&self, rejection: &Rejection, format: &RefusalFormat, id: &RequestId) -> Response<Bytes> {
        let mut response = if self.is_grpc {
            grpc(rejection, format, id)
        } else {
            response(rejection, format, id)
        };
        if self.is_head {
            // Keep the length that GET would have, and drop the content (RFC 9110, section 9.3.2).
            let length = HeaderValue::from(response.body().len());
            response.headers_mut().insert(CONTENT_LENGTH, length);
            *response.body_mut() = Bytes::new();
        }
        response
    }
}

/// The response to a rejected request.
pub fn response(rejection: &Rejection, format: &RefusalFormat, id: &RequestId) -> Response<Bytes> {
    let status = rejection.status(format);
    let mut response = match format {
        RefusalFormat::Drf { challenge, token_types } => {
            let mut response = Response::new(drf::body(rejection, status, token_types));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let (StatusCode::UNAUTHORIZED, Some(challenge)) = (status, challenge) {
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
            }
            response
        }
        RefusalFormat::Problem { schemes, scope } => {
            let mut response = Response::new(problem::body(rejection, status, id));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
            for challenge in problem::challenges(rejection, schemes, scope.as_deref()) {
                headers.append(WWW_AUTHENTICATE, challenge);
            }
            response
        }
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, id.to_header_value());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    if let Rejection::MethodNotAllowed { allowed, .. } = rejection {
        headers.insert(ALLOW, allow(allowed));
    }
    response
}

/// The response to a rejected gRPC request. gRPC clients read `grpc-status` and no body (gRPC over HTTP/2,
/// "Trailers-Only").
fn grpc(rejection: &Rejection, format: &RefusalFormat, id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, id.to_header_value());
    headers.extend(grpc_status(rejection, rejection.status(format)));
    response
}

/// The trailers of a gRPC stream that the gateway has ended.
pub(super) fn grpc_trailers(end: StreamEnd) -> HeaderMap {
    grpc_status(&Rejection::StreamEnded(end), StatusCode::UNAUTHORIZED)
}

/// `grpc-status` and `grpc-message`.
fn grpc_status(rejection: &Rejection, status: StatusCode) -> HeaderMap {
    /// The bytes that `grpc-message` must escape.
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
    let code = match status {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN if matches!(rejection, Rejection::NotAllowed(_)) => "7",
        // A route without a challenge sends 403 instead of 401.
        StatusCode::FORBIDDEN => "16",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => "12",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "4",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        _ => "13",
    };
    let detail = problem::detail(rejection);
    let message = utf8_percent_encode(&detail, ESCAPED).to_string();
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
    headers
}

fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::try_from(names.join(", ")).expect("methods are tokens")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use authgate_auth::Refused;
    use authgate_auth::jwt::TokenType;
    use authgate_core::credential::{JwtFault, Refusal, TypeMismatch};

    fn format(challenge: Option<HeaderValue>) -> RefusalFormat {
        RefusalFormat::Drf {
            challenge,
            token_types: vec![vec![], vec![TokenType::Access, TokenType::Sliding]],
        }
    }

    fn first() -> RefusalFormat {
        format(Some(HeaderValue::from_static("Token")))
    }

    fn body(rejection: &Rejection) -> Value {
        let response = response(rejection, &first(), &RequestId::random());
        serde_json::from_slice(response.body()).expect("every body is JSON")
    }

    #[test]
    fn every_refusal_is_json_and_is_not_cached() {
        for rejection in [
            Rejection::NoRoute,
            Rejection::Malformed("Host"),
            Rejection::Unauthenticated,
            Rejection::NotImplemented,
        ] {
            let response = response(&rejection, &first(), &RequestId::random());
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[X_REQUEST_ID].len(), 32);
            assert!(
                body(&rejection)["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.ends_with('.'))
            );
        }
    }

    #[test]
    fn a_jwt_fault_has_one_message_for_each_token_class() {
        let check = |fault: JwtFault, access: &str, sliding: &str| {
            let refusal = Refusal::Jwt(fault);
            let refused = Rejection::Refused(Refused {
                by: 1,
                refusal,
                user: None,
            });
            assert_eq!(
                body(&refused)["messages"],
                json!([
                    { "token_class": "AccessToken", "token_type": "access", "message": access },
                    { "token_class": "SlidingToken", "token_type": "sliding", "message": sliding },
                ])
            );
        };
        let no_expiry = "Token has no 'exp' claim";
        check(TypeMismatch::NoExpiry.into(), no_expiry, no_expiry);
        check(JwtFault::Revoked(None), "Token is blacklisted", "Token is blacklisted");
        check(
            JwtFault::Revoked(Some(TypeMismatch::WrongType)),
            "Token has wrong type",
            "Token is blacklisted",
        );
    }

    #[test]
    fn a_route_without_a_challenge_has_no_401() {
        let refused = Rejection::Refused(Refused {
            by: 0,
            refusal: Refusal::TokenUnknown,
            user: None,
        });
        let with = response(&refused, &first(), &RequestId::random());
        assert_eq!(
            (with.status(), with.headers()[WWW_AUTHENTICATE].as_bytes()),
            (StatusCode::UNAUTHORIZED, &b"Token"[..])
        );
        let without = response(&refused, &format(None), &RequestId::random());
        assert_eq!(
            (without.status(), without.headers().get(WWW_AUTHENTICATE)),
            (StatusCode::FORBIDDEN, None)
        );
    }

    #[test]
    fn a_405_names_the_method_and_lists_the_allowed_ones() {
        let rejection = Rejection::MethodNotAllowed {
            sent: Method::POST,
            allowed: vec![Method::GET, Method::HEAD],
        };
        let response = response(&rejection, &first(), &RequestId::random());
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        assert_eq!(body(&rejection)["detail"], "Method \"POST\" not allowed.");
    }
}

//! Rejections as responses: the one file that writes an error's body.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};

use super::rejection::Rejection;
use super::routes::{Answers, Challenge, ErrorShape};
use crate::auth::jwt::TokenType;
use crate::credential::{JwtFault, Refusal};
use crate::outbound::forwarded::{RequestId, X_REQUEST_ID};

/// What a client that was told to come back is told to wait, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// The response to a request that ended here.
pub fn reply(rejection: &Rejection, answers: &Answers, id: &RequestId) -> Response<Bytes> {
    let status = rejection.status(answers);
    let body = match answers.errors {
        ErrorShape::Drf => drf_body(rejection, answers),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, id.to_value());
    if status == StatusCode::UNAUTHORIZED
        && let Challenge::First(challenge) = &answers.challenge
    {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    if let Rejection::MethodNotAllowed { allowed, .. } = rejection {
        headers.insert(ALLOW, allow(allowed));
    }
    response
}

/// A response as HTTP/1.1 sends it before it closes, for where no library is left to write it.
pub fn to_http1(response: &Response<Bytes>) -> Bytes {
    let status = response.status();
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    for (name, value) in response.headers() {
        head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend_from_slice(
        format!("connection: close\r\ncontent-length: {}\r\n\r\n", response.body().len()).as_bytes(),
    );
    head.extend_from_slice(response.body());
    head.into()
}

fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::try_from(names.join(", ")).expect("methods are tokens")
}

/// The texts of Django REST Framework and SimpleJWT, to the letter.
fn drf_body(rejection: &Rejection, answers: &Answers) -> Bytes {
    let fixed: &'static str = match rejection {
        Rejection::NobodyKnown => r#"{"detail":"Authentication credentials were not provided."}"#,
        Rejection::NotAllowed => r#"{"detail":"You do not have permission to perform this action."}"#,
        Rejection::NoRoute => r#"{"detail":"Not found."}"#,
        Rejection::NotImplemented => r#"{"detail":"Not implemented."}"#,
        Rejection::MethodNotAllowed { sent, .. } => {
            // A method is a token (RFC 9110, section 9.1): it holds nothing that JSON would escape.
            return format!(r#"{{"detail":"Method \"{sent}\" not allowed."}}"#).into();
        }
        Rejection::Refused(refused) => match refused.refusal {
            Refusal::TokenMissing => r#"{"detail":"Invalid token header. No credentials provided."}"#,
            Refusal::TokenHasSpaces => r#"{"detail":"Invalid token header. Token string should not contain spaces."}"#,
            Refusal::TokenHasInvalidCharacters => {
                r#"{"detail":"Invalid token header. Token string should not contain invalid characters."}"#
            }
            Refusal::TokenUnknown => r#"{"detail":"Invalid token."}"#,
            Refusal::TokenUserInactive => r#"{"detail":"User inactive or deleted."}"#,
            Refusal::BearerNotTwoWords => {
                r#"{"detail":"Authorization header must contain two space-delimited values","code":"bad_authorization_header"}"#
            }
            Refusal::JwtUserUnnamed => {
                r#"{"detail":"Token contained no recognizable user identification","code":"token_not_valid"}"#
            }
            Refusal::JwtUserNotFound => r#"{"detail":"User not found","code":"user_not_found"}"#,
            Refusal::JwtUserInactive => r#"{"detail":"User is inactive","code":"user_inactive"}"#,
            Refusal::JwtPasswordChanged => {
                r#"{"detail":"The user's password has been changed.","code":"password_changed"}"#
            }
            Refusal::Jwt(fault) => {
                let types = answers.token_types.get(refused.by).map_or(&[][..], Vec::as_slice);
                return token_not_valid(fault, types).into();
            }
        },
        Rejection::Malformed(_)
        | Rejection::HeadTooSlow
        | Rejection::Unavailable(_)
        | Rejection::Body(_)
        | Rejection::Upstream(_) => by_status(rejection.status(answers)),
    };
    Bytes::from_static(fixed.as_bytes())
}

fn by_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => r#"{"detail":"Malformed request."}"#,
        StatusCode::REQUEST_TIMEOUT => r#"{"detail":"Request Timeout."}"#,
        StatusCode::PAYLOAD_TOO_LARGE => r#"{"detail":"Payload Too Large."}"#,
        StatusCode::BAD_GATEWAY => r#"{"detail":"Bad gateway."}"#,
        StatusCode::GATEWAY_TIMEOUT => r#"{"detail":"Gateway timeout."}"#,
        _ => r#"{"detail":"Service temporarily unavailable, try again later."}"#,
    }
}

/// One message for each token class that is accepted, in their order.
fn token_not_valid(fault: JwtFault, types: &[TokenType]) -> String {
    let message = match fault {
        JwtFault::Invalid => "Token is invalid",
        JwtFault::Expired => "Token is expired",
        JwtFault::Revoked => "Token is blacklisted",
        JwtFault::NoExpiry => "Token has no 'exp' claim",
        JwtFault::NoId => "Token has no id",
        JwtFault::NoType => "Token has no type",
        JwtFault::WrongType => "Token has wrong type",
    };
    let mut body =
        String::from(r#"{"detail":"Given token not valid for any token type","code":"token_not_valid","messages":["#);
    for (at, kind) in types.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (class, kind) = (kind.class(), kind.as_str());
        write!(
            body,
            r#"{comma}{{"token_class":"{class}","token_type":"{kind}","message":"{message}"}}"#
        )
        .expect("a string takes what is written to it");
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::Refused;

    fn answers(challenge: Challenge) -> Answers {
        Answers {
            errors: ErrorShape::Drf,
            challenge,
            token_types: vec![vec![], vec![TokenType::Access, TokenType::Sliding]],
        }
    }

    fn first() -> Answers {
        answers(Challenge::First(HeaderValue::from_static("Token")))
    }

    fn body(rejection: &Rejection) -> Value {
        let response = reply(rejection, &first(), &RequestId::random());
        serde_json::from_slice(response.body()).expect("every body is JSON")
    }

    #[test]
    fn every_answer_is_json_that_no_cache_keeps() {
        for rejection in [
            Rejection::NoRoute,
            Rejection::Malformed("Host"),
            Rejection::NobodyKnown,
            Rejection::NotImplemented,
        ] {
            let response = reply(&rejection, &first(), &RequestId::random());
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
    fn jwt_faults_are_said_once_for_each_class() {
        let refused = Rejection::Refused(Refused {
            by: 1,
            refusal: Refusal::Jwt(JwtFault::NoExpiry),
        });
        let message = "Token has no 'exp' claim";
        assert_eq!(
            body(&refused)["messages"],
            json!([
                { "token_class": "AccessToken", "token_type": "access", "message": message },
                { "token_class": "SlidingToken", "token_type": "sliding", "message": message },
            ])
        );
    }

    #[test]
    fn a_route_without_a_challenge_has_no_401() {
        let refused = Rejection::Refused(Refused {
            by: 0,
            refusal: Refusal::TokenUnknown,
        });
        let with = reply(&refused, &first(), &RequestId::random());
        assert_eq!(
            (with.status(), with.headers()[WWW_AUTHENTICATE].as_bytes()),
            (StatusCode::UNAUTHORIZED, &b"Token"[..])
        );
        let without = reply(&refused, &answers(Challenge::None), &RequestId::random());
        assert_eq!(
            (without.status(), without.headers().get(WWW_AUTHENTICATE)),
            (StatusCode::FORBIDDEN, None)
        );
    }

    #[test]
    fn a_refused_method_is_named_with_those_that_are_taken() {
        let rejection = Rejection::MethodNotAllowed {
            sent: Method::POST,
            allowed: vec![Method::GET, Method::HEAD],
        };
        let response = reply(&rejection, &first(), &RequestId::random());
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        assert_eq!(body(&rejection)["detail"], "Method \"POST\" not allowed.");
    }
}

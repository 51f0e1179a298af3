//! The response texts of Django REST Framework and SimpleJWT, exactly.

use std::fmt::Write;

use authgate_auth::jwt::TokenType;
use authgate_core::credential::{BindingFault, Defect, JwtFault, Refusal, TypeMismatch};
use bytes::Bytes;
use http::StatusCode;

use crate::proxy::rejection::Rejection;

/// `token_types`: for each authenticator of the route, the token classes that its refusals name.
pub(super) fn body(rejection: &Rejection, status: StatusCode, token_types: &[Vec<TokenType>]) -> Bytes {
    let types = |by: usize| token_types.get(by).map_or(&[][..], Vec::as_slice);
    let fixed: &'static str = match rejection {
        Rejection::Unauthenticated => r#"{"detail":"Authentication credentials were not provided."}"#,
        Rejection::NotAllowed(_) | Rejection::OriginNotListed => {
            r#"{"detail":"You do not have permission to perform this action."}"#
        }
        Rejection::NoRoute => r#"{"detail":"Not found."}"#,
        Rejection::NotImplemented => r#"{"detail":"Not implemented."}"#,
        Rejection::MethodNotAllowed { sent, .. } => {
            // A method is a token (RFC 9110, section 9.1), so it contains no character that JSON escapes.
            return format!(r#"{{"detail":"Method \"{sent}\" not allowed."}}"#).into();
        }
        Rejection::Refused(refused) => match &refused.refusal {
            Refusal::TokenMissing => r#"{"detail":"Invalid token header. No credentials provided."}"#,
            Refusal::TokenHasSpaces => r#"{"detail":"Invalid token header. Token string should not contain spaces."}"#,
            Refusal::TokenHasInvalidCharacters => {
                r#"{"detail":"Invalid token header. Token string should not contain invalid characters."}"#
            }
            Refusal::TokenUnknown
            | Refusal::TokenInvalid(_)
            | Refusal::TokenUnsendableValue(_)
            | Refusal::Introspected(_) => r#"{"detail":"Invalid token."}"#,
            Refusal::TokenUserInactive => r#"{"detail":"User inactive or deleted."}"#,
            Refusal::BearerNotTwoWords => {
                r#"{"detail":"Authorization header must contain two space-delimited values","code":"bad_authorization_header"}"#
            }
            Refusal::JwtInvalidUserClaim(_) => {
                r#"{"detail":"Token contained no recognizable user identification","code":"token_not_valid"}"#
            }
            Refusal::JwtUserNotFound => r#"{"detail":"User not found","code":"user_not_found"}"#,
            Refusal::JwtUserInactive => r#"{"detail":"User is inactive","code":"user_inactive"}"#,
            Refusal::JwtPasswordChanged => {
                r#"{"detail":"The user's password has been changed.","code":"password_changed"}"#
            }
            Refusal::Jwt(fault) => return token_not_valid(*fault, types(refused.by)).into(),
            Refusal::Binding(BindingFault::SeveralProofs) => return by_status(status),
            Refusal::Binding(fault) if fault.is_of_proof() => {
                r#"{"detail":"DPoP proof is missing or not valid","code":"invalid_dpop_proof"}"#
            }
            // Django has no such checks, and therefore no texts for them.
            Refusal::JwtUnsendableClaim(_) | Refusal::Binding(_) => {
                return token_not_valid(JwtFault::Invalid(Defect::Claims), types(refused.by)).into();
            }
        },
        Rejection::Malformed(_)
        | Rejection::AmbiguousPath(_)
        | Rejection::TargetTooLong
        | Rejection::HeadTooLarge
        | Rejection::HeadTooSlow
        | Rejection::Misdirected
        | Rejection::OutdatedConnection
        | Rejection::Overloaded
        | Rejection::Unavailable(_)
        | Rejection::NotSigned(_)
        | Rejection::Body(_)
        | Rejection::RepeatedCredential
        | Rejection::StreamEnded(_)
        | Rejection::Upstream(_) => return by_status(status),
    };
    Bytes::from_static(fixed.as_bytes())
}

/// The gateway's own texts where Django has none, or else the reason phrase and a full stop.
fn by_status(status: StatusCode) -> Bytes {
    let text = match status {
        StatusCode::BAD_REQUEST => "Malformed request.",
        StatusCode::MISDIRECTED_REQUEST => "Misdirected request.",
        StatusCode::BAD_GATEWAY => "Bad gateway.",
        StatusCode::GATEWAY_TIMEOUT => "Gateway timeout.",
        StatusCode::SERVICE_UNAVAILABLE => "Service temporarily unavailable, try again later.",
        other => {
            let reason = other.canonical_reason().unwrap_or("Refused");
            return format!(r#"{{"detail":"{reason}."}}"#).into();
        }
    };
    format!(r#"{{"detail":"{text}"}}"#).into()
}

/// One message for each accepted token class, in order.
fn token_not_valid(fault: JwtFault, types: &[TokenType]) -> String {
    let mut body =
        String::from(r#"{"detail":"Given token not valid for any token type","code":"token_not_valid","messages":["#);
    for (at, kind) in types.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (class, name, message) = (kind.class(), kind.as_str(), message(fault, *kind));
        write!(
            body,
            r#"{comma}{{"token_class":"{class}","token_type":"{name}","message":"{message}"}}"#
        )
        .expect("a string takes what is written to it");
    }
    body.push_str("]}");
    body
}

fn message(fault: JwtFault, class: TokenType) -> &'static str {
    let mismatch = match (fault, class) {
        (JwtFault::Invalid(_), _) => return "Token is invalid",
        (JwtFault::Expired, _) => return "Token is expired",
        // AccessToken does not check Django's blacklist, so it refuses a sliding token for a different reason.
        (JwtFault::Revoked(Some(mismatch)), TokenType::Access) => mismatch,
        (JwtFault::Revoked(_), _) => return "Token is blacklisted",
        (JwtFault::TypeMismatch(mismatch), _) => mismatch,
    };
    match mismatch {
        TypeMismatch::NoExpiry => "Token has no 'exp' claim",
        TypeMismatch::NoId => "Token has no id",
        TypeMismatch::NoType => "Token has no type",
        TypeMismatch::WrongType => "Token has wrong type",
    }
}

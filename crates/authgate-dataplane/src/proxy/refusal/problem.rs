//! RFC 9457 problem details, and the challenges of RFC 6750, section 3, for each scheme that a route accepts.

use std::borrow::Cow;

use authgate_core::credential::{BindingFault, IntrospectionFault, JwtFault, Refusal, TypeMismatch};
use authgate_core::outbound::request_id::RequestId;
use authgate_http::upstream::UpstreamError;
use authgate_http::upstream::body::RequestBodyError;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::proxy::refusal::format::Scheme;
use crate::proxy::rejection::Rejection;

/// RFC 9457, section 3.1. The type is `about:blank`, so the title is the status's reason phrase. `code` distinguishes
/// problems with the same status.
#[derive(Serialize)]
struct Problem<'r> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    code: &'static str,
    request_id: &'r str,
}

pub(super) fn body(rejection: &Rejection, status: StatusCode, id: &RequestId) -> Bytes {
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: detail(rejection),
        code: rejection.label(),
        request_id: id.as_str(),
    };
    serde_json::to_vec(&problem).map_or_else(|_| Bytes::new(), Bytes::from)
}

/// The error in a challenge.
struct ChallengeError {
    /// The position of the authenticator that refused. `None`: the error is that of the request.
    by: Option<usize>,
    /// Only the scheme `DPoP` has proofs.
    is_of_proof: bool,
    code: &'static str,
    description: Cow<'static, str>,
}

impl ChallengeError {
    fn of_request(code: &'static str, rejection: &Rejection) -> Self {
        Self {
            by: None,
            is_of_proof: false,
            code,
            description: detail(rejection),
        }
    }

    fn is_about(&self, scheme: &Scheme) -> bool {
        self.by.is_none_or(|by| by == scheme.authenticator) && (!self.is_of_proof || scheme.algorithms.is_some())
    }
}

/// The challenges for all schemes, with the error of the credential that was sent.
pub(super) fn challenges(rejection: &Rejection, schemes: &[Scheme], scope: Option<&str>) -> Vec<HeaderValue> {
    let error = match rejection {
        // RFC 6750, section 3.1: no error for a request without a credential.
        Rejection::Unauthenticated => None,
        Rejection::Refused(refused) => {
            let (code, is_of_proof) = match refused.refusal {
                Refusal::Binding(fault) if fault.is_of_proof() => ("invalid_dpop_proof", true),
                _ => ("invalid_token", false),
            };
            Some(ChallengeError {
                by: Some(refused.by),
                is_of_proof,
                code,
                description: Cow::Borrowed(description(&refused.refusal)),
            })
        }
        Rejection::NotAllowed(unmet) if unmet.lacks_only_scopes() => {
            Some(ChallengeError::of_request("insufficient_scope", rejection))
        }
        Rejection::RepeatedCredential => Some(ChallengeError::of_request("invalid_request", rejection)),
        Rejection::Malformed(_)
        | Rejection::AmbiguousPath(_)
        | Rejection::TargetTooLong
        | Rejection::HeadTooLarge
        | Rejection::HeadTooSlow
        | Rejection::NoRoute
        | Rejection::MethodNotAllowed { .. }
        | Rejection::Misdirected
        | Rejection::OutdatedConnection
        | Rejection::Overloaded
        | Rejection::NotImplemented
        | Rejection::NotAllowed(_)
        | Rejection::OriginNotListed
        | Rejection::Unavailable(_)
        | Rejection::NotSigned(_)
        | Rejection::Body(_)
        | Rejection::StreamEnded(_)
        | Rejection::Upstream(_) => return Vec::new(),
    };
    let challenge = |scheme: &Scheme| {
        let mut parameters: Vec<String> = Vec::new();
        parameters.extend(scheme.realm.as_ref().map(|realm| format!("realm=\"{realm}\"")));
        parameters.extend(scheme.header.as_ref().map(|header| format!("header=\"{header}\"")));
        if let Some(error) = error.as_ref().filter(|error| error.is_about(scheme)) {
            parameters.push(format!("error=\"{}\"", error.code));
            parameters.push(format!("error_description=\"{}\"", error.description));
        }
        parameters.extend(scope.map(|scope| format!("scope=\"{scope}\"")));
        parameters.extend(scheme.algorithms.map(|names| format!("algs=\"{names}\"")));
        HeaderValue::try_from(format!("{} {}", scheme.name, parameters.join(", ")).trim_end())
    };
    let refused_by = match rejection {
        Rejection::Refused(refused) => Some(refused.by),
        _ => None,
    };
    let mut distinct: Vec<&Scheme> = Vec::new();
    for scheme in schemes {
        // Authenticators may share a scheme. It gets one challenge, with the error of the authenticator that refused.
        match distinct.iter_mut().find(|before| before.is_challenged_as(scheme)) {
            Some(before) if refused_by == Some(scheme.authenticator) => *before = scheme,
            Some(_) => {}
            None => distinct.push(scheme),
        }
    }
    // The configuration check has refused values that cannot be in a header.
    distinct
        .into_iter()
        .filter_map(|scheme| challenge(scheme).ok())
        .collect()
}

/// The problem in one sentence, without `"` and `\` (RFC 6750, section 3).
pub(super) fn detail(rejection: &Rejection) -> Cow<'static, str> {
    let text = match rejection {
        Rejection::Malformed(what) => {
            return format!("The request can be read in more than one way: {what}.").into();
        }
        Rejection::AmbiguousPath(_) => "The request can be read in more than one way: its path.",
        Rejection::MethodNotAllowed { sent, .. } => return format!("The method {sent} is not allowed.").into(),
        Rejection::RepeatedCredential => "The request has several credentials; send exactly one.",
        Rejection::TargetTooLong => "The request target is too long.",
        Rejection::HeadTooLarge => "The header fields are too many or too large.",
        Rejection::HeadTooSlow => "The request head did not arrive in time.",
        Rejection::NoRoute => "Not found.",
        Rejection::Misdirected => "This host is served with another certificate; open a separate connection for it.",
        Rejection::OutdatedConnection => "The rules for this connection have changed; open a new connection.",
        Rejection::Overloaded | Rejection::Upstream(UpstreamError::InFlightLimit) => {
            "The service is overloaded; try again later."
        }
        Rejection::NotImplemented => "The method is not implemented.",
        Rejection::Unauthenticated => "Authentication is required, and the request has no credential.",
        Rejection::Refused(refused) => description(&refused.refusal),
        Rejection::OriginNotListed => "Pages of this origin may not send a credential to this route.",
        Rejection::NotAllowed(unmet) if unmet.lacks_only_scopes() => "The token does not have a required scope.",
        Rejection::NotAllowed(_) => "You do not have permission for this request.",
        Rejection::NotSigned(_) => "The request cannot be forwarded at the moment; try again later.",
        Rejection::StreamEnded(_) => "The stream was ended: its credential or its route is no longer valid.",
        Rejection::Unavailable(_) => "The credential cannot be verified at the moment; try again later.",
        Rejection::Body(fault) | Rejection::Upstream(UpstreamError::RequestBody(fault)) => match fault {
            RequestBodyError::TooLarge => "The request body is too large.",
            RequestBodyError::Timeout => "The request body did not arrive in time.",
            RequestBodyError::Broken => "The request body is incomplete, or its framing is invalid.",
            RequestBodyError::LengthRequired => "A request body of this size requires a Content-Length.",
            RequestBodyError::BufferFull | RequestBodyError::Spool(_) => {
                "A request body without a Content-Length cannot be buffered at the moment; try again later."
            }
        },
        Rejection::Upstream(
            UpstreamError::Connect { .. }
            | UpstreamError::NoResponse(_)
            | UpstreamError::UnexpectedUpgrade
            | UpstreamError::UpgradeIgnored
            | UpstreamError::UpgradeUnsupported,
        ) => "The application sent no valid response.",
        Rejection::Upstream(UpstreamError::ConnectTimeout { .. } | UpstreamError::ResponseTimeout) => {
            "The application did not respond in time."
        }
    };
    text.into()
}

/// The fault of a credential. It tells a client no more than DRF and SimpleJWT do.
fn description(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::TokenMissing => "The scheme is not followed by a token.",
        Refusal::TokenHasSpaces => "The token contains spaces.",
        Refusal::TokenHasInvalidCharacters => "The token is not valid UTF-8.",
        Refusal::TokenUnknown | Refusal::TokenInvalid(_) | Refusal::Introspected(IntrospectionFault::Inactive) => {
            "The token is unknown, expired or revoked."
        }
        Refusal::TokenUserInactive | Refusal::JwtUserInactive => "The user of the token is not active.",
        Refusal::BearerNotTwoWords => "The scheme must be followed by exactly one token.",
        Refusal::Jwt(JwtFault::Invalid(_)) => {
            "The token is malformed, has no valid signature, or was issued for another service."
        }
        Refusal::Jwt(JwtFault::Expired) | Refusal::Introspected(IntrospectionFault::Expired) => {
            "The token has expired."
        }
        Refusal::Introspected(IntrospectionFault::Invalid(_)) => {
            "The token is malformed, is not valid yet, or was issued for another service."
        }
        Refusal::Jwt(JwtFault::Revoked(_)) | Refusal::Introspected(IntrospectionFault::Revoked) => {
            "The token has been revoked."
        }
        Refusal::Jwt(JwtFault::TypeMismatch(TypeMismatch::NoExpiry)) => "The token has no expiration time.",
        Refusal::Jwt(JwtFault::TypeMismatch(TypeMismatch::NoId)) => "The token has no id.",
        Refusal::Jwt(JwtFault::TypeMismatch(TypeMismatch::NoType)) => "The token has no type.",
        Refusal::Jwt(JwtFault::TypeMismatch(TypeMismatch::WrongType)) => "The token has a type that is not accepted.",
        Refusal::JwtInvalidUserClaim(_) | Refusal::Introspected(IntrospectionFault::NamesNoUser(_)) => {
            "The token does not identify a user."
        }
        Refusal::JwtUnsendableClaim(_) | Refusal::Introspected(IntrospectionFault::Unsendable(_)) => {
            "A claim of the token cannot be forwarded."
        }
        Refusal::TokenUnsendableValue(_) => "A value of the token's user cannot be forwarded.",
        Refusal::JwtUserNotFound => "The user of the token does not exist.",
        Refusal::JwtPasswordChanged => "The password of the token's user has changed since the token was issued.",
        Refusal::Binding(fault) => match fault {
            BindingFault::Confirmation => "The token is bound in a way that is not supported.",
            BindingFault::KeyBoundAsBearer => "The token is bound to a key; send it with the scheme DPoP and a proof.",
            BindingFault::NotKeyBound => "The token is not bound to a key.",
            BindingFault::SeveralProofs => "The request has several DPoP proofs; send exactly one.",
            BindingFault::NoProof => "The request has no DPoP proof.",
            BindingFault::Proof(_) => "The DPoP proof is not valid for this request.",
            BindingFault::OtherKey => "The DPoP proof is made with another key than the token is bound to.",
            BindingFault::Replayed => "The DPoP proof was used before.",
            BindingFault::NotCertificateBound => "The token is not bound to a client certificate.",
            BindingFault::NoCertificate | BindingFault::OtherCertificate => {
                "The token is bound to a client certificate that this connection does not have."
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;
    use http::header::WWW_AUTHENTICATE;
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::refusal::format::RefusalFormat;
    use crate::proxy::refusal::response;
    use authgate_auth::Refused;
    use authgate_core::credential::Defect;
    use authgate_core::identity::{Identity, TableSet, UserId, UserInfo};
    use authgate_core::policy::{Denied, Membership, Policy, Requirements};

    fn check(rejection: &Rejection, status: u16, code: &str, expected: &[&str]) {
        let scheme = |by, name: &str, realm: Option<&str>| Scheme {
            authenticator: by,
            name: name.to_owned(),
            realm: realm.map(str::to_owned),
            header: None,
            algorithms: None,
        };
        let format = RefusalFormat::Problem {
            schemes: vec![
                scheme(0, "Bearer", Some("api")),
                scheme(0, "JWT", Some("api")),
                scheme(1, "Token", None),
            ],
            scope: Some("orders:read".to_owned()),
        };
        let id = RequestId::random();
        let response = response(rejection, &format, &id);
        let problem: Value = serde_json::from_slice(response.body()).expect("every body is JSON");
        let title = response.status().canonical_reason();
        assert_eq!(response.status().as_u16(), status, "{rejection:?}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(
            (
                problem["type"].as_str(),
                problem["title"].as_str(),
                &problem["status"],
                problem["code"].as_str(),
                problem["request_id"].as_str()
            ),
            (
                Some("about:blank"),
                title,
                &json!(status),
                Some(code),
                Some(id.as_str())
            )
        );
        let said = problem["detail"].as_str().unwrap_or_default();
        assert!(said.ends_with('.') && !said.contains(['"', '\\']), "{said}");
        let challenges: Vec<_> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .map(|value| value.to_str().expect("plain ASCII"))
            .collect();
        assert_eq!(challenges, expected, "{rejection:?}");
    }

    #[test]
    fn each_scheme_is_challenged_and_the_one_that_was_tried_hears_why() {
        check(
            &Rejection::Unauthenticated,
            401,
            "no_credential",
            &[
                "Bearer realm=\"api\", scope=\"orders:read\"",
                "JWT realm=\"api\", scope=\"orders:read\"",
                "Token scope=\"orders:read\"",
            ],
        );
        let refused = |by, refusal| {
            Rejection::Refused(Refused {
                by,
                refusal,
                user: None,
            })
        };
        let expired = "error=\"invalid_token\", error_description=\"The token has expired.\"";
        check(
            &refused(0, Refusal::Jwt(JwtFault::Expired)),
            401,
            "jwt_expired",
            &[
                &format!("Bearer realm=\"api\", {expired}, scope=\"orders:read\""),
                &format!("JWT realm=\"api\", {expired}, scope=\"orders:read\""),
                "Token scope=\"orders:read\"",
            ],
        );
        let unknown = "error=\"invalid_token\", error_description=\"The token is unknown, expired or revoked.\"";
        check(
            &refused(1, Refusal::TokenUnknown),
            401,
            "token_unknown",
            &[
                "Bearer realm=\"api\", scope=\"orders:read\"",
                "JWT realm=\"api\", scope=\"orders:read\"",
                &format!("Token {unknown}, scope=\"orders:read\""),
            ],
        );
    }

    #[test]
    fn a_scheme_that_authenticators_share_is_challenged_once() {
        let scheme = |by, name: &str, realm: &str| Scheme {
            authenticator: by,
            name: name.to_owned(),
            realm: Some(realm.to_owned()),
            header: None,
            algorithms: None,
        };
        let schemes = [
            scheme(0, "Bearer", "api"),
            scheme(1, "bearer", "api"),
            scheme(2, "Bearer", "other"),
        ];
        let check = |rejection: &Rejection, expected: &[&str]| {
            let sent = challenges(rejection, &schemes, None);
            assert_eq!(sent, expected, "{rejection:?}");
        };
        check(
            &Rejection::Unauthenticated,
            &["Bearer realm=\"api\"", "Bearer realm=\"other\""],
        );
        let refused = |by| {
            Rejection::Refused(Refused {
                by,
                refusal: Refusal::Jwt(JwtFault::Expired),
                user: None,
            })
        };
        let expired = "error=\"invalid_token\", error_description=\"The token has expired.\"";
        check(
            &refused(0),
            &[&format!("Bearer realm=\"api\", {expired}"), "Bearer realm=\"other\""],
        );
        check(
            &refused(1),
            &[&format!("bearer realm=\"api\", {expired}"), "Bearer realm=\"other\""],
        );
        check(
            &refused(2),
            &["Bearer realm=\"api\"", &format!("Bearer realm=\"other\", {expired}")],
        );
    }

    #[test]
    fn more_scope_is_asked_for_where_it_would_help_and_only_there() {
        let lacking = "error=\"insufficient_scope\", error_description=\"The token does not have a required scope.\"";
        let unmet = |groups: &[&str], scopes: &[&str]| {
            let all = |names: &[&str]| Membership {
                any: Vec::new(),
                all: names.iter().map(ToString::to_string).collect(),
            };
            let require = Requirements {
                groups: all(groups),
                scopes: all(scopes),
                ..Requirements::default()
            };
            let policy = Policy::Authenticated {
                optional: false,
                require,
            };
            let user_info = UserInfo {
                authenticator: "jwt".into(),
                issuer: None,
                key: None,
                id: UserId::new("1").expect("an id"),
                username: None,
                email: None,
                groups: Vec::new(),
                scopes: Vec::new(),
                claims: serde_json::Map::new(),
                attributes: serde_json::Map::new(),
            };
            let identity = Identity::new(user_info, TableSet::unique(), Box::default(), 0);
            match policy.permit(Some(Arc::new(identity))) {
                Err(Denied::NotAllowed(unmet)) => Rejection::NotAllowed(unmet),
                other => panic!("{other:?}"),
            }
        };
        check(
            &unmet(&[], &["orders:read"]),
            403,
            "not_allowed",
            &[
                &format!("Bearer realm=\"api\", {lacking}, scope=\"orders:read\""),
                &format!("JWT realm=\"api\", {lacking}, scope=\"orders:read\""),
                &format!("Token {lacking}, scope=\"orders:read\""),
            ],
        );
        check(&unmet(&["staff"], &["orders:read"]), 403, "not_allowed", &[]);
        check(&Rejection::NoRoute, 404, "no_route", &[]);
        check(&Rejection::HeadTooSlow, 408, "head_too_slow", &[]);
        let wrong_method = Rejection::MethodNotAllowed {
            sent: Method::POST,
            allowed: vec![Method::GET],
        };
        check(&wrong_method, 405, "method_not_allowed", &[]);
    }

    #[test]
    fn no_refusal_tells_which_check_failed_if_simplejwt_would_not() {
        let texts = Defect::ALL.map(|defect| description(&Refusal::Jwt(defect.into())));
        assert!(texts.iter().all(|text| *text == texts[0]));
    }
}

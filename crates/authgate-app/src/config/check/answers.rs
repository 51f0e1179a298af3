//! `errors` and `challenge` of a route: the form of its error responses.

use std::sync::Arc;

use authgate_auth::jwt::{JwtSettings, TokenType};
use authgate_auth::{AuthScheme, AuthenticatorSettings, DPOP_SCHEME, PROOF_ALGORITHMS, Requirement};
use authgate_core::policy::{Membership, Policy};
use authgate_dataplane::proxy::refusal::format::{KEY_CHALLENGE, RefusalFormat, Scheme};
use http::HeaderValue;

use super::authenticators::Authenticators;
use crate::config::modes::ErrorFormat;

/// The error responses of a route with these authenticators. `challenge` adds `WWW-Authenticate` to a 401.
pub(super) fn answers(
    format: ErrorFormat,
    challenge: bool,
    names: &[Arc<str>],
    authenticators: &Authenticators,
    policy: &Policy,
) -> RefusalFormat {
    let named = || {
        names
            .iter()
            .filter_map(|name| authenticators.settings.get(name))
            .enumerate()
    };
    match format {
        ErrorFormat::Drf => RefusalFormat::Drf {
            challenge: named()
                .next()
                .filter(|_| challenge)
                .map(|(_, first)| drf_challenge(first)),
            token_types: named()
                .map(|(_, authenticator)| match authenticator.kind.as_jwt() {
                    Some(jwt) => token_types(jwt),
                    None => Vec::new(),
                })
                .collect(),
        },
        ErrorFormat::Problem => RefusalFormat::Problem {
            schemes: named()
                .filter(|_| challenge)
                .flat_map(|(by, authenticator)| schemes(by, authenticator))
                .collect(),
            scope: match policy {
                Policy::Public => None,
                Policy::Authenticated { require, .. } => scope(&require.scopes),
            },
        },
    }
}

/// The token types of all issuers: a refusal names each.
fn token_types(jwt: &JwtSettings) -> Vec<TokenType> {
    let mut types = Vec::new();
    for issuer in jwt.issuers.all() {
        let more = issuer.rules.token_types.iter().filter(|kind| !types.contains(*kind));
        types.extend(more.copied().collect::<Vec<_>>());
    }
    types
}

/// As DRF's `TokenAuthentication` and SimpleJWT's `JWTAuthentication` write `WWW-Authenticate`.
fn drf_challenge(authenticator: &AuthenticatorSettings) -> HeaderValue {
    let (scheme, header) = (authenticator.scheme.first(), &authenticator.header);
    let text = match (&authenticator.scheme, &authenticator.realm) {
        (AuthScheme::None, _) => format!("{KEY_CHALLENGE} header=\"{header}\""),
        (_, Some(realm)) if is_dpop(scheme) => format!("{scheme} realm=\"{realm}\", algs=\"{PROOF_ALGORITHMS}\""),
        (_, Some(realm)) => format!("{scheme} realm=\"{realm}\""),
        (_, None) => scheme.to_owned(),
    };
    // A scheme or realm that is not valid there was already reported.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}

/// Whether the scheme has proofs. The configuration check refuses its name where no proof is checked.
fn is_dpop(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case(DPOP_SCHEME)
}

fn schemes(by: usize, authenticator: &AuthenticatorSettings) -> Vec<Scheme> {
    let scheme = |name: &str, header| Scheme {
        authenticator: by,
        name: name.to_owned(),
        realm: authenticator.realm.clone(),
        header,
        algorithms: is_dpop(name).then_some(PROOF_ALGORITHMS),
    };
    match &authenticator.scheme {
        AuthScheme::None => vec![scheme(KEY_CHALLENGE, Some(authenticator.header.clone()))],
        named => {
            let mut bindings = authenticator.kind.bindings().peekable();
            // RFC 9449, section 7.2: no challenge for a scheme under which no token is accepted.
            let requires_dpop =
                bindings.peek().is_some() && bindings.all(|binding| binding.dpop == Requirement::Require);
            let names = named.names().iter().filter(|name| !requires_dpop || is_dpop(name));
            names.map(|name| scheme(name, None)).collect()
        }
    }
}

/// The smallest sufficient scope: every scope of `all`, and one of `any`. Scopes that RFC 6749, section 3.3, cannot express are
/// omitted.
fn scope(required: &Membership) -> Option<String> {
    let one_of = required
        .any
        .first()
        .filter(|_| !required.any.iter().any(|scope| required.all.contains(scope)));
    let scopes: Vec<&str> = required
        .all
        .iter()
        .chain(one_of)
        .map(String::as_str)
        .filter(|scope| {
            scope
                .bytes()
                .all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~'))
        })
        .collect();
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_names_the_smallest_sufficient_scope() {
        let check = |any: &[&str], all: &[&str], expected: Option<&str>| {
            let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            let required = Membership {
                any: names(any),
                all: names(all),
            };
            assert_eq!(scope(&required).as_deref(), expected, "{any:?} {all:?}");
        };
        check(&[], &[], None);
        check(&["a", "b"], &[], Some("a"));
        check(&["a", "b"], &["c", "d"], Some("c d a"));
        check(&["a", "b"], &["b"], Some("b"));
        check(&[], &["a b", "q\"", "orders:read"], Some("orders:read"));
    }
}

//! [`Outbound`]: the only request that may be sent to an upstream, and the only way to build one.
//!
//! The order is fixed: remove hop-by-hop fields, remove reserved names, then add the gateway's own fields. A client can
//! therefore neither forge one of these fields nor delete one by naming it in `Connection`.

pub mod forwarded;
pub mod identity;
pub mod peer;
pub mod request_id;
pub mod reserved;

use std::sync::Arc;

use authgate_http::framing::fields::single_value;
use authgate_http::framing::hop_by_hop;
use authgate_http::framing::target::RawTarget;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderName, UPGRADE};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Request};

use self::forwarded::{ForwardedInfo, OptionalFields};
use self::identity::{CredentialMode, IdentityTable, is_opaque_credential};
use self::peer::Peer;
use self::reserved::ReservedNames;
use crate::policy::{Permit, Principal};

/// Capacity for the gateway's own fields. It covers two or three identity fields.
const ADDED_FIELDS: usize = 12;

/// A request that a policy has permitted, with cleaned fields and with the identity fields added.
#[derive(Debug)]
pub struct Outbound<B> {
    request: Request<B>,
    is_upgrade: bool,
}

/// The settings for the outbound requests of a route. They are the same for all its requests.
#[derive(Debug, Clone)]
pub struct OutboundRules {
    /// The identity headers for the upstream.
    pub identity: Arc<IdentityTable>,
    /// The field names that only the gateway may send.
    pub reserved: Arc<ReservedNames>,
    /// The headers that this route's authenticators read.
    pub credential_headers: CredentialHeaders,
    /// What the gateway does with these headers.
    pub credential: CredentialMode,
    /// The `Host` for the upstream. `None`: the client's own.
    pub host: Option<HeaderValue>,
    /// Which optional fields describe the origin of a request.
    pub forwarded: OptionalFields,
    /// The shared secret that proves to the upstream that a request came through the gateway.
    pub secret: Option<(HeaderName, HeaderValue)>,
}

/// The headers that the authenticators of a route read, each listed once.
#[derive(Debug, Clone, Default)]
pub struct CredentialHeaders(Box<[HeaderName]>);

impl FromIterator<HeaderName> for CredentialHeaders {
    fn from_iter<I: IntoIterator<Item = HeaderName>>(headers: I) -> Self {
        let mut distinct: Vec<HeaderName> = Vec::new();
        for header in headers {
            if !distinct.contains(&header) {
                distinct.push(header);
            }
        }
        Self(distinct.into())
    }
}

impl CredentialHeaders {
    /// Each header, once.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter()
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

/// What the gateway knows about one request besides its own bytes.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'r> {
    /// The other end of the connection.
    pub peer: &'r Peer,
    /// The requested host, as the client wrote it.
    pub host: &'r HeaderValue,
    /// The origin of the request, as far as the peer is trusted.
    pub forwarded: &'r ForwardedInfo,
    /// Whether the request is an upgrade to a WebSocket. The gateway forwards no other upgrade.
    pub is_upgrade: bool,
    /// The header of the signed identity, and the token of this request's user. `None`: no token is sent.
    pub signed_identity: Option<(&'r HeaderName, &'r HeaderValue)>,
}

impl<B> Outbound<B> {
    /// Builds the outbound request. It consumes the permit: one permit, one request.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is spent on one request")]
    pub fn new(mut request: Request<B>, permit: Permit, context: RequestContext<'_>, rules: &OutboundRules) -> Self {
        *request.uri_mut() = Uri::from(target(request.uri()));
        let raw_target = request.extensions_mut().remove::<RawTarget>();
        request.extensions_mut().clear();
        if let Some(raw_target) = raw_target {
            request.extensions_mut().insert(raw_target);
        }

        let headers = request.headers_mut();
        join_cookies(headers);
        strip_opaque_credential(headers);
        let kept = kept_credentials(headers, &permit, rules);
        let is_observed = permit.is_observed();
        hop_by_hop::strip_connection_options(headers);
        hop_by_hop::strip(headers, |name| {
            hop_by_hop::is_request_hop_by_hop(name)
                || (rules.reserved.contains(name) && !(is_observed && rules.credential_headers.contains(name)))
        });
        headers.reserve(ADDED_FIELDS);
        replace_credential(headers, &permit, rules, kept);
        headers.insert(HOST, rules.host.clone().unwrap_or_else(|| context.host.clone()));
        forwarded::insert(headers, context.peer, context.host, context.forwarded, rules.forwarded);
        rules.identity.insert(headers, &permit);
        // Its name is reserved, so that no client can send it.
        if let Some((name, token)) = context.signed_identity {
            headers.insert(name, token.clone());
        }
        // The secret proves that the gateway has authenticated a request.
        if let Some((name, value)) = rules.secret.as_ref().filter(|_| !is_observed) {
            headers.insert(name, value.clone());
        }
        if context.is_upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        Self {
            request,
            is_upgrade: context.is_upgrade,
        }
    }

    /// Whether the request is an upgrade to a WebSocket.
    pub fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// The request, for the upstream client that sends it.
    pub fn into_request(self) -> Request<B> {
        self.request
    }
}

/// The origin-form target. An empty path becomes `/` (RFC 9112, section 3.2.1): `http://host?x` has an empty path.
fn target(uri: &Uri) -> PathAndQuery {
    const ROOT: PathAndQuery = PathAndQuery::from_static("/");
    match uri.path_and_query() {
        None => ROOT,
        Some(target) if target.as_str().starts_with('/') => target.clone(),
        Some(target) => PathAndQuery::try_from(format!("/{}", target.as_str())).unwrap_or(ROOT),
    }
}

/// HTTP/2 may split cookies into several fields. HTTP/1 needs one field (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Only the gateway may send its opaque credential. Servers disagree on which of several lines counts, so all lines are removed.
fn strip_opaque_credential(headers: &mut HeaderMap) {
    if headers.get_all(AUTHORIZATION).iter().any(is_opaque_credential) {
        headers.remove(AUTHORIZATION);
    }
}

/// In `keep` mode, the credentials are forwarded unchanged, even in a header whose name is otherwise reserved. A header
/// with several lines is not forwarded: no authenticator has accepted it, and servers disagree on which line counts.
fn kept_credentials(headers: &HeaderMap, permit: &Permit, rules: &OutboundRules) -> Vec<(HeaderName, HeaderValue)> {
    match (rules.credential, permit.principal()) {
        (CredentialMode::Keep, Principal::User(_) | Principal::Unknown) => rules
            .credential_headers
            .iter()
            .filter_map(|name| single_value(headers, name).map(|value| (name.clone(), value.clone())))
            .collect(),
        (CredentialMode::Keep | CredentialMode::Opaque | CredentialMode::Remove, _) => Vec::new(),
    }
}

fn replace_credential(
    headers: &mut HeaderMap,
    permit: &Permit,
    rules: &OutboundRules,
    kept: Vec<(HeaderName, HeaderValue)>,
) {
    if matches!(permit.principal(), Principal::Public | Principal::Observed) {
        return;
    }
    let opaque = match rules.credential {
        CredentialMode::Opaque => rules.identity.opaque(permit),
        CredentialMode::Keep | CredentialMode::Remove => None,
    };
    for name in rules.credential_headers.iter() {
        // An insertion replaces all lines, and costs less than a removal before it.
        if opaque.is_none() || *name != AUTHORIZATION {
            headers.remove(name);
        }
    }
    for (name, value) in kept {
        headers.insert(name, value);
    }
    if let Some(value) = opaque {
        headers.insert(AUTHORIZATION, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::{Arc, LazyLock};

    use super::identity::{Encoding, IdentityTables, ValueSource};
    use super::peer::Scheme;
    use super::*;
    use crate::identity::{TableId, UserId, UserInfo};
    use crate::policy::rollout::Rollout;
    use crate::policy::{Policy, Requirements};

    static TABLES: LazyLock<(IdentityTables, TableId)> = LazyLock::new(|| {
        let headers = vec![
            (HeaderName::from_static("x-user-id"), ValueSource::Id),
            (HeaderName::from_static("x-auth-source"), ValueSource::Authenticator),
        ];
        let mut tables = IdentityTables::default();
        let id = tables.add(headers, Encoding::Percent);
        (tables, id)
    });

    fn rules(credential: CredentialMode) -> OutboundRules {
        let identity = &TABLES.0[TABLES.1];
        let reserved = ReservedNames::new(identity.names().map(HeaderName::as_str));
        OutboundRules {
            identity: Arc::clone(identity),
            reserved: Arc::new(reserved),
            credential_headers: std::iter::once(AUTHORIZATION).collect(),
            credential,
            host: None,
            forwarded: OptionalFields::default(),
            secret: None,
        }
    }

    fn ada() -> Permit {
        let user_info = UserInfo {
            authenticator: "token".into(),
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
        let identity = TABLES.0.identity(user_info).expect("plain values");
        let policy = Policy::Authenticated {
            optional: true,
            require: Requirements::default(),
        };
        policy
            .permit(Some(Arc::new(identity)))
            .expect("the policy accepts every user")
    }

    fn sent(rules: &OutboundRules, permit: Permit) -> HeaderMap {
        let mut request = Request::builder().uri("https://api.example/x?y=1");
        for (name, value) in [
            ("authorization", "Token canary"),
            ("x-user-id", "13"),
            ("x_user_id", "13"),
            ("x.user.id", "13"),
            ("x-auth-source", "me"),
            ("connection", "x-user-id, x-request-id, host"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-request-id", "mine"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ] {
            request = request.header(name, value);
        }
        let peer = Peer::new(IpAddr::from([192, 0, 2, 1]).into(), Scheme::Https, &Arc::default());
        let host = HeaderValue::from_static("api.example");
        let context = RequestContext {
            peer: &peer,
            host: &host,
            forwarded: &ForwardedInfo::from_headers(&peer, request.headers_ref().expect("fields")),
            is_upgrade: false,
            signed_identity: None,
        };
        let request = Outbound::new(request.body(()).expect("a request"), permit, context, rules).into_request();
        assert_eq!(request.uri(), "/x?y=1");
        for name in request.headers().keys() {
            assert_eq!(request.headers().get_all(name).iter().count(), 1, "{name}");
        }
        request.into_parts().0.headers
    }

    fn check(rules: &OutboundRules, permit: Permit, expected: &[(&str, Option<&str>)]) {
        let headers = sent(rules, permit);
        for (name, value) in expected {
            assert_eq!(
                headers.get(*name).map(HeaderValue::as_bytes),
                value.map(str::as_bytes),
                "{name}"
            );
        }
        for name in [
            "x_user_id",
            "x.user.id",
            "connection",
            "forwarded",
            "te",
            "content-length",
        ] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["host"], "api.example");
        assert_ne!(headers["x-request-id"], "mine");
        assert_eq!(headers["accept"], "*/*");
    }

    #[test]
    fn identity_fields_of_a_client_are_never_forwarded() {
        let opaque = rules(CredentialMode::Opaque);
        check(
            &opaque,
            ada(),
            &[("x-user-id", Some("1")), ("x-auth-source", Some("token"))],
        );
        assert!(
            sent(&opaque, ada())["authorization"]
                .as_bytes()
                .starts_with(b"Authgate ")
        );
        let keep = rules(CredentialMode::Keep);
        check(
            &keep,
            ada(),
            &[("x-user-id", Some("1")), ("authorization", Some("Token canary"))],
        );
        let remove = rules(CredentialMode::Remove);
        check(&remove, ada(), &[("x-user-id", Some("1")), ("authorization", None)]);
    }

    #[test]
    fn an_observed_request_keeps_its_credential_and_has_no_field_of_the_gateway_that_proves_something() {
        let secret = (HeaderName::from_static("x-secret"), HeaderValue::from_static("s"));
        let rules = OutboundRules {
            secret: Some(secret),
            ..rules(CredentialMode::Opaque)
        };
        let expected = [
            ("x-user-id", None),
            ("x-auth-source", None),
            ("x-secret", None),
            ("authorization", Some("Token canary")),
        ];
        check(&rules, Rollout::OBSERVE.permit_observed(), &expected);
        check(&rules, ada(), &[("x-secret", Some("s"))]);
        let reserved = OutboundRules {
            reserved: Arc::new(ReservedNames::new(["accept", "authorization"])),
            credential_headers: std::iter::once(AUTHORIZATION).collect(),
            ..rules
        };
        let mut request = Request::new(());
        for (name, value) in [("authorization", "Token canary"), ("accept", "*/*")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let peer = Peer::new(IpAddr::from([192, 0, 2, 1]).into(), Scheme::Https, &Arc::default());
        let context = RequestContext {
            peer: &peer,
            host: &HeaderValue::from_static("api.example"),
            forwarded: &ForwardedInfo::from_headers(&peer, request.headers()),
            is_upgrade: false,
            signed_identity: None,
        };
        let sent = Outbound::new(request, Rollout::OBSERVE.permit_observed(), context, &reserved).into_request();
        assert_eq!(sent.headers()["authorization"], "Token canary");
        assert!(!sent.headers().contains_key("accept"));
    }

    #[test]
    fn request_without_a_user_has_no_identity_fields() {
        let rules = rules(CredentialMode::Keep);
        let public = Policy::Public.permit(None).expect("public");
        let expected = [
            ("x-user-id", None),
            ("x-auth-source", Some("public")),
            ("authorization", Some("Token canary")),
        ];
        check(&rules, public, &expected);
        let policy = Policy::Authenticated {
            optional: true,
            require: Requirements::default(),
        };
        let anonymous = policy.permit(None).expect("optional");
        check(
            &rules,
            anonymous,
            &[
                ("x-user-id", None),
                ("x-auth-source", Some("anonymous")),
                ("authorization", None),
            ],
        );
    }
}

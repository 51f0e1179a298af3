//! Who may ask the admin listener, and what. A page of another site can neither read an answer nor cause an effect, whatever credentials its
//! browser holds:
//!
//! - `Host` must name this listener, so that a name of another site that resolves to its address is refused (DNS rebinding);
//! - `Origin`, if there is one, must be the listener's own;
//! - `Sec-Fetch-Site`, which browsers add, must not name another site. Only following a link is permitted, because the other page cannot read
//!   the result;
//! - a command needs the token, or a field that another site cannot send without a CORS preflight, which is never granted;
//! - a revocation needs the token in any case.

use std::net::IpAddr;

use authgate_core::label_value::LabelValue;
use authgate_dataplane::telemetry::labels;
use authgate_dataplane::tls::control::{ControlTls, Security};
use http::header::{HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Peer;
use super::token::AdminToken;

/// The field that a command has where the listener has no token. Its value is the name of the command.
const COMMAND: HeaderName = HeaderName::from_static("x-authgate-command");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The settings of `[admin]` that decide who may ask.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    /// Accepted host names, in lower case, besides localhost and IP addresses.
    pub hosts: Vec<String>,
    /// The token that requests must present.
    pub token: Option<AdminToken>,
    /// TLS of connections over TCP.
    pub tls: Option<ControlTls>,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The state of the process for kubelets and balancers, and public keys: it needs no token.
    Public,
    /// Information.
    Read,
    /// An effect, with the name of the command.
    Command(&'static str),
    /// An effect that needs the token, also from this machine.
    Revoke,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// The connection is without TLS, or was accepted under other settings of `tls`.
    Security,
    Host,
    Origin,
    OtherSite,
    /// Information was asked for without the token.
    NoToken,
    /// A command came without the token.
    CommandWithoutToken,
    /// A command came without its field, or from another machine.
    CommandWithoutField,
    /// The effect needs the token, and the listener has none.
    NoTokenConfigured,
}

impl Denied {
    /// A short name for logs and metrics.
    pub(super) fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub(super) fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Security => &labels::ADMIN_TLS,
            Self::Host => &labels::ADMIN_HOST,
            Self::Origin => &labels::ADMIN_ORIGIN,
            Self::OtherSite => &labels::ADMIN_OTHER_SITE,
            Self::NoToken | Self::CommandWithoutToken | Self::NoTokenConfigured => &labels::ADMIN_TOKEN,
            Self::CommandWithoutField => &labels::ADMIN_COMMAND,
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Security => StatusCode::MISDIRECTED_REQUEST,
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::Host
            | Self::Origin
            | Self::OtherSite
            | Self::CommandWithoutToken
            | Self::CommandWithoutField
            | Self::NoTokenConfigured => StatusCode::FORBIDDEN,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Security => {
                "This connection does not follow the `tls` of [admin]. Open a new one, with https if there is `tls`.\n"
            }
            Self::Host => "Host not allowed. Use localhost, an IP address or one of the `hosts` of [admin].\n",
            Self::Origin => "Origin not allowed. Only pages of this listener may send requests to it.\n",
            Self::OtherSite => "Requests from pages of other sites are not allowed.\n",
            Self::NoToken => {
                "The token of [admin] is required. Send `Authorization: Bearer TOKEN`, or the token as the password of Basic.\n"
            }
            Self::CommandWithoutToken => "The token of [admin] is required. Send `Authorization: Bearer TOKEN`.\n",
            Self::CommandWithoutField => {
                "Without `[admin] token`, a command must come from this machine, and have the field `X-Authgate-Command: reload`.\n"
            }
            Self::NoTokenConfigured => {
                "POST /revoke is only answered with the token of [admin], and there is none. Add `token = { file = \"admin.token\" }`.\n"
            }
        }
    }
}

impl AdminAccess {
    /// The checks that every request must pass.
    pub(super) fn check_source(&self, head: &Parts, peer: &Peer) -> Result<(), Denied> {
        if peer.security != *self.security(peer) {
            return Err(Denied::Security);
        }
        let host = only(&head.headers, &HOST).filter(|host| self.is_own_host(host));
        let host = host.ok_or(Denied::Host)?;
        if head.headers.contains_key(ORIGIN)
            && !only(&head.headers, &ORIGIN).is_some_and(|origin| is_own_origin(origin, host, &peer.security))
        {
            return Err(Denied::Origin);
        }
        if comes_from_other_site(head) {
            return Err(Denied::OtherSite);
        }
        Ok(())
    }

    /// Whether a request may do this. Its source was checked before.
    pub(super) fn authorize(&self, headers: &HeaderMap, peer: &Peer, purpose: Purpose) -> Result<(), Denied> {
        match (purpose, &self.token) {
            (Purpose::Public, _) | (Purpose::Read, None) => Ok(()),
            (Purpose::Read | Purpose::Command(_) | Purpose::Revoke, Some(token)) if token.is_presented(headers) => {
                Ok(())
            }
            (Purpose::Read | Purpose::Revoke, Some(_)) => Err(Denied::NoToken),
            (Purpose::Revoke, None) => Err(Denied::NoTokenConfigured),
            (Purpose::Command(_), Some(_)) => Err(Denied::CommandWithoutToken),
            (Purpose::Command(name), None)
                if peer.is_local() && only(headers, &COMMAND).is_some_and(|it| it == name) =>
            {
                Ok(())
            }
            (Purpose::Command(_), None) => Err(Denied::CommandWithoutField),
        }
    }

    /// The rules for a connection that this peer would open now.
    fn security(&self, peer: &Peer) -> &Security {
        match &self.tls {
            Some(tls) if !peer.is_unix() => tls.security(),
            Some(_) | None => &Security::Cleartext,
        }
    }

    fn is_own_host(&self, host: &HeaderValue) -> bool {
        host_name(host)
            .is_some_and(|name| name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name))
    }
}

/// The value of a field that has one line.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line)
}

/// The host name in a `Host` header, without port and trailing dot.
fn host_name(host: &HeaderValue) -> Option<String> {
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    // `Host` has no user information, and names are compared as a whole.
    if authority.as_str().contains('@') {
        return None;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
}

/// Whether an origin is that of a page at this `Host`. Browsers leave out a default port in both fields (RFC 6454, section 6.2).
fn is_own_origin(origin: &HeaderValue, host: &HeaderValue, security: &Security) -> bool {
    let scheme: &[u8] = match security {
        Security::Cleartext => b"http://",
        Security::Tls { .. } => b"https://",
    };
    let own = [scheme, host.as_bytes()].concat();
    origin.as_bytes().eq_ignore_ascii_case(&own)
}

/// Whether a browser reports that a page of another site sends this request (Fetch Metadata). Another port is another site here, because any
/// user of a machine may serve pages on it.
fn comes_from_other_site(head: &Parts) -> bool {
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let is = |name: &HeaderName, value: &str| only(&head.headers, name).is_some_and(|line| line == value);
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter();
    let own = sites.all(|site| site == "same-origin" || (reads && site == "none"));
    let follows_a_link = reads && is(&SEC_FETCH_MODE, "navigate") && is(&SEC_FETCH_DEST, "document");
    !own && !follows_a_link
}

#[cfg(test)]
mod tests {
    use authgate_http::node::Node;
    use http::Request;

    use super::*;

    const TLS: Security = Security::Tls { client_ca: None };

    fn local(security: Security) -> Peer {
        Peer {
            node: Node::Ip([127, 0, 0, 1].into()),
            security,
        }
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let request = fields
            .iter()
            .fold(Request::builder().method(method), |request, (name, value)| {
                request.header(*name, *value)
            });
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn only_ip_addresses_localhost_and_listed_hosts_are_answered() {
        let access = AdminAccess {
            hosts: vec!["authgate.internal".to_owned()],
            ..AdminAccess::default()
        };
        for (host, expected) in [
            ("localhost:9901", true),
            ("127.0.0.1:9901", true),
            ("[::1]:9901", true),
            ("10.1.2.3", true),
            ("authgate.internal", true),
            ("Authgate.Internal.:9901", true),
            ("x.authgate.internal", false),
            ("authgate.internal.evil.example", false),
            ("authgate.internal@evil.example", false),
            ("evil.example@authgate.internal", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let checked = access.check_source(&head("GET", &[("host", host)]), &local(Security::Cleartext));
            assert_eq!(checked, if expected { Ok(()) } else { Err(Denied::Host) }, "{host}");
        }
        for hosts in [&[][..], &[("host", "localhost"), ("host", "localhost")]] {
            let checked = access.check_source(&head("GET", hosts), &local(Security::Cleartext));
            assert_eq!(checked, Err(Denied::Host), "{hosts:?}");
        }
    }

    #[test]
    fn pages_of_other_origins_and_sites_are_refused() {
        use Denied::{Origin, OtherSite};
        let access = AdminAccess::default();
        for (method, fields, expected) in [
            ("POST", &[][..], Ok(())),
            ("POST", &[("origin", "http://localhost:9901")][..], Ok(())),
            ("POST", &[("origin", "HTTP://LOCALHOST:9901")], Ok(())),
            ("POST", &[("origin", "https://localhost:9901")], Err(Origin)),
            ("POST", &[("origin", "http://localhost")], Err(Origin)),
            ("POST", &[("origin", "http://localhost:3000")], Err(Origin)),
            ("POST", &[("origin", "http://127.0.0.1:9901")], Err(Origin)),
            ("POST", &[("origin", "http://evil.example")], Err(Origin)),
            ("GET", &[("origin", "http://evil.example")], Err(Origin)),
            ("POST", &[("origin", "null")], Err(Origin)),
            ("POST", &[("origin", "")], Err(Origin)),
            (
                "POST",
                &[("origin", "http://localhost:9901"), ("origin", "http://evil.example")],
                Err(Origin),
            ),
            ("GET", &[("sec-fetch-site", "same-origin")], Ok(())),
            ("GET", &[("sec-fetch-site", "none")], Ok(())),
            ("POST", &[("sec-fetch-site", "same-origin")], Ok(())),
            ("POST", &[("sec-fetch-site", "none")], Err(OtherSite)),
            ("POST", &[("sec-fetch-site", "same-site")], Err(OtherSite)),
            ("POST", &[("sec-fetch-site", "cross-site")], Err(OtherSite)),
            ("GET", &[("sec-fetch-site", "same-site")], Err(OtherSite)),
            ("GET", &[("sec-fetch-site", "cross-site")], Err(OtherSite)),
            ("GET", &[("sec-fetch-site", "")], Err(OtherSite)),
            (
                "GET",
                &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
                Err(OtherSite),
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                Ok(()),
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                Err(OtherSite),
            ),
            (
                "POST",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                Err(OtherSite),
            ),
        ] {
            let fields = [&[("host", "localhost:9901")], fields].concat();
            let checked = access.check_source(&head(method, &fields), &local(Security::Cleartext));
            assert_eq!(checked, expected, "{method} {fields:?}");
        }
        assert!(is_own_origin(
            &HeaderValue::from_static("https://gate.internal"),
            &HeaderValue::from_static("gate.internal"),
            &TLS
        ));
    }

    #[test]
    fn a_command_needs_the_token_or_its_field_from_this_machine() {
        let command = Purpose::Command("reload");
        let field = head("POST", &[("x-authgate-command", "reload")]).headers;
        let bearer = head("POST", &[("authorization", "Bearer canary")]).headers;
        let other = Peer {
            node: Node::Ip([192, 0, 2, 1].into()),
            security: Security::Cleartext,
        };
        let unix = Peer {
            node: Node::Unix,
            security: Security::Cleartext,
        };
        let here = local(Security::Cleartext);
        let open = AdminAccess::default();
        for (headers, peer, expected) in [
            (&field, &here, Ok(())),
            (&field, &unix, Ok(())),
            (&field, &other, Err(Denied::CommandWithoutField)),
            (&bearer, &here, Err(Denied::CommandWithoutField)),
            (
                &head("POST", &[("x-authgate-command", "revoke")]).headers,
                &here,
                Err(Denied::CommandWithoutField),
            ),
        ] {
            assert_eq!(open.authorize(headers, peer, command), expected, "{headers:?} {peer:?}");
        }
        let closed = AdminAccess {
            token: Some(AdminToken::new("canary")),
            ..AdminAccess::default()
        };
        for (headers, purpose, expected) in [
            (&bearer, command, Ok(())),
            (&bearer, Purpose::Read, Ok(())),
            (&field, command, Err(Denied::CommandWithoutToken)),
            (&field, Purpose::Read, Err(Denied::NoToken)),
            (&field, Purpose::Public, Ok(())),
        ] {
            for peer in [&here, &unix, &other] {
                assert_eq!(
                    closed.authorize(headers, peer, purpose),
                    expected,
                    "{headers:?} {peer:?}"
                );
            }
        }
    }

    #[test]
    fn a_connection_that_was_accepted_under_other_tls_settings_is_refused() {
        let access = AdminAccess::default();
        let head = head("GET", &[("host", "localhost")]);
        assert_eq!(access.check_source(&head, &local(TLS)), Err(Denied::Security));
        assert_eq!(access.check_source(&head, &local(Security::Cleartext)), Ok(()));
    }
}

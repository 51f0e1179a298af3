//! `redirect_http`: redirects plaintext HTTP clients to https.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use authgate_core::outbound::request_id::{RequestId, X_REQUEST_ID};
use authgate_dataplane::proxy::websocket_credential::has_subprotocol_credential;
use authgate_http::server::socket::Listener;
use authgate_http::server::stage::Stage;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderName, LOCATION};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{Peer, Service};
use crate::acme::{self, Acme};

/// Maximum number of connections.
pub const CONNECTIONS: usize = 256;

/// Redirects clients to https.
#[derive(Debug)]
pub struct Redirect {
    rules: ArcSwap<RedirectRules>,
}

/// Which requests are redirected.
#[derive(Debug, Default)]
pub struct RedirectRules {
    /// The port of https.
    pub port: u16,
    /// Hosts in lower case, with `*.` for all subdomains.
    pub hosts: HashSet<String>,
    /// Headers that carry credentials, besides `Authorization`.
    pub credential_headers: Vec<HeaderName>,
    /// Answers the HTTP-01 challenges of certificate authorities.
    pub acme: Option<Arc<Acme>>,
}

impl RedirectRules {
    fn has_credential(&self, headers: &HeaderMap) -> bool {
        let mut names = self.credential_headers.iter().chain([&AUTHORIZATION]);
        names.any(|name| headers.contains_key(name)) || has_subprotocol_credential(headers)
    }
}

struct Clients(Arc<Redirect>);

impl Service for Clients {
    type Body = Full<Bytes>;

    const CONNECTIONS: usize = CONNECTIONS;

    async fn answer(&self, head: Parts, _: Incoming, _: Peer) -> Response<Full<Bytes>> {
        match self.0.challenge(&head).await {
            Some(response) => response,
            None => self.0.answer(&head),
        }
    }
}

impl Redirect {
    /// Redirects requests to https.
    pub fn new(rules: RedirectRules) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
        }
    }

    /// Redirects by other rules from now on.
    pub fn update(&self, rules: RedirectRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Serves until a drain.
    pub async fn serve(self: Arc<Self>, listener: Listener, stage: watch::Receiver<Stage>) {
        super::serve(listener, stage, Clients(self)).await;
    }

    fn answer(&self, request: &Parts) -> Response<Full<Bytes>> {
        // The credential was readable on the network. A redirect would hide that; a refusal makes the client correct it.
        let headers = &request.headers;
        let rules = self.rules.load();
        let leaks = rules.has_credential(headers);
        let response = match Self::target(request, &rules) {
            _ if leaks => json_response(
                StatusCode::FORBIDDEN,
                r#"{"detail":"A credential was sent in the clear. Use https, and replace it."}"#,
            ),
            None => json_response(StatusCode::NOT_FOUND, r#"{"detail":"Not found."}"#),
            Some(target) => {
                let mut response = json_response(StatusCode::PERMANENT_REDIRECT, r#"{"detail":"Use https."}"#);
                response.headers_mut().insert(LOCATION, target);
                response
            }
        };
        last_of_connection(response)
    }

    /// The response to a challenge that is under way here, or at another gateway with the same folder.
    async fn challenge(&self, request: &Parts) -> Option<Response<Full<Bytes>>> {
        let path = request.uri.path();
        if request.method != Method::GET || !path.starts_with(acme::HTTP_CHALLENGES) {
            return None;
        }
        let rules = self.rules.load_full();
        if rules.has_credential(&request.headers) {
            return None;
        }
        let content = rules.acme.as_ref()?.http_challenge(path).await?;
        let mut response = Response::new(Full::new(content.into()));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(last_of_connection(response))
    }

    /// The same target with https, if the host is configured: this must not be an open redirect.
    fn target(request: &Parts, rules: &RedirectRules) -> Option<HeaderValue> {
        let mut lines = request.headers.get_all(HOST).iter();
        let (line, None) = (lines.next()?, lines.next()) else {
            return None;
        };
        let authority = Authority::try_from(line.as_bytes()).ok()?;
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let domain = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        if !rules.hosts.contains(&host) && !domain.is_some_and(|domain| rules.hosts.contains(&domain)) {
            return None;
        }
        let path = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let path = if path.starts_with('/') { path } else { "/" };
        let port = match rules.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        HeaderValue::try_from(format!("https://{host}{port}{path}")).ok()
    }
}

/// Adds a request id. No further requests are read from the client.
fn last_of_connection(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, RequestId::random().to_header_value());
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn json_response(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    super::response(status, "application/json", body)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn answer(host: &str, target: &str, fields: &[(&str, &str)]) -> (u16, Option<String>) {
        let hosts = ["api.example", "*.wild.example"].map(str::to_owned).into();
        let rules = RedirectRules {
            port: 8443,
            hosts,
            credential_headers: vec![HeaderName::from_static("x-api-key")],
            acme: None,
        };
        let redirect = Redirect::new(rules);
        let mut request = Request::builder().uri(target).header(HOST, host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = redirect.answer(&request.body(()).expect("a request").into_parts().0);
        let to = response.headers().get(LOCATION);
        let to = to.map(|to| to.to_str().expect("ASCII").to_owned());
        (response.status().as_u16(), to)
    }

    #[test]
    fn only_configured_hosts_are_redirected_and_credentials_are_refused() {
        let to = |target: &str| Some(format!("https://api.example:8443{target}"));
        assert_eq!(answer("API.example.:80", "/x?y=1", &[]), (308, to("/x?y=1")));
        assert_eq!(
            answer("api.example", "//evil.example/x", &[]),
            (308, to("//evil.example/x"))
        );
        assert_eq!(answer("a.wild.example", "/", &[]).0, 308);
        for host in [
            "evil.example",
            "wild.example",
            "a.b.wild.example",
            "api.example@evil.example",
            "evil.example/api.example",
        ] {
            assert_eq!(answer(host, "/", &[]), (404, None), "{host}");
        }
        for (name, value) in [
            ("authorization", "Token canary"),
            ("X-Api-Key", "canary"),
            ("Sec-WebSocket-Protocol", "chat, authgate.bearer.canary"),
        ] {
            assert_eq!(answer("api.example", "/x", &[(name, value)]), (403, None));
        }
    }
}

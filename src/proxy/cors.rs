//! `cors` of a route (Fetch Standard, section 3.3): preflights pass without a credential, which browsers do not send with them, and our
//! own answers can be read by the applications that are listed. What upstreams answer is theirs.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request};

use crate::framing::grammar::is_method;
use crate::outbound::{hop, single};

/// What our own answers have that a browser would keep from an application.
const EXPOSED: HeaderValue = HeaderValue::from_static("WWW-Authenticate, Retry-After, X-Request-Id");

/// Which applications of browsers may read a route's refusals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cors {
    /// Their origins.
    pub origins: Origins,
    /// Whether they may send cookies.
    pub credentials: bool,
}

/// Origins of applications.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origins {
    /// All.
    Any,
    /// These.
    Listed(OriginList),
}

/// Origins that a file lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginList(pub Vec<HeaderValue>);

impl OriginList {
    /// The origin of a request, if it came once and is listed, byte for byte.
    pub(super) fn sent_with<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        single(headers, &ORIGIN).filter(|origin| self.0.contains(origin))
    }
}

impl Cors {
    /// The origin of a request, if it is listed.
    pub(super) fn origin<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        match &self.origins {
            Origins::Any => single(headers, &ORIGIN),
            Origins::Listed(origins) => origins.sent_with(headers),
        }
    }

    /// Whether a browser asks beforehand what it may send.
    pub(super) fn is_preflight<B>(&self, request: &Request<B>) -> bool {
        requested_method(request).is_some() && self.origin(request.headers()).is_some()
    }

    /// Lets an application of this origin read an answer.
    pub(super) fn mark(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let allowed = match self.origins {
            Origins::Any => HeaderValue::from_static("*"),
            Origins::Listed(_) => origin.clone(),
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The method that a preflight is about. `None`, and so an ordinary OPTIONS request: one about a method that no route lets pass, and one
/// whose own fields are named by `Connection`, which the upstream would not see.
pub(super) fn requested_method<B>(request: &Request<B>) -> Option<Method> {
    let headers = request.headers();
    if *request.method() != Method::OPTIONS
        || hop::is_named(headers, &ORIGIN)
        || hop::is_named(headers, &ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    single(headers, &ACCESS_CONTROL_REQUEST_METHOD)
        .filter(|method| method.as_bytes().iter().copied().all(is_method))
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .filter(|method| !matches!(*method, Method::CONNECT | Method::TRACE))
}

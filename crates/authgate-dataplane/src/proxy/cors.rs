//! The `cors` setting of a route (Fetch Standard, section 3.3). Preflights need no credential, because browsers send
//! none with them. Applications from listed origins can read the gateway's own responses. The gateway does not change
//! the CORS fields of upstream responses.

use authgate_http::framing::fields::single_value;
use authgate_http::framing::grammar::is_method;
use authgate_http::framing::hop_by_hop;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// The fields of the gateway's own responses that browsers hide from applications by default.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("WWW-Authenticate, Retry-After, X-Request-Id");

/// The browser applications that may read a route's refusals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cors {
    /// Their origins.
    pub origins: Origins,
    /// Whether they may send cookies.
    pub credentials: bool,
}

/// The origins of applications.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origins {
    /// All origins.
    Any,
    /// Only these origins.
    Listed(OriginList),
}

/// The origins that the file lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginList(pub Vec<HeaderValue>);

impl OriginList {
    /// The origin of a request, if the field has one line and its value is listed, byte for byte.
    pub(super) fn find<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        single_value(headers, &ORIGIN).filter(|origin| self.0.contains(origin))
    }
}

impl Cors {
    /// The origin of a request, if it is listed.
    pub(super) fn origin<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        match &self.origins {
            Origins::Any => single_value(headers, &ORIGIN),
            Origins::Listed(origins) => origins.find(headers),
        }
    }

    /// Whether the request is a preflight from a listed origin.
    pub(super) fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        requested_method(method, headers).is_some() && self.origin(headers).is_some()
    }

    /// Adds the fields that let an application from this origin read a response.
    pub(super) fn add_fields(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let allowed = match self.origins {
            Origins::Any => HeaderValue::from_static("*"),
            Origins::Listed(_) => origin.clone(),
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The method that a preflight asks about. `None` for an ordinary OPTIONS request. It is ordinary if it asks about a
/// method that no route permits. It is also ordinary if `Connection` names one of its CORS fields, because the upstream
/// would not receive that field.
pub(super) fn requested_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS
        || hop_by_hop::is_connection_option(headers, &ORIGIN)
        || hop_by_hop::is_connection_option(headers, &ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    single_value(headers, &ACCESS_CONTROL_REQUEST_METHOD)
        .filter(|method| method.as_bytes().iter().copied().all(is_method))
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .filter(|method| !matches!(*method, Method::CONNECT | Method::TRACE))
}

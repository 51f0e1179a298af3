//! [`RequestFacts`]: what a request says beside its credential, for tokens that are bound to a key or to a certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use authgate_core::outbound::peer::{Peer, Scheme};
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri};

use crate::confirmation::Thumbprint;

/// A request, as far as its authentication depends on it. It has references only: what only bound tokens need is read when it is needed.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'r> {
    /// The method that the client sent.
    pub method: &'r Method,
    /// The target.
    pub uri: &'r Uri,
    /// The fields.
    pub headers: &'r HeaderMap,
    /// They have the target as the client sent it, if it differs from `uri`.
    pub extensions: &'r Extensions,
    /// The requested host, as the client wrote it.
    pub host: &'r HeaderValue,
    /// The other end of the connection. If it is a trusted proxy, it says what the client has requested.
    pub peer: &'r Peer,
    /// SHA-256 of the certificate that the client has shown on this connection.
    pub certificate: Option<&'r Thumbprint>,
    /// The request was authenticated before, with the same fields: its proof was used then.
    pub is_repeated: bool,
}

/// A request for `https://localhost/`, for fuzzers, tests and benchmarks. It is not part of the library's public interface.
#[doc(hidden)]
#[derive(Debug)]
pub struct PlainRequest {
    uri: Uri,
    extensions: Extensions,
    host: HeaderValue,
    peer: Peer,
}

impl Default for PlainRequest {
    fn default() -> Self {
        Self {
            uri: Uri::from_static("/"),
            extensions: Extensions::new(),
            host: HeaderValue::from_static("localhost"),
            peer: Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST).into(), Scheme::Https, &Arc::default()),
        }
    }
}

impl PlainRequest {
    /// A GET with these fields.
    pub fn with<'r>(&'r self, headers: &'r HeaderMap) -> RequestFacts<'r> {
        RequestFacts {
            method: &Method::GET,
            uri: &self.uri,
            headers,
            extensions: &self.extensions,
            host: &self.host,
            peer: &self.peer,
            certificate: None,
            is_repeated: false,
        }
    }
}

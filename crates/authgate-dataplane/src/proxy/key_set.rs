//! The JWK Set with which applications verify signed identities: the answer of a route with `jwks = true`, and of `/jwks.json`.

use authgate_core::outbound::request_id::X_REQUEST_ID;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::admission::Permitted;
use super::outcome::Outcome;
use super::rejection::Rejection;
use super::websocket::Handshake;

/// RFC 7517, section 8.5.1.
pub const MEDIA_TYPE: &str = "application/jwk-set+json";
/// A key must be published for this long before it signs, or applications that follow the header refuse it for a moment.
pub const CACHEABLE: &str = "public, max-age=300";

/// The response with the key set.
///
/// # Errors
/// The request opens a tunnel, which a 2xx would do (RFC 8441, section 4).
pub(super) fn response(
    key_set: &Bytes,
    permitted: &Permitted<'_>,
    head: &Parts,
    outcome: &mut Outcome,
) -> Result<Response<Bytes>, Rejection> {
    if permitted
        .websocket
        .as_ref()
        .is_some_and(|websocket| websocket.handshake == Handshake::Http2)
    {
        return Err(Rejection::NotImplemented);
    }
    let mut response = Response::new(key_set.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHEABLE));
    headers.insert(X_REQUEST_ID, outcome.id().to_header_value());
    if head.method == Method::HEAD {
        // Keep the length that GET would have, and drop the content (RFC 9110, section 9.3.2).
        headers.insert(CONTENT_LENGTH, HeaderValue::from(key_set.len()));
        *response.body_mut() = Bytes::new();
    }
    outcome.answered_with_key_set(StatusCode::OK);
    Ok(response)
}

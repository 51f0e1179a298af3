//! WebSockets (RFC 6455; over HTTP/2, RFC 8441): the requests for them, and their handshakes.

use authgate_http::framing::fields::single_value;
use authgate_http::framing::hop_by_hop;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

const WEBSOCKET: &str = "websocket";

/// A request for a WebSocket.
#[derive(Debug, Clone, Copy)]
pub(super) struct WebSocketRequest {
    pub(super) handshake: Handshake,
    /// Whether the client offers the gateway's own subprotocol, so that the gateway may select it.
    pub(super) offers_gateway_subprotocol: bool,
}

/// How a request asks for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// `GET` with `Upgrade`.
    Http1,
    /// `CONNECT` with `:protocol`.
    Http2,
}

impl Handshake {
    /// How a request asks for a WebSocket. `None` if it does not, or if it can be read in more than one way.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        let headers = &head.headers;
        match head.version {
            Version::HTTP_11 => {
                let switches = head.method == Method::GET
                    && single_value(headers, &UPGRADE)
                        .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
                    && hop_by_hop::is_connection_option(headers, &UPGRADE)
                    && single_value(headers, &SEC_WEBSOCKET_KEY).is_some()
                    && !has_body(headers);
                switches.then_some(Self::Http1)
            }
            Version::HTTP_2 => is_extended_connect(head).then_some(Self::Http2),
            _ => None,
        }
    }
}

/// Whether a body follows the head of an HTTP/1.1 request (RFC 9112, section 6.3). The reader has checked both fields: a
/// length is one number.
fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    headers.contains_key(TRANSFER_ENCODING)
        || length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// RFC 8441, section 4.
pub(super) fn is_extended_connect(head: &Parts) -> bool {
    let protocol = head.extensions.get::<Protocol>();
    head.method == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Converts an HTTP/2 client's request to HTTP/1.1. The key is the gateway's own; the upstream's response must match
/// it.
pub(super) fn to_http1(head: &mut Parts) -> HeaderValue {
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    let key = STANDARD.encode(fastrand::u128(..).to_be_bytes());
    let key = HeaderValue::try_from(key).expect("base64 is visible ASCII");
    head.headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    head.headers
        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    key
}

/// Whether the response confirms the switch for this key (RFC 6455, section 4.2.2).
pub(super) fn is_confirmed<B>(response: &Response<B>, key: &HeaderValue) -> bool {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    let expected = STANDARD.encode(hash.finish());
    single_value(response.headers(), &SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == expected.as_str())
}

/// Prepares the response that switches protocols for an HTTP/1.1 client. Hop-by-hop fields were removed before.
pub(super) fn switch_http1<B>(response: &mut Response<B>) {
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// Prepares the response that opens the WebSocket for an HTTP/2 client.
pub(super) fn switch_http2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

//! WebSockets (RFC 6455; over HTTP/2, RFC 8441): the requests for them, and the tunnel between the two connections.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tracing::debug;

use super::outcome::Outcome;
use crate::outbound::{hop, single_value};
use crate::server;
use crate::upstream::{Tunnel, TunnelGuard};

const WEBSOCKET: &str = "websocket";
/// The buffer size for each direction.
const BUFFER: usize = 16 * 1024;

/// How a request asks for a WebSocket.
#[derive(Debug)]
pub(super) enum Asks {
    /// `GET` with `Upgrade`.
    Http1,
    /// `CONNECT` with `:protocol`.
    Http2,
}

/// How a request asks for a WebSocket. `None` if it does not, or if it can be read in more than one way.
pub(super) fn asks<B: http_body::Body>(request: &Request<B>) -> Option<Asks> {
    let headers = request.headers();
    match request.version() {
        Version::HTTP_11 => {
            let switches = *request.method() == Method::GET
                && request.body().is_end_stream()
                && single_value(headers, &UPGRADE)
                    .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
                && hop::is_connection_option(headers, &UPGRADE)
                && single_value(headers, &SEC_WEBSOCKET_KEY).is_some();
            switches.then_some(Asks::Http1)
        }
        Version::HTTP_2 => is_extended_connect(request).then_some(Asks::Http2),
        _ => None,
    }
}

/// RFC 8441, section 4.
pub(super) fn is_extended_connect<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    *request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Converts an HTTP/2 client's request to HTTP/1.1. The key is the gateway's own; the upstream's response must match
/// it.
pub(super) fn as_http1<B>(request: &mut Request<B>) -> HeaderValue {
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    let key = STANDARD.encode(fastrand::u128(..).to_be_bytes());
    let key = HeaderValue::try_from(key).expect("base64 is visible ASCII");
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
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

/// A WebSocket whose upstream half is open.
pub struct Switched {
    pub(super) tunnel: Tunnel,
    pub(super) held: TunnelGuard,
    pub(super) outcome: Outcome,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

impl server::handler::Tunnel for Switched {
    /// Copies bytes in both directions until both sides have ended or one has failed.
    async fn run<I: AsyncRead + AsyncWrite + Unpin>(self, mut client: I) {
        let Self {
            mut tunnel,
            held,
            mut outcome,
        } = self;
        match copy_bidirectional_with_sizes(&mut client, &mut tunnel, BUFFER, BUFFER).await {
            Ok((_, sent)) => {
                outcome.sent(usize::try_from(sent).unwrap_or(usize::MAX));
                outcome.completed();
            }
            Err(problem) => debug!(reason = %problem, "a WebSocket failed"),
        }
        drop(held);
    }
}

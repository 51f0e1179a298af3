//! WebSockets (RFC 6455; over HTTP/2, RFC 8441): who asks for one, and what becomes of the two connections once it is there.

use std::any::Any;
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
use crate::outbound::{hop, single};
use crate::upstream::{Held, Tunnel};

const WEBSOCKET: &str = "websocket";
/// What each direction holds of bytes that the other side does not take yet.
const BUFFER: usize = 16 * 1024;

/// How a request asks for a WebSocket.
#[derive(Debug)]
pub(super) enum Asks {
    /// `GET` with `Upgrade`.
    Http1,
    /// `CONNECT` with `:protocol`.
    Http2,
}

/// Whether a request asks for a WebSocket, in a way that can be read in one way only.
pub(super) fn asks<B: http_body::Body>(request: &Request<B>) -> Option<Asks> {
    let headers = request.headers();
    match request.version() {
        Version::HTTP_11 => {
            let switches = *request.method() == Method::GET
                && request.body().is_end_stream()
                && single(headers, &UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
                && hop::is_named(headers, &UPGRADE)
                && single(headers, &SEC_WEBSOCKET_KEY).is_some();
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

/// What an HTTP/2 client asks for, as HTTP/1.1 asks for it; the key is our own, and is what an upstream must answer.
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

/// Whether a switch was confirmed for this key (RFC 6455, section 4.2.2).
pub(super) fn is_confirmed<B>(response: &Response<B>, key: &HeaderValue) -> bool {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    let expected = STANDARD.encode(hash.finish());
    single(response.headers(), &SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == expected.as_str())
}

/// The head that tells an HTTP/1.1 client that its protocol is switched; hop-by-hop fields were taken out.
pub(super) fn switch_http1<B>(response: &mut Response<B>) {
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// The head that tells an HTTP/2 client the same.
pub(super) fn switch_http2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// A WebSocket whose upstream half is open.
pub struct Switched {
    pub(super) tunnel: Tunnel,
    pub(super) held: Held,
    pub(super) outcome: Outcome,
    /// Until it ends, its connection is busy.
    pub(super) busy: Box<dyn Any>,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

impl Switched {
    /// Passes bytes both ways until both sides have ended, or one has broken.
    pub async fn run<I: AsyncRead + AsyncWrite + Unpin>(self, mut client: I) {
        let Self {
            mut tunnel,
            held,
            mut outcome,
            busy,
        } = self;
        match copy_bidirectional_with_sizes(&mut client, &mut tunnel, BUFFER, BUFFER).await {
            Ok((_, sent)) => {
                outcome.sent(usize::try_from(sent).unwrap_or(usize::MAX));
                outcome.completed();
            }
            Err(problem) => debug!(reason = %problem, "a WebSocket broke"),
        }
        drop((held, busy));
    }
}

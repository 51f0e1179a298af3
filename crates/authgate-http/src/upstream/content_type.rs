//! What the media type of a message says about how it is forwarded.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Version};

use crate::framing::fields::single_value;

/// Whether the request is gRPC, which needs HTTP/2. Over HTTP/1 any client can send this `Content-Type`, so nothing may depend on it there.
pub fn is_grpc(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && is_grpc_type(single_value(headers, &CONTENT_TYPE))
}

/// Whether the media type is one of gRPC.
fn is_grpc_type(content_type: Option<&HeaderValue>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let parts = content_type.and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()));
    parts.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// The kind of a live stream: a response that may never end and is forwarded as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Server-sent events: `text/event-stream`.
    Events,
    /// gRPC.
    Grpc,
}

/// The kind of the live stream that the response is. `None`: it is another response.
pub(super) fn stream_kind(content_type: Option<&HeaderValue>) -> Option<StreamKind> {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let kind = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let is_events = kind
        .get(..EVENT_STREAM.len())
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
    match is_events {
        true => Some(StreamKind::Events),
        false => is_grpc_type(content_type).then_some(StreamKind::Grpc),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_recognized_by_its_content_type() {
        let is = |kind: &'static str| is_grpc_type(Some(&HeaderValue::from_static(kind)));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(is("Application/gRPC") && is("application/grpc\t; x=y"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_grpc_type(None));
    }
}

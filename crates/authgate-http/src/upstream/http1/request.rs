//! Writes the head of a request to a server (RFC 9112, sections 3 and 6).

use http::Method;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http_body::Body;

use crate::framing::header_case::{ConfiguredNames, HeaderCase, write_field};
use crate::framing::target::RawTarget;
use crate::transfer::message_writer::{self, Framing, write_content_length};
use crate::upstream::body::RequestBody;

/// A request that is being sent.
pub(super) type MessageWriter = message_writer::MessageWriter<RequestBody>;

/// Prepares a request for sending; `out` is a buffer to reuse.
pub(super) fn sending(
    mut out: Vec<u8>,
    head: &Parts,
    header_case: &HeaderCase,
    own_names: &ConfiguredNames,
    body: RequestBody,
) -> MessageWriter {
    out.clear();
    let framing = write_head(&mut out, head, header_case, own_names, &body);
    MessageWriter::new(out, (!body.is_end_stream()).then_some(body), framing)
}

/// Writes the request line and the fields. The fields for framing are not copied: they are generated here.
fn write_head(
    out: &mut Vec<u8>,
    head: &Parts,
    header_case: &HeaderCase,
    own_names: &ConfiguredNames,
    body: &RequestBody,
) -> Framing {
    let target = match head.extensions.get::<RawTarget>() {
        Some(exact) => exact.as_str(),
        None => head.uri.path_and_query().map_or("/", |target| target.as_str()),
    };
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    // Host comes first (RFC 9110, section 7.2). It is also the first field of most requests, so a linear search is cheaper than a look-up.
    if let Some((_, host)) = head.headers.iter().find(|(name, _)| **name == HOST) {
        write_field(out, b"Host", host);
    }
    let others = head
        .headers
        .iter()
        .filter(|(name, _)| **name != HOST && **name != CONTENT_LENGTH && **name != TRANSFER_ENCODING);
    header_case.write(out, others, Some(own_names));
    let length = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    let framing = match length {
        Some(length) => {
            // If the method expects a body, an empty one is announced too (RFC 9110, section 8.6).
            if length > 0 || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
                write_content_length(out, length);
            }
            Framing::Length(length)
        }
        None => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Framing::CHUNKED
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

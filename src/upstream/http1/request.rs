//! The head of a request, as it is written to a server (RFC 9112, sections 3 and 6).

use http::Method;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http_body::Body;

use crate::framing::target::Exact;
use crate::transfer::sending::{self, Framing, write_content_length, write_field};
use crate::upstream::body::RequestBody;

/// A request, as far as it has not left.
pub(super) type Sending = sending::Sending<RequestBody>;

/// A request that is to leave; `out` is a buffer to write in.
pub(super) fn sending(mut out: Vec<u8>, head: &Parts, body: RequestBody) -> Sending {
    out.clear();
    let framing = write_head(&mut out, head, &body);
    Sending::new(out, (!body.is_end_stream()).then_some(body), framing)
}

/// Writes the request line and the fields; the fields that frame the body are our own.
fn write_head(out: &mut Vec<u8>, head: &Parts, body: &RequestBody) -> Framing {
    let target = match head.extensions.get::<Exact>() {
        Some(exact) => exact.as_str(),
        None => head.uri.path_and_query().map_or("/", |target| target.as_str()),
    };
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    // First of all, as RFC 9110, section 7.2, wants it.
    if let Some(host) = head.headers.get(HOST) {
        write_field(out, &HOST, host);
    }
    for (name, value) in &head.headers {
        if *name != HOST && *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_field(out, name, value);
        }
    }
    let length = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    let framing = match length {
        Some(length) => {
            // Where a body is expected, its absence is said too (RFC 9110, section 8.6).
            if length > 0 || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
                write_content_length(out, length);
            }
            Framing::Length(length)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::CHUNKED
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

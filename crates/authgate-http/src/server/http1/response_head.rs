//! Writes the head of a response in HTTP/1 syntax (RFC 9112, sections 4, 6 and 9).

use std::iter;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use hyper::ext::ReasonPhrase;

use super::super::date;
use crate::framing::header_case::{HeaderCase, write_field};
use crate::framing::response::{Content, has_date, is_set_by_writer};
use crate::transfer::message_writer::{Framing, write_content_length};

/// What the head depends on besides the response.
#[derive(Debug)]
pub(super) struct ResponseContext {
    /// The client speaks HTTP/1.0: it has no chunked coding, so the close of the connection ends a body of unknown length.
    pub(super) is_http10: bool,
    /// The method is HEAD: no body follows.
    pub(super) is_head: bool,
    /// The connection may serve another request.
    pub(super) keeps_alive: bool,
    /// The length of the body, if it is known.
    pub(super) length: Option<u64>,
}

/// A 103 response with these fields (RFC 8297).
pub(super) fn early_hints(fields: &HeaderMap) -> Bytes {
    let mut out = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for (name, value) in fields {
        if !is_set_by_writer(name, StatusCode::EARLY_HINTS) {
            write_field(&mut out, name.as_str().as_bytes(), value);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// What the written head announces.
#[derive(Debug)]
pub(super) struct WrittenHead {
    pub(super) framing: Framing,
    /// A body follows.
    pub(super) has_body: bool,
    pub(super) keeps_alive: bool,
}

/// Writes the status line and the fields, with names as in `header_case`.
/// The fields for framing and for the connection are not copied: they are generated here.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    head: &Parts,
    header_case: &HeaderCase,
    context: &ResponseContext,
) -> WrittenHead {
    let (status, switches) = (head.status, head.status == StatusCode::SWITCHING_PROTOCOLS);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = head.extensions.get::<ReasonPhrase>();
    out.extend_from_slice(match reason {
        Some(reason) => reason.as_bytes(),
        None => status.canonical_reason().unwrap_or_default().as_bytes(),
    });
    out.extend_from_slice(b"\r\n");
    let mut dated = false;
    let fields = head.headers.iter().filter(|(name, _)| {
        dated |= **name == DATE;
        !is_set_by_writer(name, status)
    });
    header_case.write(out, fields, None);
    if !dated && has_date(status) {
        date::with(|date| write_field(out, b"Date", date));
    }
    let content = Content::for_status(status, context.is_head, context.length);
    let framing = match content {
        Content::Length(length) => {
            write_content_length(out, length);
            Framing::Length(length)
        }
        Content::Unknown if context.is_http10 => Framing::UntilClose,
        Content::Unknown => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Framing::CHUNKED
        }
        Content::Omitted => {
            if let Some(length) = head.headers.get(CONTENT_LENGTH) {
                header_case.write(out, iter::once((&CONTENT_LENGTH, length)), None);
            }
            Framing::Length(0)
        }
        Content::None => Framing::Length(0),
    };
    let keeps_alive = context.keeps_alive && framing != Framing::UntilClose;
    match (keeps_alive, context.is_http10) {
        _ if switches => {}
        (true, false) => {}
        (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    WrittenHead {
        framing,
        has_body: content.follows(),
        keeps_alive,
    }
}

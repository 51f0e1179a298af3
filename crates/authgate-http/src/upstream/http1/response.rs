//! Parses the head of a response: its end, its fields, and the framing of its body (RFC 9112, sections 4 to 6 and 9.3).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::ParserConfig;
use hyper::ext::ReasonPhrase;

use crate::framing::response::Content;

/// The limit of fields in a head. Applications set more fields than clients: cookies, policies, tracing.
const MAX_FIELDS: usize = 256;

/// The part of the response that is invalid or ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidHead(pub(super) &'static str);

/// A head, and what it announces about the body and the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// Whether the connection may serve another request.
    pub(super) keeps_alive: bool,
    /// How many seconds the server keeps the connection idle, if it has announced that (`Keep-Alive: timeout=`).
    pub(super) idle_limit: Option<u16>,
}

/// The kinds of a complete head.
#[derive(Debug)]
pub(super) enum ParsedHead {
    /// The head of a final response, or of a 101.
    Final(Head),
    /// A 103 (RFC 8297); another head follows.
    EarlyHints(HeaderMap),
    /// Another interim response (RFC 9110, section 15.2), which is dropped; another head follows.
    Interim,
}

/// How the body after the head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has this many bytes.
    Length(u64),
    Chunked,
    /// It ends when the connection ends.
    UntilClose,
}

/// Finds the end of the head at the start of `bytes`; `from`: the search begins here.
pub(super) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|at| {
        let after = from + at + 1;
        match bytes.get(after..)? {
            [b'\n', ..] => Some(after + 1),
            [b'\r', b'\n', ..] => Some(after + 2),
            _ => None,
        }
    })
}

impl Head {
    /// Parses a complete head.
    pub(super) fn parse(bytes: &Bytes, method: &Method) -> Result<ParsedHead, InvalidHead> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut read = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut read, bytes, &mut fields);
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(InvalidHead("malformed head")),
            Err(httparse::Error::TooManyHeaders) => return Err(InvalidHead("too many fields")),
            Err(_) => return Err(InvalidHead("malformed head")),
        }
        let status = read.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(InvalidHead("invalid status"))?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(match status {
                StatusCode::EARLY_HINTS => {
                    early_hints(bytes, read.headers).map_or(ParsedHead::Interim, ParsedHead::EarlyHints)
                }
                _ => ParsedHead::Interim,
            });
        }
        let mut headers = HeaderMap::with_capacity(read.headers.len());
        let mut framing_fields = FramingFields::default();
        for field in &*read.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_maybe_shared(slice(bytes, field.value));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(InvalidHead("invalid field"));
            };
            framing_fields.record(&name, field.value)?;
            headers.append(name, value);
        }
        if framing_fields.lengths > 1
            && let Some(length) = framing_fields.length
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let version = if read.version == Some(0) {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        let framing = framing_fields.framing(version, status, method)?;
        let keeps_alive = framing_fields.keeps_alive(version) && framing != Framing::UntilClose;
        let (mut parts, ()) = Response::new(()).into_parts();
        (parts.status, parts.version, parts.headers) = (status, version, headers);
        if let Some(reason) = read.reason.filter(|reason| status.canonical_reason() != Some(reason))
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            parts.extensions.insert(reason);
        }
        Ok(ParsedHead::Final(Self {
            parts,
            framing,
            keeps_alive,
            idle_limit: framing_fields.idle_limit,
        }))
    }
}

/// A slice of the head. An empty slice keeps its position, from which the case of the name is found; `slice_ref` would lose it.
fn slice(bytes: &Bytes, part: &[u8]) -> Bytes {
    let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    match part.is_empty() && start <= bytes.len() {
        true => bytes.slice(start..start),
        false => bytes.slice_ref(part),
    }
}

fn early_hints(bytes: &Bytes, read: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(read.len());
    for field in read {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(slice(bytes, field.value)).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}

/// What the fields of a head announce about framing and connection.
#[derive(Debug, Default)]
struct FramingFields {
    /// Several equal values are one length (RFC 9110, section 8.6), and are forwarded once.
    length: Option<u64>,
    lengths: usize,
    transfer_codings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    idle_limit: Option<u16>,
}

impl FramingFields {
    fn record(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), InvalidHead> {
        let members = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        match name.as_str() {
            "content-length" => {
                for member in members() {
                    let length = parse_digits(member).ok_or(InvalidHead("invalid Content-Length"))?;
                    if self.length.is_some_and(|before| before != length) {
                        return Err(InvalidHead("different values of Content-Length"));
                    }
                    self.length = Some(length);
                    self.lengths += 1;
                }
            }
            "transfer-encoding" => {
                self.transfer_codings += 1;
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            "connection" => {
                for member in members() {
                    self.close |= member.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // Only a hint: invalid values are ignored.
            "keep-alive" => {
                let seconds = members().find_map(|member| parse_digits(parameter(member, b"timeout")?));
                let seconds = seconds.map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX));
                self.idle_limit = seconds.or(self.idle_limit);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, section 6.3. Only one coding is accepted, `chunked`: with another one, the fields would not describe the decoded body.
    fn framing(&self, version: Version, status: StatusCode, method: &Method) -> Result<Framing, InvalidHead> {
        let has_no_body = !Content::for_status(status, *method == Method::HEAD, None).follows();
        match (self.transfer_codings, self.length) {
            (1.., Some(_)) => Err(InvalidHead("both Transfer-Encoding and Content-Length")),
            (2.., None) => Err(InvalidHead("unsupported Transfer-Encoding")),
            (1, None) if !self.chunked || version == Version::HTTP_10 => {
                Err(InvalidHead("unsupported Transfer-Encoding"))
            }
            _ if has_no_body => Ok(Framing::Length(0)),
            (_, Some(length)) => Ok(Framing::Length(length)),
            (1, None) => Ok(Framing::Chunked),
            (0, None) => Ok(Framing::UntilClose),
        }
    }

    /// RFC 9112, section 9.3.
    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// The value of `name=value`.
fn parameter<'w>(member: &'w [u8], name: &[u8]) -> Option<&'w [u8]> {
    let (before, after) = member.split_at_checked(name.len())?;
    let value = after.trim_ascii_start().strip_prefix(b"=")?;
    before.eq_ignore_ascii_case(name).then(|| value.trim_ascii_start())
}

fn parse_digits(member: &[u8]) -> Option<u64> {
    if member.is_empty() || !member.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(member).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_limit_is_read_from_keep_alive() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("Timeout = 15 , max=100", Some(15)),
            ("max=100, timeout=0", Some(0)),
            ("timeout=", None),
            ("timeout=-1", None),
            ("timeout=99999", Some(u16::MAX)),
            ("timeout=99999999999999999999", None),
            ("timeouts=5", None),
            ("5", None),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\nContent-Length: 0\r\n\r\n");
            let Ok(ParsedHead::Final(head)) = Head::parse(&head.into(), &Method::GET) else {
                panic!("a head: {value}")
            };
            assert_eq!(head.idle_limit, seconds, "{value}");
        }
    }
}

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
const MOST_FIELDS: usize = 256;

/// The part of the response that is invalid or ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoResponse(pub(super) &'static str);

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
pub(super) enum Read {
    /// The head of a final response, or of a 101.
    Response(Head),
    /// A 103 (RFC 8297); another head follows.
    Hints(HeaderMap),
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
        let behind = from + at + 1;
        match bytes.get(behind..)? {
            [b'\n', ..] => Some(behind + 1),
            [b'\r', b'\n', ..] => Some(behind + 2),
            _ => None,
        }
    })
}

impl Head {
    /// Parses a complete head.
    pub(super) fn parse(bytes: &Bytes, method: &Method) -> Result<Read, NoResponse> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut read = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut read, bytes, &mut fields);
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(NoResponse("its head")),
            Err(httparse::Error::TooManyHeaders) => return Err(NoResponse("too many fields")),
            Err(_) => return Err(NoResponse("its head")),
        }
        let status = read.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(NoResponse("its status"))?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(match status {
                StatusCode::EARLY_HINTS => hints(bytes, read.headers).map_or(Read::Interim, Read::Hints),
                _ => Read::Interim,
            });
        }
        let mut headers = HeaderMap::with_capacity(read.headers.len());
        let mut said = Said::default();
        for field in &*read.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_maybe_shared(part(bytes, field.value));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(NoResponse("a field"));
            };
            said.note(&name, field.value)?;
            headers.append(name, value);
        }
        if said.lengths > 1
            && let Some(length) = said.length
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let version = if read.version == Some(0) {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        let framing = said.framing(version, status, method)?;
        let keeps_alive = said.keeps_alive(version) && framing != Framing::UntilClose;
        let (mut parts, ()) = Response::new(()).into_parts();
        (parts.status, parts.version, parts.headers) = (status, version, headers);
        if let Some(reason) = read.reason.filter(|reason| status.canonical_reason() != Some(reason))
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            parts.extensions.insert(reason);
        }
        Ok(Read::Response(Self {
            parts,
            framing,
            keeps_alive,
            idle_limit: said.idle_limit,
        }))
    }
}

/// A slice of the head. An empty slice keeps its position, from which the case of the name is found; `slice_ref` would lose it.
fn part(bytes: &Bytes, part: &[u8]) -> Bytes {
    let begin = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    match part.is_empty() && begin <= bytes.len() {
        true => bytes.slice(begin..begin),
        false => bytes.slice_ref(part),
    }
}

fn hints(bytes: &Bytes, read: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(read.len());
    for field in read {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(part(bytes, field.value)).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}

/// What the fields of a head announce about framing and connection.
#[derive(Debug, Default)]
struct Said {
    /// Several equal values are one length (RFC 9110, section 8.6), and are forwarded once.
    length: Option<u64>,
    lengths: usize,
    codings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    idle_limit: Option<u16>,
}

impl Said {
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), NoResponse> {
        let words = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        match name.as_str() {
            "content-length" => {
                for word in words() {
                    let length = digits(word).ok_or(NoResponse("Content-Length"))?;
                    if self.length.is_some_and(|before| before != length) {
                        return Err(NoResponse("several Content-Length"));
                    }
                    self.length = Some(length);
                    self.lengths += 1;
                }
            }
            "transfer-encoding" => {
                self.codings += 1;
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            "connection" => {
                for word in words() {
                    self.close |= word.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // Only a hint: invalid values are ignored.
            "keep-alive" => {
                let seconds = words().find_map(|word| digits(parameter(word, b"timeout")?));
                let seconds = seconds.map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX));
                self.idle_limit = seconds.or(self.idle_limit);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, section 6.3. Only one coding is accepted, `chunked`: with another one, the fields would not describe the decoded body.
    fn framing(&self, version: Version, status: StatusCode, method: &Method) -> Result<Framing, NoResponse> {
        let bodiless = !Content::for_status(status, *method == Method::HEAD, None).follows();
        match (self.codings, self.length) {
            (1.., Some(_)) => Err(NoResponse("Transfer-Encoding beside Content-Length")),
            (2.., None) => Err(NoResponse("Transfer-Encoding")),
            (1, None) if !self.chunked || version == Version::HTTP_10 => Err(NoResponse("Transfer-Encoding")),
            _ if bodiless => Ok(Framing::Length(0)),
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
fn parameter<'w>(word: &'w [u8], name: &[u8]) -> Option<&'w [u8]> {
    let (before, behind) = word.split_at_checked(name.len())?;
    let value = behind.trim_ascii_start().strip_prefix(b"=")?;
    before.eq_ignore_ascii_case(name).then(|| value.trim_ascii_start())
}

fn digits(word: &[u8]) -> Option<u64> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_server_keeps_a_connection_is_read_from_keep_alive() {
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
            let Ok(Read::Response(head)) = Head::parse(&head.into(), &Method::GET) else {
                panic!("a head: {value}")
            };
            assert_eq!(head.idle_limit, seconds, "{value}");
        }
    }
}

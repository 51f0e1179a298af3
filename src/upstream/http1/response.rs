//! The head of a response: where it ends, what it says, and how the body behind it is framed (RFC 9112, sections 4 to 6 and 9.3).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::ParserConfig;
use hyper::ext::ReasonPhrase;

use crate::framing::response::Content;

/// Most fields of a head. Applications set more than clients do: cookies, policies, tracing.
const MOST_FIELDS: usize = 256;

/// What came in place of a response that can be read in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoResponse(pub(super) &'static str);

/// A head, and what it says of what comes behind it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// Whether the connection may serve another request.
    pub(super) keeps_alive: bool,
    /// How many seconds its server leaves it idle, if it has announced that (`Keep-Alive: timeout=`).
    pub(super) idle_limit: Option<u16>,
}

/// What a head that is whole is.
#[derive(Debug)]
pub(super) enum Read {
    /// That of a response.
    Response(Head),
    /// That of a 103 (RFC 8297); another one comes.
    Hints(HeaderMap),
    /// That of another interim response (RFC 9110, section 15.2), which is dropped; another one comes.
    Interim,
}

/// How the body behind a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has so many bytes.
    Length(u64),
    Chunked,
    /// It is whatever comes before the connection ends.
    UntilClose,
}

/// Where the head at the start of `bytes` ends; none of its end lies before `from`.
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
    /// Reads a head that is whole.
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

/// A part of the head. Also one that is empty keeps its place, which leads to its name; `slice_ref` forgets that.
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

/// What the fields of a head say of its framing and of the connection.
#[derive(Debug, Default)]
struct Said {
    /// Said several times with the same digits it is one length (RFC 9110, section 8.6), and travels once.
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
            // No more than a hint: what is not understood is left.
            "keep-alive" => {
                let seconds = words().find_map(|word| digits(parameter(word, b"timeout")?));
                let seconds = seconds.map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX));
                self.idle_limit = seconds.or(self.idle_limit);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, section 6.3. No coding but `chunked`, once: with another one, what comes is not what the fields describe.
    fn framing(&self, version: Version, status: StatusCode, method: &Method) -> Result<Framing, NoResponse> {
        let bodiless = !Content::of(status, *method == Method::HEAD, None).follows();
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

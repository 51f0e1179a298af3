//! The head of a response: where it ends, what it says, and how the body behind it is framed (RFC 9112, sections 4 to 6 and 9.3).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::ParserConfig;
use hyper::ext::ReasonPhrase;

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
    /// Reads a head that is whole. `None`: it is an interim one, and another one comes (RFC 9110, section 15.2).
    pub(super) fn parse(bytes: &Bytes, method: &Method) -> Result<Option<Self>, NoResponse> {
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
            return Ok(None);
        }
        let mut headers = HeaderMap::with_capacity(read.headers.len());
        for field in &*read.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(NoResponse("a field"));
            };
            headers.append(name, value);
        }
        let version = if read.version == Some(0) {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        let framing = framing(&mut headers, version, status, method)?;
        let keeps_alive = keeps_alive(&headers, version) && framing != Framing::UntilClose;
        let (mut parts, ()) = Response::new(()).into_parts();
        (parts.status, parts.version, parts.headers) = (status, version, headers);
        if let Some(reason) = read.reason.filter(|reason| status.canonical_reason() != Some(reason))
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            parts.extensions.insert(reason);
        }
        Ok(Some(Self {
            parts,
            framing,
            keeps_alive,
        }))
    }
}

/// RFC 9112, section 6.3.
fn framing(
    headers: &mut HeaderMap,
    version: Version,
    status: StatusCode,
    method: &Method,
) -> Result<Framing, NoResponse> {
    let length = length(headers)?;
    let chunked = is_chunked(headers, version)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match (length, chunked) {
        (Some(_), true) => Err(NoResponse("Transfer-Encoding beside Content-Length")),
        _ if bodiless => Ok(Framing::Length(0)),
        (Some(length), false) => Ok(Framing::Length(length)),
        (None, true) => Ok(Framing::Chunked),
        (None, false) => Ok(Framing::UntilClose),
    }
}

/// The length that is announced. Said several times with the same digits it is one length (RFC 9110, section 8.6), and travels once.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, NoResponse> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let mut count = 0;
    let mut length = None;
    for word in std::iter::once(first)
        .chain(lines)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
    {
        let read = digits(word.trim_ascii()).ok_or(NoResponse("Content-Length"))?;
        if length.is_some_and(|length| length != read) {
            return Err(NoResponse("several Content-Length"));
        }
        length = Some(read);
        count += 1;
    }
    if count > 1
        && let Some(length) = length
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

fn digits(word: &[u8]) -> Option<u64> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Only `chunked`, once: with another coding, what comes is not what the fields describe.
fn is_chunked(headers: &HeaderMap, version: Version) -> Result<bool, NoResponse> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(true)
        }
        _ => Err(NoResponse("Transfer-Encoding")),
    }
}

/// RFC 9112, section 9.3.
fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    let names = |option: &[u8]| {
        let mut words = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(option))
    };
    match version {
        _ if !headers.contains_key(CONNECTION) => version == Version::HTTP_11,
        Version::HTTP_11 => !names(b"close"),
        _ => names(b"keep-alive") && !names(b"close"),
    }
}

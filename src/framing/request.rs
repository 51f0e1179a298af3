//! Reads the head of a request (RFC 9112, sections 2 to 6): once, strictly, and only if there is a single way to read
//! it.
//!
//! Bytes may arrive in pieces of any size. The reader reads each byte only once. It refuses a head at the first wrong
//! byte, however the bytes were split.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};

use super::body::Rest;
use super::grammar::{Fault, is_method, is_target, is_token, is_value, malformed, run};
use super::said::{Name, Said};
use super::target;

/// Limits for request heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The maximum number of bytes of the request line and all fields.
    pub(crate) bytes: usize,
    /// The maximum number of fields.
    pub(crate) fields: usize,
}

/// The longest target; a little less than the limit of `Uri`.
const LONGEST_TARGET: usize = 60_000;
/// The longest method. No registered method has more than half of this length.
const LONGEST_METHOD: usize = 64;
/// The longest field name. No registered name has more than 40 bytes.
const LONGEST_NAME: usize = 8 * 1024;
const LOWERCASE: &str = "a lowercase letter in its method";
/// Capacity for the fields that the gateway adds, so that the map need not grow.
const MORE_FIELDS: usize = 12;

/// Reads one head after the other, and reuses its buffers.
#[derive(Debug)]
pub(crate) struct HeadReader {
    bounds: Bounds,
    state: State,
    /// Whether an empty line was skipped. The reader accepts one (RFC 9112, section 2.2), and no more.
    empty_line: bool,
    /// The position of the next byte. All bytes before it are valid. Invariant: `begun <= at`.
    at: usize,
    /// The start of the current part: a method, a target, a name or a value.
    begun: usize,
    method: Span,
    target: Span,
    minor: u8,
    fields: Vec<(Span, Span)>,
    said: Said,
}

/// A range of bytes in the head.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    begin: usize,
    end: usize,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.begin..self.end).unwrap_or_default()
    }

    fn slice(self, bytes: &Bytes) -> Bytes {
        bytes.slice(self.begin..self.end)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a method.
    Before,
    Method,
    /// Before the first byte of a target.
    Target,
    Path,
    Query,
    /// In a target that does not begin with `/`.
    OtherTarget,
    Version,
    FieldStart,
    Name,
    /// In the value of this field.
    Value(Name),
}

/// A request head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// The request, without its body.
    pub(crate) request: Request<()>,
    /// The body that follows.
    pub(crate) rest: Rest,
    /// Whether the client allows another request on the connection.
    pub(crate) keeps_alive: bool,
    /// Whether the client waits for a `100 Continue` (RFC 9110, section 10.1.1).
    pub(crate) expects_continue: bool,
}

impl HeadReader {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::Before,
            empty_line: false,
            at: 0,
            begun: 0,
            method: Span::default(),
            target: Span::default(),
            minor: 0,
            fields: Vec::new(),
            said: Said::default(),
        }
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn has_begun(&self) -> bool {
        self.state != State::Before
    }

    /// Continues to read. `bytes` are all received bytes after the previous message. Once the head is complete, it
    /// returns the position of its end; the caller must then [take](Self::take) the head.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        loop {
            let next = match self.state {
                State::Before => self.before(bytes)?,
                State::Method => self.method(bytes)?,
                State::Target | State::Path | State::Query | State::OtherTarget => self.target(bytes)?,
                State::Version => self.version(bytes)?,
                State::FieldStart => match bytes.get(self.at) {
                    Some(b'\r') => {
                        return match self.line_end(bytes)? {
                            true => self.said.agrees(self.minor).map(|()| Some(self.at)),
                            false => Ok(None),
                        };
                    }
                    _ => self.field_start(bytes)?,
                },
                State::Name => self.name(bytes)?,
                State::Value(name) => self.value(bytes, name)?,
            };
            match next {
                Some(next) => self.state = next,
                None => return Ok(None),
            }
        }
    }

    /// Skips an empty line and finds the first byte of the method.
    fn before(&mut self, bytes: &[u8]) -> Result<Option<State>, Fault> {
        let first = match bytes.get(self.at..).unwrap_or_default() {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if !self.empty_line => {
                self.empty_line = true;
                self.at += 2;
                return Ok(Some(State::Before));
            }
            [b'\r', other, ..] if *other != b'\n' => return malformed("a bare CR before it"),
            [first, ..] => *first,
        };
        if !is_method(first) {
            return malformed(match first.is_ascii_lowercase() {
                true => LOWERCASE,
                false => "it does not begin with a method",
            });
        }
        self.begun = self.at;
        self.method.begin = self.at;
        Ok(Some(State::Method))
    }

    /// Skips bytes for which `such` is true: at most `most` bytes from `begun`, and within the limit of the head.
    /// Returns the next byte, if it has arrived. Fails with `full` if that byte is beyond the limit.
    fn pass(&mut self, bytes: &[u8], such: impl Fn(u8) -> bool, most: usize, full: Fault) -> Result<Option<u8>, Fault> {
        let end = (self.begun.saturating_add(most)).min(self.method.begin + self.bounds.bytes);
        let window = bytes.get(self.at..end.min(bytes.len())).unwrap_or_default();
        self.at += run(window, such);
        match bytes.get(self.at) {
            Some(_) if self.at >= end => Err(full),
            byte => Ok(byte.copied()),
        }
    }

    fn method(&mut self, bytes: &[u8]) -> Result<Option<State>, Fault> {
        let wrong = Fault::Malformed("its method");
        match self.pass(bytes, is_method, LONGEST_METHOD, wrong)? {
            None => Ok(None),
            Some(b' ') => {
                self.method.end = self.at;
                self.begin_at(self.at + 1);
                Ok(Some(State::Target))
            }
            Some(byte) if byte.is_ascii_lowercase() => malformed(LOWERCASE),
            Some(_) => Err(wrong),
        }
    }

    fn begin_at(&mut self, at: usize) {
        (self.at, self.begun) = (at, at);
    }

    fn target(&mut self, bytes: &[u8]) -> Result<Option<State>, Fault> {
        let (most, full) = (LONGEST_TARGET, Fault::TargetTooLong);
        let byte = match self.state {
            State::Target => self.pass(bytes, |_| false, most, full)?,
            State::Path => self.pass(bytes, is_path, most, full)?,
            _ => self.pass(bytes, is_target, most, full)?,
        };
        let Some(byte) = byte else { return Ok(None) };
        let next = match (self.state, byte) {
            (State::Target, b' ') => return malformed("it has no target"),
            (State::Target, b'/') => State::Path,
            (State::Target, byte) if is_target(byte) => State::OtherTarget,
            (State::Path, b'?') => State::Query,
            (State::Path | State::Query | State::OtherTarget, b' ') => {
                self.target = Span {
                    begin: self.begun,
                    end: self.at,
                };
                // `*`, an absolute URI or an authority: check now that it can be parsed.
                if self.state == State::OtherTarget {
                    let whole = Bytes::copy_from_slice(self.target.of(bytes));
                    target::read(&whole, 0..whole.len())?;
                }
                self.begin_at(self.at + 1);
                return Ok(Some(State::Version));
            }
            _ => return malformed("its target"),
        };
        if next == State::Query {
            self.at += 1;
        }
        Ok(Some(next))
    }

    fn version(&mut self, bytes: &[u8]) -> Result<Option<State>, Fault> {
        const VERSION: &[u8] = b"HTTP/1.";
        let line = bytes.get(self.begun..).unwrap_or_default();
        for (at, byte) in line.iter().enumerate() {
            match (VERSION.get(at), at - VERSION.len().min(at), byte) {
                (Some(wanted), _, byte) if wanted == byte => {}
                (None, 0, b'0' | b'1') => self.minor = byte - b'0',
                (Some(_), ..) | (None, 0, _) => return malformed("its version"),
                (None, 1, b'\r') => {}
                (None, 2, b'\n') => {
                    self.begin_at(self.begun + at + 1);
                    return Ok(Some(State::FieldStart));
                }
                _ => return malformed("the end of its first line"),
            }
        }
        Ok(None)
    }

    /// Reads a line end, and returns whether it is complete. The caller has checked that `at` is a CR.
    fn line_end(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        let Some(behind) = bytes.get(self.at + 1) else {
            return Ok(false);
        };
        if *behind != b'\n' {
            return malformed("a bare CR");
        }
        if self.at + 2 > self.method.begin + self.bounds.bytes {
            return Err(Fault::HeadTooLarge);
        }
        self.begin_at(self.at + 2);
        Ok(true)
    }

    fn field_start(&mut self, bytes: &[u8]) -> Result<Option<State>, Fault> {
        match bytes.get(self.at) {
            None => Ok(None),
            Some(_) if self.at >= self.method.begin + self.bounds.bytes => Err(Fault::HeadTooLarge),
            Some(b' ' | b'\t') => malformed("a folded line"),
            Some(byte) if is_token(*byte) => match self.fields.len() < self.bounds.fields {
                true => Ok(Some(State::Name)),
                false => Err(Fault::HeadTooLarge),
            },
            Some(_) => malformed("a field's name"),
        }
    }

    fn name(&mut self, bytes: &[u8]) -> Result<Option<State>, Fault> {
        match self.pass(bytes, is_token, LONGEST_NAME, Fault::HeadTooLarge)? {
            None => return Ok(None),
            Some(b':') => {}
            Some(_) => return malformed("a field's name"),
        }
        let span = Span {
            begin: self.begun,
            end: self.at,
        };
        let name = Name::of(span.of(bytes));
        self.said.begin(name)?;
        self.fields.push((span, Span::default()));
        self.begin_at(self.at + 1);
        Ok(Some(State::Value(name)))
    }

    fn value(&mut self, bytes: &[u8], name: Name) -> Result<Option<State>, Fault> {
        match self.pass(bytes, is_value, usize::MAX, Fault::HeadTooLarge)? {
            None => return Ok(None),
            Some(b'\r') => {}
            Some(b'\n') => return malformed("a bare LF"),
            Some(_) => return malformed("a control character"),
        }
        let (begun, end) = (self.begun, self.at);
        if !self.line_end(bytes)? {
            return Ok(None);
        }
        let whole = bytes.get(begun..end).unwrap_or_default();
        let leading = whole.iter().take_while(|byte| is_blank(**byte)).count();
        let trailing = whole[leading..]
            .iter()
            .rev()
            .take_while(|byte| is_blank(**byte))
            .count();
        let span = Span {
            begin: begun + leading,
            end: end - trailing,
        };
        if let Some((_, value)) = self.fields.last_mut() {
            *value = span;
        }
        if name != Name::Other {
            self.said.note(name, span.of(bytes))?;
        }
        Ok(Some(State::FieldStart))
    }

    /// Takes the head that [`read`](Self::read) has found complete, and prepares for the next one. `bytes` are exactly
    /// this head.
    pub(crate) fn take(&mut self, bytes: &Bytes) -> Result<RequestHead, Fault> {
        let Self {
            method,
            target,
            minor,
            said,
            ..
        } = *self;
        let method = Method::from_bytes(method.of(bytes)).or(malformed("its method"))?;
        let (uri, exact) = target::read(bytes, target.begin..target.end)?;
        let full = Fault::HeadTooLarge;
        let mut headers = HeaderMap::try_with_capacity(self.fields.len() + MORE_FIELDS).map_err(|_| full)?;
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.of(bytes)).or(malformed("a field's name"))?;
            let value = HeaderValue::from_maybe_shared(value.slice(bytes)).or(malformed("a field's value"))?;
            headers.try_append(name, value).map_err(|_| full)?;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.headers, parts.uri) = (method, headers, uri);
        if let Some(exact) = exact {
            parts.extensions.insert(exact);
        }
        parts.version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let head = RequestHead {
            request: Request::from_parts(parts, ()),
            rest: said.rest(),
            keeps_alive: said.keeps_alive(minor),
            expects_continue: said.expects_continue(minor),
        };
        self.again();
        Ok(head)
    }

    fn again(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::new(self.bounds)
        };
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a byte is allowed in a path after its first `/`.
fn is_path(byte: u8) -> bool {
    is_target(byte) && byte != b'?'
}

#[cfg(test)]
mod tests;

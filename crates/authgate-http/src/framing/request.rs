//! Reads the head of a request (RFC 9112, sections 2 to 6): once, strictly, and only if there is a single way to read
//! it.
//!
//! Bytes may arrive in pieces of any size. The reader reads each byte only once. It refuses a head at the first wrong
//! byte, however the bytes were split.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};

use super::body::RemainingBody;
use super::framing_fields::{FramingFields, KnownField};
use super::grammar::{ParseError, is_method, is_target, is_token, is_value, malformed, prefix_length};
use super::target;

/// Limits for request heads.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The maximum number of bytes of the request line and all fields.
    pub bytes: usize,
    /// The maximum number of fields.
    pub fields: usize,
}

/// The longest target; a little less than the limit of `Uri`.
const MAX_TARGET_BYTES: usize = 60_000;
/// The longest method. No registered method has more than half of this length.
const MAX_METHOD_BYTES: usize = 64;
/// The longest field name. No registered name has more than 40 bytes.
const MAX_NAME_BYTES: usize = 8 * 1024;
const LOWERCASE_METHOD: &str = "a lowercase letter in its method";
/// Capacity for the fields that the gateway adds, so that the map need not grow.
const ADDED_FIELDS: usize = 12;

/// Reads one head after the other, and reuses its buffers.
#[derive(Debug)]
pub struct HeadReader {
    limits: HeadLimits,
    state: State,
    /// The position of the next byte. All bytes before it are valid. Invariant: `part_start <= position`.
    position: usize,
    /// The start of the current part: a method, a target, a name or a value.
    part_start: usize,
    method: Span,
    target: Span,
    minor: u8,
    fields: Vec<(Span, Span)>,
    framing: FramingFields,
}

/// A range of bytes in the head.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn slice(self, bytes: &Bytes) -> Bytes {
        bytes.slice(self.start..self.end)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a method. One empty line is accepted here (RFC 9112, section 2.2).
    Start,
    /// The same, after the empty line. No other is accepted.
    StartAfterEmptyLine,
    Method,
    /// Before the first byte of a target.
    TargetStart,
    Path,
    Query,
    /// In a target that does not begin with `/`.
    OtherTarget,
    Version,
    FieldStart,
    Name,
    /// In the value of this field.
    Value(KnownField),
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead {
    /// The request, without its body.
    pub request: Request<()>,
    /// The body that follows.
    pub body: RemainingBody,
    /// Whether the client allows another request on the connection.
    pub keeps_alive: bool,
    /// Whether the client waits for a `100 Continue` (RFC 9110, section 10.1.1).
    pub expects_continue: bool,
}

impl HeadReader {
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::Start,
            position: 0,
            part_start: 0,
            method: Span::default(),
            target: Span::default(),
            minor: 0,
            fields: Vec::new(),
            framing: FramingFields::default(),
        }
    }

    /// Whether a head has started and not ended.
    pub fn has_started(&self) -> bool {
        !matches!(self.state, State::Start | State::StartAfterEmptyLine)
    }

    /// Continues to read. `bytes` are all received bytes after the previous message. Once the head is complete, it
    /// returns the position of its end; the caller must then [take](Self::take) the head.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, ParseError> {
        loop {
            let next = match self.state {
                State::Start | State::StartAfterEmptyLine => self.skip_to_method(bytes)?,
                State::Method => self.read_method(bytes)?,
                State::TargetStart | State::Path | State::Query | State::OtherTarget => self.read_target(bytes)?,
                State::Version => self.read_version(bytes)?,
                State::FieldStart => match bytes.get(self.position) {
                    Some(b'\r') => {
                        return match self.read_line_end(bytes)? {
                            true => self.framing.check(self.minor).map(|()| Some(self.position)),
                            false => Ok(None),
                        };
                    }
                    _ => self.read_field_start(bytes)?,
                },
                State::Name => self.read_name(bytes)?,
                State::Value(name) => self.read_value(bytes, name)?,
            };
            match next {
                Some(next) => self.state = next,
                None => return Ok(None),
            }
        }
    }

    /// Skips an empty line and finds the first byte of the method.
    fn skip_to_method(&mut self, bytes: &[u8]) -> Result<Option<State>, ParseError> {
        let first = match bytes.get(self.position..).unwrap_or_default() {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if self.state == State::Start => {
                self.position += 2;
                return Ok(Some(State::StartAfterEmptyLine));
            }
            [b'\r', other, ..] if *other != b'\n' => return malformed("a bare CR before it"),
            [first, ..] => *first,
        };
        if !is_method(first) {
            return malformed(match first.is_ascii_lowercase() {
                true => LOWERCASE_METHOD,
                false => "it does not begin with a method",
            });
        }
        self.part_start = self.position;
        self.method.start = self.position;
        Ok(Some(State::Method))
    }

    /// Skips bytes for which `allowed` is true: at most `max` bytes from `part_start`, and within the limit of the head.
    /// Returns the next byte, if it has arrived. Fails with `too_large` if that byte is beyond the limit.
    fn skip_while(
        &mut self,
        bytes: &[u8],
        allowed: impl Fn(u8) -> bool,
        max: usize,
        too_large: ParseError,
    ) -> Result<Option<u8>, ParseError> {
        let end = (self.part_start.saturating_add(max)).min(self.method.start + self.limits.bytes);
        let window = bytes.get(self.position..end.min(bytes.len())).unwrap_or_default();
        self.position += prefix_length(window, allowed);
        match bytes.get(self.position) {
            Some(_) if self.position >= end => Err(too_large),
            byte => Ok(byte.copied()),
        }
    }

    fn read_method(&mut self, bytes: &[u8]) -> Result<Option<State>, ParseError> {
        let malformed_method = ParseError::Malformed("its method");
        match self.skip_while(bytes, is_method, MAX_METHOD_BYTES, malformed_method)? {
            None => Ok(None),
            Some(b' ') => {
                self.method.end = self.position;
                self.start_part_at(self.position + 1);
                Ok(Some(State::TargetStart))
            }
            Some(byte) if byte.is_ascii_lowercase() => malformed(LOWERCASE_METHOD),
            Some(_) => Err(malformed_method),
        }
    }

    fn start_part_at(&mut self, position: usize) {
        (self.position, self.part_start) = (position, position);
    }

    fn read_target(&mut self, bytes: &[u8]) -> Result<Option<State>, ParseError> {
        let (max, too_large) = (MAX_TARGET_BYTES, ParseError::TargetTooLong);
        let byte = match self.state {
            State::TargetStart => self.skip_while(bytes, |_| false, max, too_large)?,
            State::Path => self.skip_while(bytes, is_path, max, too_large)?,
            _ => self.skip_while(bytes, is_target, max, too_large)?,
        };
        let Some(byte) = byte else { return Ok(None) };
        let next = match (self.state, byte) {
            (State::TargetStart, b' ') => return malformed("it has no target"),
            (State::TargetStart, b'/') => State::Path,
            (State::TargetStart, byte) if is_target(byte) => State::OtherTarget,
            (State::Path, b'?') => State::Query,
            (State::Path | State::Query | State::OtherTarget, b' ') => {
                self.target = Span {
                    start: self.part_start,
                    end: self.position,
                };
                // `*`, an absolute URI or an authority: check now that it can be parsed.
                if self.state == State::OtherTarget {
                    let whole = Bytes::copy_from_slice(self.target.of(bytes));
                    target::read(&whole, 0..whole.len())?;
                }
                self.start_part_at(self.position + 1);
                return Ok(Some(State::Version));
            }
            _ => return malformed("its target"),
        };
        if next == State::Query {
            self.position += 1;
        }
        Ok(Some(next))
    }

    fn read_version(&mut self, bytes: &[u8]) -> Result<Option<State>, ParseError> {
        const VERSION: &[u8] = b"HTTP/1.";
        let line = bytes.get(self.part_start..).unwrap_or_default();
        for (offset, byte) in line.iter().enumerate() {
            match (VERSION.get(offset), offset - VERSION.len().min(offset), byte) {
                (Some(expected), _, byte) if expected == byte => {}
                (None, 0, b'0' | b'1') => self.minor = byte - b'0',
                (Some(_), ..) | (None, 0, _) => return malformed("its version"),
                (None, 1, b'\r') => {}
                (None, 2, b'\n') => {
                    self.start_part_at(self.part_start + offset + 1);
                    return Ok(Some(State::FieldStart));
                }
                _ => return malformed("the end of its first line"),
            }
        }
        Ok(None)
    }

    /// Reads a line end, and returns whether it is complete. The caller has checked that a CR is at `position`.
    fn read_line_end(&mut self, bytes: &[u8]) -> Result<bool, ParseError> {
        let Some(next) = bytes.get(self.position + 1) else {
            return Ok(false);
        };
        if *next != b'\n' {
            return malformed("a bare CR");
        }
        if self.position + 2 > self.method.start + self.limits.bytes {
            return Err(ParseError::HeadTooLarge);
        }
        self.start_part_at(self.position + 2);
        Ok(true)
    }

    fn read_field_start(&mut self, bytes: &[u8]) -> Result<Option<State>, ParseError> {
        match bytes.get(self.position) {
            None => Ok(None),
            Some(_) if self.position >= self.method.start + self.limits.bytes => Err(ParseError::HeadTooLarge),
            Some(b' ' | b'\t') => malformed("a folded line"),
            Some(byte) if is_token(*byte) => match self.fields.len() < self.limits.fields {
                true => Ok(Some(State::Name)),
                false => Err(ParseError::HeadTooLarge),
            },
            Some(_) => malformed("a field's name"),
        }
    }

    fn read_name(&mut self, bytes: &[u8]) -> Result<Option<State>, ParseError> {
        match self.skip_while(bytes, is_token, MAX_NAME_BYTES, ParseError::HeadTooLarge)? {
            None => return Ok(None),
            Some(b':') => {}
            Some(_) => return malformed("a field's name"),
        }
        let span = Span {
            start: self.part_start,
            end: self.position,
        };
        let name = KnownField::from_name(span.of(bytes));
        self.framing.start_field(name)?;
        self.fields.push((span, Span::default()));
        self.start_part_at(self.position + 1);
        Ok(Some(State::Value(name)))
    }

    fn read_value(&mut self, bytes: &[u8], name: KnownField) -> Result<Option<State>, ParseError> {
        match self.skip_while(bytes, is_value, usize::MAX, ParseError::HeadTooLarge)? {
            None => return Ok(None),
            Some(b'\r') => {}
            Some(b'\n') => return malformed("a bare LF"),
            Some(_) => return malformed("a control character"),
        }
        let (part_start, end) = (self.part_start, self.position);
        if !self.read_line_end(bytes)? {
            return Ok(None);
        }
        let line = bytes.get(part_start..end).unwrap_or_default();
        let leading = line.iter().take_while(|byte| is_blank(**byte)).count();
        let trailing = line[leading..].iter().rev().take_while(|byte| is_blank(**byte)).count();
        let span = Span {
            start: part_start + leading,
            end: end - trailing,
        };
        if let Some((_, value)) = self.fields.last_mut() {
            *value = span;
        }
        if name != KnownField::Other {
            self.framing.read_value(name, span.of(bytes))?;
        }
        Ok(Some(State::FieldStart))
    }

    /// Takes the head that [`read`](Self::read) has found complete, and prepares for the next one. `bytes` are exactly
    /// this head.
    pub fn take(&mut self, bytes: &Bytes) -> Result<RequestHead, ParseError> {
        let Self {
            method,
            target,
            minor,
            framing,
            ..
        } = *self;
        let method = Method::from_bytes(method.of(bytes)).or(malformed("its method"))?;
        let (uri, raw_target) = target::read(bytes, target.start..target.end)?;
        let too_large = ParseError::HeadTooLarge;
        let mut headers = HeaderMap::try_with_capacity(self.fields.len() + ADDED_FIELDS).map_err(|_| too_large)?;
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.of(bytes)).or(malformed("a field's name"))?;
            let value = HeaderValue::from_maybe_shared(value.slice(bytes)).or(malformed("a field's value"))?;
            headers.try_append(name, value).map_err(|_| too_large)?;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.headers, parts.uri) = (method, headers, uri);
        if let Some(raw_target) = raw_target {
            parts.extensions.insert(raw_target);
        }
        parts.version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let head = RequestHead {
            request: Request::from_parts(parts, ()),
            body: framing.body(),
            keeps_alive: framing.keeps_alive(minor),
            expects_continue: framing.expects_continue(minor),
        };
        self.reset();
        Ok(head)
    }

    fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::new(self.limits)
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

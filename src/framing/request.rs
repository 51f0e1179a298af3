//! The head of a request (RFC 9112, sections 2 to 6): read once, strictly, and only in the one way in which it can be read.
//!
//! Bytes may come in any pieces, and what has been looked at is not looked at again. A head that is refused is refused at its first byte that
//! is wrong, however it was cut.

use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};

use super::body::Rest;
use super::grammar::{Fault, is_target, is_token, is_value, malformed, run};

/// Bounds on heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of the request line and all fields.
    pub(crate) bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
}

/// The longest target that a `Uri` can hold, or somewhat less.
const LONGEST_TARGET: usize = 60_000;
/// No method that anybody has registered is longer than half of this.
const LONGEST_METHOD: usize = 64;
/// No field that anybody has registered has a name of more than 40 bytes.
const LONGEST_NAME: usize = 8 * 1024;
/// Digits of a length; more would not fit into 64 bits.
const MOST_DIGITS: usize = 19;
/// Room for the fields that are set beside those that came, so that they are put where there is room.
const MORE_FIELDS: usize = 12;

/// Reads one head after the other. What it keeps of one is used for the next.
#[derive(Debug)]
pub(crate) struct HeadReader {
    bounds: Bounds,
    state: State,
    /// An empty line was passed over. One is forgiven (RFC 9112, section 2.2), and no more.
    empty_line: bool,
    /// How far it has read: what is before this is as it should be.
    at: usize,
    /// Where what is being read began: the method, the target, a name or a value.
    begun: usize,
    method: Span,
    target: Span,
    minor: u8,
    fields: Vec<(Span, Span)>,
    said: Said,
}

/// Where something stands.
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
    /// In the value of that field.
    Value(Name),
}

/// A field, by what it says of the message and its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// Nothing.
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        let names: (&[u8], Self) = match name.len() {
            4 => (b"host", Self::Host),
            6 => (b"expect", Self::Expect),
            10 => (b"connection", Self::Connection),
            14 => (b"content-length", Self::ContentLength),
            17 => (b"transfer-encoding", Self::TransferEncoding),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(names.0) {
            names.1
        } else {
            Self::Other
        }
    }
}

/// What fields say of the message and its connection.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

/// A head that was read.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// What it asks for.
    pub(crate) request: Request<()>,
    /// What comes behind it.
    pub(crate) rest: Rest,
    /// Whether the client would have the connection serve another request.
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

    /// Reads on in what has come: all of it, from the first byte behind the last message. Once a head is whole, says where it ends; then it
    /// is to be [taken](Self::take).
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
                            true => self.end().map(|()| Some(self.at)),
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

    /// Passes over an empty line.
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
        if !is_token(first) {
            return malformed("it does not begin with a method");
        }
        self.begun = self.at;
        self.method.begin = self.at;
        Ok(Some(State::Method))
    }

    /// Goes on over bytes of that kind, no more than `most` of them from where it has begun, and within the bound of a head. The byte behind
    /// them, once it has come; `full`, where there is no room for one.
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
        match self.pass(bytes, is_token, LONGEST_METHOD, wrong)? {
            None => Ok(None),
            Some(b' ') => {
                self.method.end = self.at;
                self.begin_at(self.at + 1);
                Ok(Some(State::Target))
            }
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
            State::Query => self.pass(bytes, is_query, most, full)?,
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
                // `*`, an absolute URI or an authority: whatever it is, it must be one that can be read.
                if self.state == State::OtherTarget && Uri::try_from(self.target.of(bytes)).is_err() {
                    return malformed("its target");
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

    /// Whether a whole line end is here. That no other byte is behind its CR is for the caller to have seen.
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
        const TWICE: &str = "a second Content-Length, Transfer-Encoding or Host";
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
        let again = match name {
            Name::Host => std::mem::replace(&mut self.said.host, true),
            Name::ContentLength => self.said.length.is_some(),
            Name::TransferEncoding => self.said.chunked,
            Name::Other | Name::Connection | Name::Expect => false,
        };
        if again {
            return malformed(TWICE);
        }
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

    /// Whether the fields agree on one reading of what follows.
    fn end(&self) -> Result<(), Fault> {
        let Said {
            host, length, chunked, ..
        } = self.said;
        match (host, chunked, length) {
            (false, ..) => malformed("it has no Host"),
            (_, true, Some(_)) => malformed("Transfer-Encoding beside Content-Length"),
            (_, true, None) if self.minor == 0 => malformed("Transfer-Encoding on HTTP/1.0"),
            _ => Ok(()),
        }
    }

    /// The head of which [`read`](Self::read) has said that it is whole; `bytes` are all of it, and of nothing else. The next one is read anew.
    pub(crate) fn take(&mut self, bytes: &Bytes) -> Result<RequestHead, Fault> {
        let Self {
            method,
            target,
            minor,
            said,
            ..
        } = *self;
        let method = Method::from_bytes(method.of(bytes)).or(malformed("its method"))?;
        let target = target.slice(bytes);
        let uri = if target.first() == Some(&b'/') {
            PathAndQuery::from_maybe_shared(target).map(Uri::from).ok()
        } else {
            Uri::from_maybe_shared(target).ok()
        };
        let full = Fault::HeadTooLarge;
        let mut headers = HeaderMap::try_with_capacity(self.fields.len() + MORE_FIELDS).map_err(|_| full)?;
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.of(bytes)).or(malformed("a field's name"))?;
            let value = HeaderValue::from_maybe_shared(value.slice(bytes)).or(malformed("a field's value"))?;
            headers.try_append(name, value).map_err(|_| full)?;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.headers) = (method, headers);
        parts.uri = uri.ok_or(Fault::Malformed("its target"))?;
        parts.version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let head = RequestHead {
            request: Request::from_parts(parts, ()),
            rest: match (said.chunked, said.length) {
                (true, _) => Rest::chunked(),
                (false, length) => Rest::length(length.unwrap_or(0)),
            },
            keeps_alive: !said.close && (minor == 1 || said.keep_alive),
            expects_continue: minor == 1 && said.expects_continue,
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

impl Said {
    fn note(&mut self, name: Name, value: &[u8]) -> Result<(), Fault> {
        const FRAMING: Fault = Fault::Malformed("its Content-Length or Transfer-Encoding");
        match name {
            Name::Other | Name::Host => {}
            Name::ContentLength => {
                if value.is_empty() || value.len() > MOST_DIGITS || !value.iter().all(u8::is_ascii_digit) {
                    return Err(FRAMING);
                }
                let digits = value.iter().map(|digit| u64::from(digit - b'0'));
                let length = digits.fold(0, |number, digit| number * 10 + digit);
                // Servers may count with a sign.
                if i64::try_from(length).is_err() {
                    return Err(FRAMING);
                }
                self.length = Some(length);
            }
            Name::TransferEncoding => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FRAMING);
                }
                self.chunked = true;
            }
            Name::Connection => {
                for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= word.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Name::Expect => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
        }
        Ok(())
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// In a path behind its first `/`; `Uri` takes no `` ` `` there.
fn is_path(byte: u8) -> bool {
    is_target(byte) && !matches!(byte, b'?' | b'`')
}

/// In a query; `Uri` takes no `"` there.
fn is_query(byte: u8) -> bool {
    is_target(byte) && byte != b'"'
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes: 8 * 1024,
        fields: 10,
    };

    /// Where a fault was found: behind so many bytes of whole messages, and in a head or, without a reason, in a body.
    type Found = Option<(usize, Option<Fault>)>;

    /// What is found in all messages, in pieces of that size.
    fn find_in(bytes: &[u8], size: usize) -> Found {
        let (mut reader, mut rest, mut whole) = (HeadReader::new(BOUNDS), Rest::Nothing, 0);
        let (mut unread, mut come) = (BytesMut::new(), 0);
        for piece in bytes.chunks(size) {
            unread.extend_from_slice(piece);
            come += piece.len();
            while !unread.is_empty() {
                if rest != Rest::Nothing {
                    if rest.take(&mut unread).is_err() {
                        return Some((whole, None));
                    }
                } else {
                    match reader.read(&unread) {
                        Ok(None) => break,
                        Ok(Some(end)) => match reader.take(&unread.split_to(end).freeze()) {
                            Ok(head) => rest = head.rest,
                            Err(fault) => return Some((whole, Some(fault))),
                        },
                        Err(fault) => return Some((whole, Some(fault))),
                    }
                }
                if rest == Rest::Nothing {
                    whole = come - unread.len();
                }
            }
        }
        None
    }

    /// What is found, however the bytes are cut.
    fn find(bytes: &[u8]) -> Found {
        let whole = find_in(bytes, bytes.len());
        for size in [1, 3] {
            assert_eq!(find_in(bytes, size), whole, "{:?}", bytes.escape_ascii().to_string());
        }
        whole
    }

    fn good(text: &str) {
        assert_eq!(find(text.as_bytes()), None, "{text:?}");
        // Whole messages are followed by another one, and by nothing else.
        let next = format!("{text}\0");
        let end = Some((text.len(), Some(Fault::Malformed("it does not begin with a method"))));
        assert_eq!(find(next.as_bytes()), end, "{text:?} has not ended");
    }

    /// A head that is refused, after another message that is good.
    fn bad(head: &str) {
        let before = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
        let text = format!("{before}{head}");
        let found = find(text.as_bytes());
        assert!(
            matches!(found, Some((at, Some(Fault::Malformed(_)))) if at == before.len()),
            "{head:?}: {found:?}"
        );
    }

    #[test]
    fn messages_that_can_be_read_in_one_way_pass() {
        for text in [
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\nGET /?a=%20&b[]=^`{} HTTP/1.1\r\nhost:h\r\nX-Empty:\r\nX: a\tb \u{e9}\r\n\r\n",
            "GET /\"{}|^ HTTP/1.0\r\nHost: h\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\nGET /y HTTP/1.1\r\nHost: h\r\n\r\n",
            "M-SEARCH /x HTTP/1.1\r\nHost:\t h \r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: \t5 \r\n\r\nab\n\0cGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked \r\n\r\n3\r\nabc\r\n0a;x=\"y\\\"\";z;a=b\r\n0123456789\r\n000\r\nA: b\r\n\r\n",
        ] {
            good(text);
        }
    }

    #[test]
    fn heads_that_could_be_read_otherwise_are_refused() {
        for line in [
            "\nGET / HTTP/1.1\r\n",
            "\rGET / HTTP/1.1\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "GE(T / HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1 \r\n",
            "GET /  HTTP/1.1\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / HTTP/1.10\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / http/1.1\r\n",
            "GET /\r\n",
            "GET HTTP/1.1\r\n",
            "GET /#x HTTP/1.1\r\n",
            "GET /?#x HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
            "GET /\t HTTP/1.1\r\n",
            "GET /<x> HTTP/1.1\r\n",
            "GET :// HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
        ] {
            bad(&format!("{line}Host: h\r\n\r\n"));
        }
        for fields in [
            "X: a\nb",
            "X: a\rb",
            "X: a\0b",
            "X: a\x7fb",
            "X : a",
            "X\t: a",
            " X: a",
            "X: a\r\n b",
            "X",
            ": a",
            "X\u{e9}: a",
            "Host: i",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 1 1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Content-Length: 9223372036854775808",
            "content-length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: chun ked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding:",
        ] {
            bad(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
        }
        bad("GET / HTTP/1.1\r\n\r\n");
        bad("GET / HTTP/1.0\r\n\r\n");
        bad("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[test]
    fn a_body_that_breaks_its_framing_is_cut_there() {
        for chunks in [
            "g\r\n",
            "\r\n",
            ";\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "-1\r\n",
            "0x1\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\rx",
            "0000000000000001\r\n",
            "1;a\nb\r\n",
            "1;\r\na\r\n",
            "1; a\r\na\r\n",
            "1;a=\r\na\r\n",
            "1;a=b=c\r\na\r\n",
            "1;a=\"b\r\na\r\n",
            "1;a=\"b\"c\r\na\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\n\rx",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            assert!(matches!(find(text.as_bytes()), Some((_, None))), "{chunks:?}");
        }
        let long = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
            "x".repeat(300)
        );
        assert!(matches!(find(long.as_bytes()), Some((_, None))));
        let trailers = "A: b\r\n".repeat(2000);
        let long = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
        assert!(matches!(find(long.as_bytes()), Some((_, None))));
    }

    #[test]
    fn a_head_says_what_it_asks_for() {
        let read = |text: &str| {
            let mut reader = HeadReader::new(BOUNDS);
            assert_eq!(reader.read(text.as_bytes()), Ok(Some(text.len())));
            let head = reader.take(&Bytes::copy_from_slice(text.as_bytes()));
            assert!(!reader.has_begun());
            head.expect("a head")
        };
        let head = read(
            "\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nX-A:  1 \t\r\nx-a:\r\nExpect: 100-Continue\r\nContent-Length: 7\r\n\r\n",
        );
        let request = &head.request;
        assert_eq!(
            (request.method(), request.uri()),
            (&Method::POST, &Uri::from_static("/a?b"))
        );
        assert_eq!(request.version(), Version::HTTP_11);
        let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", ""]);
        assert_eq!(
            (head.rest, head.keeps_alive, head.expects_continue),
            (Rest::Length(7), true, true)
        );
        let keeps_alive =
            |first: &str, line: &str| read(&format!("GET / {first}\r\nHost: h\r\n{line}\r\n")).keeps_alive;
        assert!(keeps_alive("HTTP/1.1", "") && !keeps_alive("HTTP/1.0", ""));
        assert!(!keeps_alive("HTTP/1.1", "Connection: x, Close\r\n"));
        assert!(keeps_alive("HTTP/1.0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps_alive(
            "HTTP/1.1",
            "Connection: keep-alive\r\nConnection: close\r\n"
        ));
    }

    #[test]
    fn heads_are_bounded() {
        let with = |target: usize, fields: usize, value: usize| {
            let mut text = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "x".repeat(target));
            for at in 0..fields {
                text += &format!("X-{at}: {}\r\n", "y".repeat(value));
            }
            find((text + "\r\n").as_bytes())
        };
        assert_eq!(with(8000, 0, 0), None);
        assert_eq!(with(8192, 0, 0), Some((0, Some(Fault::TargetTooLong))));
        assert_eq!(with(1, 9, 1), None);
        assert_eq!(with(1, 10, 1), Some((0, Some(Fault::HeadTooLarge))));
        assert_eq!(with(1, 1, 8190), Some((0, Some(Fault::HeadTooLarge))));
        assert_eq!(with(8100, 1, 200), Some((0, Some(Fault::HeadTooLarge))));
    }
}

//! Where each HTTP/1 message of a connection begins and ends, and whether all of it can be read in one way only (RFC 9112).
//!
//! The bytes go on as they are; nothing is decoded and nothing is kept of them but what framing needs. What this refuses, the
//! parser behind it never sees, so it may be as lax as it likes: a bare LF, blanks around a chunk's size, two lengths that agree.

/// Why a message is not let through. The text of the first is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It can be read in more than one way.
    Malformed(&'static str),
    /// Its target is longer than it may be.
    TargetTooLong,
    /// Its fields are more or longer than they may be.
    HeadTooLarge,
}

/// Bounds on heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of the request line and all fields.
    pub(crate) bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
}

/// The longest target that the parser behind can hold.
const LONGEST_TARGET: usize = 60_000;
/// No method that anybody has registered is longer than half of this.
const LONGEST_METHOD: usize = 64;
/// Digits of a length or a chunk's size; more would not fit into 64 bits.
const LENGTH_DIGITS: u8 = 19;
const CHUNK_DIGITS: u8 = 15;
/// Bytes of a chunk's extensions, and of all trailers: nothing reads them, so nobody needs many.
const EXTENSION_BYTES: usize = 256;
const TRAILER_BYTES: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between messages.
    Start,
    /// A CR between messages: an empty line is forgiven (RFC 9112, section 2.2).
    StartLf,
    Method,
    Path,
    Query,
    /// In a target that does not begin with `/`.
    OtherTarget,
    /// So many bytes of `HTTP/1.` have come.
    Version(u8),
    /// After the minor version.
    LineCr,
    LineLf,
    FieldStart,
    Name,
    Value,
    ValueLf,
    HeadLf,
    /// So much of a body of known length is left.
    Body(u64),
    ChunkSize,
    /// In the extensions of a chunk (RFC 9112, section 7.1.1).
    Extension(Extension),
    ChunkSizeLf,
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// Which part of an extension comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// The first character of its name.
    Begin,
    Name,
    /// The first character of its value.
    Equals,
    Value,
    Quoted,
    /// After a `\` in quotes.
    Pair,
    /// After the quotes.
    Closed,
}

/// Fields that say how a message is framed, and for whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    ContentLength,
    TransferEncoding,
    Host,
    Other,
}

/// What the head has said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Framing {
    minor: u8,
    length: Option<u64>,
    chunked: bool,
    hosts: u8,
}

/// Reads along with a connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    bounds: Bounds,
    state: State,
    /// An empty line has come since the last message.
    empty_line: bool,
    framing: Framing,
    /// Bytes of this head, of these trailers, or of this extension.
    bytes: usize,
    fields: usize,
    /// The name of this field in lower case, as far as it could be one that counts.
    name: [u8; 17],
    name_length: usize,
    field: Field,
    value: Value,
    /// Digits of a length or a chunk's size, and what they come to.
    digits: u8,
    number: u64,
    /// A target that does not begin with `/`; empty in all others.
    target: Vec<u8>,
}

/// How far the value of a field that counts has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Before,
    Within,
    After,
}

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// All may pass.
    All,
    /// So many of them may pass, and then nothing more, ever. `Some` fault is in a head, which nobody has seen whole and nobody
    /// else can answer; without one it is in a body, whose reader finds it cut off.
    UpTo(usize, Option<Fault>),
}

fn malformed<T>(what: &'static str) -> Result<T, Fault> {
    Err(Fault::Malformed(what))
}

impl Scanner {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::Start,
            empty_line: false,
            framing: Framing::default(),
            bytes: 0,
            fields: 0,
            name: [0; 17],
            name_length: 0,
            field: Field::Other,
            value: Value::Before,
            digits: 0,
            number: 0,
            target: Vec::new(),
        }
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        !matches!(self.state, State::Start | State::StartLf) && !self.in_body()
    }

    /// Whether a body has begun and not ended.
    pub(crate) fn in_body(&self) -> bool {
        matches!(
            self.state,
            State::Body(_)
                | State::ChunkSize
                | State::Extension(_)
                | State::ChunkSizeLf
                | State::Chunk(_)
                | State::ChunkCr
                | State::ChunkLf
                | State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
                | State::EndLf
        )
    }

    /// Reads on.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        // Where the head that is being read began, if it began here.
        let mut begun = 0;
        while at < bytes.len() {
            // Bodies are passed over in one step.
            if let State::Body(left) | State::Chunk(left) = self.state {
                let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += passed;
                let left = left - passed as u64;
                self.state = match (self.state, left) {
                    (State::Body(_), 0) => State::Start,
                    (State::Body(_), left) => State::Body(left),
                    (_, 0) => State::ChunkCr,
                    (_, left) => State::Chunk(left),
                };
                continue;
            }
            if self.state == State::Start {
                begun = at;
            }
            // So are the bytes of a target or a value that are like the one before.
            let run = self.run(&bytes[at..]);
            if run > 0 {
                at += run;
                continue;
            }
            if let Err(fault) = self.byte(bytes[at]) {
                return if self.in_body() {
                    Scanned::UpTo(at, None)
                } else {
                    Scanned::UpTo(begun, Some(fault))
                };
            }
            at += 1;
        }
        Scanned::All
    }

    /// How many bytes say nothing that changes the state and stay within the bounds.
    fn run(&mut self, bytes: &[u8]) -> usize {
        let plain: fn(&u8) -> bool = match self.state {
            State::Value if self.field == Field::Other => |byte| is_value(*byte),
            State::Path if self.number > 0 => |byte| is_target(*byte) && !matches!(byte, b'?' | b'`'),
            State::Query => |byte| is_target(*byte) && *byte != b'"',
            _ => return 0,
        };
        let left = self.bounds.bytes.saturating_sub(self.bytes);
        let left = if self.state == State::Value {
            left
        } else {
            left.min(LONGEST_TARGET.saturating_sub(usize::try_from(self.number).unwrap_or(usize::MAX)))
        };
        let most = left.min(bytes.len());
        let run = bytes[..most].iter().take_while(|byte| plain(byte)).count();
        self.bytes += run;
        if self.state != State::Value {
            self.number += run as u64;
        }
        run
    }

    fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        self.state = match self.state {
            State::Start | State::StartLf | State::Method => self.method(byte)?,
            State::Path | State::Query | State::OtherTarget => self.target(byte)?,
            State::Version(_) | State::LineCr | State::LineLf => self.version(byte)?,
            State::FieldStart | State::Name | State::Value | State::ValueLf | State::HeadLf => {
                self.bytes += 1;
                if self.bytes > self.bounds.bytes {
                    return Err(Fault::HeadTooLarge);
                }
                self.field(byte)?
            }
            State::Body(_) | State::Chunk(_) => self.state,
            State::ChunkSize | State::Extension(_) | State::ChunkSizeLf | State::ChunkCr | State::ChunkLf => {
                self.chunk(byte)?
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf | State::EndLf => {
                self.trailer(byte)?
            }
        };
        Ok(())
    }

    fn method(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::Start, b'\r') if !self.empty_line => Ok(State::StartLf),
            (State::StartLf, b'\n') => {
                // One, and no more: the parser behind would gather them without an end.
                self.empty_line = true;
                Ok(State::Start)
            }
            (State::StartLf, _) => malformed("a bare CR before it"),
            (State::Start, byte) if is_token(byte) => {
                self.framing = Framing::default();
                self.empty_line = false;
                (self.bytes, self.fields) = (1, 0);
                self.target.clear();
                Ok(State::Method)
            }
            (State::Start, _) => malformed("it does not begin with a method"),
            (_, byte) if is_token(byte) => {
                self.bytes += 1;
                if self.bytes > LONGEST_METHOD {
                    return malformed("its method is too long");
                }
                Ok(State::Method)
            }
            (_, b' ') => {
                self.bytes += 1;
                // The target's own bytes are counted from here.
                self.number = 0;
                Ok(State::Path)
            }
            _ => malformed("its method"),
        }
    }

    fn target(&mut self, byte: u8) -> Result<State, Fault> {
        self.bytes += 1;
        if byte == b' ' {
            return if self.number == 0 {
                malformed("it has no target")
            } else {
                self.other_target()?;
                Ok(State::Version(0))
            };
        }
        self.number += 1;
        if self.number > LONGEST_TARGET as u64 || self.bytes > self.bounds.bytes {
            return Err(Fault::TargetTooLong);
        }
        let first = self.number == 1;
        match self.state {
            State::Path if first && byte != b'/' => {
                self.target.push(byte);
                is_target(byte).then_some(State::OtherTarget)
            }
            State::OtherTarget => {
                self.target.push(byte);
                is_target(byte).then_some(State::OtherTarget)
            }
            State::Path if byte == b'?' => Some(State::Query),
            State::Path => (is_target(byte) && byte != b'`').then_some(State::Path),
            _ => (is_target(byte) && byte != b'"').then_some(State::Query),
        }
        .ok_or(Fault::Malformed("its target"))
    }

    /// `*`, an absolute URI or an authority: whatever it is, the parser behind must be able to read it.
    fn other_target(&self) -> Result<(), Fault> {
        if self.target.is_empty() || http::Uri::try_from(self.target.as_slice()).is_ok() {
            Ok(())
        } else {
            malformed("its target")
        }
    }

    fn version(&mut self, byte: u8) -> Result<State, Fault> {
        const VERSION: &[u8; 7] = b"HTTP/1.";
        self.bytes += 1;
        match (self.state, byte) {
            (State::Version(at), byte) if usize::from(at) < VERSION.len() => {
                if VERSION[usize::from(at)] != byte {
                    return malformed("its version");
                }
                Ok(State::Version(at + 1))
            }
            (State::Version(_), b'0' | b'1') => {
                self.framing.minor = byte - b'0';
                Ok(State::LineCr)
            }
            (State::Version(_), _) => malformed("its version"),
            (State::LineCr, b'\r') => Ok(State::LineLf),
            (State::LineLf, b'\n') => Ok(State::FieldStart),
            _ => malformed("the end of its first line"),
        }
    }

    fn field(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::FieldStart, b'\r') => Ok(State::HeadLf),
            (State::FieldStart, b' ' | b'\t') => malformed("a folded line"),
            (State::FieldStart, byte) if is_token(byte) => {
                self.fields += 1;
                if self.fields > self.bounds.fields {
                    return Err(Fault::HeadTooLarge);
                }
                self.name[0] = byte.to_ascii_lowercase();
                self.name_length = 1;
                Ok(State::Name)
            }
            (State::Name, b':') => {
                self.begin_value()?;
                Ok(State::Value)
            }
            (State::Name, byte) if is_token(byte) => {
                if let Some(place) = self.name.get_mut(self.name_length) {
                    *place = byte.to_ascii_lowercase();
                }
                self.name_length += 1;
                Ok(State::Name)
            }
            (State::FieldStart | State::Name, _) => malformed("a field's name"),
            (State::Value, b'\r') => {
                self.end_value()?;
                Ok(State::ValueLf)
            }
            (State::Value, byte) if is_value(byte) => {
                if self.field != Field::Other {
                    self.value_byte(byte)?;
                }
                Ok(State::Value)
            }
            (State::Value, b'\n') => malformed("a bare LF"),
            (State::Value, _) => malformed("a control character"),
            (State::ValueLf, b'\n') => Ok(State::FieldStart),
            (State::HeadLf, b'\n') => self.end_head(),
            _ => malformed("a bare CR"),
        }
    }

    fn begin_value(&mut self) -> Result<(), Fault> {
        let name = self.name.get(..self.name_length).unwrap_or_default();
        self.field = match name {
            b"content-length" => Field::ContentLength,
            b"transfer-encoding" => Field::TransferEncoding,
            b"host" => Field::Host,
            _ => Field::Other,
        };
        (self.value, self.digits, self.number) = (Value::Before, 0, 0);
        let again = match self.field {
            Field::ContentLength => self.framing.length.is_some(),
            Field::TransferEncoding => self.framing.chunked,
            Field::Host => {
                self.framing.hosts = self.framing.hosts.saturating_add(1);
                self.framing.hosts > 1
            }
            Field::Other => false,
        };
        if again {
            malformed("a second Content-Length, Transfer-Encoding or Host")
        } else {
            Ok(())
        }
    }

    /// A byte of a value that counts: digits, or `chunked`, with blanks around.
    fn value_byte(&mut self, byte: u8) -> Result<(), Fault> {
        if self.field == Field::Host {
            return Ok(());
        }
        if matches!(byte, b' ' | b'\t') {
            if self.value == Value::Within {
                self.value = Value::After;
            }
            return Ok(());
        }
        if self.value == Value::After {
            return malformed("its Content-Length or Transfer-Encoding");
        }
        self.value = Value::Within;
        match self.field {
            Field::ContentLength if byte.is_ascii_digit() && self.digits < LENGTH_DIGITS => {
                self.digits += 1;
                self.number = self.number * 10 + u64::from(byte - b'0');
                Ok(())
            }
            Field::TransferEncoding if b"chunked".get(usize::from(self.digits)) == Some(&byte.to_ascii_lowercase()) => {
                self.digits += 1;
                Ok(())
            }
            _ => malformed("its Content-Length or Transfer-Encoding"),
        }
    }

    fn end_value(&mut self) -> Result<(), Fault> {
        match self.field {
            Field::ContentLength if self.digits > 0 => self.framing.length = Some(self.number),
            Field::TransferEncoding if usize::from(self.digits) == b"chunked".len() => self.framing.chunked = true,
            Field::ContentLength | Field::TransferEncoding => {
                return malformed("its Content-Length or Transfer-Encoding");
            }
            Field::Host | Field::Other => {}
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<State, Fault> {
        let Framing {
            minor,
            length,
            chunked,
            hosts,
        } = self.framing;
        if hosts == 0 {
            return malformed("it has no Host");
        }
        if chunked && (length.is_some() || minor == 0) {
            return malformed("Transfer-Encoding beside Content-Length, or on HTTP/1.0");
        }
        (self.digits, self.number, self.bytes) = (0, 0, 0);
        Ok(match length {
            _ if chunked => State::ChunkSize,
            None | Some(0) => State::Start,
            Some(length) => State::Body(length),
        })
    }

    fn chunk(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::ChunkSize, byte) if byte.is_ascii_hexdigit() => {
                self.digits += 1;
                if self.digits > CHUNK_DIGITS {
                    return malformed("a chunk's size");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.number = self.number << 4 | u64::from(digit);
                Ok(State::ChunkSize)
            }
            (State::ChunkSize, b';') if self.digits > 0 => {
                self.bytes = 0;
                Ok(State::Extension(Extension::Begin))
            }
            (State::ChunkSize, b'\r') if self.digits > 0 => Ok(State::ChunkSizeLf),
            (State::Extension(part), byte) => {
                self.bytes += 1;
                if self.bytes > EXTENSION_BYTES {
                    return malformed("a chunk's extensions are too long");
                }
                extension(part, byte)
            }
            (State::ChunkSizeLf, b'\n') => {
                let size = self.number;
                (self.digits, self.number) = (0, 0);
                Ok(if size == 0 {
                    self.bytes = 0;
                    State::TrailerStart
                } else {
                    State::Chunk(size)
                })
            }
            (State::ChunkCr, b'\r') => Ok(State::ChunkLf),
            (State::ChunkLf, b'\n') => Ok(State::ChunkSize),
            _ => malformed("its chunks"),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.bytes += 1;
        if self.bytes > TRAILER_BYTES {
            return malformed("its trailers are too long");
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if is_value(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Start),
            _ => malformed("its trailers"),
        }
    }
}

/// `;name`, `;name=token` and `;name="text"`, without blanks: those that the grammar allows are there for old clients only.
fn extension(part: Extension, byte: u8) -> Result<State, Fault> {
    let next = match (part, byte) {
        (Extension::Name | Extension::Value | Extension::Closed, b'\r') => return Ok(State::ChunkSizeLf),
        (Extension::Name | Extension::Value | Extension::Closed, b';') => Extension::Begin,
        (Extension::Begin | Extension::Name, byte) if is_token(byte) => Extension::Name,
        (Extension::Name, b'=') => Extension::Equals,
        (Extension::Equals, b'"') => Extension::Quoted,
        (Extension::Equals | Extension::Value, byte) if is_token(byte) => Extension::Value,
        (Extension::Quoted, b'"') => Extension::Closed,
        (Extension::Quoted, b'\\') => Extension::Pair,
        (Extension::Quoted | Extension::Pair, byte) if is_value(byte) => Extension::Quoted,
        _ => return malformed("a chunk's extensions"),
    };
    Ok(State::Extension(next))
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110, section 5.5: blanks, what is visible, and what is beyond ASCII.
fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Visible ASCII but `#`, which begins a fragment, and `<` and `>`, which no URI has. The rest of what RFC 3986 does not allow is sent
/// by too many clients. `#` and what is not ASCII would be read in more than one way.
fn is_target(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'<' | b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes: 8 * 1024,
        fields: 10,
    };

    /// The outcome, however the bytes are cut.
    fn scan(bytes: &[u8]) -> Scanned {
        let whole = Scanner::new(BOUNDS).scan(bytes);
        let mut scanner = Scanner::new(BOUNDS);
        let mut one_by_one = Scanned::All;
        for (at, byte) in bytes.iter().enumerate() {
            if let Scanned::UpTo(_, fault) = scanner.scan(std::slice::from_ref(byte)) {
                one_by_one = Scanned::UpTo(at, fault);
                break;
            }
        }
        match (whole, one_by_one) {
            (Scanned::All, Scanned::All) => {}
            (Scanned::UpTo(_, one), Scanned::UpTo(_, other)) if one == other => {}
            different => panic!("{different:?}: {:?}", bytes.escape_ascii().to_string()),
        }
        whole
    }

    fn good(text: &str) {
        assert_eq!(scan(text.as_bytes()), Scanned::All, "{text:?}");
        let mut scanner = Scanner::new(BOUNDS);
        scanner.scan(text.as_bytes());
        assert!(!scanner.in_head() && !scanner.in_body(), "{text:?} has not ended");
    }

    /// A head that is refused, after another message that is good.
    fn bad(head: &str) {
        let before = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
        let text = format!("{before}{head}");
        // One empty line passes.
        let empty = if head.starts_with("\r\n") { 2 } else { 0 };
        assert!(
            matches!(scan(text.as_bytes()), Scanned::UpTo(at, Some(Fault::Malformed(_))) if at == before.len() + empty),
            "{head:?}: {:?}",
            scan(text.as_bytes())
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
            assert!(matches!(scan(text.as_bytes()), Scanned::UpTo(_, None)), "{chunks:?}");
        }
        let long = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
            "x".repeat(300)
        );
        assert!(matches!(scan(long.as_bytes()), Scanned::UpTo(_, None)));
        let trailers = "A: b\r\n".repeat(2000);
        let long = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
        assert!(matches!(scan(long.as_bytes()), Scanned::UpTo(_, None)));
    }

    #[test]
    fn heads_are_bounded() {
        let with = |target: usize, fields: usize, value: usize| {
            let mut text = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "x".repeat(target));
            for at in 0..fields {
                text += &format!("X-{at}: {}\r\n", "y".repeat(value));
            }
            scan((text + "\r\n").as_bytes())
        };
        assert_eq!(with(8000, 0, 0), Scanned::All);
        assert_eq!(with(8192, 0, 0), Scanned::UpTo(0, Some(Fault::TargetTooLong)));
        assert_eq!(with(1, 9, 1), Scanned::All);
        assert_eq!(with(1, 10, 1), Scanned::UpTo(0, Some(Fault::HeadTooLarge)));
        assert_eq!(with(1, 1, 8190), Scanned::UpTo(0, Some(Fault::HeadTooLarge)));
        assert_eq!(with(8100, 1, 200), Scanned::UpTo(0, Some(Fault::HeadTooLarge)));
    }
}

//! The head of one message, byte by byte: its request line, its fields, and what they say of its body.

use crate::framing::grammar::{Fault, is_target, is_token, is_value, malformed, run};

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
/// No field that anybody has registered has a name of more than 40 bytes; the parser behind takes fewer than 65,536.
const LONGEST_NAME: usize = 8 * 1024;
/// Digits of a length; more would not fit into 64 bits.
const MOST_DIGITS: u8 = 19;
const CHUNKED: &[u8] = b"chunked";
const VERSION: &[u8] = b"HTTP/1.";

/// What a head says of the body behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// A head that has begun.
#[derive(Debug)]
pub(super) struct Head {
    bounds: Bounds,
    state: State,
    bytes: usize,
    fields: usize,
    target_length: usize,
    /// A target that does not begin with `/`; empty in all others.
    other_target: Vec<u8>,
    /// The name of this field in lower case, as far as it could be one that counts.
    name: [u8; 17],
    name_length: usize,
    field: Field,
    minor: u8,
    has_host: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Method,
    Path,
    Query,
    /// In a target that does not begin with `/`.
    OtherTarget,
    /// So many bytes of `HTTP/1.` have come.
    Version(usize),
    /// After the minor version.
    LineCr,
    LineLf,
    FieldStart,
    Name,
    Value,
    ValueLf,
    EndLf,
}

/// A field, by what its value is to framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Nothing; what a Host says is read by those who look for a route.
    Plain,
    /// Content-Length: so many digits have come, and this is what they say.
    Length { place: Place, digits: u8, number: u64 },
    /// Transfer-Encoding: so much of `chunked` has come.
    Coding { place: Place, matched: usize },
}

/// How far a value has come that may have blanks around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    After,
}

impl Place {
    /// Whether the byte belongs to the value itself.
    fn takes(&mut self, byte: u8) -> Result<bool, Fault> {
        let blank = matches!(byte, b' ' | b'\t');
        *self = match (*self, blank) {
            (Self::Before, true) => Self::Before,
            (Self::Before | Self::Within, false) => Self::Within,
            (Self::Within | Self::After, true) => Self::After,
            (Self::After, false) => return bad_framing(),
        };
        Ok(!blank)
    }
}

fn bad_framing<T>() -> Result<T, Fault> {
    malformed("its Content-Length or Transfer-Encoding")
}

impl Head {
    /// A head that begins with this byte, if a head can.
    pub(super) fn begin(bounds: Bounds, byte: u8) -> Result<Self, Fault> {
        if !is_token(byte) {
            return malformed("it does not begin with a method");
        }
        Ok(Self {
            bounds,
            state: State::Method,
            bytes: 1,
            fields: 0,
            target_length: 0,
            other_target: Vec::new(),
            name: [0; 17],
            name_length: 0,
            field: Field::Plain,
            minor: 0,
            has_host: false,
            length: None,
            chunked: false,
        })
    }

    /// How many bytes say nothing that changes the state and stay within the bounds: most of a target, a name or a value.
    pub(super) fn run(&mut self, bytes: &[u8]) -> usize {
        let left = match self.state {
            State::Path | State::Query => LONGEST_TARGET.saturating_sub(self.target_length),
            State::Name => LONGEST_NAME.saturating_sub(self.name_length),
            _ => usize::MAX,
        };
        let left = left.min(self.bounds.bytes.saturating_sub(self.bytes));
        let bytes = &bytes[..left.min(bytes.len())];
        let run = match self.state {
            State::Value if self.field == Field::Plain => run(bytes, is_value),
            State::Path if self.target_length > 0 => run(bytes, is_path),
            State::Query => run(bytes, is_query),
            State::Name => run(bytes, is_token),
            _ => return 0,
        };
        self.bytes += run;
        match self.state {
            State::Path | State::Query => self.target_length += run,
            State::Name => {
                let counts = self.name.len().saturating_sub(self.name_length).min(run);
                for byte in &bytes[..counts] {
                    self.name_byte(*byte);
                }
                self.name_length += run - counts;
            }
            _ => {}
        }
        run
    }

    /// Takes one byte; the last one of a head says what body there is.
    pub(super) fn byte(&mut self, byte: u8) -> Result<Option<Body>, Fault> {
        self.bytes += 1;
        self.state = match self.state {
            State::Method => self.method(byte)?,
            State::Path | State::Query | State::OtherTarget => self.target(byte)?,
            State::Version(_) | State::LineCr | State::LineLf => self.version(byte)?,
            State::EndLf if byte == b'\n' => return self.end().map(Some),
            State::FieldStart | State::Name | State::Value | State::ValueLf | State::EndLf => {
                if self.bytes > self.bounds.bytes {
                    return Err(Fault::HeadTooLarge);
                }
                self.line(byte)?
            }
        };
        Ok(None)
    }

    fn method(&self, byte: u8) -> Result<State, Fault> {
        match byte {
            b' ' => Ok(State::Path),
            byte if is_token(byte) && self.bytes <= LONGEST_METHOD => Ok(State::Method),
            _ => malformed("its method"),
        }
    }

    fn target(&mut self, byte: u8) -> Result<State, Fault> {
        if byte == b' ' {
            if self.target_length == 0 {
                return malformed("it has no target");
            }
            // `*`, an absolute URI or an authority: whatever it is, the parser behind must be able to read it.
            let readable = self.other_target.is_empty() || http::Uri::try_from(self.other_target.as_slice()).is_ok();
            return if readable {
                Ok(State::Version(0))
            } else {
                malformed("its target")
            };
        }
        self.target_length += 1;
        if self.target_length > LONGEST_TARGET || self.bytes > self.bounds.bytes {
            return Err(Fault::TargetTooLong);
        }
        let next = match (self.state, byte) {
            (State::Path, b'?') if self.target_length > 1 => Some(State::Query),
            (State::Path, byte) if self.target_length > 1 || byte == b'/' => is_path(byte).then_some(State::Path),
            (State::Query, byte) => is_query(byte).then_some(State::Query),
            (_, byte) => {
                self.other_target.push(byte);
                is_target(byte).then_some(State::OtherTarget)
            }
        };
        next.ok_or(Fault::Malformed("its target"))
    }

    fn version(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::Version(at), byte) => match (VERSION.get(at), byte) {
                (Some(wanted), byte) if *wanted == byte => Ok(State::Version(at + 1)),
                (None, b'0' | b'1') => {
                    self.minor = byte - b'0';
                    Ok(State::LineCr)
                }
                _ => malformed("its version"),
            },
            (State::LineCr, b'\r') => Ok(State::LineLf),
            (State::LineLf, b'\n') => Ok(State::FieldStart),
            _ => malformed("the end of its first line"),
        }
    }

    /// A byte of a field's line, or of the empty one behind them.
    fn line(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::FieldStart, b'\r') => Ok(State::EndLf),
            (State::FieldStart, b' ' | b'\t') => malformed("a folded line"),
            (State::FieldStart, byte) if is_token(byte) => {
                self.fields += 1;
                if self.fields > self.bounds.fields {
                    return Err(Fault::HeadTooLarge);
                }
                self.name_length = 0;
                self.name_byte(byte);
                Ok(State::Name)
            }
            (State::Name, b':') => {
                self.begin_value()?;
                Ok(State::Value)
            }
            (State::Name, byte) if is_token(byte) => {
                if self.name_length == LONGEST_NAME {
                    return Err(Fault::HeadTooLarge);
                }
                self.name_byte(byte);
                Ok(State::Name)
            }
            (State::FieldStart | State::Name, _) => malformed("a field's name"),
            (State::Value, b'\r') => {
                self.end_value()?;
                Ok(State::ValueLf)
            }
            (State::Value, byte) if is_value(byte) => {
                self.value_byte(byte)?;
                Ok(State::Value)
            }
            (State::Value, b'\n') => malformed("a bare LF"),
            (State::Value, _) => malformed("a control character"),
            (State::ValueLf, b'\n') => Ok(State::FieldStart),
            _ => malformed("a bare CR"),
        }
    }

    fn name_byte(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(self.name_length) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_length += 1;
    }

    fn begin_value(&mut self) -> Result<(), Fault> {
        const TWICE: &str = "a second Content-Length, Transfer-Encoding or Host";
        let place = Place::Before;
        self.field = match self.name.get(..self.name_length).unwrap_or_default() {
            b"content-length" if self.length.is_some() => return malformed(TWICE),
            b"content-length" => Field::Length {
                place,
                digits: 0,
                number: 0,
            },
            b"transfer-encoding" if self.chunked => return malformed(TWICE),
            b"transfer-encoding" => Field::Coding { place, matched: 0 },
            b"host" if self.has_host => return malformed(TWICE),
            name => {
                self.has_host |= name == b"host";
                Field::Plain
            }
        };
        Ok(())
    }

    fn value_byte(&mut self, byte: u8) -> Result<(), Fault> {
        match &mut self.field {
            Field::Plain => {}
            Field::Length { place, digits, number } => {
                if place.takes(byte)? {
                    if !byte.is_ascii_digit() || *digits == MOST_DIGITS {
                        return bad_framing();
                    }
                    *digits += 1;
                    *number = *number * 10 + u64::from(byte - b'0');
                }
            }
            Field::Coding { place, matched } => {
                if place.takes(byte)? {
                    if CHUNKED.get(*matched) != Some(&byte.to_ascii_lowercase()) {
                        return bad_framing();
                    }
                    *matched += 1;
                }
            }
        }
        Ok(())
    }

    fn end_value(&mut self) -> Result<(), Fault> {
        match self.field {
            Field::Plain => {}
            Field::Length {
                digits: 1.., number, ..
            } => self.length = Some(number),
            Field::Coding { matched, .. } if matched == CHUNKED.len() => self.chunked = true,
            Field::Length { .. } | Field::Coding { .. } => return bad_framing(),
        }
        Ok(())
    }

    fn end(&self) -> Result<Body, Fault> {
        if !self.has_host {
            return malformed("it has no Host");
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => malformed("Transfer-Encoding beside Content-Length"),
            (true, None) if self.minor == 0 => malformed("Transfer-Encoding on HTTP/1.0"),
            (true, None) => Ok(Body::Chunked),
            (false, length) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}

/// In a path behind its first `/`. The parser behind takes no `` ` `` there.
fn is_path(byte: u8) -> bool {
    is_target(byte) && !matches!(byte, b'?' | b'`')
}

/// In a query. The parser behind takes no `"` there.
fn is_query(byte: u8) -> bool {
    is_target(byte) && byte != b'"'
}

//! The fields of a request that control its framing and its connection (RFC 9112, sections 6 and 9).

use std::mem;

use super::body::RemainingBody;
use super::grammar::{ParseError, malformed};

/// The maximum number of digits in a length. A number with more digits may not fit into 64 bits.
const MAX_LENGTH_DIGITS: usize = 19;

/// A field name, if it controls the framing or the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownField {
    /// Any other field.
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
}

impl KnownField {
    pub(super) fn from_name(name: &[u8]) -> Self {
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

/// What the fields read so far set for the message and its connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FramingFields {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl FramingFields {
    /// Records that a field with this name begins. It fails if a field that must be unique is repeated.
    pub(super) fn start_field(&mut self, name: KnownField) -> Result<(), ParseError> {
        let repeated = match name {
            KnownField::Host => mem::replace(&mut self.host, true),
            KnownField::ContentLength => self.length.is_some(),
            KnownField::TransferEncoding => self.chunked,
            KnownField::Other | KnownField::Connection | KnownField::Expect => false,
        };
        match repeated {
            true => malformed("a second Content-Length, Transfer-Encoding or Host"),
            false => Ok(()),
        }
    }

    /// Records the value of the field.
    pub(super) fn read_value(&mut self, name: KnownField, value: &[u8]) -> Result<(), ParseError> {
        const FRAMING: ParseError = ParseError::Malformed("its Content-Length or Transfer-Encoding");
        match name {
            KnownField::Other | KnownField::Host => {}
            KnownField::ContentLength => {
                if value.is_empty() || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit) {
                    return Err(FRAMING);
                }
                let digits = value.iter().map(|digit| u64::from(digit - b'0'));
                let length = digits.fold(0, |number, digit| number * 10 + digit);
                // Some servers use signed 64-bit integers.
                if i64::try_from(length).is_err() {
                    return Err(FRAMING);
                }
                self.length = Some(length);
            }
            KnownField::TransferEncoding => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FRAMING);
                }
                self.chunked = true;
            }
            KnownField::Connection => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // A list (RFC 9110, section 10.1.1). Other expectations are ignored. The gateway never forwards the field.
            KnownField::Expect => {
                let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.expects_continue |= tokens.any(|token| token.eq_ignore_ascii_case(b"100-continue"));
            }
        }
        Ok(())
    }

    /// Checks that the fields of an HTTP/1.`minor` request allow one reading only of the bytes after the head.
    pub(super) fn check(self, minor: u8) -> Result<(), ParseError> {
        match (self.host, self.chunked, self.length) {
            (false, ..) => malformed("it has no Host"),
            (_, true, Some(_)) => malformed("Transfer-Encoding beside Content-Length"),
            (_, true, None) if minor == 0 => malformed("Transfer-Encoding on HTTP/1.0"),
            _ => Ok(()),
        }
    }

    /// The body that follows the head.
    pub(super) fn body(self) -> RemainingBody {
        match (self.chunked, self.length) {
            (true, _) => RemainingBody::chunked(),
            (false, length) => RemainingBody::length(length.unwrap_or(0)),
        }
    }

    /// Whether the client allows another request on the connection (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }

    /// Whether the client waits for a `100 Continue`. HTTP/1.0 has no such response (RFC 9110, section 10.1.1).
    pub(super) fn expects_continue(self, minor: u8) -> bool {
        minor == 1 && self.expects_continue
    }
}

//! Reads the framing of a chunked body byte by byte (RFC 9112, section 7.1): sizes, extensions, trailers, strictly and
//! within limits.

use super::grammar::{ParseError, is_token, is_value, malformed};

/// The maximum number of digits in a chunk's size. A number with more digits may not fit into a signed 64-bit integer.
const MAX_SIZE_DIGITS: u8 = 15;
/// The maximum number of bytes of one chunk's extensions, and of all trailers. The gateway drops both, so the limits
/// are small.
const MAX_EXTENSION_BYTES: usize = 256;
const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// The position of the next byte in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkedState {
    /// In a chunk size; `digits` of it were read.
    Size {
        digits: u8,
        size: u64,
    },
    /// In the extensions of a chunk of this size; `bytes` of them were read.
    Extension {
        part: Extension,
        bytes: usize,
        size: u64,
    },
    /// Before the LF of the line that has this size.
    SizeLf(u64),
    /// In the data of a chunk; this many bytes remain.
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailers; `bytes` of them were read.
    Trailer {
        part: Trailer,
        bytes: usize,
    },
}

/// The part of an extension that the next byte belongs to: `;name`, `;name=token` or `;name="text"`. The grammar allows
/// blanks for old clients only; this reader refuses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// The first character of its name.
    NameStart,
    Name,
    /// The first character of its value.
    ValueStart,
    Value,
    Quoted,
    /// After a `\` in quotes (RFC 9110, section 5.6.4).
    QuotedPair,
    /// After the quotes.
    QuotedEnd,
}

/// The part of a trailer that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailer {
    Start,
    Name,
    Value,
    ValueLf,
    EndLf,
}

impl ChunkedState {
    /// Before the first chunk.
    pub const START: Self = Self::Size { digits: 0, size: 0 };

    /// The state after one framing byte. `None` means that it was the last byte of the body.
    pub fn next(self, byte: u8) -> Result<Option<Self>, ParseError> {
        let next = match (self, byte) {
            (Self::Size { digits, size }, byte) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeLf(size),
            (Self::Size { digits: 1.., size }, b';') => Self::Extension {
                part: Extension::NameStart,
                bytes: 0,
                size,
            },
            (Self::Extension { part, size, .. }, b'\r') if part.may_end() => Self::SizeLf(size),
            (Self::Extension { bytes, .. }, _) if bytes == MAX_EXTENSION_BYTES => {
                return malformed("a chunk's extensions are too long");
            }
            (Self::Extension { part, bytes, size }, byte) => Self::Extension {
                part: part.next(byte)?,
                bytes: bytes + 1,
                size,
            },
            (Self::SizeLf(0), b'\n') => Self::Trailer {
                part: Trailer::Start,
                bytes: 0,
            },
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::Trailer { bytes, .. }, _) if bytes == MAX_TRAILER_BYTES => {
                return malformed("its trailers are too long");
            }
            (Self::Trailer { part, bytes }, byte) => match part.next(byte)? {
                None => return Ok(None),
                Some(part) => Self::Trailer { part, bytes: bytes + 1 },
            },
            _ => return malformed("its chunks"),
        };
        Ok(Some(next))
    }
}

impl Extension {
    fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::QuotedEnd)
    }

    fn next(self, byte: u8) -> Result<Self, ParseError> {
        match (self, byte) {
            (part, b';') if part.may_end() => Ok(Self::NameStart),
            (Self::NameStart | Self::Name, byte) if is_token(byte) => Ok(Self::Name),
            (Self::Name, b'=') => Ok(Self::ValueStart),
            (Self::ValueStart, b'"') => Ok(Self::Quoted),
            (Self::ValueStart | Self::Value, byte) if is_token(byte) => Ok(Self::Value),
            (Self::Quoted, b'"') => Ok(Self::QuotedEnd),
            (Self::Quoted, b'\\') => Ok(Self::QuotedPair),
            (Self::Quoted | Self::QuotedPair, byte) if is_value(byte) => Ok(Self::Quoted),
            _ => malformed("a chunk's extensions"),
        }
    }
}

impl Trailer {
    /// `None` means that the trailers have ended, and the body with them.
    fn next(self, byte: u8) -> Result<Option<Self>, ParseError> {
        match (self, byte) {
            (Self::Start, b'\r') => Ok(Some(Self::EndLf)),
            (Self::EndLf, b'\n') => Ok(None),
            (Self::Name, b':') => Ok(Some(Self::Value)),
            (Self::Start | Self::Name, byte) if is_token(byte) => Ok(Some(Self::Name)),
            (Self::Value, b'\r') => Ok(Some(Self::ValueLf)),
            (Self::Value, byte) if is_value(byte) => Ok(Some(Self::Value)),
            (Self::ValueLf, b'\n') => Ok(Some(Self::Start)),
            _ => malformed("its trailers"),
        }
    }
}

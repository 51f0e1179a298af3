//! A body in chunks, byte by byte (RFC 9112, section 7.1): sizes, extensions, trailers, strictly and within bounds.

use super::grammar::{Fault, is_token, is_value, malformed};

/// Digits of a chunk's size; more would not fit into 64 bits.
const MOST_DIGITS: u8 = 15;
/// Bytes of a chunk's extensions, and of all trailers: nothing reads them, so nobody needs many.
const EXTENSION_BYTES: usize = 256;
const TRAILER_BYTES: usize = 8 * 1024;

/// Where in the body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In a size, of which so many digits have come.
    Size {
        digits: u8,
        size: u64,
    },
    /// In the extensions of a chunk of that size, so many bytes of them.
    Extension {
        part: Extension,
        bytes: usize,
        size: u64,
    },
    /// At the end of the line with that size.
    SizeLf(u64),
    /// So much of a chunk is left.
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailers, so many bytes of them.
    Trailer {
        part: Trailer,
        bytes: usize,
    },
}

/// Which part of an extension comes: `;name`, `;name=token` or `;name="text"`. The blanks that the grammar allows are there for old
/// clients only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
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

/// Which part of a trailer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trailer {
    Start,
    Name,
    Value,
    ValueLf,
    EndLf,
}

impl Chunked {
    /// Before the first chunk.
    pub(crate) const BEGIN: Self = Self::Size { digits: 0, size: 0 };

    /// Takes one byte that is no data; `None`: it was the last one of the body.
    pub(crate) fn byte(self, byte: u8) -> Result<Option<Self>, Fault> {
        let next = match (self, byte) {
            (Self::Size { digits, size }, byte) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeLf(size),
            (Self::Size { digits: 1.., size }, b';') => Self::Extension {
                part: Extension::Begin,
                bytes: 0,
                size,
            },
            (Self::Extension { part, size, .. }, b'\r') if part.may_end() => Self::SizeLf(size),
            (Self::Extension { bytes, .. }, _) if bytes == EXTENSION_BYTES => {
                return malformed("a chunk's extensions are too long");
            }
            (Self::Extension { part, bytes, size }, byte) => Self::Extension {
                part: part.byte(byte)?,
                bytes: bytes + 1,
                size,
            },
            (Self::SizeLf(0), b'\n') => Self::Trailer {
                part: Trailer::Start,
                bytes: 0,
            },
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::BEGIN,
            (Self::Trailer { bytes, .. }, _) if bytes == TRAILER_BYTES => {
                return malformed("its trailers are too long");
            }
            (Self::Trailer { part, bytes }, byte) => match part.byte(byte)? {
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
        matches!(self, Self::Name | Self::Value | Self::Closed)
    }

    fn byte(self, byte: u8) -> Result<Self, Fault> {
        match (self, byte) {
            (part, b';') if part.may_end() => Ok(Self::Begin),
            (Self::Begin | Self::Name, byte) if is_token(byte) => Ok(Self::Name),
            (Self::Name, b'=') => Ok(Self::Equals),
            (Self::Equals, b'"') => Ok(Self::Quoted),
            (Self::Equals | Self::Value, byte) if is_token(byte) => Ok(Self::Value),
            (Self::Quoted, b'"') => Ok(Self::Closed),
            (Self::Quoted, b'\\') => Ok(Self::Pair),
            (Self::Quoted | Self::Pair, byte) if is_value(byte) => Ok(Self::Quoted),
            _ => malformed("a chunk's extensions"),
        }
    }
}

impl Trailer {
    /// `None`: the trailers, and the body with them, have ended.
    fn byte(self, byte: u8) -> Result<Option<Self>, Fault> {
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

//! The body after a head: a known number of bytes, or chunks (RFC 9112, section 6).

use bytes::{Buf, Bytes, BytesMut};

use super::chunked::ChunkedState;
use super::grammar::ParseError;

/// The part of a body that has not been read yet, as its head frames it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemainingBody {
    /// This many bytes. Invariant: at least one.
    Length(u64),
    /// Chunks. Trailers are read and dropped.
    Chunked(ChunkedState),
    /// No bytes: the message has ended.
    Empty,
}

impl RemainingBody {
    pub fn length(length: u64) -> Self {
        match length {
            0 => Self::Empty,
            length => Self::Length(length),
        }
    }

    pub fn chunked() -> Self {
        Self::Chunked(ChunkedState::START)
    }

    /// The number of remaining bytes, if it is known.
    pub fn exact_length(self) -> Option<u64> {
        match self {
            Self::Length(remaining) => Some(remaining),
            Self::Chunked(_) => None,
            Self::Empty => Some(0),
        }
    }

    /// Decodes the next data from the received bytes. `None` means that no data has arrived yet, or that the body has
    /// ended. It also reads the framing bytes after the data, so that it finds the end of the body together with the
    /// last data.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, ParseError> {
        match self {
            Self::Empty => Ok(None),
            Self::Length(remaining) => {
                let (data, remaining) = split_at_most(bytes, *remaining);
                *self = Self::length(remaining);
                Ok(data)
            }
            Self::Chunked(_) => {
                self.skip_framing(bytes)?;
                let Self::Chunked(ChunkedState::Data(remaining)) = self else {
                    return Ok(None);
                };
                let (data, remaining) = split_at_most(bytes, *remaining);
                *self = Self::Chunked(match remaining {
                    0 => ChunkedState::DataCr,
                    remaining => ChunkedState::Data(remaining),
                });
                // Ignore an error after the data: the next call finds it again, after the caller took the data.
                let _ = self.skip_framing(bytes);
                Ok(data)
            }
        }
    }

    /// Skips valid framing bytes, up to the next data or the end of the body.
    fn skip_framing(&mut self, bytes: &mut BytesMut) -> Result<(), ParseError> {
        let mut position = 0;
        let result = loop {
            let (Self::Chunked(state), Some(byte)) = (*self, bytes.get(position)) else {
                break Ok(());
            };
            if let ChunkedState::Data(_) = state {
                break Ok(());
            }
            match state.next(*byte) {
                Ok(next) => *self = next.map_or(Self::Empty, Self::Chunked),
                Err(error) => break Err(error),
            }
            position += 1;
        };
        bytes.advance(position);
        result
    }
}

/// Splits off at most `remaining` bytes. Returns them and the number of bytes that remain after them.
fn split_at_most(bytes: &mut BytesMut, remaining: u64) -> (Option<Bytes>, u64) {
    let count = usize::try_from(remaining).unwrap_or(usize::MAX).min(bytes.len());
    let data = (count > 0).then(|| bytes.split_to(count).freeze());
    (data, remaining - count as u64)
}

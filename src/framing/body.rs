//! The body that follows a head: a known number of bytes, or chunks (RFC 9112, section 6).

use bytes::{Buf, Bytes, BytesMut};

use super::chunked::Chunked;
use super::grammar::Fault;

/// The part of a body that has not been read yet, as its head frames it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// This many bytes. Invariant: at least one.
    Length(u64),
    /// Chunks. Trailers are read and dropped.
    Chunked(Chunked),
    /// No bytes: the message has ended.
    Nothing,
}

impl Rest {
    pub(crate) fn length(length: u64) -> Self {
        match length {
            0 => Self::Nothing,
            length => Self::Length(length),
        }
    }

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked::BEGIN)
    }

    /// The number of bytes, if it is known.
    pub(crate) fn exact(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(_) => None,
            Self::Nothing => Some(0),
        }
    }

    /// Takes the next data from the received bytes. `None` means that no data has arrived yet, or that the body has
    /// ended. It also reads the framing bytes after the data, so that it finds the end of the body together with the
    /// last data.
    pub(crate) fn take(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        match self {
            Self::Nothing => Ok(None),
            Self::Length(left) => {
                let (data, rest) = split(bytes, *left);
                *self = Self::length(rest);
                Ok(data)
            }
            Self::Chunked(_) => {
                self.pass(bytes)?;
                let Self::Chunked(Chunked::Data(left)) = self else {
                    return Ok(None);
                };
                let (data, rest) = split(bytes, *left);
                *self = Self::Chunked(match rest {
                    0 => Chunked::DataCr,
                    left => Chunked::Data(left),
                });
                // Ignore a fault after the data: the next call finds it again, after the caller took the data.
                let _ = self.pass(bytes);
                Ok(data)
            }
        }
    }

    /// Reads framing bytes, up to the next data or the end of the body.
    fn pass(&mut self, bytes: &mut BytesMut) -> Result<(), Fault> {
        let mut at = 0;
        let passed = loop {
            let (Self::Chunked(state), Some(byte)) = (*self, bytes.get(at)) else {
                break Ok(());
            };
            if let Chunked::Data(_) = state {
                break Ok(());
            }
            match state.byte(*byte) {
                Ok(next) => *self = next.map_or(Self::Nothing, Self::Chunked),
                Err(fault) => break Err(fault),
            }
            at += 1;
        };
        bytes.advance(at);
        passed
    }
}

/// Takes at most `left` bytes. Returns them and the number of bytes that are still missing.
fn split(bytes: &mut BytesMut, left: u64) -> (Option<Bytes>, u64) {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let data = (count > 0).then(|| bytes.split_to(count).freeze());
    (data, left - count as u64)
}

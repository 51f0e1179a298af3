//! What comes behind a head: so many bytes, or chunks (RFC 9112, section 6).

use bytes::{Buf, Bytes, BytesMut};

use super::chunked::Chunked;
use super::grammar::Fault;

/// The rest of a message, as its head has framed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// So many bytes, one at least.
    Length(u64),
    /// In chunks. Trailers are read, and dropped.
    Chunked(Chunked),
    /// Nothing: the message has ended.
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

    /// How much it is, where that is known.
    pub(crate) fn exact(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(_) => None,
            Self::Nothing => Some(0),
        }
    }

    /// Takes the next data out of what has come; `None`: there is none yet, or none any more. It reads on over what is no data, so that an end
    /// that has come is found with the last of the data.
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
                // What is wrong behind data is found again, once that is taken.
                let _ = self.pass(bytes);
                Ok(data)
            }
        }
    }

    /// Reads what is no data, up to data or the end.
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

/// So much of it as has come, and how much is left.
fn split(bytes: &mut BytesMut, left: u64) -> (Option<Bytes>, u64) {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let data = (count > 0).then(|| bytes.split_to(count).freeze());
    (data, left - count as u64)
}

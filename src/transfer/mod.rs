//! Messages on their way through: a request's body from the connection that reads it to whoever takes it, and a message of HTTP/1 into the
//! connection that it leaves by.

pub mod hints;
pub mod inbound;
pub(crate) mod sending;
pub mod streamed;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The least that is read at once of a body, and the most; reads grow while they are filled.
pub(crate) const SMALLEST_PIECE: usize = 8 * 1024;
pub(crate) const LARGEST_PIECE: usize = 128 * 1024;

/// Where data begins in a new buffer. TLS copies each record to a few bytes behind the beginning of a page, and from the beginning of another
/// page that takes some processors sixteen times as long: `rep movsb` on those of AMD (glibc bug 30994).
const ASIDE: usize = 64;

/// Reads about so many bytes behind what is there. Small pieces share one allocation, so that whoever holds one does not hold room for many.
pub(crate) fn read_behind<I: AsyncRead + Unpin>(
    io: &mut I,
    buffer: &mut BytesMut,
    piece: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < piece / 4 {
        if buffer.is_empty() {
            buffer.reserve(ASIDE + piece);
            buffer.put_bytes(0, ASIDE);
            buffer.advance(ASIDE);
        } else {
            buffer.reserve(piece);
        }
    }
    // It keeps nothing between two polls.
    pin!(io.read_buf(buffer)).poll(cx)
}

/// What is to be read at once after so much of `piece` has come.
pub(crate) fn next_piece(piece: usize, count: usize) -> usize {
    if count >= piece {
        (piece * 2).min(LARGEST_PIECE)
    } else if count < piece / 8 {
        (piece / 2).max(SMALLEST_PIECE)
    } else {
        piece
    }
}

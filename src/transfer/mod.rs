//! Message bodies in transit: a request's body from the client connection to its consumer, and an HTTP/1 message into
//! the connection that sends it.

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

/// The smallest and the largest read size for a body. The size grows while reads fill it.
pub(crate) const SMALLEST_PIECE: usize = 8 * 1024;
pub(crate) const LARGEST_PIECE: usize = 128 * 1024;

/// The offset of data in a new buffer. TLS copies each record to a few bytes after the start of a page. If the source
/// begins at the start of a page, `rep movsb` on AMD processors takes up to sixteen times as long (glibc bug 30994).
const ASIDE: usize = 64;

/// Reads about `piece` bytes and appends them to `buffer`. Small pieces share one allocation, so that a held piece does
/// not keep a large buffer alive.
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
    // `read_buf` keeps no state between two polls.
    pin!(io.read_buf(buffer)).poll(cx)
}

/// The size of the next read, after a read of size `piece` returned `count` bytes.
pub(crate) fn next_piece(piece: usize, count: usize) -> usize {
    if count >= piece {
        (piece * 2).min(LARGEST_PIECE)
    } else if count < piece / 8 {
        (piece / 2).max(SMALLEST_PIECE)
    } else {
        piece
    }
}

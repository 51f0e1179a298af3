//! Message bodies in transit: a request's body from the client connection to its consumer, and an HTTP/1 message into
//! the connection that sends it.

pub mod early_hints;
pub mod http2_body;
pub mod incoming;
pub(crate) mod message_writer;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The smallest and the largest read size for a body. The size grows while reads fill it.
pub(crate) const MIN_READ_SIZE: usize = 8 * 1024;
pub(crate) const MAX_READ_SIZE: usize = 128 * 1024;

/// The offset of data in a new buffer. TLS copies each record to a few bytes after the start of a page. If the source
/// begins at the start of a page, `rep movsb` on AMD processors takes up to sixteen times as long (glibc bug 30994).
const DATA_OFFSET: usize = 64;

/// Reads about `size` bytes and appends them to `buffer`. Small reads share one allocation, so that data that is kept does
/// not keep a large buffer alive.
pub(crate) fn poll_read_buf<I: AsyncRead + Unpin>(
    io: &mut I,
    buffer: &mut BytesMut,
    size: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < size / 4 {
        if buffer.is_empty() {
            // `reserve` would copy the data that was taken to the larger allocation.
            if !buffer.try_reclaim(DATA_OFFSET + size) {
                *buffer = BytesMut::with_capacity(DATA_OFFSET + size);
            }
            buffer.put_bytes(0, DATA_OFFSET);
            buffer.advance(DATA_OFFSET);
        } else {
            buffer.reserve(size);
        }
    }
    // `read_buf` keeps no state between two polls.
    pin!(io.read_buf(buffer)).poll(cx)
}

/// The size of the next read, after a read of size `size` returned `count` bytes.
pub(crate) fn next_read_size(size: usize, count: usize) -> usize {
    if count >= size {
        (size * 2).min(MAX_READ_SIZE)
    } else if count < size / 8 {
        (size / 2).max(MIN_READ_SIZE)
    } else {
        size
    }
}

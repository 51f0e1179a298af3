//! Waits for room in the flow-control window of a stream (RFC 9113, section 5.2) before h2 gets data for it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

/// The limit of what h2 buffers for each stream while the client does not read.
pub(super) const SEND_BUFFER: usize = 64 * 1024;

/// Ready when the window has capacity for some of `bytes`: returns how much. h2 gives at most [`SEND_BUFFER`]. Wake-up: h2, when the window opens.
pub(super) fn poll_capacity(
    out: &mut SendStream<Bytes>,
    bytes: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    let bytes = bytes.min(SEND_BUFFER);
    // Reserved capacity that is not used is missing to other streams. This capacity is used as soon as it is available.
    out.reserve_capacity(bytes);
    loop {
        match out.capacity() {
            0 => {
                if ready!(out.poll_capacity(cx)).transpose()?.is_none() {
                    return Poll::Ready(Err(Reason::STREAM_CLOSED.into()));
                }
            }
            capacity => return Poll::Ready(Ok(capacity.min(bytes))),
        }
    }
}

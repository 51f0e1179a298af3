//! [`TunnelIo`]: an HTTP/2 stream as an IO, for a WebSocket (RFC 8441, section 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::SendStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::capacity::poll_capacity;
use crate::transfer::http2_body::Upload;

/// Both directions of a stream.
pub(super) struct TunnelIo {
    out: SendStream<Bytes>,
    stream: Upload,
    /// Data that came from h2 and was not copied to the reader yet.
    read_buf: Bytes,
}

impl TunnelIo {
    pub(super) fn new(out: SendStream<Bytes>, stream: Upload) -> Self {
        Self {
            out,
            stream,
            read_buf: Bytes::new(),
        }
    }
}

fn into_io_error(problem: h2::Error) -> io::Error {
    if problem.is_io()
        && let Some(kind) = problem.get_io().map(io::Error::kind)
    {
        return kind.into();
    }
    io::Error::other(problem)
}

impl AsyncRead for TunnelIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read_buf.is_empty() {
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.read_buf = data,
                // RST_STREAM is treated like a TCP reset (RFC 8441, section 5): the reader gets an error.
                Some(Err(problem)) => return Poll::Ready(Err(into_io_error(problem))),
            }
        }
        let count = self.read_buf.len().min(buf.remaining());
        buf.put_slice(&self.read_buf[..count]);
        self.read_buf.advance(count);
        self.stream.release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let capacity = ready!(poll_capacity(&mut self.out, bytes.len(), cx)).map_err(into_io_error)?;
        self.out
            .send_data(Bytes::copy_from_slice(&bytes[..capacity]), false)
            .map_err(into_io_error)?;
        Poll::Ready(Ok(capacity))
    }

    /// h2 sends its data without a flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An error means that the stream has already ended.
        let _ = self.out.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}

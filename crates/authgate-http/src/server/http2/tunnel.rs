//! [`Tunnel`]: an HTTP/2 stream as an IO, for a WebSocket (RFC 8441, section 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::SendStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exchange::poll_room;
use crate::transfer::http2_body::Upload;

/// Both directions of a stream.
pub(super) struct Tunnel {
    out: SendStream<Bytes>,
    stream: Upload,
    /// Data that came from h2 and was not copied to the reader yet.
    read: Bytes,
}

impl Tunnel {
    pub(super) fn new(out: SendStream<Bytes>, stream: Upload) -> Self {
        Self {
            out,
            stream,
            read: Bytes::new(),
        }
    }
}

fn broken(problem: h2::Error) -> io::Error {
    if problem.is_io()
        && let Some(kind) = problem.get_io().map(io::Error::kind)
    {
        return kind.into();
    }
    io::Error::other(problem)
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.read = data,
                // RST_STREAM is treated like a TCP reset (RFC 8441, section 5): the reader gets an error.
                Some(Err(problem)) => return Poll::Ready(Err(broken(problem))),
            }
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        self.stream.release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(poll_room(&mut self.out, bytes.len(), cx)).map_err(broken)?;
        self.out
            .send_data(Bytes::copy_from_slice(&bytes[..room]), false)
            .map_err(broken)?;
        Poll::Ready(Ok(room))
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

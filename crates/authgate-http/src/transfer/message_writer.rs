//! Sends an HTTP/1 message: the head in one buffer, and the body after it, framed as the head says (RFC 9112, section
//! 6).

use std::io::{self, IoSlice, Write};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

/// Frames up to this size are copied into the output buffer. Larger ones are written without a copy.
const MAX_COPIED: usize = 4 * 1024;
/// The body is polled again only while the output buffer is smaller than this.
const MAX_BUFFERED: usize = 16 * 1024;

/// A message, or the part that was not sent yet.
#[derive(Debug)]
pub(crate) struct MessageWriter<B: Body> {
    /// The head, the chunk framing, and small frames of the body. Its bytes are sent before `data`.
    out: Vec<u8>,
    /// The length of the head at the beginning of `out`. Valid while `sent == 0`.
    head_length: usize,
    /// Invariant: `out_written <= out.len()`.
    out_written: usize,
    data: Bytes,
    body: BodyState<B, B::Error>,
    framing: Framing,
    /// The number of bytes that were sent.
    sent: u64,
    /// What the last pending poll waits for.
    waits_for: WaitsFor,
}

/// The body of a message, beside the data that was taken from it.
#[derive(Debug)]
enum BodyState<B, E> {
    /// It is polled for more.
    Open(B),
    /// Its end is in the buffers, or there is no body.
    Ended,
    /// The error is returned once the bytes before it are written.
    Failed(SendError<E>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// For more of the body, or the message is complete.
    Body,
    /// For the peer, which does not read at the moment.
    Peer,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes are still to come.
    Length(u64),
    Chunked {
        /// Whether the line end after a chunk is due, once its data is written.
        line_end_due: bool,
    },
    /// The body lasts until the connection closes.
    UntilClose,
}

impl Framing {
    /// Before the first chunk.
    pub(crate) const CHUNKED: Self = Self::Chunked { line_end_due: false };
}

/// Why a message could not be sent completely. The bytes before the error were written, as far as the peer accepted
/// them.
#[derive(Debug)]
pub(crate) enum SendError<E> {
    Io(io::Error),
    Body(E),
    /// The body does not have the length that its head says.
    LengthMismatch,
}

impl<B: Body<Data = Bytes> + Unpin> MessageWriter<B> {
    /// A message whose head is in `out`. No frame of `body` was taken yet.
    pub(crate) fn new(out: Vec<u8>, body: Option<B>, framing: Framing) -> Self {
        Self {
            head_length: out.len(),
            out,
            out_written: 0,
            data: Bytes::new(),
            body: body.map_or(BodyState::Ended, BodyState::Open),
            framing,
            sent: 0,
            waits_for: WaitsFor::Body,
        }
    }

    /// The number of bytes that were sent.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent
    }

    /// Whether it waits for the peer, and not for more of the body.
    pub(crate) fn is_blocked(&self) -> bool {
        self.waits_for == WaitsFor::Peer
    }

    /// The number of bytes that wait to be written.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.out.len() - self.out_written + self.data.len()
    }

    /// The body of a message of which no byte was sent: the data that was taken from it, and the remaining body. `None`
    /// if the body cannot be restored.
    pub(crate) fn into_unsent_body(self) -> Option<(Bytes, Option<B>)> {
        let body = match self.body {
            BodyState::Open(body) => Some(body),
            BodyState::Ended => None,
            BodyState::Failed(_) => return None,
        };
        let copied = self.out.get(self.head_length..)?;
        match (self.sent, self.framing) {
            (0, _) if copied.is_empty() => Some((self.data, body)),
            (0, Framing::Length(_)) => Some((Bytes::from([copied, &self.data].concat()), body)),
            // In a chunked body, the taken data is mixed with chunk sizes.
            (0, Framing::Chunked { .. } | Framing::UntilClose) | (1.., _) => None,
        }
    }

    /// Returns the buffer, so that another message can reuse it.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.out
    }

    /// Continues to send. It is ready once the whole message is written.
    pub(crate) fn poll<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<B::Error>>> {
        loop {
            let body_pending = self.poll_body(cx).is_pending();
            let body_ended = !matches!(self.body, BodyState::Open(_));
            self.waits_for = WaitsFor::Peer;
            ready!(self.poll_out(io, body_pending || body_ended, cx)).map_err(SendError::Io)?;
            self.waits_for = WaitsFor::Body;
            if matches!(self.body, BodyState::Failed(_))
                && let BodyState::Failed(error) = mem::replace(&mut self.body, BodyState::Ended)
            {
                return Poll::Ready(Err(error));
            }
            match (body_ended, body_pending) {
                (true, _) => return Poll::Ready(Ok(())),
                (false, true) => return Poll::Pending,
                (false, false) => {}
            }
        }
    }

    /// Writes all buffered bytes, and then flushes if `flush` is set.
    fn poll_out<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        flush: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending_bytes() > 0 {
            let count = ready!(poll_write(io, cx, &self.out[self.out_written..], &self.data))?;
            self.sent += count as u64;
            let from_out = count.min(self.out.len() - self.out_written);
            self.out_written += from_out;
            self.data.advance(count - from_out);
        }
        self.out.clear();
        self.out_written = 0;
        match flush {
            true => Pin::new(io).poll_flush(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Polls the body while there is room for more data. Pending if the body is pending.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Framing::Chunked { line_end_due } = &mut self.framing
            && self.data.is_empty()
            && mem::take(line_end_due)
        {
            self.out.extend_from_slice(b"\r\n");
        }
        while let BodyState::Open(body) = &mut self.body
            && self.data.is_empty()
            && self.out.len() < MAX_BUFFERED
        {
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose();
            let last = body.is_end_stream();
            if let Err(error) = self.append_frame(frame, last) {
                self.body = BodyState::Failed(error);
            }
        }
        Poll::Ready(())
    }

    fn append_frame(
        &mut self,
        frame: Result<Option<Frame<Bytes>>, B::Error>,
        last: bool,
    ) -> Result<(), SendError<B::Error>> {
        let frame = frame.map_err(SendError::Body)?;
        let is_last = last || frame.is_none();
        // Trailers are dropped.
        let data = frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        self.start_data(data.len())?;
        let is_chunked = matches!(self.framing, Framing::Chunked { .. });
        if data.len() > MAX_COPIED {
            self.data = data;
            if is_chunked {
                self.framing = Framing::Chunked { line_end_due: true };
            }
        } else if !data.is_empty() {
            self.out.extend_from_slice(&data);
            if is_chunked {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        // In a chunked body, the end must come after data that is written without a copy.
        if is_last && (self.data.is_empty() || !is_chunked) {
            self.body = BodyState::Ended;
            self.finish()?;
        }
        Ok(())
    }

    /// Writes the framing before `length` bytes of data.
    fn start_data(&mut self, length: usize) -> Result<(), SendError<B::Error>> {
        match &mut self.framing {
            Framing::Length(remaining) => {
                *remaining = remaining.checked_sub(length as u64).ok_or(SendError::LengthMismatch)?
            }
            // An empty chunk would be the last one.
            Framing::Chunked { .. } if length == 0 => {}
            Framing::Chunked { .. } => write!(self.out, "{length:x}\r\n").map_err(SendError::Io)?,
            Framing::UntilClose => {}
        }
        Ok(())
    }

    /// Writes the framing after the last frame.
    fn finish(&mut self) -> Result<(), SendError<B::Error>> {
        match self.framing {
            Framing::Length(0) | Framing::UntilClose => {}
            Framing::Length(_) => return Err(SendError::LengthMismatch),
            Framing::Chunked { .. } => self.out.extend_from_slice(b"0\r\n\r\n"),
        }
        Ok(())
    }
}

fn poll_write<I: AsyncWrite + Unpin>(
    io: &mut I,
    cx: &mut Context<'_>,
    out: &[u8],
    data: &[u8],
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    let written = match (out.is_empty(), data.is_empty()) {
        (false, false) if io.is_write_vectored() => {
            io.poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(data)])
        }
        (false, _) => io.poll_write(cx, out),
        (true, _) => io.poll_write(cx, data),
    };
    written.map(|count| match count {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        count => count,
    })
}

/// Writes the `Content-Length` field.
pub(crate) fn write_content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

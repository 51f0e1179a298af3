//! The body of a response, with the framing that its head announced (RFC 9112, sections 6 and 7). At its end, the connection can serve another
//! request, unless something about the response was ambiguous.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;
use tracing::debug;

use super::connection::Connection;
use super::request::MessageWriter;
use super::response::Framing;
use crate::framing::chunked::ChunkedState;
use crate::framing::grammar::ParseError;
use crate::runtime::DeadlineTimer;
use crate::transfer::{MIN_READ_SIZE, next_read_size, poll_read_buf};

/// If a server has answered and reads nothing of the rest of the request for this long, it will not read it.
const UPLOAD_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The limit of trailer fields.
const MAX_TRAILERS: usize = 64;

/// Why the body of a response did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection could not be read.
    #[error("the connection failed in the middle of a body: {0}")]
    Io(#[from] io::Error),
    /// The connection ended before the body.
    #[error("the connection ended before the end of a body")]
    UnexpectedEof,
    /// The framing is invalid.
    #[error("invalid framing of a body: {0}")]
    Malformed(&'static str),
}

/// The body of a response, and its connection.
pub struct Body<I> {
    read_side: ReadSide<I>,
    read_buf: BytesMut,
    remaining: Remaining,
    /// The size of the next read.
    read_size: usize,
    /// Whether the connection can serve another request after the body.
    reusable: bool,
    idle_limit: Option<u16>,
    write_buf: Vec<u8>,
    timer: DeadlineTimer,
}

/// A connection whose response head was read.
pub(super) struct ReceivedHead<I> {
    pub(super) io: I,
    /// What was read after the head.
    pub(super) read_buf: BytesMut,
    /// The empty buffer of the sent request, for reuse.
    pub(super) write_buf: Vec<u8>,
    pub(super) timer: DeadlineTimer,
    /// The rest of the request, if the server has answered before it was sent.
    pub(super) sending: Option<MessageWriter>,
    pub(super) framing: Framing,
    /// Whether the connection can serve another request after the body. Never with `sending`.
    pub(super) reusable: bool,
    pub(super) idle_limit: Option<u16>,
}

/// The remaining part of the body.
#[derive(Debug)]
enum Remaining {
    Length(u64),
    Chunked(ChunkedState, Vec<u8>),
    UntilClose,
    /// Trailers, after the last chunk.
    Trailers(Box<HeaderMap>),
    End,
    /// The body was cut off; it has no regular end.
    Failed,
}

enum ReadSide<I> {
    Whole(I),
    /// A task sends the rest of the request on the other half.
    Split(ReadHalf<I>, UploadTask),
}

/// Aborts its task when it is dropped, unless the handle was taken out.
struct UploadTask(Option<AbortHandle>);

impl Drop for UploadTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl<I> fmt::Debug for Body<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Body<I> {
    pub(super) fn new(received: ReceivedHead<I>) -> Self {
        let remaining = match received.framing {
            Framing::Length(0) => Remaining::End,
            Framing::Length(length) => Remaining::Length(length),
            Framing::Chunked => Remaining::Chunked(ChunkedState::START, Vec::new()),
            Framing::UntilClose => Remaining::UntilClose,
        };
        let read_side = match received.sending {
            Some(sending) => upload_in_task(received.io, sending),
            None => ReadSide::Whole(received.io),
        };
        Self {
            read_side,
            read_buf: received.read_buf,
            remaining,
            read_size: MIN_READ_SIZE,
            reusable: received.reusable,
            idle_limit: received.idle_limit,
            write_buf: received.write_buf,
            timer: received.timer,
        }
    }

    /// Whether the rest of the request is still being sent.
    pub fn is_uploading(&self) -> bool {
        let task = match &self.read_side {
            ReadSide::Split(_, upload) => upload.0.as_ref(),
            ReadSide::Whole(_) => None,
        };
        task.is_some_and(|task| !task.is_finished())
    }

    /// The connection, if the body has ended and the connection can serve another request.
    ///
    /// After a complete response, the rest of the request is sent to its end. The client has its answer, and may have more requests on its connection.
    pub fn into_connection(mut self) -> Option<Connection<I>> {
        if let (ReadSide::Split(_, upload), Remaining::End) = (&mut self.read_side, &self.remaining) {
            upload.0 = None;
        }
        // Bytes after the response belong to no request.
        let reusable = self.reusable && self.read_buf.is_empty() && matches!(self.remaining, Remaining::End);
        if !reusable {
            return None;
        }
        match self.read_side {
            ReadSide::Whole(io) => Some(Connection {
                io,
                read_buf: self.read_buf,
                write_buf: self.write_buf,
                timer: self.timer,
                idle_limit: self.idle_limit,
            }),
            ReadSide::Split(..) => None,
        }
    }

    /// After an error the body yields nothing more, and its connection is not reused.
    fn fail(&mut self, error: BodyError) -> BodyError {
        self.remaining = Remaining::Failed;
        error
    }

    /// Reads more data behind the present data; `0`: the connection has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read_size = self.read_size;
        let count = ready!(match &mut self.read_side {
            ReadSide::Whole(io) => poll_read_buf(io, &mut self.read_buf, read_size, cx),
            ReadSide::Split(io, _) => poll_read_buf(io, &mut self.read_buf, read_size, cx),
        })?;
        self.read_size = next_read_size(read_size, count);
        Poll::Ready(Ok(count))
    }

    /// Takes the next frame from what was read, and detects the end of the body.
    fn take_frame(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        let available = self.read_buf.len();
        match &mut self.remaining {
            Remaining::End | Remaining::Failed => {}
            Remaining::Trailers(_) => {
                if let Remaining::Trailers(trailers) = mem::replace(&mut self.remaining, Remaining::End) {
                    return Ok(Some(Frame::trailers(*trailers)));
                }
            }
            Remaining::UntilClose if available > 0 => return Ok(Some(Frame::data(self.read_buf.split().freeze()))),
            Remaining::UntilClose => {}
            Remaining::Length(left) if available > 0 => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                *left -= count as u64;
                if *left == 0 {
                    self.remaining = Remaining::End;
                }
                return Ok(Some(Frame::data(self.read_buf.split_to(count).freeze())));
            }
            Remaining::Length(_) => {}
            Remaining::Chunked(..) => return self.take_chunk(),
        }
        Ok(None)
    }

    fn take_chunk(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        let Remaining::Chunked(state, trailers) = &mut self.remaining else {
            return Ok(None);
        };
        let mut at = 0;
        while let Some(&byte) = self.read_buf.get(at) {
            if let ChunkedState::Data(left) = *state {
                let _ = self.read_buf.split_to(at);
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.read_buf.len());
                *state = match left - count as u64 {
                    0 => ChunkedState::DataCr,
                    left => ChunkedState::Data(left),
                };
                return Ok(Some(Frame::data(self.read_buf.split_to(count).freeze())));
            }
            if matches!(state, ChunkedState::Trailer { .. }) {
                // The chunk parser limits the size.
                trailers.push(byte);
            }
            at += 1;
            match state.next(byte).map_err(malformed)? {
                Some(next) => *state = next,
                None => {
                    let trailers = parse_trailers(trailers)?;
                    let _ = self.read_buf.split_to(at);
                    self.remaining = match trailers.is_empty() {
                        true => Remaining::End,
                        false => Remaining::Trailers(Box::new(trailers)),
                    };
                    return self.take_frame();
                }
            }
        }
        self.read_buf.clear();
        Ok(None)
    }
}

/// Sends the rest of a request in a separate task. A server that has begun to answer may still need it, and a client may not read the answer
/// before it has sent everything.
fn upload_in_task<I: AsyncRead + AsyncWrite + Unpin + 'static>(io: I, mut sending: MessageWriter) -> ReadSide<I> {
    let (reader, mut writer): (ReadHalf<I>, WriteHalf<I>) = split(io);
    let task = spawn_local(async move {
        let (mut timer, mut left, mut since) = (DeadlineTimer::default(), None, Instant::now());
        let sent = poll_fn(|cx| {
            let polled = sending.poll(&mut writer, cx).map(Some);
            // Silence of the client has its own timeout in the request body.
            if polled.is_pending()
                && (sending.pending_bytes() == 0
                    || left.replace(sending.pending_bytes()) != Some(sending.pending_bytes()))
            {
                since = Instant::now();
            }
            match polled {
                Poll::Pending => timer.poll_until(since + UPLOAD_STALL_TIMEOUT, cx).map(|()| None),
                sent => sent,
            }
        });
        let sent = sent.await;
        if !matches!(sent, Some(Ok(()))) {
            debug!(reason = ?sent, "the rest of a request did not get through");
            // A closed connection shows the server that the request is incomplete.
            let _ = writer.shutdown().await;
        }
    });
    ReadSide::Split(reader, UploadTask(Some(task.abort_handle())))
}

fn malformed(fault: ParseError) -> BodyError {
    match fault {
        ParseError::Malformed(what) => BodyError::Malformed(what),
        ParseError::TargetTooLong | ParseError::HeadTooLarge => BodyError::Malformed("invalid chunks"),
    }
}

fn parse_trailers(bytes: &[u8]) -> Result<HeaderMap, BodyError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let wrong = BodyError::Malformed("invalid trailers");
    let Ok(httparse::Status::Complete((_, read))) = httparse::parse_headers(bytes, &mut fields) else {
        return Err(wrong);
    };
    let mut trailers = HeaderMap::with_capacity(read.len());
    for field in read {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
            return Err(wrong);
        };
        trailers.append(name, value);
    }
    Ok(trailers)
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> http_body::Body for Body<I> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            match this.take_frame() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if matches!(this.remaining, Remaining::End | Remaining::Failed) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(this.fail(error)))),
            }
            match ready!(this.poll_read(cx)) {
                Ok(0) if matches!(this.remaining, Remaining::UntilClose) => {
                    this.remaining = Remaining::End;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(this.fail(BodyError::UnexpectedEof)))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(this.fail(BodyError::Io(error))))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.remaining, Remaining::End)
    }

    fn size_hint(&self) -> SizeHint {
        match self.remaining {
            Remaining::Length(left) => SizeHint::with_exact(left),
            Remaining::End => SizeHint::with_exact(0),
            Remaining::Chunked(..) | Remaining::UntilClose | Remaining::Trailers(_) | Remaining::Failed => {
                SizeHint::default()
            }
        }
    }
}

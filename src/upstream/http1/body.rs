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

use super::request::MessageWriter;
use super::response::{Framing, Head};
use super::{Connection, Exchange};
use crate::framing::chunked::ChunkedState;
use crate::framing::grammar::ParseError;
use crate::runtime::DeadlineTimer;
use crate::transfer::{MIN_READ_SIZE, next_read_size, poll_read_buf};

/// If a server has answered and reads nothing of the rest of the request for this long, it will not read it.
const STUCK: Duration = Duration::from_secs(60);
/// The limit of trailer fields.
const MOST_TRAILERS: usize = 64;

/// Why the body of a response did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The connection could not be read.
    #[error("the connection broke in the middle of a body: {0}")]
    Broken(#[from] io::Error),
    /// The connection ended before the body.
    #[error("the connection ended before a body did")]
    Ended,
    /// The framing is invalid.
    #[error("a body is broken: {0}")]
    Malformed(&'static str),
}

/// The body of a response, and its connection.
pub struct Body<I> {
    reader: Reader<I>,
    read: BytesMut,
    left: Left,
    /// The size of the next read.
    piece: usize,
    keeps_alive: bool,
    idle_limit: Option<u16>,
    out: Vec<u8>,
    timer: DeadlineTimer,
}

/// The remaining part of the body.
#[derive(Debug)]
enum Left {
    Length(u64),
    Chunked(ChunkedState, Vec<u8>),
    UntilClose,
    /// Trailers, after the last chunk.
    Trailers(Box<HeaderMap>),
    Nothing,
    /// The body was cut off; it has no regular end.
    Cut,
}

enum Reader<I> {
    Whole(I),
    /// A task sends the rest of the request on the other half.
    Half(ReadHalf<I>, Beside),
}

/// Aborts its task when it is dropped, unless the handle was taken out.
struct Beside(Option<AbortHandle>);

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl<I> fmt::Debug for Body<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Body<I> {
    pub(super) fn new(exchange: Exchange<'_, I>, timer: DeadlineTimer, head: &Head) -> Self {
        let Exchange {
            io,
            read,
            sending,
            out,
            deaf,
            ..
        } = exchange;
        let left = match head.framing {
            Framing::Length(0) => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::Chunked(ChunkedState::START, Vec::new()),
            Framing::UntilClose => Left::UntilClose,
        };
        // A server that answers before it has read the whole request may or may not read the rest, so the connection is not reused.
        let keeps_alive = head.keeps_alive && sending.is_none() && deaf.is_none();
        let reader = match sending {
            Some(sending) => beside(io, sending),
            None => Reader::Whole(io),
        };
        Self {
            reader,
            read,
            left,
            piece: MIN_READ_SIZE,
            keeps_alive,
            idle_limit: head.idle_limit,
            out,
            timer,
        }
    }

    /// Whether the rest of the request is still being sent.
    pub fn is_sending(&self) -> bool {
        let task = match &self.reader {
            Reader::Half(_, beside) => beside.0.as_ref(),
            Reader::Whole(_) => None,
        };
        task.is_some_and(|task| !task.is_finished())
    }

    /// The connection, if the body has ended and the connection can serve another request.
    ///
    /// After a complete response, the rest of the request is sent to its end. The client has its answer, and may have more requests on its connection.
    pub fn into_connection(mut self) -> Option<Connection<I>> {
        if let (Reader::Half(_, beside), Left::Nothing) = (&mut self.reader, &self.left) {
            beside.0 = None;
        }
        // Bytes after the response belong to no request.
        let reusable = self.keeps_alive && self.read.is_empty() && matches!(self.left, Left::Nothing);
        if !reusable {
            return None;
        }
        match self.reader {
            Reader::Whole(io) => Some(Connection {
                io,
                read: self.read,
                out: self.out,
                timer: self.timer,
                idle_limit: self.idle_limit,
            }),
            Reader::Half(..) => None,
        }
    }

    /// After an error the body yields nothing more, and its connection is not reused.
    fn cut(&mut self, cut: Cut) -> Cut {
        self.left = Left::Cut;
        cut
    }

    /// Reads more data behind the present data; `0`: the connection has ended.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let piece = self.piece;
        let count = ready!(match &mut self.reader {
            Reader::Whole(io) => poll_read_buf(io, &mut self.read, piece, cx),
            Reader::Half(io, _) => poll_read_buf(io, &mut self.read, piece, cx),
        })?;
        self.piece = next_read_size(piece, count);
        Poll::Ready(Ok(count))
    }

    /// Takes the next frame from what was read, and detects the end of the body.
    fn take(&mut self) -> Result<Option<Frame<Bytes>>, Cut> {
        let available = self.read.len();
        match &mut self.left {
            Left::Nothing | Left::Cut => {}
            Left::Trailers(_) => {
                if let Left::Trailers(trailers) = mem::replace(&mut self.left, Left::Nothing) {
                    return Ok(Some(Frame::trailers(*trailers)));
                }
            }
            Left::UntilClose if available > 0 => return Ok(Some(Frame::data(self.read.split().freeze()))),
            Left::UntilClose => {}
            Left::Length(left) if available > 0 => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                *left -= count as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                return Ok(Some(Frame::data(self.read.split_to(count).freeze())));
            }
            Left::Length(_) => {}
            Left::Chunked(..) => return self.take_chunk(),
        }
        Ok(None)
    }

    fn take_chunk(&mut self) -> Result<Option<Frame<Bytes>>, Cut> {
        let Left::Chunked(state, trailers) = &mut self.left else {
            return Ok(None);
        };
        let mut at = 0;
        while let Some(&byte) = self.read.get(at) {
            if let ChunkedState::Data(left) = *state {
                let _ = self.read.split_to(at);
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.read.len());
                *state = match left - count as u64 {
                    0 => ChunkedState::DataCr,
                    left => ChunkedState::Data(left),
                };
                return Ok(Some(Frame::data(self.read.split_to(count).freeze())));
            }
            if matches!(state, ChunkedState::Trailer { .. }) {
                // The chunk parser limits the size.
                trailers.push(byte);
            }
            at += 1;
            match state.next(byte).map_err(malformed)? {
                Some(next) => *state = next,
                None => {
                    let trailers = fields(trailers)?;
                    let _ = self.read.split_to(at);
                    self.left = match trailers.is_empty() {
                        true => Left::Nothing,
                        false => Left::Trailers(Box::new(trailers)),
                    };
                    return self.take();
                }
            }
        }
        self.read.clear();
        Ok(None)
    }
}

/// Sends the rest of a request in a separate task. A server that has begun to answer may still need it, and a client may not read the answer
/// before it has sent everything.
fn beside<I: AsyncRead + AsyncWrite + Unpin + 'static>(io: I, mut sending: MessageWriter) -> Reader<I> {
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
                Poll::Pending => timer.poll_until(since + STUCK, cx).map(|()| None),
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
    Reader::Half(reader, Beside(Some(task.abort_handle())))
}

fn malformed(fault: ParseError) -> Cut {
    match fault {
        ParseError::Malformed(what) => Cut::Malformed(what),
        ParseError::TargetTooLong | ParseError::HeadTooLarge => Cut::Malformed("its chunks"),
    }
}

fn fields(bytes: &[u8]) -> Result<HeaderMap, Cut> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let wrong = Cut::Malformed("its trailers");
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
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        loop {
            match this.take() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if matches!(this.left, Left::Nothing | Left::Cut) => return Poll::Ready(None),
                Ok(None) => {}
                Err(cut) => return Poll::Ready(Some(Err(this.cut(cut)))),
            }
            match ready!(this.poll_more(cx)) {
                Ok(0) if matches!(this.left, Left::UntilClose) => {
                    this.left = Left::Nothing;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(this.cut(Cut::Ended)))),
                Ok(_) => {}
                Err(problem) => return Poll::Ready(Some(Err(this.cut(Cut::Broken(problem))))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Left::Length(left) => SizeHint::with_exact(left),
            Left::Nothing => SizeHint::with_exact(0),
            Left::Chunked(..) | Left::UntilClose | Left::Trailers(_) | Left::Cut => SizeHint::default(),
        }
    }
}

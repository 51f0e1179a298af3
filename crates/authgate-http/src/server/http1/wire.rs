//! The HTTP/1 connection to a client outside its idle time: it reads request heads and bodies, and writes interim and final responses.
//!
//! The response is written while the request body is read: `poll_beside` and `poll_sending` do both.

use std::future::Future;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::debug;

use super::request_body::RequestBody;
use super::response_head;
use crate::framing::body::RemainingBody;
use crate::framing::grammar::ParseError;
use crate::framing::header_case::HeaderCase;
use crate::framing::request::{HeadLimits, HeadReader, RequestHead};
use crate::runtime::DeadlineTimer;
use crate::server::socket::{Stream, Transport};
use crate::transfer::early_hints::EarlyHints;
use crate::transfer::incoming::{Demand, IncomingBody};
use crate::transfer::message_writer::{MessageWriter, SendError};
use crate::transfer::{MIN_READ_SIZE, next_read_size, poll_read_buf};

/// The buffer for one read of a head: a TLS record holds no more (RFC 8446, section 5.1).
const HEAD_READ_SIZE: usize = 16 * 1024;
/// After the end of a request body, the connection reads ahead up to this many bytes of the next request.
const MAX_READ_AHEAD: usize = 16 * 1024;
/// A larger buffer is not kept for the next response.
const MAX_KEPT_BUFFER: usize = 32 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Limit of interim responses in `interim` while the client does not read; further hints are dropped.
const MAX_INTERIM: usize = 16 * 1024;

/// A client connection, and the request that is read from it.
pub(super) struct Wire<I> {
    io: I,
    /// Bytes that were read from `io` and belong to no head or body yet.
    read_buf: BytesMut,
    /// A read returned EOF or an error: the client sends nothing more.
    input_closed: bool,
    head_reader: HeadReader,
    /// How the client wrote the field names of the last head. `take_header_case` empties it.
    header_case: HeaderCase,
    /// When the connection read the first byte of the current head. `None` between heads.
    head_started: Option<Instant>,
    /// The body of the current request.
    body: RequestBody,
    expectation: Expectation,
    /// Interim responses that were not written yet. They go out before the response.
    interim: Bytes,
    /// Bytes of `interim` were written to `io`, and `io` was not flushed since.
    interim_unflushed: bool,
    /// The size of the next read of a body. It grows and shrinks with what reads return (`next_read_size`).
    read_size: usize,
    /// The buffer of the next response. Empty while a response uses it.
    response_buf: Vec<u8>,
    /// `Some` while the client reads nothing of the response.
    stall: Option<Stall>,
    /// Armed only in `poll_sending`, while the client does not read.
    timer: DeadlineTimer,
}

/// Whether the client waits for a 100 response before it sends the body (RFC 9110, section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    /// The client expects no 100, or the handler has asked for the body.
    None,
    /// A 100 is due when the handler asks for the body.
    Expected,
    /// The final response has begun before a 100, so none may follow. The client may never send the body.
    Unmet,
}

/// The client has read nothing of the response since this time, when this many bytes were sent.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    bytes_sent: u64,
}

/// The client has closed the connection, or no longer reads from it.
#[derive(Debug)]
pub(super) struct Disconnected;

/// The result of sending a response.
pub(super) type Sent<B> = Result<(), SendError<<B as Body>::Error>>;

/// Why there is no request head.
pub(super) enum HeadError {
    Refused(ParseError),
    Disconnected,
}

impl<I> Wire<I> {
    pub(super) fn new(io: I, read: Bytes, bounds: HeadLimits) -> Self {
        Self {
            io,
            read_buf: read.into(),
            input_closed: false,
            head_reader: HeadReader::new(bounds),
            header_case: HeaderCase::default(),
            head_started: None,
            body: RequestBody::Ended,
            expectation: Expectation::None,
            interim: Bytes::new(),
            interim_unflushed: false,
            read_size: MIN_READ_SIZE,
            response_buf: Vec::new(),
            stall: None,
            timer: DeadlineTimer::default(),
        }
    }

    /// The IO, and the bytes that were read after the last message.
    pub(super) fn into_parts(self) -> (I, Bytes) {
        (self.io, self.read_buf.freeze())
    }

    /// When the connection read the first byte of a head that is incomplete.
    pub(super) fn head_started(&self) -> Option<Instant> {
        self.head_started
    }

    /// The client has not closed its sending direction: it may still send bytes, which must be read before the close.
    pub(super) fn is_input_open(&self) -> bool {
        !self.input_closed
    }

    /// The body of the current request.
    pub(super) fn body(&self) -> &RequestBody {
        &self.body
    }

    /// The handler still reads the body, and the client sends it without a 100: reading can continue behind the response.
    pub(super) fn receives_body(&self) -> bool {
        self.expectation == Expectation::None && self.body.has_reader()
    }

    /// The connection may serve another request. It may not if the client still waits for a 100: it may never send the body.
    pub(super) fn can_keep_alive(&self) -> bool {
        self.expectation == Expectation::None && self.body.may_end()
    }

    /// Begins a request whose head was read, and returns its body.
    pub(super) fn begin(&mut self, remaining: RemainingBody, expects_continue: bool) -> IncomingBody {
        self.expectation = match expects_continue && remaining != RemainingBody::Empty {
            true => Expectation::Expected,
            false => Expectation::None,
        };
        let (body, incoming) = RequestBody::new(remaining);
        self.body = body;
        incoming
    }

    /// How the client wrote the field names of the current request.
    pub(super) fn take_header_case(&mut self) -> HeaderCase {
        mem::take(&mut self.header_case)
    }

    /// Queues an interim response behind those that were not written yet.
    fn push_interim(&mut self, response: Bytes) {
        self.interim = match self.interim.is_empty() {
            true => response,
            false => [&self.interim[..], &response].concat().into(),
        };
    }

    /// Begins the response: returns a buffer for it that already holds the interim responses not written yet.
    pub(super) fn start_response(&mut self) -> Vec<u8> {
        if self.expectation == Expectation::Expected {
            self.expectation = Expectation::Unmet;
        }
        let mut out = mem::take(&mut self.response_buf);
        out.clear();
        out.extend_from_slice(&mem::take(&mut self.interim));
        out
    }

    /// Keeps the buffer for the next response, unless it is larger than [`MAX_KEPT_BUFFER`].
    pub(super) fn recycle_buffer(&mut self, out: Vec<u8>) {
        if out.capacity() <= MAX_KEPT_BUFFER {
            self.response_buf = out;
        }
    }
}

impl<I: Transport> Wire<I> {
    pub(super) fn socket(&self) -> &Stream {
        self.io.socket()
    }
}

impl<I: AsyncRead + Unpin> Wire<I> {
    /// Reads until a head is complete. Wake-up: the IO.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestHead, HeadError>> {
        loop {
            if !self.read_buf.is_empty() {
                let read = self.head_reader.read(&self.read_buf).map_err(HeadError::Refused)?;
                if let Some(end) = read {
                    self.head_started = None;
                    let head = match end == self.read_buf.len() {
                        true => mem::take(&mut self.read_buf),
                        false => self.read_buf.split_to(end),
                    };
                    let bytes = head.freeze();
                    let head = self.head_reader.take(&bytes);
                    self.header_case = HeaderCase::from_head(bytes);
                    return Poll::Ready(head.map_err(HeadError::Refused));
                }
                if self.head_started.is_none() && self.head_reader.has_started() {
                    self.head_started = Some(Instant::now());
                }
            }
            if ready!(self.poll_read_more(HEAD_READ_SIZE, cx)).is_err() {
                return Poll::Ready(Err(HeadError::Disconnected));
            }
        }
    }

    /// Reads at most `max` bytes into the stack, so that `read_buf` grows only by what was read.
    fn poll_read_more(&mut self, max: usize, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        let mut buffer = [const { MaybeUninit::uninit() }; HEAD_READ_SIZE];
        let mut read = ReadBuf::uninit(&mut buffer[..max]);
        let polled = ready!(Pin::new(&mut self.io).poll_read(cx, &mut read));
        self.check_read(polled.map(|()| read.filled().len()))?;
        self.read_buf.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// Evaluates the result of a read: EOF and errors set `ended`.
    fn check_read(&mut self, read: io::Result<usize>) -> Result<(), Disconnected> {
        match read {
            Ok(1..) => return Ok(()),
            Ok(0) => {}
            Err(problem) => debug!(reason = %problem, "a connection ended"),
        }
        self.input_closed = true;
        Err(Disconnected)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    /// Reads while a request is served. Ready if the state of the body has changed, or the client has disconnected.
    ///
    /// The handler reads the body: reads it. It has dropped the body: discards it. It does not read at present: reads nothing.
    /// After the end of the body: reads ahead up to [`MAX_READ_AHEAD`], to notice a client that closes the connection.
    ///
    /// Wake-up: the IO, or the handler when it asks for more of the body.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        match self.body.demand(cx) {
            Some(Demand::More) => return self.poll_body(cx).map(Ok),
            Some(Demand::None) => return Poll::Pending,
            Some(Demand::Closed) | None => {}
        }
        match self.body {
            RequestBody::Discarding { .. } | RequestBody::Abandoned => self.poll_discard(cx),
            RequestBody::Ended | RequestBody::Open { .. } | RequestBody::Broken => {
                while self.read_buf.len() < MAX_READ_AHEAD {
                    ready!(self.poll_read_more(1024, cx))?;
                }
                Poll::Pending
            }
        }
    }

    /// Reads the body for the handler, after a 100 if the client expects one.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.expectation == Expectation::Expected {
            self.expectation = Expectation::None;
            if self.read_buf.is_empty() {
                self.push_interim(Bytes::from_static(CONTINUE));
            }
        }
        loop {
            // A client may wait for the 100 before it sends. A write error is ignored here: writing the response reports it.
            let _ = self.poll_interim(cx);
            if self.body.deliver(&mut self.read_buf, cx).is_ready() {
                return Poll::Ready(());
            }
            let read = ready!(poll_read_buf(&mut self.io, &mut self.read_buf, self.read_size, cx));
            if let Ok(count) = read {
                self.read_size = next_read_size(self.read_size, count);
            }
            if self.check_read(read).is_err() {
                self.body.abort(cx);
                return Poll::Ready(());
            }
        }
    }

    /// Discards a body that the handler has dropped. Ready at its end; pending without a waker if it was abandoned.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        loop {
            self.body.discard(&mut self.read_buf);
            match self.body {
                RequestBody::Ended => return Poll::Ready(Ok(())),
                RequestBody::Open { .. } | RequestBody::Abandoned | RequestBody::Broken => return Poll::Pending,
                RequestBody::Discarding { .. } => {
                    if let Err(disconnected) = ready!(self.poll_read_more(HEAD_READ_SIZE, cx)) {
                        self.body = RequestBody::Abandoned;
                        return Poll::Ready(Err(disconnected));
                    }
                }
            }
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(count);
            self.interim_unflushed = true;
        }
        if self.interim_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.interim_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Polls the handler, and reads the request for it. `hints` of the handler are sent before the response.
    /// Wake-up: the handler, or the IO.
    pub(super) fn poll_beside<T>(
        &mut self,
        mut handling: Pin<&mut impl Future<Output = T>>,
        hints: &EarlyHints,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Disconnected>> {
        loop {
            let polled = handling.as_mut().poll(cx);
            for fields in hints.take() {
                if self.interim.len() < MAX_INTERIM {
                    self.push_interim(response_head::early_hints(&fields));
                }
            }
            if let Poll::Ready(output) = polled {
                return Poll::Ready(Ok(output));
            }
            // If the client does not read, the remaining bytes are written at the next poll. A write error is ignored here: writing the response reports it.
            let _ = self.poll_interim(cx);
            ready!(self.poll_input(cx))?;
        }
    }

    /// Sends a response, and reads the request at the same time. Returns [`Disconnected`] if for `send_timeout` the client neither reads nor sends.
    /// Wake-up: the IO, the body of the response, or the timer while the client does not read.
    pub(super) fn poll_sending<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        sending: &mut MessageWriter<B>,
        send_timeout: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Sent<B>, Disconnected>> {
        loop {
            if let Poll::Ready(sent) = sending.poll(&mut self.io, cx) {
                self.stall = None;
                return Poll::Ready(Ok(sent));
            }
            match self.poll_input(cx) {
                Poll::Ready(Ok(())) => self.stall = None,
                Poll::Ready(Err(disconnected)) => return Poll::Ready(Err(disconnected)),
                Poll::Pending => break,
            }
        }
        if !sending.is_blocked() {
            self.stall = None;
            return Poll::Pending;
        }
        let bytes_sent = sending.bytes_sent();
        let since = match self.stall {
            Some(stall) if stall.bytes_sent == bytes_sent => stall.since,
            _ => Instant::now(),
        };
        self.stall = Some(Stall { since, bytes_sent });
        ready!(self.timer.poll_until(since + send_timeout, cx));
        debug!("a client did not read its response in time");
        Poll::Ready(Err(Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const BOUNDS: HeadLimits = HeadLimits { bytes: 1024, fields: 8 };

    /// A connection with a request that expects a 100 before its body of 5 bytes, and the client's end.
    fn expecting_client() -> (Wire<DuplexStream>, IncomingBody, DuplexStream) {
        let (ours, theirs) = duplex(1024);
        let mut wire = Wire::new(ours, Bytes::new(), BOUNDS);
        let inbound = wire.begin(RemainingBody::Length(5), true);
        (wire, inbound, theirs)
    }

    #[tokio::test]
    async fn a_100_continue_is_sent_when_the_body_is_read() {
        let (mut wire, inbound, mut client) = expecting_client();
        let client = async {
            let mut received = [0; CONTINUE.len()];
            let _ = client.read_exact(&mut received).await;
            let _ = client.write_all(b"whole").await;
            received
        };
        let mut body = Box::pin(inbound.collect());
        let hints = EarlyHints::default();
        let taken = poll_fn(|cx| wire.poll_beside(body.as_mut(), &hints, cx));
        let (received, taken) = tokio::join!(client, taken);
        assert_eq!(received, CONTINUE);
        assert_eq!(taken.expect("a client").expect("a body").to_bytes(), "whole");
        assert!(wire.can_keep_alive());
    }

    #[tokio::test]
    async fn no_100_continue_is_sent_after_the_response_has_begun() {
        let (mut wire, inbound, client) = expecting_client();
        let out = wire.start_response();
        assert!(out.is_empty());
        let mut body = Box::pin(inbound.collect());
        poll_fn(|cx| {
            assert!(wire.poll_beside(body.as_mut(), &EarlyHints::default(), cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // The next bytes may be the body or another request.
        assert!(!wire.can_keep_alive());
        drop(wire);
        let mut client = client;
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received).await;
        assert!(received.is_empty());
    }
}

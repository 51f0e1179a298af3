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

use super::response_head;
use crate::framing::body::RemainingBody;
use crate::framing::grammar::ParseError;
use crate::framing::header_case::HeaderCase;
use crate::framing::request::{HeadLimits, HeadReader, RequestHead};
use crate::runtime::DeadlineTimer;
use crate::server::socket::{Stream, Transport};
use crate::transfer::early_hints::EarlyHints;
use crate::transfer::incoming::{BodySender, Demand, IncomingBody, body_channel};
use crate::transfer::message_writer::{MessageWriter, SendError};
use crate::transfer::{MIN_READ_SIZE, next_read_size, poll_read_buf};

/// The buffer for one read of a head: a TLS record holds no more (RFC 8446, section 5.1).
const READ_SIZE: usize = 16 * 1024;
/// While a request is served whose body has ended, the connection reads ahead up to this many bytes of the next request.
const MAX_READ_AHEAD: usize = 16 * 1024;
/// The connection discards at most this many bytes of a body that the handler has dropped, to keep the connection for the next request.
const MAX_DISCARDED: u64 = 64 * 1024;
/// A larger buffer is not kept for the next response.
const MAX_KEPT_BUFFER: usize = 32 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Limit of interim responses in `interim` while the client does not read; further hints are dropped.
const MAX_INTERIM: usize = 16 * 1024;

/// A client connection, and the state of the request that is read from it.
///
/// `rest` and `feed` give the state of the body:
///
/// | `rest` | `feed` | meaning |
/// |---|---|---|
/// | `Nothing` | `None` | no body, or the body was read to its end |
/// | not `Nothing` | `Some`, receiver alive | the handler reads the body |
/// | not `Nothing` | `Some`, receiver dropped | the connection discards the body, until `is_broken()` |
/// | not `Nothing` | `None` | `broken` is set |
/// | `Nothing` | `Some` | the last discarded piece exceeded [`MAX_DISCARDED`]: `is_broken()` |
pub(super) struct Wire<I> {
    io: I,
    /// Bytes that were read from `io` and belong to no head or body yet.
    read_buf: BytesMut,
    /// A read returned EOF or an error: the client sends nothing more.
    input_closed: bool,
    reader: HeadReader,
    /// How the client wrote the field names of the last head. `take_header_case` empties it.
    header_case: HeaderCase,
    /// When the connection read the first byte of the current head. `None` between heads.
    head_began: Option<Instant>,
    /// The part of the current body that was not read yet.
    rest: RemainingBody,
    /// The sending half of the body channel to the handler. `Some` from `begin` until the body ends or breaks.
    feed: Option<BodySender>,
    /// The body has invalid framing, or the connection ended inside the body. The next bytes cannot be parsed: no request follows.
    broken: bool,
    /// Bytes of the current body that were discarded. `begin` sets it to 0.
    discarded: u64,
    /// The client sent `Expect: 100-continue` and has received no 100 yet. Set only if there is a body.
    /// Cleared when the handler asks for the body before the response begins.
    expects_continue: bool,
    /// `start_response` was called for the current request: the final response has begun, so no interim response may follow.
    answering: bool,
    /// Interim responses that were not written yet. They go out before the response.
    interim: Bytes,
    /// Bytes of `interim` were written to `io`, and `io` was not flushed since.
    interim_unflushed: bool,
    /// The size of the next read of a body. It grows and shrinks with what reads return (`next_read_size`).
    read_size: usize,
    /// The buffer of the next response. Empty while a response uses it.
    out: Vec<u8>,
    /// Since when the client has read nothing of the response, and `MessageWriter::sent` at that time. `None` while the response makes progress.
    blocked: Option<(Instant, u64)>,
    /// Armed only in `poll_sending`, while the client does not read.
    timer: DeadlineTimer,
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
            reader: HeadReader::new(bounds),
            header_case: HeaderCase::default(),
            head_began: None,
            rest: RemainingBody::Empty,
            feed: None,
            broken: false,
            discarded: 0,
            expects_continue: false,
            answering: false,
            interim: Bytes::new(),
            interim_unflushed: false,
            read_size: MIN_READ_SIZE,
            out: Vec::new(),
            blocked: None,
            timer: DeadlineTimer::default(),
        }
    }

    /// The IO, and the bytes that were read after the last message.
    pub(super) fn into_parts(self) -> (I, Bytes) {
        (self.io, self.read_buf.freeze())
    }

    /// When the connection read the first byte of a head that is incomplete.
    pub(super) fn head_began(&self) -> Option<Instant> {
        self.head_began
    }

    /// The client has not closed its sending direction: it may still send bytes, which must be read before the close.
    pub(super) fn is_input_open(&self) -> bool {
        !self.input_closed
    }

    /// The next bytes cannot be parsed as a request: the body is broken, or more than [`MAX_DISCARDED`] of it was discarded.
    pub(super) fn is_broken(&self) -> bool {
        self.broken || self.discarded > MAX_DISCARDED
    }

    /// The request was read to its end.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest == RemainingBody::Empty && self.feed.is_none()
    }

    /// The handler still holds the request body. False after the end of the body.
    pub(super) fn has_body_reader(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| !feed.is_closed())
    }

    /// The handler still reads the body, and the client sends it without a 100: reading can continue behind the response.
    pub(super) fn receives_body(&self) -> bool {
        !self.is_broken() && !self.expects_continue && self.has_body_reader()
    }

    /// The connection may serve another request. It may not if the client still waits for a 100: it may never send the body.
    /// It may not if a body was dropped by the handler and more than [`MAX_DISCARDED`] of it remains.
    pub(super) fn can_keep_alive(&self) -> bool {
        let short = self.rest.exact_length().is_none_or(|left| left <= MAX_DISCARDED);
        !self.broken && !self.expects_continue && (self.is_at_end() || self.has_body_reader() || short)
    }

    /// Begins a request whose head was read, and returns its body.
    pub(super) fn begin(&mut self, rest: RemainingBody, expects_continue: bool) -> IncomingBody {
        self.rest = rest;
        self.discarded = 0;
        self.expects_continue = expects_continue && rest != RemainingBody::Empty;
        self.answering = false;
        if rest == RemainingBody::Empty {
            return IncomingBody::Empty;
        }
        let (feed, fed) = body_channel(rest.exact_length());
        self.feed = Some(feed);
        IncomingBody::Http1(fed)
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
        self.answering = true;
        let mut out = mem::take(&mut self.out);
        out.clear();
        out.extend_from_slice(&mem::take(&mut self.interim));
        out
    }

    /// Keeps the buffer for the next response, unless it is larger than [`MAX_KEPT_BUFFER`].
    pub(super) fn recycle_buffer(&mut self, out: Vec<u8>) {
        if out.capacity() <= MAX_KEPT_BUFFER {
            self.out = out;
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
                let read = self.reader.read(&self.read_buf).map_err(HeadError::Refused)?;
                if let Some(end) = read {
                    self.head_began = None;
                    let head = match end == self.read_buf.len() {
                        true => mem::take(&mut self.read_buf),
                        false => self.read_buf.split_to(end),
                    };
                    let bytes = head.freeze();
                    let head = self.reader.take(&bytes);
                    self.header_case = HeaderCase::from_head(bytes);
                    return Poll::Ready(head.map_err(HeadError::Refused));
                }
                if self.head_began.is_none() && self.reader.has_started() {
                    self.head_began = Some(Instant::now());
                }
            }
            if ready!(self.poll_read_more(READ_SIZE, cx)).is_err() {
                return Poll::Ready(Err(HeadError::Disconnected));
            }
        }
    }

    /// Reads at most `most` bytes into the stack, so that `read_buf` grows only by what was read.
    fn poll_read_more(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        let mut piece = [const { MaybeUninit::uninit() }; READ_SIZE];
        let mut read = ReadBuf::uninit(&mut piece[..most]);
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
    /// Reads while a request is served. Ready if the state of the body has changed, or the client is gone.
    ///
    /// The handler reads the body: reads it. It has dropped the body: discards it. It does not read at present: reads nothing.
    /// After the end of the body: reads ahead up to [`MAX_READ_AHEAD`], to notice a client that closes the connection.
    ///
    /// Wake-up: the IO, or the handler when it asks for more of the body.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        let wants = self.feed.as_ref().map(|feed| feed.demand(cx));
        match wants {
            Some(Demand::More) => self.poll_body(cx).map(Ok),
            Some(Demand::None) => Poll::Pending,
            Some(Demand::Closed) => self.poll_discard(cx),
            None => {
                while self.read_buf.len() < MAX_READ_AHEAD {
                    ready!(self.poll_read_more(1024, cx))?;
                }
                Poll::Pending
            }
        }
    }

    /// Reads the body for the handler, after a 100 if the client expects one.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let expected = !self.answering && mem::take(&mut self.expects_continue);
        if expected && self.read_buf.is_empty() {
            self.push_interim(Bytes::from_static(CONTINUE));
        }
        loop {
            // A client may wait for the 100 before it sends. A write error is ignored here: writing the response reports it.
            let _ = self.poll_interim(cx);
            let taken = self.rest.decode(&mut self.read_buf);
            let at_end = self.rest == RemainingBody::Empty;
            let Some(feed) = &self.feed else { return Poll::Ready(()) };
            match taken {
                Ok(None) if !at_end => {}
                Ok(data) => {
                    if let Some(data) = data {
                        feed.send_data(data, self.rest.exact_length(), cx);
                    }
                    if at_end {
                        feed.finish(cx);
                        self.feed = None;
                    }
                    return Poll::Ready(());
                }
                Err(fault) => {
                    debug!(reason = ?fault, "a request body has invalid framing");
                    self.abort_body(cx);
                    return Poll::Ready(());
                }
            }
            let read = ready!(poll_read_buf(&mut self.io, &mut self.read_buf, self.read_size, cx));
            if let Ok(count) = read {
                self.read_size = next_read_size(self.read_size, count);
            }
            if self.check_read(read).is_err() {
                self.abort_body(cx);
                return Poll::Ready(());
            }
        }
    }

    fn abort_body(&mut self, cx: &Context<'_>) {
        self.broken = true;
        if let Some(feed) = self.feed.take() {
            feed.abort(cx);
        }
    }

    /// Discards a body that the handler has dropped, up to [`MAX_DISCARDED`].
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        while !self.is_broken() {
            match self.rest.decode(&mut self.read_buf) {
                Ok(Some(data)) => self.discarded += data.len() as u64,
                Ok(None) if self.rest == RemainingBody::Empty => {
                    self.feed = None;
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {
                    if let Err(gone) = ready!(self.poll_read_more(READ_SIZE, cx)) {
                        self.broken = true;
                        return Poll::Ready(Err(gone));
                    }
                }
                Err(_) => self.broken = true,
            }
        }
        Poll::Pending
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
            if let Poll::Ready(answer) = polled {
                return Poll::Ready(Ok(answer));
            }
            // If the client does not read, the rest is written at the next poll. A write error is ignored here: writing the response reports it.
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
                self.blocked = None;
                return Poll::Ready(Ok(sent));
            }
            match self.poll_input(cx) {
                Poll::Ready(Ok(())) => self.blocked = None,
                Poll::Ready(Err(gone)) => return Poll::Ready(Err(gone)),
                Poll::Pending => break,
            }
        }
        if !sending.is_blocked() {
            self.blocked = None;
            return Poll::Pending;
        }
        let since = match self.blocked {
            Some((since, sent)) if sent == sending.bytes_sent() => since,
            _ => Instant::now(),
        };
        self.blocked = Some((since, sending.bytes_sent()));
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

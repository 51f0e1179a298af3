//! A client's connection while there is something to say: what is read of it, for whom, and what is written meanwhile.

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

use super::{MOST_KEPT, answer};
use crate::framing::body::Rest;
use crate::framing::grammar::Fault;
use crate::framing::request::{Bounds, HeadReader, RequestHead};
use crate::framing::spelling::Spelling;
use crate::runtime::Alarm;
use crate::server::socket::{Stream, Transport};
use crate::transfer::hints::Hints;
use crate::transfer::inbound::{Feed, Inbound, Wants, inbound};
use crate::transfer::sending::{Sending, Unsendable};
use crate::transfer::{SMALLEST_PIECE, next_piece, read_behind};

/// What is read at once of a head: a TLS record holds no more.
const PIECE: usize = 16 * 1024;
/// What is kept of what comes while a request is served.
const MOST_HELD: usize = 16 * 1024;
/// How much is taken of a body that nobody wants, for the sake of the next request.
const MOST_UNWANTED: u64 = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// What may wait of interim responses for a client that does not read; further hints are dropped.
const MOST_INTERIM: usize = 16 * 1024;

/// A connection, and what is known of the message that comes on it.
pub(super) struct Wire<I> {
    io: I,
    /// What was read, and is nobody's yet.
    unread: BytesMut,
    /// The client will send nothing more.
    ended: bool,
    reader: HeadReader,
    /// How the names of the fields were written in the head that was read last.
    spelling: Spelling,
    /// When the first byte of a head came that has not ended.
    head_began: Option<Instant>,
    /// What is to come of this request's body.
    rest: Rest,
    /// Whoever takes it.
    feed: Option<Feed>,
    /// The framing of a body broke, or it was cut off: there is no telling what comes.
    broken: bool,
    /// Of a body that nobody takes, what was taken all the same.
    unwanted: u64,
    /// The client waits to be told to send the body.
    expects_continue: bool,
    /// An answer has begun, and nothing interim may come any more.
    answering: bool,
    /// What is to be written before anything else.
    interim: Bytes,
    /// It was written, and may not have left.
    interim_stays: bool,
    /// What is read at once of a body.
    piece: usize,
    out: Vec<u8>,
    /// Since when the client has taken nothing of what it asked for, and how much it had taken by then.
    blocked: Option<(Instant, u64)>,
    alarm: Alarm,
}

/// The client is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// What came of sending an answer.
pub(super) type Sent<B> = Result<(), Unsendable<<B as Body>::Error>>;

/// Why there is no head.
pub(super) enum NoHead {
    Refused(Fault),
    Gone,
}

impl<I> Wire<I> {
    pub(super) fn new(io: I, read: Bytes, bounds: Bounds) -> Self {
        Self {
            io,
            unread: read.into(),
            ended: false,
            reader: HeadReader::new(bounds),
            spelling: Spelling::default(),
            head_began: None,
            rest: Rest::Nothing,
            feed: None,
            broken: false,
            unwanted: 0,
            expects_continue: false,
            answering: false,
            interim: Bytes::new(),
            interim_stays: false,
            piece: SMALLEST_PIECE,
            out: Vec::new(),
            blocked: None,
            alarm: Alarm::default(),
        }
    }

    /// The IO, and what was read of it behind the last message.
    pub(super) fn into_rest(self) -> (I, Bytes) {
        (self.io, self.unread.freeze())
    }

    /// When the first byte of a head came that has not ended.
    pub(super) fn head_began(&self) -> Option<Instant> {
        self.head_began
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn may_send_more(&self) -> bool {
        !self.ended
    }

    /// Whether there is no telling what comes.
    pub(super) fn is_broken(&self) -> bool {
        self.broken || self.unwanted > MOST_UNWANTED
    }

    /// Whether all of the request has come.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest == Rest::Nothing && self.feed.is_none()
    }

    /// Whether somebody takes what is to come of the request.
    pub(super) fn is_wanted(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| !feed.is_left())
    }

    /// Whether somebody takes the rest of the body, and its client sends it unasked.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_broken() && !self.expects_continue && self.is_wanted()
    }

    /// Whether another request may follow: not behind a body that nobody takes, and that is long, or that its client may never send.
    pub(super) fn may_go_on(&self) -> bool {
        let short = self.rest.exact().is_none_or(|left| left <= MOST_UNWANTED);
        !self.broken && !self.expects_continue && (self.is_at_end() || self.is_wanted() || short)
    }

    /// A request begins whose head was read; its body.
    pub(super) fn begin(&mut self, rest: Rest, expects_continue: bool) -> Inbound {
        self.rest = rest;
        self.unwanted = 0;
        self.expects_continue = expects_continue && rest != Rest::Nothing;
        self.answering = false;
        if rest == Rest::Nothing {
            return Inbound::Nothing;
        }
        let (feed, fed) = inbound(rest.exact());
        self.feed = Some(feed);
        Inbound::Http1(fed)
    }

    /// How the names of the request's fields were written, until the next head is read.
    pub(super) fn take_spelling(&mut self) -> Spelling {
        mem::take(&mut self.spelling)
    }

    /// An interim response is to be written, behind those that were not.
    fn say(&mut self, response: Bytes) {
        self.interim = match self.interim.is_empty() {
            true => response,
            false => [&self.interim[..], &response].concat().into(),
        };
    }

    /// An answer begins: a buffer for it, with what has to come before one.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.answering = true;
        let mut out = mem::take(&mut self.out);
        out.clear();
        out.extend_from_slice(&mem::take(&mut self.interim));
        out
    }

    /// The buffer, for the next answer.
    pub(super) fn give_back(&mut self, out: Vec<u8>) {
        if out.capacity() <= MOST_KEPT {
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
    /// Reads on, until a head is whole.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestHead, NoHead>> {
        loop {
            if !self.unread.is_empty() {
                let read = self.reader.read(&self.unread).map_err(NoHead::Refused)?;
                if let Some(end) = read {
                    self.head_began = None;
                    let head = match end == self.unread.len() {
                        true => mem::take(&mut self.unread),
                        false => self.unread.split_to(end),
                    };
                    let bytes = head.freeze();
                    let head = self.reader.take(&bytes);
                    self.spelling = Spelling::of(bytes);
                    return Poll::Ready(head.map_err(NoHead::Refused));
                }
                if self.head_began.is_none() && self.reader.has_begun() {
                    self.head_began = Some(Instant::now());
                }
            }
            if ready!(self.poll_more(PIECE, cx)).is_err() {
                return Poll::Ready(Err(NoHead::Gone));
            }
        }
    }

    /// Reads so many bytes at most, and keeps no more room for them than they take.
    fn poll_more(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut piece = [const { MaybeUninit::uninit() }; PIECE];
        let mut read = ReadBuf::uninit(&mut piece[..most]);
        let polled = ready!(Pin::new(&mut self.io).poll_read(cx, &mut read));
        self.heard(polled.map(|()| read.filled().len()))?;
        self.unread.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// What came of reading so many bytes.
    fn heard(&mut self, read: io::Result<usize>) -> Result<(), Gone> {
        match read {
            Ok(1..) => return Ok(()),
            Ok(0) => {}
            Err(problem) => debug!(reason = %problem, "a connection ended"),
        }
        self.ended = true;
        Err(Gone)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    /// Reads while a request is served: its body, as far as it is asked for, or else what tells that the client is gone. Ready where something
    /// has come of it.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let wants = self.feed.as_ref().map(|feed| feed.wants(cx));
        match wants {
            Some(Wants::More) => self.poll_body(cx).map(Ok),
            Some(Wants::Nothing) => Poll::Pending,
            Some(Wants::NoMore) => self.poll_unwanted(cx),
            None => {
                while self.unread.len() < MOST_HELD {
                    ready!(self.poll_more(1024, cx))?;
                }
                Poll::Pending
            }
        }
    }

    /// Reads the body for whoever takes it.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let expected = !self.answering && mem::take(&mut self.expects_continue);
        if expected && self.unread.is_empty() {
            self.say(Bytes::from_static(CONTINUE));
        }
        loop {
            // Without it the client may wait; who does not take it is noticed when something is to be sent.
            let _ = self.poll_interim(cx);
            let taken = self.rest.take(&mut self.unread);
            let at_end = self.rest == Rest::Nothing;
            let Some(feed) = &self.feed else { return Poll::Ready(()) };
            match taken {
                Ok(None) if !at_end => {}
                Ok(data) => {
                    if let Some(data) = data {
                        feed.data(data, self.rest.exact(), cx);
                    }
                    if at_end {
                        feed.ended(cx);
                        self.feed = None;
                    }
                    return Poll::Ready(());
                }
                Err(fault) => {
                    debug!(reason = ?fault, "a body is broken");
                    self.breaks(cx);
                    return Poll::Ready(());
                }
            }
            let read = ready!(read_behind(&mut self.io, &mut self.unread, self.piece, cx));
            if let Ok(count) = read {
                self.piece = next_piece(self.piece, count);
            }
            if self.heard(read).is_err() {
                self.breaks(cx);
                return Poll::Ready(());
            }
        }
    }

    fn breaks(&mut self, cx: &Context<'_>) {
        self.broken = true;
        if let Some(feed) = self.feed.take() {
            feed.broken(cx);
        }
    }

    /// Takes a body that nobody wants, within a bound.
    fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.is_broken() {
            match self.rest.take(&mut self.unread) {
                Ok(Some(data)) => self.unwanted += data.len() as u64,
                Ok(None) if self.rest == Rest::Nothing => {
                    self.feed = None;
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {
                    if let Err(gone) = ready!(self.poll_more(PIECE, cx)) {
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
            self.interim_stays = true;
        }
        if self.interim_stays {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.interim_stays = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Drives whoever makes the answer, and reads for it meanwhile; `hints` that come of it are sent before the answer.
    pub(super) fn poll_beside<T>(
        &mut self,
        mut handling: Pin<&mut impl Future<Output = T>>,
        hints: &Hints,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Gone>> {
        loop {
            let polled = handling.as_mut().poll(cx);
            for fields in hints.take() {
                if self.interim.len() < MOST_INTERIM {
                    self.say(answer::early_hints(&fields));
                }
            }
            if let Poll::Ready(answer) = polled {
                return Poll::Ready(Ok(answer));
            }
            // What the client does not take waits for it to be polled again; a write that fails is noticed with the answer.
            let _ = self.poll_interim(cx);
            ready!(self.poll_input(cx))?;
        }
    }

    /// Sends an answer, and reads on meanwhile. A client that takes nothing of it, and sends nothing either, is gone after so much `patience`.
    pub(super) fn poll_sending<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        sending: &mut Sending<B>,
        patience: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Sent<B>, Gone>> {
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
            Some((since, sent)) if sent == sending.sent() => since,
            _ => Instant::now(),
        };
        self.blocked = Some((since, sending.sent()));
        ready!(self.alarm.poll_until(since + patience, cx));
        debug!("a client takes nothing of what it asked for");
        Poll::Ready(Err(Gone))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1024, fields: 8 };

    /// A connection on which a request waits to be told to send its body of 5 bytes, and its client.
    fn expectant() -> (Wire<DuplexStream>, Inbound, DuplexStream) {
        let (ours, theirs) = duplex(1024);
        let mut wire = Wire::new(ours, Bytes::new(), BOUNDS);
        let inbound = wire.begin(Rest::Length(5), true);
        (wire, inbound, theirs)
    }

    #[tokio::test]
    async fn whoever_takes_a_body_has_its_client_told_to_send_it() {
        let (mut wire, inbound, mut client) = expectant();
        let client = async {
            let mut told = [0; CONTINUE.len()];
            let _ = client.read_exact(&mut told).await;
            let _ = client.write_all(b"whole").await;
            told
        };
        let mut body = Box::pin(inbound.collect());
        let hints = Hints::default();
        let taken = poll_fn(|cx| wire.poll_beside(body.as_mut(), &hints, cx));
        let (told, taken) = tokio::join!(client, taken);
        assert_eq!(told, CONTINUE);
        assert_eq!(taken.expect("a client").expect("a body").to_bytes(), "whole");
        assert!(wire.may_go_on());
    }

    #[tokio::test]
    async fn nobody_is_told_to_send_a_body_behind_an_answer() {
        let (mut wire, inbound, client) = expectant();
        let out = wire.buffer();
        assert!(out.is_empty());
        let mut body = Box::pin(inbound.collect());
        poll_fn(|cx| {
            assert!(wire.poll_beside(body.as_mut(), &Hints::default(), cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // What follows may be the body, or another request.
        assert!(!wire.may_go_on());
        drop(wire);
        let mut client = client;
        let mut told = Vec::new();
        let _ = client.read_to_end(&mut told).await;
        assert!(told.is_empty());
    }
}

//! An HTTP/1.1 connection to a server, driven by the request that uses it: no task of its own, no channel, no wake-up between the two.
//!
//! A [`Connection`] is idle: nothing is under way on it and nothing was read that nobody asked for. [`Connection::exchange`] spends it on
//! one request; it comes back from the [`Body`] of the response, if everything about that response was beyond doubt. Whatever else
//! happens, it is dropped, and with it the connection closes.

mod body;
mod request;
mod response;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::body::{Body, Cut};
use self::request::Sending;
use self::response::{Head, NoResponse, Read, end_of_head};
use super::ClientSide;
use super::body::{BodyFault, RequestBody};
use crate::framing::spelling::{OurNames, Spelling};
use crate::runtime::{Alarm, Replay};
use crate::transfer::sending::Unsendable;
use crate::transfer::{SMALLEST_PIECE, read_behind};

/// Bytes of a head.
const MOST_HEAD: usize = 64 * 1024;
/// Interim responses before one (RFC 9110, section 15.2).
const MOST_INTERIM: usize = 16;
/// Early hints that are passed on of those, and bytes of each: they wait for the client beside everything else.
const MOST_HINTS: usize = 8;
const MOST_HINT: usize = 8 * 1024;

/// A connection on which nothing is under way.
pub struct Connection<I> {
    io: I,
    read: BytesMut,
    out: Vec<u8>,
    alarm: Alarm,
    /// How many seconds its server leaves it idle, as its last response has announced.
    idle_limit: Option<u16>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Exchanged<I> {
    /// A response.
    Response(Response<Body<I>>),
    /// The protocol was switched: the head that says so, and the bytes behind it.
    Switched(Response<()>, Replay<I>),
}

/// Why there is no response.
#[derive(Debug)]
pub enum Failure {
    /// Not a byte of the request has left; its body is as it was.
    Unsent(Box<RequestBody>, io::Error),
    /// The connection ended before a response had begun.
    EndedEarly(io::Error),
    /// The connection ended in the middle of a head, or could not be read.
    Broken(io::Error),
    /// What came can be read in no way, or in more than one.
    NoHttp(&'static str),
    /// The request's own body did not come to its end.
    RequestBody(BodyFault),
    /// Nothing came in time.
    Late,
}

impl<I> fmt::Debug for Connection<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Connection<I> {
    /// Takes over an open connection.
    pub fn new(io: I) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            out: Vec::new(),
            alarm: Alarm::default(),
            idle_limit: None,
        }
    }

    /// Whether it is open and silent. What a server says on an idle connection is no answer to anything, and nobody is left waiting for
    /// its last one.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io)
            .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }

    /// How long its server leaves it idle, if it has announced that.
    pub fn idle_limit(&self) -> Option<Duration> {
        self.idle_limit.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// What it goes over.
    pub fn io(&self) -> &I {
        &self.io
    }

    /// It stays idle for a while: what it kept for its next request is given up, and with it whoever a timer would still wake.
    pub fn settle(&mut self) {
        (self.read, self.out, self.alarm) = (BytesMut::new(), Vec::new(), Alarm::default());
    }

    /// Sends a request and waits for the head of its response, as long as `late` allows from the last of the request that was sent. `ours`:
    /// how names are written that the gateway has added.
    ///
    /// # Errors
    /// There is none.
    // An `async fn` would hold what it was given a second time.
    pub fn exchange(
        self,
        head: &Parts,
        ours: &OurNames,
        body: RequestBody,
        late: Duration,
        client: &ClientSide<'_>,
    ) -> impl Future<Output = Result<Exchanged<I>, Failure>> {
        let progress = body.progress();
        let mut exchange = Exchange {
            io: self.io,
            read: self.read,
            seen: 0,
            interim: 0,
            client,
            sending: Some(request::sending(self.out, head, client.request, ours, body)),
            out: Vec::new(),
            deaf: None,
        };
        let mut alarm = self.alarm;
        async move {
            let head = poll_fn(|cx| {
                let polled = exchange.poll_head(&head.method, cx);
                if polled.is_pending() {
                    ready!(alarm.poll_until(progress.last() + late, cx));
                    return Poll::Ready(Err(Failure::Late));
                }
                polled
            })
            .await?;
            if head.parts.status == StatusCode::SWITCHING_PROTOCOLS {
                let io = Replay::new(exchange.io, exchange.read.freeze());
                return Ok(Exchanged::Switched(Response::from_parts(head.parts, ()), io));
            }
            let body = Body::new(exchange, alarm, &head);
            Ok(Exchanged::Response(Response::from_parts(head.parts, body)))
        }
    }
}

/// A request that is under way.
struct Exchange<'h, I> {
    io: I,
    read: BytesMut,
    /// How far what was read has been searched for the end of a head.
    seen: usize,
    interim: usize,
    client: &'h ClientSide<'h>,
    /// The request, as far as it has not left.
    sending: Option<Sending>,
    /// The buffer that it left in.
    out: Vec<u8>,
    /// Why the server does not take the rest of the request. It may have answered all the same.
    deaf: Option<io::Error>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Exchange<'_, I> {
    fn poll_head(&mut self, method: &Method, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        self.poll_send(cx)?;
        loop {
            if let Some(head) = self.take_head(method)? {
                return Poll::Ready(Ok(head));
            }
            let read =
                ready!(read_behind(&mut self.io, &mut self.read, SMALLEST_PIECE, cx)).and_then(|count| match count {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    count => Ok(count),
                });
            if let Err(problem) = read {
                // What the system says of a write tells more than the end that it led to.
                let problem = self.deaf.take().unwrap_or(problem);
                return Poll::Ready(Err(if self.read.is_empty() && self.interim == 0 {
                    Failure::EndedEarly(problem)
                } else {
                    Failure::Broken(problem)
                }));
            }
        }
    }

    /// Sends on. A server that takes no more may have an answer all the same.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let Poll::Ready(sent) = sending.poll(&mut self.io, cx) else {
            return Ok(());
        };
        let Some(sending) = self.sending.take() else {
            return Ok(());
        };
        match sent {
            Ok(()) => self.out = sending.into_buffer(),
            Err(Unsendable::Body(fault)) => return Err(Failure::RequestBody(fault)),
            Err(Unsendable::Length) => return Err(Failure::RequestBody(BodyFault::Broken)),
            Err(Unsendable::Io(problem)) => match sending.into_unsent() {
                Some((taken, body)) => {
                    let mut body = body.unwrap_or_else(RequestBody::none);
                    body.put_back(taken);
                    return Err(Failure::Unsent(Box::new(body), problem));
                }
                None => self.deaf = Some(problem),
            },
        }
        Ok(())
    }

    fn take_head(&mut self, method: &Method) -> Result<Option<Head>, Failure> {
        loop {
            // The end may lie in the two bytes before what is new.
            let Some(end) = end_of_head(&self.read, self.seen.saturating_sub(2)) else {
                self.seen = self.read.len();
                return if self.seen > MOST_HEAD {
                    Err(Failure::NoHttp("its head is too large"))
                } else {
                    Ok(None)
                };
            };
            self.seen = 0;
            let head = self.read.split_to(end).freeze();
            match Head::parse(&head, method) {
                Err(NoResponse(what)) => return Err(Failure::NoHttp(what)),
                Ok(Read::Response(read)) => {
                    if let Some(spelling) = self.client.response {
                        spelling.replace(Spelling::of(head));
                    }
                    return Ok(Some(read));
                }
                Ok(Read::Interim | Read::Hints(_)) if self.interim == MOST_INTERIM => {
                    return Err(Failure::NoHttp("interim responses without an end"));
                }
                Ok(Read::Interim) => self.interim += 1,
                Ok(Read::Hints(fields)) => {
                    if let Some(hints) = self.client.hints
                        && self.interim < MOST_HINTS
                        && end <= MOST_HINT
                    {
                        hints.put(fields);
                    }
                    self.interim += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;
    use crate::transfer::inbound::{Inbound, inbound};
    use crate::upstream::body::BodyBounds;

    const BOUNDS: BodyBounds = BodyBounds {
        bytes: None,
        silence: Duration::from_secs(60),
    };

    #[tokio::test]
    async fn a_request_of_which_nothing_was_sent_is_as_it_was() {
        let (feed, fed) = inbound(Some(70_000));
        let mut body = RequestBody::new(Inbound::Http1(fed), BOUNDS, Instant::now()).expect("no bound");
        let cx = Context::from_waker(Waker::noop());
        feed.data(Bytes::from(vec![b'x'; 70_000]), Some(0), &cx);
        feed.ended(&cx);
        // One is written from where it is, the other behind the head.
        for length in [70_000, 4] {
            let (ours, theirs) = duplex(64 * 1024);
            drop(theirs);
            let (head, ()) = Request::post("/x").body(()).expect("a head").into_parts();
            let spelling = Spelling::default();
            let client = ClientSide::unread(&spelling);
            let failed = Connection::new(ours)
                .exchange(&head, &OurNames::default(), body, Duration::from_secs(60), &client)
                .await;
            let Err(Failure::Unsent(unsent, _)) = failed else {
                panic!("nothing was sent: {failed:?}")
            };
            assert_eq!(unsent.size_hint().exact(), Some(length));
            let whole = unsent.collect().await.expect("a body").to_bytes();
            assert!(whole.len() as u64 == length && whole.iter().all(|byte| *byte == b'x'));
            body = RequestBody::none();
            body.put_back(Bytes::from_static(b"xxxx"));
        }
    }

    #[tokio::test]
    async fn small_pieces_share_their_room() {
        const PIECES: usize = 2_000;
        let (ours, mut theirs) = duplex(64 * 1024);
        let server = async move {
            let _ = theirs.read(&mut [0; 1024]).await;
            let _ = theirs
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            for _ in 0..PIECES {
                tokio::task::yield_now().await;
                let _ = theirs.write_all(b"a\r\n0123456789\r\n").await;
            }
            let _ = theirs.write_all(b"0\r\n\r\n").await;
        };
        let client = async {
            let (head, ()) = Request::new(()).into_parts();
            let names = OurNames::default();
            let spelling = Spelling::default();
            let client = ClientSide::unread(&spelling);
            let exchange =
                Connection::new(ours).exchange(&head, &names, RequestBody::none(), Duration::from_secs(60), &client);
            let Ok(Exchanged::Response(response)) = exchange.await else {
                panic!("no response")
            };
            let (mut body, mut held) = (response.into_body(), Vec::new());
            while let Some(Ok(frame)) = body.frame().await {
                held.extend(frame.into_data());
            }
            held
        };
        let (held, ()) = LocalSet::new().run_until(async { tokio::join!(client, server) }).await;
        assert_eq!(held.iter().map(|data| data.len()).sum::<usize>(), 10 * PIECES);
        // Pieces of one allocation lie one behind the other.
        let begins =
            |pair: &[Bytes]| pair[1].as_ptr().wrapping_sub(pair[0].as_ptr() as usize) as usize > SMALLEST_PIECE;
        let allocations = 1 + held.windows(2).filter(|pair| begins(pair)).count();
        assert!(allocations < 20, "{allocations} allocations for {} bytes", 16 * PIECES);
    }
}

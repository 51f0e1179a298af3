//! An HTTP/1.1 connection to a server. The request that uses it polls it directly: no separate task, no channel, no extra wake-up.
//!
//! A [`Connection`] is idle: no request is under way, and no unexpected bytes were read. [`Connection::exchange`] consumes it for one
//! request. The [`Body`] of the response returns it, if nothing about that response was ambiguous. In all other cases it is
//! dropped, which closes the connection.

mod body;
mod connection;
mod request;
mod response;

use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use self::body::ReceivedHead;
pub use self::body::{Body, BodyError};
pub use self::connection::Connection;
use self::request::MessageWriter;
use self::response::{Head, InvalidHead, ParsedHead, end_of_head};
use super::body::RequestBody;
use super::body_error::RequestBodyError;
use super::client_side::ClientSide;
use crate::framing::header_case::{ConfiguredNames, HeaderCase};
use crate::runtime::Rewind;
use crate::transfer::message_writer::SendError;
use crate::transfer::{MIN_READ_SIZE, poll_read_buf};

/// The limit of a response head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// The limit of interim responses before the final one (RFC 9110, section 15.2).
const MAX_INTERIM: usize = 16;
/// The limit of early hints that are forwarded, and the size limit of each: they are buffered for the client without any other limit.
const MAX_HINTS: usize = 8;
const MAX_HINT: usize = 8 * 1024;

/// The result of a request.
#[derive(Debug)]
pub enum ResponseOrUpgrade<I> {
    /// A response.
    Response(Response<Body<I>>),
    /// The server has switched protocols: the 101 head, and the connection with the bytes after it.
    Upgraded(Response<()>, Rewind<I>),
}

/// Why there is no response.
#[derive(Debug)]
pub enum ExchangeError {
    /// No byte of the request was sent; its body is unchanged.
    Unsent(Box<RequestBody>, io::Error),
    /// The connection ended before a response had begun.
    ClosedEarly(io::Error),
    /// The connection ended in the middle of a head, or a read failed.
    ConnectionFailed(io::Error),
    /// The response is invalid or ambiguous.
    InvalidHttp(&'static str),
    /// The request body did not reach its end.
    RequestBody(RequestBodyError),
    /// No response head came in time.
    Timeout,
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Connection<I> {
    /// Sends a request and waits for the head of its response. `response_timeout` counts from the last data of the request body.
    /// `own_names`: the case of the names that the gateway has added.
    ///
    /// # Errors
    /// There is no response.
    // An `async fn` would store its arguments twice in the future.
    pub fn exchange(
        self,
        head: &Parts,
        own_names: &ConfiguredNames,
        body: RequestBody,
        response_timeout: Duration,
        client: &ClientSide<'_>,
    ) -> impl Future<Output = Result<ResponseOrUpgrade<I>, ExchangeError>> {
        let progress = body.progress();
        let mut exchange = Exchange {
            io: self.io,
            read_buf: self.read_buf,
            searched: 0,
            interim: 0,
            client,
            sending: Some(request::sending(
                self.write_buf,
                head,
                client.request_header_case,
                own_names,
                body,
            )),
            write_buf: Vec::new(),
            write_error: None,
        };
        let mut timer = self.timer;
        async move {
            let head = poll_fn(|cx| {
                let polled = exchange.poll_head(&head.method, cx);
                if polled.is_pending() {
                    ready!(timer.poll_until(progress.last_activity() + response_timeout, cx));
                    return Poll::Ready(Err(ExchangeError::Timeout));
                }
                polled
            })
            .await?;
            if head.parts.status == StatusCode::SWITCHING_PROTOCOLS {
                let io = Rewind::new(exchange.io, exchange.read_buf.freeze());
                return Ok(ResponseOrUpgrade::Upgraded(Response::from_parts(head.parts, ()), io));
            }
            // A server that answers before it has read the whole request may or may not read the rest, so the connection is not reused.
            let reusable = head.keeps_alive && exchange.sending.is_none() && exchange.write_error.is_none();
            let body = Body::new(ReceivedHead {
                io: exchange.io,
                read_buf: exchange.read_buf,
                write_buf: exchange.write_buf,
                timer,
                sending: exchange.sending,
                framing: head.framing,
                reusable,
                idle_limit: head.idle_limit,
            });
            Ok(ResponseOrUpgrade::Response(Response::from_parts(head.parts, body)))
        }
    }
}

/// A request that is under way.
struct Exchange<'h, I> {
    io: I,
    read_buf: BytesMut,
    /// How much of `read_buf` was searched for the end of a head.
    searched: usize,
    /// Interim responses that came before the final one.
    interim: usize,
    client: &'h ClientSide<'h>,
    /// The request while it is being sent; `None` after that.
    sending: Option<MessageWriter>,
    /// The buffer of the sent request, for reuse.
    write_buf: Vec<u8>,
    /// The write error, if the server no longer reads the request. The server may still have sent an answer.
    write_error: Option<io::Error>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Exchange<'_, I> {
    fn poll_head(&mut self, method: &Method, cx: &mut Context<'_>) -> Poll<Result<Head, ExchangeError>> {
        self.poll_send(cx)?;
        loop {
            if let Some(head) = self.take_head(method)? {
                return Poll::Ready(Ok(head));
            }
            let read =
                ready!(poll_read_buf(&mut self.io, &mut self.read_buf, MIN_READ_SIZE, cx)).and_then(
                    |count| match count {
                        0 => Err(io::ErrorKind::UnexpectedEof.into()),
                        count => Ok(count),
                    },
                );
            if let Err(error) = read {
                // The write error is more precise than the EOF that follows it.
                let error = self.write_error.take().unwrap_or(error);
                return Poll::Ready(Err(if self.read_buf.is_empty() && self.interim == 0 {
                    ExchangeError::ClosedEarly(error)
                } else {
                    ExchangeError::ConnectionFailed(error)
                }));
            }
        }
    }

    /// Sends more of the request. A write error is kept in `write_error`, because the server may have answered before it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeError> {
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
            Ok(()) => self.write_buf = sending.into_buffer(),
            Err(SendError::Body(fault)) => return Err(ExchangeError::RequestBody(fault)),
            Err(SendError::LengthMismatch) => return Err(ExchangeError::RequestBody(RequestBodyError::Broken)),
            Err(SendError::Io(error)) => match sending.into_unsent_body() {
                Some((taken, body)) => {
                    let mut body = body.unwrap_or_else(RequestBody::empty);
                    body.restore(taken);
                    return Err(ExchangeError::Unsent(Box::new(body), error));
                }
                None => self.write_error = Some(error),
            },
        }
        Ok(())
    }

    fn take_head(&mut self, method: &Method) -> Result<Option<Head>, ExchangeError> {
        loop {
            // The end may begin in the last two bytes of the previous read.
            let Some(end) = end_of_head(&self.read_buf, self.searched.saturating_sub(2)) else {
                self.searched = self.read_buf.len();
                return if self.searched > MAX_HEAD {
                    Err(ExchangeError::InvalidHttp("the head is too large"))
                } else {
                    Ok(None)
                };
            };
            self.searched = 0;
            let head = self.read_buf.split_to(end).freeze();
            match Head::parse(&head, method) {
                Err(InvalidHead(what)) => return Err(ExchangeError::InvalidHttp(what)),
                Ok(ParsedHead::Final(read)) => {
                    if let Some(header_case) = self.client.response_header_case {
                        header_case.replace(HeaderCase::from_head(head));
                    }
                    return Ok(Some(read));
                }
                Ok(ParsedHead::Interim | ParsedHead::EarlyHints(_)) if self.interim == MAX_INTERIM => {
                    return Err(ExchangeError::InvalidHttp("too many interim responses"));
                }
                Ok(ParsedHead::Interim) => self.interim += 1,
                Ok(ParsedHead::EarlyHints(fields)) => {
                    if let Some(hints) = self.client.early_hints
                        && self.interim < MAX_HINTS
                        && end <= MAX_HINT
                    {
                        hints.push(fields);
                    }
                    self.interim += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use http::Request;
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;
    use crate::transfer::incoming::{IncomingBody, body_channel};
    use crate::upstream::body::BodyLimits;

    const BOUNDS: BodyLimits = BodyLimits {
        max_bytes: None,
        read_timeout: Duration::from_secs(60),
    };

    #[tokio::test]
    async fn an_unsent_request_returns_its_body_unchanged() {
        let (feed, fed) = body_channel(Some(70_000));
        let mut body = RequestBody::new(IncomingBody::Http1(fed), BOUNDS, Instant::now()).expect("no bound");
        let cx = Context::from_waker(Waker::noop());
        feed.send_data(Bytes::from(vec![b'x'; 70_000]), Some(0), &cx);
        feed.finish(&cx);
        // The first body is written from its own buffer, the second one is copied behind the head.
        for length in [70_000, 4] {
            let (own_names, theirs) = duplex(64 * 1024);
            drop(theirs);
            let (head, ()) = Request::post("/x").body(()).expect("a head").into_parts();
            let header_case = HeaderCase::default();
            let client = ClientSide::without_client(&header_case);
            let failed = Connection::new(own_names)
                .exchange(
                    &head,
                    &ConfiguredNames::default(),
                    body,
                    Duration::from_secs(60),
                    &client,
                )
                .await;
            let Err(ExchangeError::Unsent(unsent, _)) = failed else {
                panic!("nothing was sent: {failed:?}")
            };
            assert_eq!(unsent.size_hint().exact(), Some(length));
            let whole = unsent.collect().await.expect("a body").to_bytes();
            assert!(whole.len() as u64 == length && whole.iter().all(|byte| *byte == b'x'));
            body = RequestBody::empty();
            body.restore(Bytes::from_static(b"xxxx"));
        }
    }

    #[tokio::test]
    async fn small_reads_share_an_allocation() {
        const PIECES: usize = 2_000;
        let (own_names, mut theirs) = duplex(64 * 1024);
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
            let names = ConfiguredNames::default();
            let header_case = HeaderCase::default();
            let client = ClientSide::without_client(&header_case);
            let exchange = Connection::new(own_names).exchange(
                &head,
                &names,
                RequestBody::empty(),
                Duration::from_secs(60),
                &client,
            );
            let Ok(ResponseOrUpgrade::Response(response)) = exchange.await else {
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
        // Pieces of one allocation are adjacent.
        let begins = |pair: &[Bytes]| pair[1].as_ptr().wrapping_sub(pair[0].as_ptr() as usize) as usize > MIN_READ_SIZE;
        let allocations = 1 + held.windows(2).filter(|pair| begins(pair)).count();
        assert!(allocations < 20, "{allocations} allocations for {} bytes", 16 * PIECES);
    }
}

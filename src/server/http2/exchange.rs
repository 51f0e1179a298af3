//! One stream: a request and its answer (RFC 9113, section 8.1), or a WebSocket (RFC 8441).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::DATE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tracing::debug;

use super::super::date;
use super::clock::Busy;
use super::tunnel::Tunnel;
use crate::framing::response::{Content, is_dated};
use crate::proxy::body::ResponseBody;
use crate::proxy::{Client, Proxy};
use crate::runtime::Alarm;
use crate::transfer::inbound::Inbound;
use crate::transfer::streamed::Streamed;

/// The end of a body up to this size is given to h2 at once; more of it waits until the client takes it.
const SMALL: usize = 16 * 1024;

/// Serves a stream. A client that resets it takes the request along, and so does one that takes nothing of its answer for too long.
pub(super) fn serve(
    proxy: Rc<Proxy>,
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    busy: Busy,
) -> impl Future<Output = ()> {
    let patience = busy.patience();
    let (head, stream) = request.into_parts();
    // What a CONNECT brings is no content (RFC 9113, section 8.5).
    let (body, other_half) = if head.method == Method::CONNECT {
        (Inbound::Nothing, Some(stream))
    } else if stream.is_end_stream() {
        (Inbound::Nothing, None)
    } else {
        (Inbound::Http2(Streamed::new(stream, &head.headers)), None)
    };
    let is_head = head.method == Method::HEAD;
    let request = Request::from_parts(head, body);
    async move {
        let answered = {
            let mut handling = pin!(proxy.handle(request, &client, busy));
            poll_fn(|cx| {
                let polled = handling.as_mut().poll(cx);
                for fields in client.hints.take() {
                    send_hints(&mut respond, fields);
                }
                match polled {
                    Poll::Ready(response) => Poll::Ready(Some((response, client.switched.take()))),
                    Poll::Pending => respond.poll_reset(cx).map(|_| None),
                }
            })
            .await
        };
        let Some((response, switched)) = answered else { return };
        let (mut head, body) = response.into_parts();
        if is_dated(head.status) && !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, date::with(HeaderValue::clone));
        }
        let content = match switched {
            // What follows is no content (RFC 9110, section 9.3.6).
            Some(_) => Content::None,
            None => Content::of(head.status, is_head, body.size_hint().exact()),
        };
        content.apply(&mut head.headers);
        let ends = switched.is_none() && (!content.follows() || body.is_end_stream());
        let out = match respond.send_response(Response::from_parts(head, ()), ends) {
            Ok(out) => out,
            Err(problem) => {
                debug!(reason = %problem, "an answer could not be sent");
                return respond.send_reset(Reason::INTERNAL_ERROR);
            }
        };
        match (switched, other_half) {
            (Some(switched), Some(stream)) => Box::pin(switched.run(Tunnel::new(out, stream))).await,
            _ if ends => {}
            _ => {
                let mut sending = Sending {
                    out,
                    body,
                    piece: None,
                    blocked: None,
                    patience,
                    alarm: Alarm::default(),
                };
                if let Err(problem) = poll_fn(|cx| sending.poll(cx)).await {
                    debug!(reason = %problem, "a stream ended early");
                }
            }
        }
    }
}

fn send_hints(respond: &mut SendResponse<Bytes>, fields: HeaderMap) {
    let mut hints = Response::new(());
    (*hints.status_mut(), *hints.headers_mut()) = (StatusCode::EARLY_HINTS, fields);
    if let Err(problem) = respond.send_informational(hints) {
        debug!(reason = %problem, "early hints could not be sent");
    }
}

/// A body on its way out.
struct Sending {
    out: SendStream<Bytes>,
    body: ResponseBody<Busy>,
    /// A piece that waits for the client to take more, and whether it is the last one.
    piece: Option<(Bytes, bool)>,
    /// Since when it waits for that.
    blocked: Option<Instant>,
    patience: Duration,
    alarm: Alarm,
}

impl Sending {
    /// Ready once h2 has all of it, or the stream is no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        match self.poll_pieces(cx) {
            // Nothing else tells of a client that has gone, while it is not sent anything.
            Poll::Pending => match ready!(self.out.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(Err(reason.into())),
                Err(problem) => Poll::Ready(Err(problem)),
            },
            sent => sent,
        }
    }

    /// Waits until the client takes something, and not for ever.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if let Poll::Ready(room) = poll_room(&mut self.out, cx) {
            self.blocked = None;
            return Poll::Ready(room);
        }
        let since = *self.blocked.get_or_insert_with(Instant::now);
        ready!(self.alarm.poll_until(since + self.patience, cx));
        self.out.send_reset(Reason::CANCEL);
        Poll::Ready(Err(Reason::CANCEL.into()))
    }

    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if self.piece.is_some() {
                ready!(self.poll_room(cx))?;
            }
            if let Some((piece, last)) = self.piece.take() {
                self.out.send_data(piece, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.out.send_data(Bytes::new(), true)),
                Some(Err(_)) => {
                    self.out.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(Reason::INTERNAL_ERROR.into()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        if last && data.len() <= SMALL {
                            return Poll::Ready(self.out.send_data(data, true));
                        }
                        if !data.is_empty() {
                            self.out.reserve_capacity(1);
                            self.piece = Some((data, last));
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(self.out.send_trailers(trailers));
                        }
                    }
                },
            }
        }
    }
}

/// Ready once the client takes something. One byte of room was asked for, and not the whole piece: what is asked for is taken from other streams.
pub(super) fn poll_room(out: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    while out.capacity() == 0 {
        if ready!(out.poll_capacity(cx)).transpose()?.is_none() {
            return Poll::Ready(Err(Reason::STREAM_CLOSED.into()));
        }
    }
    Poll::Ready(Ok(()))
}

//! One stream: a request and its response (RFC 9113, section 8.1), or a WebSocket (RFC 8441).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::DATE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tracing::debug;

use super::super::closing::{LINGER_TIMEOUT, MAX_LINGER_TIME};
use super::super::context::WorkerContext;
use super::super::date;
use super::super::handler::{Exchange, Handler, Reply, Tunnel as _};
use super::activity::{ActiveRequest, Activity};
use super::capacity::poll_capacity;
use super::frames::ExcusedResets;
use super::tunnel::TunnelIo;
use super::windows::ConnectionWindow;
use crate::framing::header_case::HeaderCase;
use crate::framing::response::{Content, has_date};
use crate::runtime::DeadlineTimer;
use crate::transfer::early_hints::EarlyHints;
use crate::transfer::http2_body::{Discarded, Upload, receive_body};
use crate::transfer::incoming::IncomingBody;

/// The last piece of a body goes to h2 without a reserved capacity if it is at most this long. A longer one waits for the client's window.
const MAX_UNRESERVED: usize = 16 * 1024;

/// Serves a stream. The request is cancelled if the client resets the stream, or does not read the response for too long.
pub(super) fn serve<H: Handler>(
    context: Rc<WorkerContext<H>>,
    connection: Rc<H::Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    activity: &Rc<Activity>,
    window: &mut ConnectionWindow,
    excused_resets: ExcusedResets,
) -> impl Future<Output = ()> + use<H> {
    let active_request = activity.begin();
    let (head, stream) = request.into_parts();
    // The data after a CONNECT is no content (RFC 9113, section 8.5).
    let (body, incoming) = if head.method == Method::CONNECT {
        (IncomingBody::Empty, RequestData::Connect(Upload::unshared(stream)))
    } else if stream.is_end_stream() {
        (IncomingBody::Empty, RequestData::None)
    } else {
        let (upload, body) = receive_body(stream, &head.headers);
        (IncomingBody::Http2(body), RequestData::Body(upload))
    };
    let is_head = head.method == Method::HEAD;
    if let RequestData::Body(upload) | RequestData::Connect(upload) = &incoming {
        window.add(upload);
    }
    let request = Request::from_parts(head, body);
    async move {
        let handled = {
            // Names are in lower case in HTTP/2 (RFC 9113, section 8.2.1).
            let (header_case, hints) = (HeaderCase::default(), EarlyHints::default());
            let exchange = Exchange {
                header_case: &header_case,
                hints: &hints,
            };
            let mut handling = pin!(context.handler().handle(request, exchange, &connection));
            poll_fn(|cx| {
                let polled = handling.as_mut().poll(cx);
                for fields in hints.take() {
                    send_hints(&mut respond, fields);
                }
                match polled {
                    Poll::Ready(reply) => Poll::Ready(Some(reply)),
                    Poll::Pending => {
                        if let RequestData::Body(upload) = &incoming
                            && upload.take_continue_due(cx)
                        {
                            send_continue(&mut respond);
                        }
                        respond.poll_reset(cx).map(|_| None)
                    }
                }
            })
            .await
        };
        let Some(reply) = handled else { return };
        let (mut head, body, tunnel) = match reply {
            Reply::Response { response, .. } => {
                let (head, body) = response.into_parts();
                (head, Some(body), None)
            }
            Reply::Switch { response, tunnel, .. } => (response.into_parts().0, None, Some(tunnel)),
        };
        if has_date(head.status) && !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, date::with(HeaderValue::clone));
        }
        let content = match &body {
            Some(body) => Content::for_status(head.status, is_head, body.size_hint().exact()),
            // The data that follows is no content (RFC 9110, section 9.3.6).
            None => Content::None,
        };
        content.apply(&mut head.headers);
        // Dropping a body that is not sent reports to the access log that the response is complete.
        let body = body.filter(|body| content.follows() && !body.is_end_stream());
        let ends = tunnel.is_none() && body.is_none();
        let out = match respond.send_response(Response::from_parts(head, ()), ends) {
            Ok(out) => out,
            Err(problem) => {
                debug!(reason = %problem, "a response could not be sent");
                return respond.send_reset(Reason::INTERNAL_ERROR);
            }
        };
        if let Some(tunnel) = tunnel
            && let RequestData::Connect(upload) = incoming
        {
            return Box::pin(tunnel.run(TunnelIo::new(out, upload))).await;
        }
        if let Some(body) = body {
            let mut sending = BodyWriter {
                out,
                body,
                state: WriteState::Body,
                stalled_since: None,
                active_request,
                timer: DeadlineTimer::default(),
            };
            if let Err(problem) = poll_fn(|cx| sending.poll(cx)).await {
                debug!(reason = %problem, "a stream ended early");
                return;
            }
        } else {
            // The request has ended, although its client may still send.
            drop(active_request);
        }
        if let Some(upload) = incoming.unread()
            && !Box::pin(discard_upload(upload)).await
        {
            excused_resets.add();
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

/// What the client sends after the head of its request.
enum RequestData {
    None,
    Body(Upload),
    /// The client's direction of a stream that was meant to become a tunnel.
    Connect(Upload),
}

impl RequestData {
    /// The upload, if it has not ended.
    fn unread(self) -> Option<Upload> {
        match self {
            Self::None => None,
            Self::Body(upload) | Self::Connect(upload) => (!upload.is_at_end()).then_some(upload),
        }
    }
}

/// Sends a 100, so that the client sends its body (RFC 9110, section 15.2.1).
fn send_continue(respond: &mut SendResponse<Bytes>) {
    let mut interim = Response::new(());
    *interim.status_mut() = StatusCode::CONTINUE;
    if let Err(problem) = respond.send_informational(interim) {
        debug!(reason = %problem, "a 100 Continue response could not be sent");
    }
}

/// Reads what the client still sends after the response, as over HTTP/1: after an early reset, clients report the reset instead of the response.
/// After a short silence, or at a time limit, the stream is reset with NO_ERROR (RFC 9113, section 8.1); h2 does that when `upload` is dropped.
/// As long as an upstream reads the body, there is no limit here. Returns true if the body has ended.
async fn discard_upload(upload: Upload) -> bool {
    let mut timer = DeadlineTimer::default();
    // When the handler dropped the body, and when its last data came.
    let mut dropped: Option<(Instant, Instant)> = None;
    poll_fn(|cx| {
        loop {
            match upload.poll_discard(cx) {
                Poll::Ready(Discarded::End) => return Poll::Ready(true),
                Poll::Ready(Discarded::Reset) => return Poll::Ready(false),
                Poll::Pending if upload.has_consumer() => return Poll::Pending,
                read => {
                    let now = Instant::now();
                    let (began, last) = dropped.get_or_insert((now, now));
                    if read.is_ready() {
                        *last = now;
                    }
                    let end = (*last + LINGER_TIMEOUT).min(*began + MAX_LINGER_TIME);
                    if read.is_pending() || now >= end {
                        return timer.poll_until(end, cx).map(|()| false);
                    }
                }
            }
        }
    })
    .await
}

/// The body of a response that is being sent.
struct BodyWriter<B> {
    out: SendStream<Bytes>,
    body: B,
    state: WriteState,
    /// Since when data waits for the client's window. `None` while the client reads.
    stalled_since: Option<Instant>,
    active_request: ActiveRequest,
    timer: DeadlineTimer,
}

enum WriteState {
    /// Takes the next frame of the body.
    Body,
    /// This data waits for the client's window.
    Data {
        // Not empty.
        data: Bytes,
        is_last: bool,
    },
    /// The body has failed. The stream is reset once the data before it is written: a reset makes h2 drop data.
    Failed,
}

impl<B: Body<Data = Bytes> + Unpin> BodyWriter<B> {
    /// Ready when h2 has the whole body, or the stream has ended. Wake-up: the body, the client's window, a reset, or the timer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        match self.poll_frames(cx) {
            // While nothing is sent, only `poll_reset` reports that the client has reset the stream.
            Poll::Pending => match ready!(self.out.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(Err(reason.into())),
                Err(problem) => Poll::Ready(Err(problem)),
            },
            sent => sent,
        }
    }

    /// Waits until the client's window has capacity for some of `bytes`. After `send_timeout` without capacity, the stream is reset.
    fn poll_capacity(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<usize, h2::Error>> {
        if let Poll::Ready(capacity) = poll_capacity(&mut self.out, bytes, cx) {
            self.stalled_since = None;
            return Poll::Ready(capacity);
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        ready!(self.timer.poll_until(since + self.active_request.send_timeout(), cx));
        self.out.send_reset(Reason::CANCEL);
        Poll::Ready(Err(Reason::CANCEL.into()))
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match &self.state {
                WriteState::Body => {}
                WriteState::Data { data, is_last } => {
                    let (length, is_last) = (data.len(), *is_last);
                    let capacity = ready!(self.poll_capacity(length, cx))?;
                    let WriteState::Data { data, .. } = &mut self.state else {
                        continue;
                    };
                    // h2 gets only what the window allows. The remainder is kept here, and the body is not polled for more.
                    let allowed = data.split_to(capacity);
                    let is_whole = data.is_empty();
                    if is_whole {
                        self.state = WriteState::Body;
                    }
                    self.out.send_data(allowed, is_whole && is_last)?;
                    if is_whole && is_last {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                WriteState::Failed => {
                    ready!(Pin::new(&mut self.active_request).poll(cx));
                    self.out.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(Reason::INTERNAL_ERROR.into()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.out.send_data(Bytes::new(), true)),
                Some(Err(_)) => self.state = WriteState::Failed,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let is_last = self.body.is_end_stream();
                        if is_last && data.len() <= MAX_UNRESERVED {
                            return Poll::Ready(self.out.send_data(data, true));
                        }
                        if !data.is_empty() {
                            self.state = WriteState::Data { data, is_last };
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

//! HTTP/1 with one client: requests are served one after the other, and each head is parsed once and strictly.
//!
//! A connection that is idle between requests releases all but its IO, a timer and the drain watch until a byte comes.

mod request_body;
mod response_head;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;

use self::wire::{Disconnected, HeadError, Wire};
use super::closing::{ConnectionExpiry, Drain, Idle, IdleExpired, LINGER_TIMEOUT, MAX_LINGER_TIME, close, next_bytes};
use super::context::WorkerContext;
use super::handler::{Exchange, Handler, HeadFault, Reply, Tunnel};
use super::limits::Limits;
use super::socket::Transport;
use crate::framing::header_case::HeaderCase;
use crate::framing::request::{HeadLimits, RequestHead};
use crate::runtime::{DeadlineTimer, Rewind};
use crate::transfer::early_hints::EarlyHints;
use crate::transfer::message_writer::{Framing, MessageWriter, SendError};

/// A connection that is idle for this long releases its buffers. Busy connections have shorter pauses.
const RELEASE_BUFFERS_AFTER: Duration = Duration::from_millis(100);

/// Serves requests until the connection ends. `read` holds bytes that were already read from `io`.
pub(super) async fn serve<I: Transport, H: Handler>(
    mut io: I,
    mut read: Bytes,
    connection: H::Connection,
    expiry: ConnectionExpiry,
    context: &Rc<WorkerContext<H>>,
) {
    let (mut idle, mut release_after) = (Idle::now(), RELEASE_BUFFERS_AFTER);
    loop {
        if read.is_empty() {
            match next_bytes(&mut io, &mut idle, expiry, context).await {
                Ok(bytes) if bytes.is_empty() => return Box::pin(close(io, None, Duration::ZERO)).await,
                Ok(bytes) => read = bytes,
                Err(IdleExpired) => return Box::pin(close(io, None, LINGER_TIMEOUT)).await,
            }
        }
        // `talk` is on the heap, so that an idle connection does not hold room for it.
        let idle_connection = Box::pin(serve_requests(
            io,
            read,
            idle,
            release_after,
            &connection,
            expiry,
            context,
        ))
        .await;
        let Some(idle_connection) = idle_connection else { return };
        (io, read, idle) = (idle_connection.io, idle_connection.unread, idle_connection.idle);
        // An incomplete head stays with the parser: `talk` then must not return before the idle timeout.
        release_after = if read.is_empty() {
            RELEASE_BUFFERS_AFTER
        } else {
            Duration::MAX
        };
    }
}

/// An idle connection, and the bytes that were read and not parsed.
struct IdleConnection<I> {
    io: I,
    unread: Bytes,
    idle: Idle,
}

/// Serves requests until the connection is idle (`Some`) or has ended (`None`).
async fn serve_requests<I: Transport, H: Handler>(
    io: I,
    read: Bytes,
    idle: Idle,
    release_after: Duration,
    connection: &H::Connection,
    expiry: ConnectionExpiry,
    context: &Rc<WorkerContext<H>>,
) -> Option<IdleConnection<I>> {
    let handler = context.handler();
    let limits = handler.limits();
    let bounds = HeadLimits {
        bytes: limits.header_bytes,
        fields: limits.headers,
    };
    let mut wire = Wire::new(io, read, bounds);
    let mut drain = pin!(Drain::new(context.stage(), expiry));
    let mut head_wait = HeadWait {
        idle,
        started: Instant::now(),
        release_after,
        timer: DeadlineTimer::default(),
    };
    let fault = loop {
        let head = match poll_fn(|cx| head_wait.poll_head(&mut wire, drain.as_mut(), context, cx)).await {
            Ok(head) => head,
            Err(NoRequest::Idle) => {
                let (io, unread) = wire.into_parts();
                let idle = head_wait.idle;
                return Some(IdleConnection { io, unread, idle });
            }
            Err(NoRequest::Refused(fault)) => break Some(fault),
            Err(NoRequest::Closed) => break None,
        };
        match exchange(&mut wire, head, connection, handler, drain.as_mut(), &limits).await {
            AfterExchange::KeepAlive => head_wait.idle = Idle::now(),
            AfterExchange::Close => break None,
            AfterExchange::Upgraded(tunnel) => {
                let (io, unread) = wire.into_parts();
                Box::pin(tunnel.run(Rewind::new(io, unread))).await;
                return None;
            }
            AfterExchange::Reset => {
                wire.socket().reset_when_closed();
                return None;
            }
            AfterExchange::Disconnected => return None,
        }
    };
    let last_bytes = fault.map(|fault| refusal(handler, connection, fault));
    let linger = match (wire.is_input_open(), wire.body().is_ended()) {
        (false, _) => Duration::ZERO,
        (true, true) => LINGER_TIMEOUT,
        (true, false) => MAX_LINGER_TIME,
    };
    Box::pin(close(wire.into_parts().0, last_bytes, linger)).await;
    None
}

/// Why no request head came.
enum NoRequest {
    /// The connection was idle for `rest_after`.
    Idle,
    /// The head is invalid, or came too slowly.
    Refused(HeadFault),
    /// The client has disconnected, or the connection may be closed without a response.
    Closed,
}

/// The wait for the next request head.
struct HeadWait {
    idle: Idle,
    /// When this wait began. The buffers are released `rest_after` after the later of this and the start of the idle time.
    started: Instant,
    release_after: Duration,
    timer: DeadlineTimer,
}

impl HeadWait {
    fn poll_head<I: Transport, H: Handler, F: Future<Output = ()>>(
        &mut self,
        wire: &mut Wire<I>,
        drain: Pin<&mut Drain<F>>,
        context: &WorkerContext<H>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RequestHead, NoRequest>> {
        if let Poll::Ready(head) = wire.poll_head(cx) {
            return Poll::Ready(head.map_err(|no| match no {
                HeadError::Refused(fault) => NoRequest::Refused(fault.into()),
                HeadError::Disconnected => NoRequest::Closed,
            }));
        }
        if let Some(started) = wire.head_started() {
            ready!(
                self.timer
                    .poll_until(started + context.handler().limits().header_timeout, cx)
            );
            return Poll::Ready(Err(NoRequest::Refused(HeadFault::TooSlow)));
        }
        let is_draining = drain.poll(cx).is_ready();
        let release_at = self.idle.since().max(self.started).checked_add(self.release_after);
        loop {
            let end = self.idle.deadline(context, is_draining);
            ready!(
                self.timer
                    .poll_until(release_at.map_or(end, |release_at| release_at.min(end)), cx)
            );
            if end > Instant::now() {
                return Poll::Ready(Err(NoRequest::Idle));
            }
            if self.idle.may_close(wire.socket()) {
                return Poll::Ready(Err(NoRequest::Closed));
            }
        }
    }
}

/// What happens to the connection after a request and its response.
enum AfterExchange<T> {
    /// The connection waits for another request.
    KeepAlive,
    /// The connection is closed in order, so that the client can read all that was sent.
    Close,
    /// The response was cut off, and only the end of the connection marks the end of its body. A reset shows the client that it is incomplete.
    Reset,
    /// The client has disconnected.
    Disconnected,
    /// The connection has switched to another protocol.
    Upgraded(Box<T>),
}

/// Serves a request. If the client goes away, the request is cancelled.
fn exchange<'t, I, H, F>(
    wire: &'t mut Wire<I>,
    head: RequestHead,
    connection: &'t H::Connection,
    handler: &'t H,
    mut drain: Pin<&'t mut Drain<F>>,
    limits: &'t Limits,
) -> impl Future<Output = AfterExchange<H::Tunnel>>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    F: Future<Output = ()>,
{
    let inbound = wire.begin(head.body, head.expects_continue);
    let request = head.request.map(|()| inbound);
    let is_http10 = request.version() == Version::HTTP_10;
    let is_head = *request.method() == Method::HEAD;
    let keeps_alive = head.keeps_alive;
    // An `async fn` would store its arguments twice in the future.
    async move {
        let handled = {
            // Dropped together with the request.
            let (header_case, hints) = (wire.take_header_case(), EarlyHints::default());
            let exchange = Exchange {
                header_case: &header_case,
                hints: &hints,
            };
            let mut handling = pin!(handler.handle(request, exchange, connection));
            poll_fn(|cx| wire.poll_beside(handling.as_mut(), &hints, cx)).await
        };
        let Ok(reply) = handled else {
            return AfterExchange::Disconnected;
        };
        let (parts, body, header_case, tunnel) = match reply {
            Reply::Response { response, header_case } => {
                let (parts, body) = response.into_parts();
                (parts, Some(body), header_case, None)
            }
            Reply::Switch {
                response,
                header_case,
                tunnel,
            } => (response.into_parts().0, None, header_case, Some(tunnel)),
        };
        let is_draining = poll_fn(|cx| Poll::Ready(drain.as_mut().poll(cx).is_ready())).await;

        let mut out = wire.start_response();
        let context = response_head::ResponseContext {
            is_http10,
            is_head,
            keeps_alive: keeps_alive && !is_draining && wire.can_keep_alive(),
            length: body.as_ref().map_or(Some(0), |body| body.size_hint().exact()),
        };
        let written = response_head::write_head(&mut out, &parts, &header_case, &context);
        let body = body.filter(|body| written.has_body && !body.is_end_stream());
        let mut sending = MessageWriter::new(out, body, written.framing);
        let sent = poll_fn(|cx| wire.poll_sending(&mut sending, limits.body_read_timeout, cx)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(SendError::Body(_) | SendError::LengthMismatch)) => {
                return match written.framing {
                    Framing::UntilClose => AfterExchange::Reset,
                    Framing::Length(_) | Framing::Chunked { .. } => AfterExchange::Close,
                };
            }
            Ok(Err(SendError::Io(problem))) => {
                debug!(reason = %problem, "a connection failed while a response was sent");
                return AfterExchange::Disconnected;
            }
            Err(Disconnected) => return AfterExchange::Disconnected,
        }
        wire.recycle_buffer(sending.into_buffer());
        if let Some(tunnel) = tunnel {
            return AfterExchange::Upgraded(tunnel);
        }
        // If the upstream still reads the upload, keep the connection open until the body ends.
        // Exception: the client waits for the close as the end of the response.
        let reads_on = wire.receives_body() && written.framing != Framing::UntilClose;
        if wire.body().is_unusable() || !(written.keeps_alive || reads_on) {
            return AfterExchange::Close;
        }
        if !wire.body().is_ended() {
            let mut timer = DeadlineTimer::default();
            match poll_fn(|cx| poll_end_of_body(wire, &mut timer, cx)).await {
                AfterExchange::KeepAlive => {}
                next => return next,
            }
        }
        if !written.keeps_alive {
            return AfterExchange::Close;
        }
        AfterExchange::KeepAlive
    }
}

/// Reads to the end of the body of a request that was answered. If the handler still reads the body, there is no time limit here.
/// If it does not, the client may be silent for [`LINGER_TIMEOUT`] and send a bounded amount. Wake-up: the IO, the handler, or the timer.
fn poll_end_of_body<I: AsyncRead + AsyncWrite + Unpin, T>(
    wire: &mut Wire<I>,
    timer: &mut DeadlineTimer,
    cx: &mut Context<'_>,
) -> Poll<AfterExchange<T>> {
    loop {
        if wire.body().is_unusable() {
            return Poll::Ready(AfterExchange::Close);
        }
        if wire.body().is_ended() {
            return Poll::Ready(AfterExchange::KeepAlive);
        }
        match wire.poll_input(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Disconnected)) => return Poll::Ready(AfterExchange::Disconnected),
            Poll::Pending if wire.body().has_reader() => return Poll::Pending,
            Poll::Pending => {
                ready!(timer.poll_for(LINGER_TIMEOUT, cx));
                return Poll::Ready(AfterExchange::Close);
            }
        }
    }
}

/// The bytes of the response to a request whose head could not be read.
pub(super) fn refusal<H: Handler>(handler: &H, connection: &H::Connection, fault: HeadFault) -> Bytes {
    let (head, body) = handler.refuse(connection, fault).into_parts();
    let mut out = Vec::new();
    let context = response_head::ResponseContext {
        is_http10: false,
        is_head: false,
        keeps_alive: false,
        length: Some(body.len() as u64),
    };
    response_head::write_head(&mut out, &head, &HeaderCase::default(), &context);
    out.extend_from_slice(&body);
    out.into()
}

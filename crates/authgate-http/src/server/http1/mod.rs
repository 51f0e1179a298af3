//! HTTP/1 with one client: requests are served one after the other, and each head is parsed once and strictly.
//!
//! A connection that is idle between requests releases all but its IO, a timer and the drain watch until a byte comes.

mod answer;
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

use self::wire::{Gone, NoHead, Wire};
use super::Limits;
use super::closing::{Drain, Expired, Idle, LAST_WORDS, LONGEST_LINGER, Lease, end, next_bytes};
use super::handler::{Exchange, Handler, HeadFault, Reply, Tunnel};
use super::socket::Transport;
use super::worker::Worker;
use crate::framing::header_case::HeaderCase;
use crate::framing::request::{HeadLimits, RequestHead};
use crate::runtime::{DeadlineTimer, Rewind};
use crate::transfer::early_hints::EarlyHints;
use crate::transfer::message_writer::{Framing, MessageWriter, SendError};

/// A connection that is idle for this long releases its buffers. Busy connections have shorter pauses.
const REST_AFTER: Duration = Duration::from_millis(100);
/// A larger buffer is not kept for the next response.
const MOST_KEPT: usize = 32 * 1024;

/// Serves requests until the connection ends. `read` holds bytes that were already read from `io`.
pub(super) async fn serve<I: Transport, H: Handler>(
    mut io: I,
    mut read: Bytes,
    connection: H::Connection,
    lease: Lease,
    worker: &Rc<Worker<H>>,
) {
    let (mut idle, mut rest_after) = (Idle::now(), REST_AFTER);
    loop {
        if read.is_empty() {
            match next_bytes(&mut io, &mut idle, lease, worker).await {
                Ok(woken) if woken.is_empty() => return Box::pin(end(io, None, Duration::ZERO)).await,
                Ok(woken) => read = woken,
                Err(Expired) => return Box::pin(end(io, None, LAST_WORDS)).await,
            }
        }
        // `talk` is on the heap, so that an idle connection does not hold room for it.
        let silent = Box::pin(talk(io, read, idle, rest_after, &connection, lease, worker)).await;
        let Some(silent) = silent else { return };
        (io, read, idle) = (silent.io, silent.unread, silent.idle);
        // An incomplete head stays with the parser: `talk` then must not return before the idle timeout.
        rest_after = if read.is_empty() { REST_AFTER } else { Duration::MAX };
    }
}

/// An idle connection, and the bytes that were read and not parsed.
struct Silent<I> {
    io: I,
    unread: Bytes,
    idle: Idle,
}

/// Serves requests until the connection is idle (`Some`) or has ended (`None`).
async fn talk<I: Transport, H: Handler>(
    io: I,
    read: Bytes,
    idle: Idle,
    rest_after: Duration,
    connection: &H::Connection,
    lease: Lease,
    worker: &Rc<Worker<H>>,
) -> Option<Silent<I>> {
    let handler = worker.handler();
    let limits = handler.limits();
    let bounds = HeadLimits {
        bytes: limits.header_bytes,
        fields: limits.headers,
    };
    let mut wire = Wire::new(io, read, bounds);
    let mut draining = Draining {
        asked: pin!(Drain::new(worker.stage(), lease)),
        is_draining: false,
    };
    let mut waiting = Waiting {
        idle,
        awake: Instant::now(),
        rest_after,
        timer: DeadlineTimer::default(),
    };
    let fault = loop {
        let head = match poll_fn(|cx| waiting.poll_head(&mut wire, &mut draining, worker, cx)).await {
            Ok(head) => head,
            Err(Stop::Silent) => {
                let (io, unread) = wire.into_rest();
                let idle = waiting.idle;
                return Some(Silent { io, unread, idle });
            }
            Err(Stop::Refused(fault)) => break Some(fault),
            Err(Stop::Quietly) => break None,
        };
        match exchange(&mut wire, head, connection, handler, &mut draining, &limits).await {
            Next::Request => waiting.idle = Idle::now(),
            Next::End => break None,
            Next::Switched(tunnel) => {
                let (io, unread) = wire.into_rest();
                Box::pin(tunnel.run(Rewind::new(io, unread))).await;
                return None;
            }
            Next::Reset => {
                wire.socket().reset_when_closed();
                return None;
            }
            Next::Nothing => return None,
        }
    };
    let words = fault.map(|fault| refusal(handler, connection, fault));
    let linger = match (wire.may_send_more(), wire.is_at_end()) {
        (false, _) => Duration::ZERO,
        (true, true) => LAST_WORDS,
        (true, false) => LONGEST_LINGER,
    };
    Box::pin(end(wire.into_rest().0, words, linger)).await;
    None
}

/// Why no request head came.
enum Stop {
    /// The connection was idle for `rest_after`.
    Silent,
    /// The head is invalid, or came too slowly.
    Refused(HeadFault),
    /// The client is gone, or the connection may be closed without a response.
    Quietly,
}

/// Whether the connection may take no more requests.
struct Draining<'p, F> {
    asked: Pin<&'p mut Drain<F>>,
    /// `asked` was ready. It is not polled again.
    is_draining: bool,
}

impl<F: Future<Output = ()>> Draining<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_draining = self.is_draining || self.asked.as_mut().poll(cx).is_ready();
        self.is_draining
    }
}

/// The wait for the next request head.
struct Waiting {
    idle: Idle,
    /// When this wait began. The buffers are released `rest_after` after the later of this and the start of the idle time.
    awake: Instant,
    rest_after: Duration,
    timer: DeadlineTimer,
}

impl Waiting {
    fn poll_head<I: Transport, H: Handler, F: Future<Output = ()>>(
        &mut self,
        wire: &mut Wire<I>,
        draining: &mut Draining<'_, F>,
        worker: &Worker<H>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RequestHead, Stop>> {
        if let Poll::Ready(head) = wire.poll_head(cx) {
            return Poll::Ready(head.map_err(|no| match no {
                NoHead::Refused(fault) => Stop::Refused(fault.into()),
                NoHead::Gone => Stop::Quietly,
            }));
        }
        if let Some(begun) = wire.head_began() {
            ready!(
                self.timer
                    .poll_until(begun + worker.handler().limits().header_timeout, cx)
            );
            return Poll::Ready(Err(Stop::Refused(HeadFault::TooSlow)));
        }
        let draining = draining.poll(cx);
        let rests = self.idle.since().max(self.awake).checked_add(self.rest_after);
        loop {
            let end = self.idle.end(worker, draining);
            ready!(self.timer.poll_until(rests.map_or(end, |rests| rests.min(end)), cx));
            if end > Instant::now() {
                return Poll::Ready(Err(Stop::Silent));
            }
            if self.idle.may_close(wire.socket()) {
                return Poll::Ready(Err(Stop::Quietly));
            }
        }
    }
}

/// What follows a request and its answer.
enum Next<T> {
    /// The connection waits for another request.
    Request,
    /// The connection is closed in order, so that the client can read all that was sent.
    End,
    /// The answer was cut off, and only the end of the connection marks the end of its body. A reset shows the client that it is incomplete.
    Reset,
    /// The client is gone.
    Nothing,
    /// The connection has switched to another protocol.
    Switched(Box<T>),
}

/// Serves a request. If the client goes away, the request is cancelled.
fn exchange<'t, I, H, F>(
    wire: &'t mut Wire<I>,
    head: RequestHead,
    connection: &'t H::Connection,
    handler: &'t H,
    draining: &'t mut Draining<'_, F>,
    limits: &'t Limits,
) -> impl Future<Output = Next<H::Tunnel>>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    F: Future<Output = ()>,
{
    let inbound = wire.begin(head.body, head.expects_continue);
    let request = head.request.map(|()| inbound);
    let old = request.version() == Version::HTTP_10;
    let is_head = *request.method() == Method::HEAD;
    let keeps_alive = head.keeps_alive;
    // An `async fn` would store its arguments twice in the future.
    async move {
        let answered = {
            // Dropped together with the request.
            let (header_case, hints) = (wire.take_header_case(), EarlyHints::default());
            let exchange = Exchange {
                header_case: &header_case,
                hints: &hints,
            };
            let mut handling = pin!(handler.handle(request, exchange, connection));
            poll_fn(|cx| wire.poll_beside(handling.as_mut(), &hints, cx)).await
        };
        let Ok(reply) = answered else { return Next::Nothing };
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
        let closing = poll_fn(|cx| Poll::Ready(draining.poll(cx))).await;

        let mut out = wire.buffer();
        let context = answer::ResponseContext {
            is_http10: old,
            is_head,
            keeps_alive: keeps_alive && !closing && wire.may_go_on(),
            length: body.as_ref().map_or(Some(0), |body| body.size_hint().exact()),
        };
        let written = answer::write_head(&mut out, &parts, &header_case, &context);
        let body = body.filter(|body| written.has_body && !body.is_end_stream());
        let mut sending = MessageWriter::new(out, body, written.framing);
        let sent = poll_fn(|cx| wire.poll_sending(&mut sending, limits.body_read_timeout, cx)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(SendError::Body(_) | SendError::LengthMismatch)) => {
                return match written.framing {
                    Framing::UntilClose => Next::Reset,
                    Framing::Length(_) | Framing::Chunked { .. } => Next::End,
                };
            }
            Ok(Err(SendError::Io(problem))) => {
                debug!(reason = %problem, "a connection failed while a response was sent");
                return Next::Nothing;
            }
            Err(Gone) => return Next::Nothing,
        }
        wire.give_back(sending.into_buffer());
        if let Some(tunnel) = tunnel {
            return Next::Switched(tunnel);
        }
        // If the upstream still reads the upload, keep the connection open until the body ends.
        // Exception: the client waits for the close as the end of the answer.
        let goes_on = wire.goes_on() && written.framing != Framing::UntilClose;
        if wire.is_broken() || !(written.keeps_alive || goes_on) {
            return Next::End;
        }
        if !wire.is_at_end() {
            let mut timer = DeadlineTimer::default();
            match poll_fn(|cx| poll_end_of_body(wire, &mut timer, cx)).await {
                Next::Request => {}
                next => return next,
            }
        }
        if !written.keeps_alive {
            return Next::End;
        }
        Next::Request
    }
}

/// Reads to the end of the body of a request that was answered. If the handler still reads the body, there is no time limit here.
/// If it does not, the client may be silent for [`LAST_WORDS`] and send a bounded amount. Wake-up: the IO, the handler, or the timer.
fn poll_end_of_body<I: AsyncRead + AsyncWrite + Unpin, T>(
    wire: &mut Wire<I>,
    timer: &mut DeadlineTimer,
    cx: &mut Context<'_>,
) -> Poll<Next<T>> {
    loop {
        if wire.is_broken() {
            return Poll::Ready(Next::End);
        }
        if wire.is_at_end() {
            return Poll::Ready(Next::Request);
        }
        match wire.poll_input(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Gone)) => return Poll::Ready(Next::Nothing),
            Poll::Pending if wire.is_wanted() => return Poll::Pending,
            Poll::Pending => {
                ready!(timer.poll_for(LAST_WORDS, cx));
                return Poll::Ready(Next::End);
            }
        }
    }
}

/// The bytes of the response to a request whose head could not be read.
pub(super) fn refusal<H: Handler>(handler: &H, connection: &H::Connection, fault: HeadFault) -> Bytes {
    let (head, body) = handler.refuse(connection, fault).into_parts();
    let mut out = Vec::new();
    let context = answer::ResponseContext {
        is_http10: false,
        is_head: false,
        keeps_alive: false,
        length: Some(body.len() as u64),
    };
    answer::write_head(&mut out, &head, &HeaderCase::default(), &context);
    out.extend_from_slice(&body);
    out.into()
}

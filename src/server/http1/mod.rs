//! HTTP/1 with one client: one request after the other, read once and strictly, and next to nothing while there is none.
//!
//! A connection that is silent between requests rests: all but its IO and a timer is given up until a byte comes.

mod answer;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::debug;

use self::wire::{Gone, NoHead, Wire};
use super::Limits;
use super::connection::{Drain, LAST_WORDS, LONGEST_LINGER, end};
use super::worker::Worker;
use crate::framing::grammar::Fault;
use crate::framing::request::{Bounds, RequestHead};
use crate::proxy::Client;
use crate::proxy::rejection::Rejection;
use crate::proxy::websocket::Switched;
use crate::runtime::{Alarm, Replay};
use crate::transfer::sending::{Framing, Sending, Unsendable};

/// A connection that is silent for so long gives its buffers back. Those that are busy are never that silent.
const REST_AFTER: Duration = Duration::from_millis(100);
/// What is read at once of what ends a rest; a TLS record holds no more.
const PIECE: usize = 16 * 1024;
/// A larger buffer is not kept for the next response.
const MOST_KEPT: usize = 32 * 1024;

/// Serves requests until the connection ends. `read` was read of it already; `reset` has the connection be reset when it is closed, and not ended.
pub(super) async fn serve<I>(mut io: I, mut read: Bytes, client: Client, worker: &Rc<Worker>, reset: fn(&I))
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut idle_since, mut rest_after) = (Instant::now(), REST_AFTER);
    loop {
        if read.is_empty() {
            match rest(&mut io, idle_since, worker).await {
                Ok(woken) if woken.is_empty() => return Box::pin(end(io, None, Duration::ZERO)).await,
                Ok(woken) => read = woken,
                Err(Tired) => return Box::pin(end(io, None, LAST_WORDS)).await,
            }
        }
        // On the heap by itself, and only while there is something to say.
        let silent = Box::pin(talk(io, read, idle_since, rest_after, &client, worker, reset)).await;
        let Some(silent) = silent else { return };
        (io, read, idle_since) = (silent.io, silent.unread, silent.since);
        // What was read and is no request yet waits with whoever reads requests.
        rest_after = if read.is_empty() { REST_AFTER } else { Duration::MAX };
    }
}

/// A connection on which nothing is under way, and what of it nobody has read yet.
struct Silent<I> {
    io: I,
    unread: Bytes,
    since: Instant,
}

/// Serves requests until there is silence, or the connection has ended.
async fn talk<I>(
    io: I,
    read: Bytes,
    idle_since: Instant,
    rest_after: Duration,
    client: &Client,
    worker: &Rc<Worker>,
    reset: fn(&I),
) -> Option<Silent<I>>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = worker.limits();
    let bounds = Bounds {
        bytes: limits.header_bytes,
        fields: limits.headers,
    };
    let mut wire = Wire::new(io, read, bounds);
    let mut draining = Draining {
        asked: pin!(Drain::new(worker.stage())),
        told: false,
    };
    let mut waiting = Waiting {
        since: idle_since,
        awake: Instant::now(),
        rest_after: rest_after.min(limits.idle_timeout),
        alarm: Alarm::default(),
    };
    let refusal = loop {
        let head = match poll_fn(|cx| waiting.poll_head(&mut wire, &mut draining, &limits, cx)).await {
            Ok(head) => head,
            Err(Stop::Silent) => {
                let (io, unread) = wire.into_rest();
                let since = waiting.since;
                return Some(Silent { io, unread, since });
            }
            Err(Stop::Refused(refusal)) => break Some(refusal),
            Err(Stop::Quietly) => break None,
        };
        match exchange(&mut wire, head, client, worker, &mut draining, &limits).await {
            Next::Request => waiting.since = Instant::now(),
            Next::End => break None,
            Next::Switched(switched) => {
                let (io, unread) = wire.into_rest();
                Box::pin(switched.run(Replay::new(io, unread))).await;
                return None;
            }
            Next::Reset => {
                reset(&wire.into_rest().0);
                return None;
            }
            Next::Nothing => return None,
        }
    };
    let words = refusal.map(|refusal| worker.proxy().refuse_head(&client.peer, &refusal));
    let linger = match (wire.may_send_more(), wire.is_at_end()) {
        (false, _) => Duration::ZERO,
        (true, true) => LAST_WORDS,
        (true, false) => LONGEST_LINGER,
    };
    Box::pin(end(wire.into_rest().0, words, linger)).await;
    None
}

/// Why no request comes any more.
enum Stop {
    /// There is nothing to say for a while.
    Silent,
    /// A head is refused.
    Refused(Rejection),
    /// There is nobody to say anything to, or nothing to say.
    Quietly,
}

/// Whether connections are to take no more requests.
struct Draining<'p, F> {
    asked: Pin<&'p mut Drain<F>>,
    told: bool,
}

impl<F: Future<Output = ()>> Draining<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.told = self.told || self.asked.as_mut().poll(cx).is_ready();
        self.told
    }
}

/// For the next request.
struct Waiting {
    since: Instant,
    /// Since when a rest is not called for: an idle time that began before this counts from here.
    awake: Instant,
    rest_after: Duration,
    alarm: Alarm,
}

impl Waiting {
    fn poll_head<I: AsyncRead + Unpin, F: Future<Output = ()>>(
        &mut self,
        wire: &mut Wire<I>,
        draining: &mut Draining<'_, F>,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RequestHead, Stop>> {
        if let Poll::Ready(head) = wire.poll_head(cx) {
            return Poll::Ready(head.map_err(|no| match no {
                NoHead::Refused(fault) => Stop::Refused(rejection(fault)),
                NoHead::Gone => Stop::Quietly,
            }));
        }
        if let Some(begun) = wire.head_began() {
            ready!(self.alarm.poll_until(begun + limits.header_timeout, cx));
            return Poll::Ready(Err(Stop::Refused(Rejection::HeadTooSlow)));
        }
        if draining.poll(cx) {
            return Poll::Ready(Err(Stop::Quietly));
        }
        ready!(self.alarm.poll_until(self.since.max(self.awake) + self.rest_after, cx));
        Poll::Ready(Err(match self.since + limits.idle_timeout > Instant::now() {
            true => Stop::Silent,
            false => Stop::Quietly,
        }))
    }
}

/// What follows a request and its answer.
enum Next {
    /// Another one.
    Request,
    /// The end of the connection, told so that the client sees all that came before.
    End,
    /// A body was cut off whose end nothing else tells than the end of the connection.
    Reset,
    /// The client is gone.
    Nothing,
    /// Bytes that are no HTTP.
    Switched(Box<Switched>),
}

/// All that was handed on is out before anybody is told of a cut.
struct Out;

impl Future for Out {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Serves a request. A client that goes away takes it along.
fn exchange<'t, I, F>(
    wire: &'t mut Wire<I>,
    head: RequestHead,
    client: &'t Client,
    worker: &'t Worker,
    draining: &'t mut Draining<'_, F>,
    limits: &'t Limits,
) -> impl Future<Output = Next>
where
    I: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let inbound = wire.begin(head.rest, head.expects_continue);
    let request = head.request.map(|()| inbound);
    let old = request.version() == Version::HTTP_10;
    let is_head = *request.method() == Method::HEAD;
    let (proxy, keeps_alive) = (worker.proxy(), head.keeps_alive);
    // An `async fn` would hold what it was given a second time.
    async move {
        let answered = {
            let mut handling = pin!(proxy.handle(request, client, Out));
            poll_fn(|cx| wire.poll_beside(handling.as_mut(), cx)).await
        };
        let Ok(response) = answered else { return Next::Nothing };
        let closing = poll_fn(|cx| Poll::Ready(draining.poll(cx))).await;

        let (parts, body) = response.into_parts();
        let mut out = wire.buffer();
        let told = answer::Told {
            old,
            is_head,
            keeps_alive: keeps_alive && !closing && wire.may_go_on(),
            length: body.size_hint().exact(),
        };
        let told = answer::write_head(&mut out, &parts, &told);
        let body = (told.has_body && !body.is_end_stream()).then_some(body);
        let mut sending = Sending::new(out, body, told.framing);
        let sent = poll_fn(|cx| wire.poll_sending(&mut sending, limits.body_read_timeout, cx)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(Unsendable::Body(_) | Unsendable::Length)) => {
                return match told.framing {
                    Framing::UntilClose => Next::Reset,
                    Framing::Length(_) | Framing::Chunked { .. } => Next::End,
                };
            }
            Ok(Err(Unsendable::Io(problem))) => {
                debug!(reason = %problem, "a connection broke while an answer was sent");
                return Next::Nothing;
            }
            Err(Gone) => return Next::Nothing,
        }
        wire.give_back(sending.into_buffer());
        if let Some(switched) = client.switched.take() {
            return Next::Switched(switched);
        }
        // What a server still takes is not taken from it; the end of the connection must not be what the client waits for.
        let goes_on = wire.goes_on() && told.framing != Framing::UntilClose;
        if wire.is_broken() || !(told.keeps_alive || goes_on) {
            return Next::End;
        }
        if !wire.is_at_end() {
            let mut alarm = Alarm::default();
            match poll_fn(|cx| poll_end_of_body(wire, &mut alarm, cx)).await {
                Next::Request => {}
                next => return next,
            }
        }
        if !told.keeps_alive {
            return Next::End;
        }
        Next::Request
    }
}

/// Waits for the end of a body whose request is answered: as long as somebody takes it; else for a moment, and within a bound.
fn poll_end_of_body<I: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<I>,
    alarm: &mut Alarm,
    cx: &mut Context<'_>,
) -> Poll<Next> {
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
                ready!(alarm.poll_for(LAST_WORDS, cx));
                return Poll::Ready(Next::End);
            }
        }
    }
}

/// No more requests are waited for.
struct Tired;

/// Waits for the first byte of a request with nothing but the connection itself; none: the client is gone.
async fn rest<I: AsyncRead + Unpin>(io: &mut I, since: Instant, worker: &Rc<Worker>) -> Result<Bytes, Tired> {
    let end = since + worker.limits().idle_timeout;
    let mut drain = pin!(Drain::new(worker.stage()));
    let mut alarm = Alarm::default();
    poll_fn(move |cx| {
        if let Poll::Ready(read) = poll_read(io, cx) {
            return Poll::Ready(Ok(read.unwrap_or_default()));
        }
        if drain.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Tired));
        }
        alarm.poll_until(end, cx).map(|()| Err(Tired))
    })
    .await
}

fn poll_read<I: AsyncRead + Unpin>(io: &mut I, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut piece = [const { MaybeUninit::uninit() }; PIECE];
    let mut read = ReadBuf::uninit(&mut piece);
    if let Err(problem) = ready!(Pin::new(io).poll_read(cx, &mut read)) {
        debug!(reason = %problem, "a connection broke while it was idle");
        return Poll::Ready(Err(problem));
    }
    Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
}

fn rejection(fault: Fault) -> Rejection {
    match fault {
        Fault::Malformed(what) => Rejection::Malformed(what),
        Fault::TargetTooLong => Rejection::TargetTooLong,
        Fault::HeadTooLarge => Rejection::HeadTooLarge,
    }
}

//! HTTP/1.1 with one client: hyper's parser behind the guard while there is something to say, and next to nothing while there is not.
//!
//! A connection that is silent between requests is taken apart: the parser's buffers go, and a byte that comes puts it together again. Of
//! what was read, nothing is lost in between.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::debug;

use super::clock::{Clock, Overdue, Phase};
use super::connection::{Drain, end, log_end, service};
use super::guard::{Bounds, Fault, Guarded};
use super::worker::Worker;
use crate::proxy::Client;
use crate::proxy::rejection::Rejection;
use crate::runtime::{Alarm, Replay};

/// What the parser may hold beyond a head of the largest size: it must never be the one to find a head too large.
const PARSER_ROOM: usize = 16 * 1024;
/// A connection that is silent for so long gives its buffers back. Those that are busy are never that silent.
const REST_AFTER: Duration = Duration::from_millis(100);
/// What is read at once of what ends a rest; a TLS record holds no more.
const PIECE: usize = 16 * 1024;

/// Serves requests until the connection ends. `read` was read of it already; `reset` has the connection be reset when it is closed, and not ended.
pub(super) async fn serve<I>(mut io: I, mut read: Bytes, client: Client, worker: &Rc<Worker>, reset: fn(&I))
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let client = Rc::new(client);
    let (mut idle_since, mut rest_after) = (Instant::now(), REST_AFTER);
    loop {
        if read.is_empty() {
            match rest(&mut io, idle_since, worker).await {
                Ok(woken) if woken.is_empty() => return Box::pin(end(io, None, false)).await,
                Ok(woken) => read = woken,
                Err(Tired) => return Box::pin(end(io, None, true)).await,
            }
        }
        // On the heap by itself, and only while there is something to say.
        let silent = Box::pin(talk(io, read, idle_since, rest_after, &client, worker, reset)).await;
        let Some(silent) = silent else { return };
        (io, read, idle_since) = (silent.io, silent.unread, silent.since);
        // What was read and is no request yet waits with the parser.
        rest_after = if read.is_empty() { REST_AFTER } else { Duration::MAX };
    }
}

/// A connection on which nothing is under way, and what of it nobody has read yet.
struct Silent<I> {
    io: I,
    unread: Bytes,
    since: Instant,
}

/// Who ended a conversation.
enum Ended {
    ByParser(hyper::Result<()>),
    /// In that phase, which lasted too long.
    Here(Phase),
    /// Nobody; it rests.
    Silent(Instant),
}

/// Serves requests until there is silence, or the connection has ended.
async fn talk<I>(
    io: I,
    read: Bytes,
    idle_since: Instant,
    rest_after: Duration,
    client: &Rc<Client>,
    worker: &Rc<Worker>,
    reset: fn(&I),
) -> Option<Silent<I>>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (limits, clock) = (worker.limits(), Clock::idle_since(idle_since));
    let bounds = Bounds {
        bytes: limits.header_bytes,
        fields: limits.headers,
    };
    let io = Guarded::new(Replay::new(io, read), Rc::clone(&clock), bounds);
    let proxy = worker.proxy();
    let mut connection = http1::Builder::new()
        // Heads have a deadline of their own: see `clock`. They are bounded by the guard, which sees each first.
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes + PARSER_ROOM)
        .serve_connection(io, service(worker, Rc::clone(client), &clock));
    let began = Instant::now();
    let mut overdue = pin!(Overdue::resting(clock, &limits, rest_after, began));
    let mut drain = pin!(Drain::new(worker.stage()));
    let mut told = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Ended::ByParser(ended));
        }
        if !told && drain.as_mut().poll(cx).is_ready() {
            told = true;
            if let idle @ Phase::Idle(_) = overdue.phase() {
                return Poll::Ready(Ended::Here(idle));
            }
            Pin::new(&mut connection).graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        overdue.as_mut().poll(cx).map(|phase| match phase {
            Phase::Idle(since) if !told && since + limits.idle_timeout > Instant::now() => Ended::Silent(since),
            phase => Ended::Here(phase),
        })
    })
    .await;
    let parts = connection.into_parts();
    let guarded = parts.io;
    let switched = client.switched.take();
    let refused = guarded.refused().map(rejection);
    let may_send_more = guarded.may_send_more();
    let (io, held) = guarded.into_rest();
    let refusal = match (ended, switched) {
        (Ended::Silent(since), _) if refused.is_none() && may_send_more => {
            let (io, unread) = io.into_rest([&parts.read_buf[..], &held]);
            return Some(Silent { io, unread, since });
        }
        // The head that tells of it is out.
        (Ended::ByParser(Ok(())), Some(switched)) => {
            let read = [parts.read_buf, held.into()].concat();
            Box::pin(switched.run(Replay::new(io, read.into()))).await;
            return None;
        }
        // A body was cut off whose end nothing else tells than the end of the connection.
        (Ended::ByParser(Err(cut)), _) if cut.is_user() && client.old.get() => {
            reset(&io.into_rest([&[], &[]]).0);
            return None;
        }
        (Ended::ByParser(ended), _) => {
            log_end(ended);
            refused
        }
        (Ended::Here(Phase::Head(_)), _) => Some(refused.unwrap_or(Rejection::HeadTooSlow)),
        (Ended::Silent(_) | Ended::Here(Phase::Idle(_) | Phase::Busy | Phase::Blocked(_)), _) => refused,
    };
    let words = refusal.map(|refusal| proxy.refuse_head(&client.peer, &refusal));
    end(io, words, may_send_more).await;
    None
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
        debug!(%problem, "a connection broke while it was idle");
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

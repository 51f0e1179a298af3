//! HTTP/2 with one client (RFC 9113): h2 drives the connection, and the same task polls its streams.

mod clock;
mod exchange;
mod frames;
mod gather;
mod tunnel;
pub(super) mod windows;

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Stream};
use h2::RecvStream;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::{debug, info};

use self::clock::{Clock, Overdue, Phase};
use self::exchange::SEND_BUFFER;
use self::frames::{Excused, Frames};
use self::windows::Windows;
use super::closing::{Drain, LAST_WORDS, Lease, end};
use super::handler::{ConnectionEvent, Handler};
use super::worker::Worker;
use crate::node::Node;

/// The budget of h2 for the overhead of small DATA frames in its buffers. h2's default follows the window: when the window shrinks,
/// frames that were allowed would become an error.
const SMALL_FRAMES: usize = windows::CONNECTION as usize / 2;
/// How many streams of a connection may end with a client error that makes us reset them (CVE-2025-8671).
const ERRORS: usize = 128;
/// h2 remembers so many reset streams, for so long: frames that the client sent before it saw the reset are then no error.
const REMEMBERED: usize = 512;
const REMEMBER_FOR: Duration = Duration::from_secs(10);
/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];
/// How long the client has to react to a GOAWAY (RFC 9113, section 6.8) before its idle connection is closed.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves streams until the connection ends or one of its limits closes it.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin + 'static, H: Handler>(
    io: I,
    connection: H::Connection,
    node: Node,
    lease: Lease,
    worker: &Rc<Worker<H>>,
) {
    let limits = worker.handler().limits();
    let (clock, connection) = (Clock::new(limits.body_read_timeout), Rc::new(connection));
    let excused = Excused::default();
    let (io, flusher) = gather::gather(Frames::new(io, excused.clone()));
    // h2 itself answers requests above this limit. Below it, the gateway answers a head that is too large, and logs it as usual.
    let header_list = u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX);
    let mut parser = Parser::Beginning {
        handshake: Builder::new()
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(header_list)
            .max_send_buffer_size(SEND_BUFFER)
            .max_local_error_reset_streams(Some(ERRORS))
            .max_concurrent_reset_streams(REMEMBERED)
            .reset_stream_duration(REMEMBER_FOR)
            .enable_connect_protocol()
            .initial_window_size(windows::STREAM)
            .initial_connection_window_size(windows::CONNECTION)
            .data_frame_budget(SMALL_FRAMES)
            .handshake(io),
        leaves: false,
    };
    let mut windows = Windows::new(worker.steps().clone());
    let mut streams = FuturesUnordered::new();
    let mut overdue = pin!(Overdue::new(Rc::clone(&clock), limits.idle_timeout));
    let mut drain = pin!(Drain::new(worker.stage(), lease));
    // Set when GOAWAY was sent. If the client stays connected, the connection is closed after its last request.
    let mut goodbye: Option<Pin<Box<Sleep>>> = None;
    let in_order = poll_fn(|cx| {
        // Streams are polled first, so that h2 writes their data in the same poll.
        poll_all(&mut streams, cx);
        parser.resize(windows.before_reading());
        let ended = loop {
            match parser.poll_request(cx) {
                // h2 sends the WINDOW_UPDATE for a larger window when it is polled again.
                Poll::Pending if parser.resize(windows.after_reading(flusher.look(Frames::received))) => {}
                Poll::Pending => break None,
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (worker, connection) = (Rc::clone(worker), Rc::clone(&connection));
                    let exchange = exchange::serve(
                        worker,
                        connection,
                        request,
                        respond,
                        &clock,
                        &mut windows,
                        excused.clone(),
                    );
                    // Boxed before the push, because the future is large. A panic in one stream does not end the others.
                    streams.push(Box::pin(AssertUnwindSafe(exchange).catch_unwind()));
                    // A request that needs no wait is forwarded before the next one is parsed.
                    poll_all(&mut streams, cx);
                }
                Poll::Ready(ended) => break Some(ended.map_or(Ok(()), |ended| ended.map(drop))),
            }
        };
        if let Poll::Ready(Err(problem)) = clock.wrote(flusher.poll_flush(cx)) {
            debug!(reason = %problem, "an HTTP/2 connection failed");
            return Poll::Ready(false);
        }
        if flusher.has_moved() {
            clock.moved();
        }
        if let Some(ended) = ended {
            if let Err(problem) = &ended {
                debug!(reason = %problem, "a connection ended");
            }
            return Poll::Ready(ended.is_ok());
        }
        if let Phase::Blocked(_) = overdue.phase()
            && overdue.as_mut().poll(cx).is_ready()
        {
            debug!("an HTTP/2 client did not read its responses in time");
            return Poll::Ready(false);
        }
        if goodbye.is_none() && (drain.as_mut().poll(cx).is_ready() || overdue.as_mut().poll(cx).is_ready()) {
            goodbye = Some(Box::pin(sleep(GOODBYE)));
            parser.leave();
            cx.waker().wake_by_ref();
        }
        if let Some(goodbye) = &mut goodbye {
            while goodbye.as_mut().poll(cx).is_ready() {
                // h2 may still hold the end of an answer, if the client's window is closed.
                if let Phase::Idle(since) = overdue.phase()
                    && (!parser.has_streams() || since.elapsed() >= limits.body_read_timeout)
                {
                    return Poll::Ready(true);
                }
                goodbye.as_mut().reset(Instant::now() + GOODBYE);
            }
        }
        Poll::Pending
    })
    .await;
    drop((streams, parser));
    if let Some(excess) = flusher.look(Frames::excess) {
        worker.handler().count(ConnectionEvent::Flooded);
        info!(client.ip = %node, reason = excess.label(), "an HTTP/2 connection was closed: the client exceeded the limit of frames without data or of resets");
        let mut words = CALM;
        let _ = timeout(LAST_WORDS, poll_fn(|cx| flusher.poll_last_words(cx, &mut words))).await;
    } else if let Some(io) = flusher.into_io().filter(|_| in_order) {
        // Read what the client has sent meanwhile: closing with unread data would reset the connection, and the client could lose answers.
        Box::pin(end(io.into_io(), None, LAST_WORDS)).await;
    }
}

/// Polls every stream that was woken.
fn poll_all<F: Future>(streams: &mut FuturesUnordered<F>, cx: &mut Context<'_>) {
    while let Poll::Ready(Some(_)) = Pin::new(&mut *streams).poll_next(cx) {}
}

type Accepted = Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>;

/// The h2 side of a connection.
enum Parser<I> {
    /// The preface and the SETTINGS are not exchanged yet.
    Beginning {
        handshake: Handshake<I, Bytes>,
        /// The gateway drains: shut down gracefully when the handshake is done.
        leaves: bool,
    },
    Serving(Connection<I, Bytes>),
}

impl<I: AsyncRead + AsyncWrite + Unpin> Parser<I> {
    /// Reads and writes. Ready with a request, or with `None` when the connection has ended.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        loop {
            match self {
                Self::Serving(connection) => return connection.poll_accept(cx),
                Self::Beginning { handshake, leaves } => match ready!(Pin::new(handshake).poll(cx)) {
                    Ok(mut connection) => {
                        if *leaves {
                            connection.graceful_shutdown();
                        }
                        *self = Self::Serving(connection);
                    }
                    Err(problem) => return Poll::Ready(Some(Err(problem))),
                },
            }
        }
    }

    /// Sets a new connection window. Returns true if it did.
    fn resize(&mut self, window: Option<u32>) -> bool {
        match (self, window) {
            (Self::Serving(connection), Some(window)) => {
                connection.set_target_window_size(window);
                true
            }
            _ => false,
        }
    }

    /// Whether h2 has a stream whose data is not completely written.
    fn has_streams(&self) -> bool {
        match self {
            Self::Beginning { .. } => false,
            Self::Serving(connection) => connection.has_streams(),
        }
    }

    /// Sends GOAWAY: the connection takes no more requests (RFC 9113, section 6.8).
    fn leave(&mut self) {
        match self {
            Self::Beginning { leaves, .. } => *leaves = true,
            Self::Serving(connection) => connection.graceful_shutdown(),
        }
    }
}

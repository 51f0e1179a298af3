//! HTTP/2 with one client (RFC 9113): h2 drives the connection, and the same task polls its streams.

mod activity;
mod capacity;
mod exchange;
mod frames;
mod tunnel;
pub(super) mod windows;
mod write_buffer;

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

use self::activity::{Activity, Phase, PhaseTimeout};
use self::capacity::SEND_BUFFER;
use self::frames::{ExcusedResets, FrameLimiter};
use self::windows::ConnectionWindow;
use super::closing::{ConnectionExpiry, Drain, LINGER_TIMEOUT, close};
use super::context::WorkerContext;
use super::handler::{ConnectionEvent, Handler};
use crate::node::Node;

/// The budget of h2 for the overhead of small DATA frames in its buffers. h2's default follows the window: when the window shrinks,
/// frames that were allowed would become an error.
const DATA_FRAME_BUDGET: usize = windows::CONNECTION_WINDOW as usize / 2;
/// How many streams of a connection the gateway may reset because of a client error (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 128;
/// h2 remembers this many reset streams, for this long: frames that the client sent before it saw the reset are then no error.
const MAX_RESET_STREAMS: usize = 512;
const RESET_STREAM_DURATION: Duration = Duration::from_secs(10);
/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const GOAWAY_ENHANCE_YOUR_CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];
/// How long the client has to react to a GOAWAY (RFC 9113, section 6.8) before its idle connection is closed.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves streams until the connection ends or one of its limits closes it.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin + 'static, H: Handler>(
    io: I,
    connection: H::Connection,
    node: Node,
    expiry: ConnectionExpiry,
    context: &Rc<WorkerContext<H>>,
) {
    let limits = context.handler().limits();
    let (activity, connection) = (Activity::new(limits.body_read_timeout), Rc::new(connection));
    let excused_resets = ExcusedResets::default();
    let (io, flusher) = write_buffer::split(FrameLimiter::new(io, excused_resets.clone()));
    // h2 itself answers requests above this limit. Below it, the gateway answers a head that is too large, and logs it as usual.
    let header_list = u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX);
    let mut h2 = H2Connection::Handshaking {
        handshake: Builder::new()
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(header_list)
            .max_send_buffer_size(SEND_BUFFER)
            .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .reset_stream_duration(RESET_STREAM_DURATION)
            .enable_connect_protocol()
            .initial_window_size(windows::STREAM_WINDOW)
            .initial_connection_window_size(windows::CONNECTION_WINDOW)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .handshake(io),
        shuts_down: false,
    };
    let mut window = ConnectionWindow::new(context.window_budget().clone());
    let mut streams = FuturesUnordered::new();
    let mut phase_timeout = pin!(PhaseTimeout::new(Rc::clone(&activity), limits.idle_timeout));
    let mut drain = pin!(Drain::new(context.stage(), expiry));
    // Set when GOAWAY was sent. If the client stays connected, the connection is closed after its last request.
    let mut goaway_timer: Option<Pin<Box<Sleep>>> = None;
    let is_orderly = poll_fn(|cx| {
        // Streams are polled first, so that h2 writes their data in the same poll.
        poll_all(&mut streams, cx);
        h2.set_window(window.before_reading());
        let ended = loop {
            match h2.poll_request(cx) {
                // h2 sends the WINDOW_UPDATE for a larger window when it is polled again.
                Poll::Pending if h2.set_window(window.after_reading(flusher.with_io(FrameLimiter::data_received))) => {}
                Poll::Pending => break None,
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (context, connection) = (Rc::clone(context), Rc::clone(&connection));
                    let exchange = exchange::serve(
                        context,
                        connection,
                        request,
                        respond,
                        &activity,
                        &mut window,
                        excused_resets.clone(),
                    );
                    // Boxed before the push, because the future is large. A panic in one stream does not end the others.
                    streams.push(Box::pin(AssertUnwindSafe(exchange).catch_unwind()));
                    // A request that needs no wait is forwarded before the next one is parsed.
                    poll_all(&mut streams, cx);
                }
                Poll::Ready(ended) => break Some(ended.map_or(Ok(()), |ended| ended.map(drop))),
            }
        };
        if let Poll::Ready(Err(problem)) = activity.record_flush(flusher.poll_flush(cx)) {
            debug!(reason = %problem, "an HTTP/2 connection failed");
            return Poll::Ready(false);
        }
        if flusher.take_progress() {
            activity.record_progress();
        }
        if let Some(ended) = ended {
            if let Err(problem) = &ended {
                debug!(reason = %problem, "a connection ended");
            }
            return Poll::Ready(ended.is_ok());
        }
        if let Phase::Blocked(_) = phase_timeout.phase()
            && phase_timeout.as_mut().poll(cx).is_ready()
        {
            debug!("an HTTP/2 client did not read its responses in time");
            return Poll::Ready(false);
        }
        if goaway_timer.is_none() && (drain.as_mut().poll(cx).is_ready() || phase_timeout.as_mut().poll(cx).is_ready())
        {
            goaway_timer = Some(Box::pin(sleep(GOAWAY_TIMEOUT)));
            h2.shut_down();
            cx.waker().wake_by_ref();
        }
        if let Some(goaway_timer) = &mut goaway_timer {
            while goaway_timer.as_mut().poll(cx).is_ready() {
                // h2 may still hold the end of a response, if the client's window is closed.
                if let Phase::Idle(since) = phase_timeout.phase()
                    && (!h2.has_streams() || since.elapsed() >= limits.body_read_timeout)
                {
                    return Poll::Ready(true);
                }
                goaway_timer.as_mut().reset(Instant::now() + GOAWAY_TIMEOUT);
            }
        }
        Poll::Pending
    })
    .await;
    drop((streams, h2));
    if let Some(excess) = flusher.with_io(FrameLimiter::excess) {
        context.handler().count(ConnectionEvent::Flooded);
        info!(client.ip = %node, reason = excess.label(), "an HTTP/2 connection was closed: the client exceeded the limit of frames without data or of resets");
        let mut last_frame = GOAWAY_ENHANCE_YOUR_CALM;
        let _ = timeout(
            LINGER_TIMEOUT,
            poll_fn(|cx| flusher.poll_close_with(cx, &mut last_frame)),
        )
        .await;
    } else if let Some(io) = flusher.into_io().filter(|_| is_orderly) {
        // Read what the client has sent meanwhile: closing with unread data would reset the connection, and the client could lose responses.
        Box::pin(close(io.into_io(), None, LINGER_TIMEOUT)).await;
    }
}

/// Polls every stream that was woken.
fn poll_all<F: Future>(streams: &mut FuturesUnordered<F>, cx: &mut Context<'_>) {
    while let Poll::Ready(Some(_)) = Pin::new(&mut *streams).poll_next(cx) {}
}

type Accepted = Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>;

/// The h2 side of a connection.
enum H2Connection<I> {
    /// The preface and the SETTINGS are not exchanged yet.
    Handshaking {
        handshake: Handshake<I, Bytes>,
        /// The gateway drains: shut down gracefully when the handshake is done.
        shuts_down: bool,
    },
    Open(Connection<I, Bytes>),
}

impl<I: AsyncRead + AsyncWrite + Unpin> H2Connection<I> {
    /// Reads and writes. Ready with a request, or with `None` when the connection has ended.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        loop {
            match self {
                Self::Open(connection) => return connection.poll_accept(cx),
                Self::Handshaking { handshake, shuts_down } => match ready!(Pin::new(handshake).poll(cx)) {
                    Ok(mut connection) => {
                        if *shuts_down {
                            connection.graceful_shutdown();
                        }
                        *self = Self::Open(connection);
                    }
                    Err(problem) => return Poll::Ready(Some(Err(problem))),
                },
            }
        }
    }

    /// Sets a new connection window. Returns true if it did.
    fn set_window(&mut self, window: Option<u32>) -> bool {
        match (self, window) {
            (Self::Open(connection), Some(window)) => {
                connection.set_target_window_size(window);
                true
            }
            _ => false,
        }
    }

    /// Whether h2 has a stream whose data is not completely written.
    fn has_streams(&self) -> bool {
        match self {
            Self::Handshaking { .. } => false,
            Self::Open(connection) => connection.has_streams(),
        }
    }

    /// Sends GOAWAY: the connection takes no more requests (RFC 9113, section 6.8).
    fn shut_down(&mut self) {
        match self {
            Self::Handshaking { shuts_down, .. } => *shuts_down = true,
            Self::Open(connection) => connection.graceful_shutdown(),
        }
    }
}

//! [`WebSocket`]: the two connections of an open WebSocket, and the bytes between them.
//!
//! If the stream must end, the client receives the frame that is under way, and then a Close frame. The upstream receives nothing more of
//! the client, and a Close frame if no frame is under way.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use authgate_http::server;
use authgate_http::server::closing::{LINGER_TIMEOUT, close};
use authgate_http::upstream::{Tunnel, TunnelGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::sleep;
use tracing::debug;

use super::outcome::Outcome;
use super::streams::Stream;
use super::websocket_frames::{self, FrameTracker};

/// The buffer size for each direction.
const BUFFER: usize = 16 * 1024;
/// How long the frame under way may take when the WebSocket must end. After that, the connection is cut.
const END_TIMEOUT: Duration = Duration::from_millis(900);

/// A WebSocket whose upstream half is open.
pub struct WebSocket {
    pub(super) tunnel: Tunnel,
    pub(super) tunnel_guard: TunnelGuard,
    pub(super) stream: Stream,
    pub(super) outcome: Outcome,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

impl server::handler::Tunnel for WebSocket {
    /// Copies bytes in both directions until both sides have ended, one has failed, or the stream must end.
    async fn run<I: AsyncRead + AsyncWrite + Unpin>(self, mut client: I) {
        let Self {
            mut tunnel,
            tunnel_guard,
            stream,
            mut outcome,
        } = self;
        let overdue = async {
            stream.ended().await;
            sleep(END_TIMEOUT).await;
        };
        let copied = {
            let mut client = Side::new(&mut client, &stream, Source::Client);
            let mut upstream = Side::new(&mut tunnel, &stream, Source::Upstream);
            tokio::select! {
                biased;
                copied = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER) => Some(copied),
                () = overdue => None,
            }
        };
        drop((tunnel, tunnel_guard));
        if let Some(Ok((_, sent))) = &copied {
            outcome.sent(usize::try_from(*sent).unwrap_or(usize::MAX));
        }
        match (stream.end(), copied) {
            (Some(end), copied) => {
                outcome.stream_ended(end);
                if let Some(Ok(_)) = copied {
                    // Without the close of the client, a reset could overtake the Close frame.
                    close(client, None, LINGER_TIMEOUT).await;
                }
            }
            (None, Some(Ok(_))) => outcome.completed(),
            (None, Some(Err(problem))) => debug!(reason = %problem, "a WebSocket failed"),
            // The stream is overdue only if it must end.
            (None, None) => {}
        }
    }
}

/// Where the bytes of a direction come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Client,
    Upstream,
}

/// One connection of the tunnel. When the stream must end, its reader receives the end of the frame under way if it comes from the upstream,
/// a Close frame if it is at a boundary, and then the end.
struct Side<'s, I> {
    io: &'s mut I,
    stream: &'s Stream,
    source: Source,
    frames: FrameTracker,
    /// What is still to be read of the Close frame. `None`: the stream need not end, or the frame under way has not ended.
    last: Option<Vec<u8>>,
}

impl<'s, I> Side<'s, I> {
    fn new(io: &'s mut I, stream: &'s Stream, source: Source) -> Self {
        Self {
            io,
            stream,
            source,
            frames: FrameTracker::default(),
            last: None,
        }
    }

    /// What follows the last frame. `None`: the frame under way must end before.
    fn last_bytes(&self) -> Option<Vec<u8>> {
        let may_close = self.frames.is_at_boundary() && !self.frames.has_closed();
        match self.source {
            Source::Upstream if may_close => Some(websocket_frames::close_for_client()),
            Source::Client if may_close => Some(websocket_frames::close_for_server()),
            Source::Upstream if !self.frames.is_at_boundary() => None,
            Source::Upstream | Source::Client => Some(Vec::new()),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Side<'_, I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let must_end = this.stream.poll_end(cx).is_ready();
        if must_end && this.last.is_none() {
            this.last = this.last_bytes();
        }
        if let Some(last) = &mut this.last {
            let count = last.len().min(buf.remaining());
            buf.put_slice(&last[..count]);
            last.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut *this.io).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if must_end {
            let taken = this.frames.take_in_frame(read);
            buf.set_filled(before + taken);
        } else {
            this.frames.take(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Side<'_, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

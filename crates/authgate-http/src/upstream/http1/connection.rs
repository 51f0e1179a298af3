//! An idle connection to a server.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::runtime::DeadlineTimer;

/// An idle connection.
pub struct Connection<I> {
    pub(super) io: I,
    pub(super) read_buf: BytesMut,
    pub(super) write_buf: Vec<u8>,
    pub(super) timer: DeadlineTimer,
    /// How many seconds the server keeps the connection idle, as its last response has announced.
    pub(super) idle_limit: Option<u16>,
}

impl<I> fmt::Debug for Connection<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Connection<I> {
    /// Takes over an open connection.
    pub fn new(io: I) -> Self {
        Self {
            io,
            read_buf: BytesMut::new(),
            write_buf: Vec::new(),
            timer: DeadlineTimer::default(),
            idle_limit: None,
        }
    }

    /// Whether the connection is open and silent. Bytes on an idle connection answer no request.
    /// The poll registers no waker: the connection is idle.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io)
            .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }

    /// How long the server keeps the connection idle, if it has announced that.
    pub fn idle_limit(&self) -> Option<Duration> {
        self.idle_limit.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The transport of the connection.
    pub fn io(&self) -> &I {
        &self.io
    }

    /// Releases the buffers and the timer of a connection that stays idle: an armed timer would wake the task of an earlier request.
    pub fn release_buffers(&mut self) {
        (self.read_buf, self.write_buf, self.timer) = (BytesMut::new(), Vec::new(), DeadlineTimer::default());
    }
}

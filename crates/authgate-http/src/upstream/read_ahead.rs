//! [`ReadAhead`] reads the response for a slow client ahead into a bounded buffer, so that the client does not occupy a server.
//!
//! While the client keeps up, each frame passes directly. A separate task reads only when the client has not polled for a frame for a while. The
//! task never polls the body while the client waits for a frame: a body wakes only the last waker that polled it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use super::body::with_prefix;
use super::limits::Buffer;
use crate::concurrency::ConcurrencyPermit;
use crate::transfer::MAX_READ_SIZE;

/// A client that has not polled for this long is slow.
const SLOW_AFTER: Duration = Duration::from_millis(100);
/// The memory for a buffered frame besides its bytes.
const FRAME_OVERHEAD: usize = 64;
/// A smaller piece is copied into its own allocation.
const COPY_BELOW: usize = 4 * 1024;

/// A body that is read ahead while its client does not poll it. Dropping it ends the task.
pub(super) struct ReadAhead<B: Body<Data = Bytes>> {
    state: Rc<RefCell<State<B>>>,
    task: AbortHandle,
}

struct State<B: Body<Data = Bytes>> {
    body: B,
    frames: VecDeque<Result<Frame<Bytes>, B::Error>>,
    /// The cost of `frames`: bytes, and [`FRAME_OVERHEAD`] for each frame.
    buffered: usize,
    /// Bytes of the last frame.
    last_len: usize,
    buffer: Rc<Buffer>,
    /// The permit to buffer this response; `None` until it is needed.
    permit: Option<ConcurrencyPermit>,
    /// The body has returned its end or an error: it is not polled again. `frames` may still have frames.
    ended: bool,
    /// The client has polled for a frame since the task ran last.
    client_polled: bool,
    /// The client's last poll was pending: the body holds its waker, so the task must not poll the body.
    client_waits: bool,
    /// The waker of the task, while the task waits for the next poll of the client.
    task_waker: Option<Waker>,
}

impl<B: Body<Data = Bytes> + Unpin + 'static> ReadAhead<B> {
    /// Reads `body` ahead as far as `buffer` has room.
    pub(super) fn new(body: B, buffer: Rc<Buffer>) -> Self {
        let state = Rc::new(RefCell::new(State {
            body,
            frames: VecDeque::new(),
            buffered: 0,
            last_len: 0,
            buffer,
            permit: None,
            ended: false,
            client_polled: true,
            client_waits: false,
            task_waker: None,
        }));
        let task = spawn_local(prefetch(Rc::downgrade(&state))).abort_handle();
        Self { state, task }
    }
}

impl<B: Body<Data = Bytes>> Drop for ReadAhead<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<B: Body<Data = Bytes>> fmt::Debug for ReadAhead<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead").finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes> + Unpin> State<B> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            self.last_len = data.map_or(0, Bytes::len);
            self.ended = !matches!(frame, Some(Ok(_))) || self.body.is_end_stream();
        }
        polled
    }

    /// Whether the next frame fits. Read sizes at most double, and no frame is larger than the remaining body.
    fn has_room(&self) -> bool {
        let next_len = (self.last_len * 2).min(MAX_READ_SIZE) as u64;
        let next_len = self
            .body
            .size_hint()
            .upper()
            .map_or(next_len, |remaining| remaining.min(next_len));
        self.buffered == 0 || self.buffered as u64 + next_len <= self.buffer.bytes as u64
    }

    /// One run of the task. Ready with `true`: run again after a pause; with `false`: the body has ended.
    /// Wake-up: the next frame that the client gets, or the body if the task polled it last.
    fn poll_prefetch(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if self.ended {
                return Poll::Ready(false);
            }
            if self.client_waits || !self.has_room() {
                self.task_waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if mem::take(&mut self.client_polled) {
                return Poll::Ready(true);
            }
            self.permit = self.permit.take().or_else(|| self.buffer.messages.try_acquire());
            if self.permit.is_none() {
                return Poll::Ready(true);
            }
            match self.poll_body(cx) {
                Poll::Ready(Some(frame)) => {
                    let frame = frame.map(without_slack);
                    self.buffered += cost(&frame);
                    self.frames.push_back(frame);
                }
                Poll::Ready(None) => {}
                Poll::Pending => {
                    self.task_waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

async fn prefetch<B: Body<Data = Bytes> + Unpin>(state: Weak<RefCell<State<B>>>) {
    loop {
        sleep(SLOW_AFTER).await;
        let more = poll_fn(|cx| match state.upgrade() {
            Some(state) => state.borrow_mut().poll_prefetch(cx),
            None => Poll::Ready(false),
        });
        if !more.await {
            return;
        }
    }
}

/// A small piece may keep a large allocation alive; the copy makes the real cost equal to the counted cost.
fn without_slack(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| match data.len() {
        0..COPY_BELOW => Bytes::copy_from_slice(&data),
        _ => data,
    })
}

fn cost<E>(frame: &Result<Frame<Bytes>, E>) -> usize {
    let data = frame.as_ref().ok().and_then(Frame::data_ref);
    data.map_or(0, Bytes::len) + FRAME_OVERHEAD
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadAhead<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let state = &mut *self.state.borrow_mut();
        state.client_polled = true;
        let polled = if let Some(frame) = state.frames.pop_front() {
            state.buffered -= cost(&frame);
            Poll::Ready(Some(frame))
        } else if state.ended {
            Poll::Ready(None)
        } else {
            state.poll_body(cx)
        };
        state.client_waits = polled.is_pending();
        if polled.is_ready()
            && let Some(task) = state.task_waker.take()
        {
            task.wake();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.frames.is_empty() && (state.ended || state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let bytes = state.buffered - state.frames.len() * FRAME_OVERHEAD;
        with_prefix(bytes, &state.body.size_hint())
    }
}

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

use super::Buffer;
use super::body::behind;
use crate::concurrency::ConcurrencyPermit;
use crate::transfer::MAX_READ_SIZE;

/// A client that has not polled for this long is slow.
const SLOW_AFTER: Duration = Duration::from_millis(100);
/// The memory for a buffered frame besides its bytes.
const FRAME: usize = 64;
/// A smaller piece is copied into its own allocation.
const SMALL: usize = 4 * 1024;

/// A body that is read ahead while its client does not poll it. Dropping it ends the task.
pub(super) struct ReadAhead<B: Body<Data = Bytes>> {
    shared: Rc<RefCell<Shared<B>>>,
    task: AbortHandle,
}

struct Shared<B: Body<Data = Bytes>> {
    body: B,
    held: VecDeque<Result<Frame<Bytes>, B::Error>>,
    /// The cost of `held`: bytes, and [`FRAME`] for each frame.
    holds: usize,
    /// Bytes of the last frame.
    last: usize,
    buffer: Buffer,
    /// The permit to buffer this response; `None` until it is needed.
    place: Option<ConcurrencyPermit>,
    /// The body has returned its end or an error: it is not polled again. `held` may still have frames.
    ended: bool,
    /// The client has polled for a frame since the task ran last.
    asked: bool,
    /// The client's last poll was pending: the body holds its waker, so the task must not poll the body.
    waiting: bool,
    /// The waker of the task, while the task waits for the next poll of the client.
    parked: Option<Waker>,
}

impl<B: Body<Data = Bytes> + Unpin + 'static> ReadAhead<B> {
    /// Reads `body` ahead as far as `buffer` has room.
    pub(super) fn new(body: B, buffer: Buffer) -> Self {
        let shared = Rc::new(RefCell::new(Shared {
            body,
            held: VecDeque::new(),
            holds: 0,
            last: 0,
            buffer,
            place: None,
            ended: false,
            asked: true,
            waiting: false,
            parked: None,
        }));
        let task = spawn_local(prefetch(Rc::downgrade(&shared))).abort_handle();
        Self { shared, task }
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

impl<B: Body<Data = Bytes> + Unpin> Shared<B> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            self.last = data.map_or(0, Bytes::len);
            self.ended = !matches!(frame, Some(Ok(_))) || self.body.is_end_stream();
        }
        polled
    }

    /// Whether the next frame fits. Read sizes at most double, and no frame is larger than the remaining body.
    fn has_room(&self) -> bool {
        let next = (self.last * 2).min(MAX_READ_SIZE) as u64;
        let next = self.body.size_hint().upper().map_or(next, |left| left.min(next));
        self.holds == 0 || self.holds as u64 + next <= self.buffer.bytes as u64
    }

    /// One run of the task. Ready with `true`: run again after a pause; with `false`: the body has ended.
    /// Wake-up: the next frame that the client gets, or the body if the task polled it last.
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if self.ended {
                return Poll::Ready(false);
            }
            if self.waiting || !self.has_room() {
                self.parked = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if mem::take(&mut self.asked) {
                return Poll::Ready(true);
            }
            self.place = self.place.take().or_else(|| self.buffer.messages.try_acquire());
            if self.place.is_none() {
                return Poll::Ready(true);
            }
            match self.poll_body(cx) {
                Poll::Ready(Some(frame)) => {
                    let frame = frame.map(by_itself);
                    self.holds += cost(&frame);
                    self.held.push_back(frame);
                }
                Poll::Ready(None) => {}
                Poll::Pending => {
                    self.parked = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

async fn prefetch<B: Body<Data = Bytes> + Unpin>(shared: Weak<RefCell<Shared<B>>>) {
    loop {
        sleep(SLOW_AFTER).await;
        let more = poll_fn(|cx| match shared.upgrade() {
            Some(shared) => shared.borrow_mut().poll_aside(cx),
            None => Poll::Ready(false),
        });
        if !more.await {
            return;
        }
    }
}

/// A small piece may keep a large allocation alive; the copy makes the real cost equal to the counted cost.
fn by_itself(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| match data.len() {
        0..SMALL => Bytes::copy_from_slice(&data),
        _ => data,
    })
}

fn cost<E>(frame: &Result<Frame<Bytes>, E>) -> usize {
    let data = frame.as_ref().ok().and_then(Frame::data_ref);
    data.map_or(0, Bytes::len) + FRAME
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadAhead<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let shared = &mut *self.shared.borrow_mut();
        shared.asked = true;
        let polled = if let Some(frame) = shared.held.pop_front() {
            shared.holds -= cost(&frame);
            Poll::Ready(Some(frame))
        } else if shared.ended {
            Poll::Ready(None)
        } else {
            shared.poll_body(cx)
        };
        shared.waiting = polled.is_pending();
        if polled.is_ready()
            && let Some(task) = shared.parked.take()
        {
            task.wake();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.held.is_empty() && (shared.ended || shared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let held = shared.holds - shared.held.len() * FRAME;
        behind(held, &shared.body.size_hint())
    }
}

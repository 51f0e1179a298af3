//! [`Inbound`]: the body of a request, as the client sends it.
//!
//! Over HTTP/1, the connection reads the body, and only on demand: [`Feed`] is its end, and [`Fed`] is the consumer's
//! end. Both ends are on one thread, and usually in one task; then no wake-up is needed.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::streamed::Streamed;

/// The body of a request.
#[derive(Debug)]
pub enum Inbound {
    /// There is no body.
    Nothing,
    /// The body of an HTTP/1 request, read by its connection.
    Http1(Fed),
    /// The body of an HTTP/2 request.
    Http2(Streamed),
}

/// The body has ended too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// The consumer's end of a body.
#[derive(Debug)]
pub struct Fed(Rc<RefCell<Pipe>>);

/// The connection's end of a body.
#[derive(Debug)]
pub struct Feed(Rc<RefCell<Pipe>>);

#[derive(Debug)]
struct Pipe {
    /// Data that the connection has read and the consumer has not taken.
    data: Option<Bytes>,
    /// The number of bytes still to come after `data`, if it is known.
    left: Option<u64>,
    state: State,
    /// The consumer waits for data. `taker` is its task.
    asked: bool,
    taker: Option<Waker>,
    /// The connection's task, while it waits for demand.
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Broken,
    /// The consumer has dropped its end.
    Left,
}

/// Creates both ends of a body. `left` is its length, if it is known.
pub fn inbound(left: Option<u64>) -> (Feed, Fed) {
    let pipe = Rc::new(RefCell::new(Pipe {
        data: None,
        left,
        state: State::Open,
        asked: false,
        taker: None,
        reader: None,
    }));
    (Feed(Rc::clone(&pipe)), Fed(pipe))
}

/// The demand of the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// The consumer waits for data.
    More,
    /// The consumer does not wait for data at the moment.
    Nothing,
    /// The consumer has dropped its end.
    NoMore,
}

impl Feed {
    /// The current demand. While it is [`Wants::Nothing`], `cx` is woken when the demand changes.
    pub fn wants(&self, cx: &Context<'_>) -> Wants {
        let pipe = &mut *self.0.borrow_mut();
        pipe.reader = None;
        match pipe.state {
            State::Left => Wants::NoMore,
            State::Open if pipe.asked && pipe.data.is_none() => Wants::More,
            _ => {
                pipe.reader = Some(cx.waker().clone());
                Wants::Nothing
            }
        }
    }

    /// Whether the consumer has dropped its end.
    pub fn is_left(&self) -> bool {
        self.0.borrow().state == State::Left
    }

    /// Hands data to the consumer. `left` is the number of bytes still to come, if it is known.
    pub fn data(&self, data: Bytes, left: Option<u64>, cx: &Context<'_>) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.data = Some(data);
        pipe.left = left;
        pipe.answer(cx);
    }

    /// Ends the body, after the data that was handed over.
    pub fn ended(&self, cx: &Context<'_>) {
        self.end(State::Ended, cx);
    }

    /// Marks the body as broken: its end will never arrive.
    pub fn broken(&self, cx: &Context<'_>) {
        self.end(State::Broken, cx);
    }

    fn end(&self, state: State, cx: &Context<'_>) {
        let pipe = &mut *self.0.borrow_mut();
        if pipe.state == State::Open {
            pipe.state = state;
        }
        pipe.answer(cx);
    }
}

/// If the connection drops its end before the body has ended, the body is broken.
impl Drop for Feed {
    fn drop(&mut self) {
        self.end(State::Broken, &Context::from_waker(Waker::noop()));
    }
}

impl Pipe {
    /// Wakes the consumer, unless it is the task that is running now.
    fn answer(&mut self, cx: &Context<'_>) {
        self.asked = false;
        if let Some(taker) = self.taker.take()
            && !taker.will_wake(cx.waker())
        {
            taker.wake();
        }
    }

    fn tell_reader(&mut self, cx: &Context<'_>) {
        if let Some(reader) = self.reader.take()
            && !reader.will_wake(cx.waker())
        {
            reader.wake();
        }
    }
}

impl Fed {
    fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let pipe = &mut *self.0.borrow_mut();
        if let Some(data) = pipe.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match pipe.state {
            State::Ended => Poll::Ready(None),
            State::Broken | State::Left => Poll::Ready(Some(Err(Broken))),
            State::Open => {
                pipe.asked = true;
                pipe.taker = Some(cx.waker().clone());
                pipe.tell_reader(cx);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let pipe = self.0.borrow();
        pipe.state == State::Ended && pipe.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let pipe = self.0.borrow();
        let here = pipe.data.as_ref().map_or(0, |data| data.len() as u64);
        match (pipe.state, pipe.left) {
            (State::Ended, _) => SizeHint::with_exact(here),
            (_, Some(left)) => SizeHint::with_exact(here + left),
            (_, None) => {
                let mut hint = SizeHint::new();
                hint.set_lower(here);
                hint
            }
        }
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.data = None;
        if pipe.state == State::Open {
            pipe.state = State::Left;
            pipe.tell_reader(&Context::from_waker(Waker::noop()));
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Http1(fed) => fed.poll_frame(cx),
            Self::Http2(streamed) => Pin::new(streamed).poll_frame(cx).map_err(|_| Broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http1(fed) => fed.is_end_stream(),
            Self::Http2(streamed) => streamed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Http1(fed) => fed.size_hint(),
            Self::Http2(streamed) => streamed.size_hint(),
        }
    }
}

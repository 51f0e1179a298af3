//! [`Inbound`]: the body of a request, as its client sends it.
//!
//! Over HTTP/1 whoever has the connection reads, and only what was asked for: [`Feed`] is its end. Both ends are on one thread, and most of
//! the time in one task, which then wakes nobody.

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
    /// There is none.
    Nothing,
    /// Read by the connection that it comes on.
    Http1(Fed),
    /// One stream of many.
    Http2(Streamed),
}

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// The end of a body where it is taken.
#[derive(Debug)]
pub struct Fed(Rc<RefCell<Pipe>>);

/// The end of a body where it is read.
#[derive(Debug)]
pub struct Feed(Rc<RefCell<Pipe>>);

#[derive(Debug)]
struct Pipe {
    /// Read, and not taken.
    data: Option<Bytes>,
    /// What is to come besides, where that is known.
    left: Option<u64>,
    state: State,
    /// Somebody waits for data: who, once it is not whoever reads.
    asked: bool,
    taker: Option<Waker>,
    /// Who reads, where it waits to be asked.
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Broken,
    /// Nobody takes it any more.
    Left,
}

/// A body of which so much is to come, where that is known, and both of its ends.
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

/// What whoever takes a body wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// More of it.
    More,
    /// Nothing at the moment.
    Nothing,
    /// Nothing any more.
    NoMore,
}

impl Feed {
    /// What is wanted. While it is nothing, `cx` is woken when that changes.
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

    /// Whether nobody takes it any more.
    pub fn is_left(&self) -> bool {
        self.0.borrow().state == State::Left
    }

    /// Hands on what was read; `left`: so much is to come besides, where that is known.
    pub fn data(&self, data: Bytes, left: Option<u64>, cx: &Context<'_>) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.data = Some(data);
        pipe.left = left;
        pipe.answer(cx);
    }

    /// The body has come to its end, behind what was handed on.
    pub fn ended(&self, cx: &Context<'_>) {
        self.end(State::Ended, cx);
    }

    /// The body never comes to its end.
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

/// Without an end before it, the body is broken.
impl Drop for Feed {
    fn drop(&mut self) {
        self.end(State::Broken, &Context::from_waker(Waker::noop()));
    }
}

impl Pipe {
    /// Whoever waits is told, unless it is who tells.
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

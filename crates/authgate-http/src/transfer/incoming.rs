//! [`IncomingBody`]: the body of a request, as the client sends it.
//!
//! Over HTTP/1, the connection reads the body, and only on demand: [`BodySender`] is its end, and [`BodyReceiver`] is the consumer's
//! end. Both ends are on one thread, and usually in one task; then no wake-up is needed.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http2_body::Http2Body;

/// The body of a request.
#[derive(Debug)]
pub enum IncomingBody {
    /// There is no body.
    Empty,
    /// The body of an HTTP/1 request, read by its connection.
    Http1(BodyReceiver),
    /// The body of an HTTP/2 request.
    Http2(Http2Body),
}

/// The body has ended too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncompleteBody;

/// The consumer's end of a body.
#[derive(Debug)]
pub struct BodyReceiver(Rc<RefCell<Channel>>);

/// The connection's end of a body.
#[derive(Debug)]
pub struct BodySender(Rc<RefCell<Channel>>);

#[derive(Debug)]
struct Channel {
    /// Data that the connection has read and the consumer has not taken.
    data: Option<Bytes>,
    /// The number of bytes still to come after `data`, if it is known.
    remaining: Option<u64>,
    state: State,
    /// The task of the consumer that waits for data: its demand. Invariant: `None` while `data` is set, and after the
    /// sender has finished.
    receiver_waker: Option<Waker>,
    /// The connection's task, while it waits for demand.
    sender_waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Incomplete,
    /// The consumer has dropped its end.
    ReceiverDropped,
}

/// Creates both ends of a body. `remaining` is its length, if it is known.
pub fn body_channel(remaining: Option<u64>) -> (BodySender, BodyReceiver) {
    let channel = Rc::new(RefCell::new(Channel {
        data: None,
        remaining,
        state: State::Open,
        receiver_waker: None,
        sender_waker: None,
    }));
    (BodySender(Rc::clone(&channel)), BodyReceiver(channel))
}

/// The demand of the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The consumer waits for data.
    More,
    /// The consumer does not wait for data at the moment.
    None,
    /// The consumer has dropped its end.
    Closed,
}

impl BodySender {
    /// The current demand. While it is [`Demand::None`], `cx` is woken when the demand changes.
    pub fn demand(&self, cx: &Context<'_>) -> Demand {
        let channel = &mut *self.0.borrow_mut();
        channel.sender_waker = None;
        match channel.state {
            State::ReceiverDropped => Demand::Closed,
            State::Open if channel.receiver_waker.is_some() => Demand::More,
            _ => {
                channel.sender_waker = Some(cx.waker().clone());
                Demand::None
            }
        }
    }

    /// Whether the consumer has dropped its end.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().state == State::ReceiverDropped
    }

    /// Hands data to the consumer. `remaining` is the number of bytes still to come, if it is known.
    pub fn send_data(&self, data: Bytes, remaining: Option<u64>, cx: &Context<'_>) {
        let channel = &mut *self.0.borrow_mut();
        channel.data = Some(data);
        channel.remaining = remaining;
        channel.wake_receiver(cx);
    }

    /// Ends the body, after the data that was handed over.
    pub fn finish(&self, cx: &Context<'_>) {
        self.end(State::Ended, cx);
    }

    /// Marks the body as incomplete: its end will never arrive.
    pub fn abort(&self, cx: &Context<'_>) {
        self.end(State::Incomplete, cx);
    }

    fn end(&self, state: State, cx: &Context<'_>) {
        let channel = &mut *self.0.borrow_mut();
        if channel.state == State::Open {
            channel.state = state;
        }
        channel.wake_receiver(cx);
    }
}

/// If the connection drops its end before the body has ended, the body is incomplete.
impl Drop for BodySender {
    fn drop(&mut self) {
        self.end(State::Incomplete, &Context::from_waker(Waker::noop()));
    }
}

impl Channel {
    /// Wakes the consumer, unless it is the task that is running now.
    fn wake_receiver(&mut self, cx: &Context<'_>) {
        if let Some(waker) = self.receiver_waker.take()
            && !waker.will_wake(cx.waker())
        {
            waker.wake();
        }
    }

    fn wake_sender(&mut self, cx: &Context<'_>) {
        if let Some(waker) = self.sender_waker.take()
            && !waker.will_wake(cx.waker())
        {
            waker.wake();
        }
    }
}

impl BodyReceiver {
    fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncompleteBody>>> {
        let channel = &mut *self.0.borrow_mut();
        if let Some(data) = channel.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match channel.state {
            State::Ended => Poll::Ready(None),
            State::Incomplete | State::ReceiverDropped => Poll::Ready(Some(Err(IncompleteBody))),
            State::Open => {
                channel.receiver_waker = Some(cx.waker().clone());
                channel.wake_sender(cx);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let channel = self.0.borrow();
        channel.state == State::Ended && channel.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let channel = self.0.borrow();
        let buffered = channel.data.as_ref().map_or(0, |data| data.len() as u64);
        match (channel.state, channel.remaining) {
            (State::Ended, _) => SizeHint::with_exact(buffered),
            (_, Some(remaining)) => SizeHint::with_exact(buffered + remaining),
            (_, None) => {
                let mut hint = SizeHint::new();
                hint.set_lower(buffered);
                hint
            }
        }
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        let channel = &mut *self.0.borrow_mut();
        (channel.data, channel.receiver_waker) = (None, None);
        if channel.state == State::Open {
            channel.state = State::ReceiverDropped;
            channel.wake_sender(&Context::from_waker(Waker::noop()));
        }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = IncompleteBody;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncompleteBody>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(receiver) => receiver.poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(|_| IncompleteBody),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(receiver) => receiver.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(receiver) => receiver.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

//! The body of a request of HTTP/2, as its stream brings it (RFC 9113, section 8.1). [`Streamed`] is the end where it is taken, and [`Upload`]
//! the end of the connection, which has to read what nobody takes.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::{Body, Frame, SizeHint};

use crate::outbound::single;

/// A body that is read when it is asked for. What was taken opens the client's windows again.
#[derive(Debug)]
pub struct Streamed {
    shared: Rc<Shared>,
    /// What is to come, where the head has said so; that it is true is h2's care.
    left: Option<u64>,
    /// There is no more data.
    data_ended: bool,
}

/// The connection's end of a body.
#[derive(Debug)]
pub struct Upload(Rc<Shared>);

/// What has come of a body, and was not taken.
#[derive(Debug)]
pub struct Unread(Weak<Shared>);

#[derive(Debug)]
struct Shared {
    stream: RefCell<RecvStream>,
    go_ahead: Cell<GoAhead>,
    /// The connection's task: woken when a 100 becomes due, and when the body is no longer taken.
    connection: RefCell<Option<Waker>>,
}

/// Whether the client waits for a 100 before it sends the body (RFC 9110, section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoAhead {
    NotNeeded,
    Expected,
    /// The body was asked for, and the client has not sent any of it.
    Due,
}

/// What [`Upload::poll_unwanted`] has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// Some data. It was dropped, and the client's windows are open again.
    Data,
    /// The end of the body.
    End,
    /// The stream is no more: the client has reset it, or the connection has ended.
    Reset,
}

/// Both ends of the body that belongs to this head.
pub fn streamed(stream: RecvStream, head: &HeaderMap) -> (Upload, Streamed) {
    let expected = head
        .get_all(EXPECT)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let shared = Rc::new(Shared {
        stream: RefCell::new(stream),
        go_ahead: Cell::new(if expected {
            GoAhead::Expected
        } else {
            GoAhead::NotNeeded
        }),
        connection: RefCell::new(None),
    });
    let streamed = Streamed {
        shared: Rc::clone(&shared),
        left: content_length(head),
        data_ended: false,
    };
    (Upload(shared), streamed)
}

/// The length that the head has said, if once. What servers that count with a sign would read otherwise is not said to them.
fn content_length(head: &HeaderMap) -> Option<u64> {
    let length: i64 = single(head, &CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    u64::try_from(length).ok()
}

impl Shared {
    fn wake_connection(&self) {
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
    }

    /// Data that is not held any more.
    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let mut stream = self.stream.borrow_mut();
        let data = ready!(stream.poll_data(cx));
        if let Some(Ok(data)) = &data {
            // It fails where the stream is gone, which the next poll tells.
            let _ = stream.flow_control().release_capacity(data.len());
        }
        Poll::Ready(data)
    }
}

impl Unread {
    /// How much it is; `None`: the body has no ends any more.
    pub fn bytes(&self) -> Option<usize> {
        let shared = self.0.upgrade()?;
        let mut stream = shared.stream.borrow_mut();
        Some(stream.flow_control().used_capacity())
    }
}

impl Upload {
    /// A stream that the connection alone reads.
    pub fn alone(stream: RecvStream) -> Self {
        Self(Rc::new(Shared {
            stream: RefCell::new(stream),
            go_ahead: Cell::new(GoAhead::NotNeeded),
            connection: RefCell::new(None),
        }))
    }

    /// What is held of it.
    pub fn unread(&self) -> Unread {
        Unread(Rc::downgrade(&self.0))
    }

    /// Data that is held until it is released.
    pub fn poll_held(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        self.0.stream.borrow_mut().poll_data(cx)
    }

    /// So much of it is not held any more.
    pub fn release(&self, bytes: usize) {
        // It fails where the stream is gone, which the next poll tells.
        let _ = self.0.stream.borrow_mut().flow_control().release_capacity(bytes);
    }

    /// Whether a 100 is to be sent now. It is due at most once; while it may become due, `cx` is woken when it does.
    pub fn takes_go_ahead(&self, cx: &Context<'_>) -> bool {
        match self.0.go_ahead.get() {
            GoAhead::NotNeeded => false,
            GoAhead::Expected => {
                self.0.connection.replace(Some(cx.waker().clone()));
                false
            }
            GoAhead::Due => {
                self.0.go_ahead.set(GoAhead::NotNeeded);
                true
            }
        }
    }

    /// Whether all of the body was read.
    pub fn is_at_end(&self) -> bool {
        self.0.stream.borrow().is_end_stream()
    }

    /// Whether the other end still takes it.
    pub fn is_wanted(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Reads what nobody takes. While the other end takes it, only the end is seen.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<Unwanted> {
        if self.is_at_end() {
            return Poll::Ready(Unwanted::End);
        }
        if self.is_wanted() {
            self.0.connection.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(match ready!(self.0.poll_data(cx)) {
            Some(Ok(_)) => Unwanted::Data,
            Some(Err(_)) => Unwanted::Reset,
            // Trailers may be all that is left.
            None => Unwanted::End,
        })
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.shared.wake_connection();
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            let polled = self.shared.poll_data(cx);
            if self.shared.go_ahead.get() == GoAhead::Expected {
                let due = polled.is_pending();
                self.shared
                    .go_ahead
                    .set(if due { GoAhead::Due } else { GoAhead::NotNeeded });
                self.shared.wake_connection();
            }
            match ready!(polled) {
                Some(Ok(data)) => {
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Whatever the reason of a reset: a client that gives one has not sent its body to the end.
                Some(Err(problem)) => return Poll::Ready(Some(Err(problem))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.shared.stream.borrow_mut().poll_trailers(cx));
        self.shared.wake_connection();
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.shared.stream.borrow().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

//! The body of an HTTP/2 request, as its stream delivers it (RFC 9113, section 8.1). [`Http2Body`] is the end for the
//! consumer. [`Upload`] is the end for the connection, which must read the data that no consumer takes.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::{Body, Frame, SizeHint};

use crate::framing::fields::single_value;

/// A body that is read on demand. Taken data opens the client's flow-control windows again.
#[derive(Debug)]
pub struct Http2Body {
    shared: Rc<SharedStream>,
    /// The number of bytes still to come, if the head gave a length. h2 checks that the length is correct.
    remaining: Option<u64>,
    /// All data was read. Trailers may follow.
    data_ended: bool,
}

/// The connection's end of a body.
#[derive(Debug)]
pub struct Upload(Rc<SharedStream>);

/// The data of a body that was received and not taken yet.
#[derive(Debug)]
pub struct BufferedUpload(Weak<SharedStream>);

#[derive(Debug)]
struct SharedStream {
    stream: RefCell<RecvStream>,
    expectation: Cell<Expectation>,
    /// The connection's task. It is woken when a 100 response becomes due, and when the consumer drops the body.
    connection_waker: RefCell<Option<Waker>>,
}

/// Whether the client waits for a 100 response before it sends the body (RFC 9110, section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    None,
    Expected,
    /// The consumer has polled the body, and the client has not sent any data yet.
    Due,
}

/// The result of [`Upload::poll_discard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// Some data. It was dropped, and the client's flow-control windows are open again.
    Data,
    /// The end of the body.
    End,
    /// The stream has failed: the client has reset it, or the connection has ended.
    Reset,
}

/// Creates both ends of the body that belongs to this head.
pub fn receive_body(stream: RecvStream, head: &HeaderMap) -> (Upload, Http2Body) {
    let expected = head
        .get_all(EXPECT)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let shared = Rc::new(SharedStream {
        stream: RefCell::new(stream),
        expectation: Cell::new(if expected {
            Expectation::Expected
        } else {
            Expectation::None
        }),
        connection_waker: RefCell::new(None),
    });
    let body = Http2Body {
        shared: Rc::clone(&shared),
        remaining: content_length(head),
        data_ended: false,
    };
    (Upload(shared), body)
}

/// The `Content-Length`, if the head has exactly one. A value that does not fit into a signed 64-bit integer is
/// ignored: upstreams that use signed integers would misread it.
fn content_length(head: &HeaderMap) -> Option<u64> {
    let length: i64 = single_value(head, &CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    u64::try_from(length).ok()
}

impl SharedStream {
    fn wake_connection(&self) {
        if let Some(waker) = self.connection_waker.take() {
            waker.wake();
        }
    }

    /// Reads data, and releases its flow-control capacity at once.
    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let mut stream = self.stream.borrow_mut();
        let data = ready!(stream.poll_data(cx));
        if let Some(Ok(data)) = &data {
            // This fails if the stream has ended; the next poll reports that.
            let _ = stream.flow_control().release_capacity(data.len());
        }
        Poll::Ready(data)
    }
}

impl BufferedUpload {
    /// The number of bytes. `None` means that both ends of the body were dropped.
    pub fn bytes(&self) -> Option<usize> {
        let shared = self.0.upgrade()?;
        let mut stream = shared.stream.borrow_mut();
        Some(stream.flow_control().used_capacity())
    }
}

impl Upload {
    /// A stream that only the connection reads.
    pub fn unshared(stream: RecvStream) -> Self {
        Self(Rc::new(SharedStream {
            stream: RefCell::new(stream),
            expectation: Cell::new(Expectation::None),
            connection_waker: RefCell::new(None),
        }))
    }

    /// A handle to the amount of buffered data.
    pub fn buffered(&self) -> BufferedUpload {
        BufferedUpload(Rc::downgrade(&self.0))
    }

    /// Reads data without releasing its flow-control capacity; see [`release_capacity`](Self::release_capacity).
    pub fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        self.0.stream.borrow_mut().poll_data(cx)
    }

    /// Releases the flow-control capacity of this many bytes.
    pub fn release_capacity(&self, bytes: usize) {
        // This fails if the stream has ended; the next poll reports that.
        let _ = self.0.stream.borrow_mut().flow_control().release_capacity(bytes);
    }

    /// Whether the connection must send a 100 response now. It is due at most once. While it may become due later, `cx`
    /// is woken when it does.
    pub fn take_continue_due(&self, cx: &Context<'_>) -> bool {
        match self.0.expectation.get() {
            Expectation::None => false,
            Expectation::Expected => {
                self.0.connection_waker.replace(Some(cx.waker().clone()));
                false
            }
            Expectation::Due => {
                self.0.expectation.set(Expectation::None);
                true
            }
        }
    }

    /// Whether the whole body was read.
    pub fn is_at_end(&self) -> bool {
        self.0.stream.borrow().is_end_stream()
    }

    /// Whether the consumer still holds its end of the body.
    pub fn has_consumer(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Reads and drops data after the consumer has dropped its end. Before that, it reports only the end of the body,
    /// and `cx` is woken when the consumer drops its end.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<Discarded> {
        if self.is_at_end() {
            return Poll::Ready(Discarded::End);
        }
        if self.has_consumer() {
            self.0.connection_waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(match ready!(self.0.poll_data(cx)) {
            Some(Ok(_)) => Discarded::Data,
            Some(Err(_)) => Discarded::Reset,
            // Only trailers may remain.
            None => Discarded::End,
        })
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        self.shared.wake_connection();
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            let polled = self.shared.poll_data(cx);
            if self.shared.expectation.get() == Expectation::Expected {
                let due = polled.is_pending();
                self.shared
                    .expectation
                    .set(if due { Expectation::Due } else { Expectation::None });
                self.shared.wake_connection();
            }
            match ready!(polled) {
                Some(Ok(data)) => {
                    self.remaining = self
                        .remaining
                        .map(|remaining| remaining.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Report every reset, whatever its reason code: the client has not sent its whole body.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
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
        self.remaining.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

//! [`Streamed`]: the body of a request of HTTP/2, as its stream brings it (RFC 9113, section 8.1).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use crate::outbound::single;

/// A body that is read when it is asked for. What was taken opens the client's windows again.
#[derive(Debug)]
pub struct Streamed {
    stream: RecvStream,
    /// What is to come, where the head has said so; that it is true is h2's care.
    left: Option<u64>,
    /// There is no more data.
    data_ended: bool,
}

impl Streamed {
    /// The body that belongs to this head.
    pub fn new(stream: RecvStream, head: &HeaderMap) -> Self {
        Self {
            stream,
            left: content_length(head),
            data_ended: false,
        }
    }
}

/// The length that the head has said, if once. What servers that count with a sign would read otherwise is not said to them.
fn content_length(head: &HeaderMap) -> Option<u64> {
    let length: i64 = single(head, &CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    u64::try_from(length).ok()
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails where the stream is gone, which the next poll tells.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Whatever the reason of a reset: a client that gives one has not sent its body to the end.
                Some(Err(problem)) => return Poll::Ready(Some(Err(problem))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

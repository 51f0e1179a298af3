//! The body of the request that a connection serves: how much of it was read, and where its bytes go. It does no IO.

use std::task::{Context, Poll};

use bytes::BytesMut;
use tracing::debug;

use crate::framing::body::RemainingBody;
use crate::transfer::incoming::{BodySender, Demand, IncomingBody, body_channel};

/// The connection discards at most this many bytes of a body that the handler has dropped, to keep the connection for the next request.
const MAX_DISCARDED: u64 = 64 * 1024;

/// The state of the body of the current request.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// There is no body, or it was read to its end. The next bytes begin another request.
    Ended,
    /// The body has a handler. It may have dropped its end since the last [`demand`](Self::demand).
    Open {
        // Not `RemainingBody::Empty`.
        remaining: RemainingBody,
        sender: BodySender,
    },
    /// The handler has dropped the body. The connection discards it.
    Discarding {
        // Not `RemainingBody::Empty`.
        remaining: RemainingBody,
        // discarded <= MAX_DISCARDED
        discarded: u64,
    },
    /// The handler has dropped the body, and it is too long or has invalid framing. No more of it is read, and no request follows.
    Abandoned,
    /// The body has invalid framing, or the connection ended inside it. The handler was notified. No request follows.
    Broken,
}

impl RequestBody {
    /// The body after a head, and the end of it for the handler.
    pub(super) fn new(remaining: RemainingBody) -> (Self, IncomingBody) {
        if remaining == RemainingBody::Empty {
            return (Self::Ended, IncomingBody::Empty);
        }
        let (sender, receiver) = body_channel(remaining.exact_length());
        (Self::Open { remaining, sender }, IncomingBody::Http1(receiver))
    }

    /// The request was read to its end.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// The next bytes cannot be parsed as a request.
    pub(super) fn is_unusable(&self) -> bool {
        matches!(self, Self::Abandoned | Self::Broken)
    }

    /// The handler holds a body that has not ended.
    pub(super) fn has_reader(&self) -> bool {
        matches!(self, Self::Open { sender, .. } if !sender.is_closed())
    }

    /// A request may follow: the body has ended, the handler still reads it, or what remains may be short enough to discard.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Abandoned | Self::Broken => false,
            Self::Open { sender, .. } if !sender.is_closed() => true,
            Self::Open { remaining, .. } | Self::Discarding { remaining, .. } => {
                remaining.exact_length().is_none_or(|length| length <= MAX_DISCARDED)
            }
        }
    }

    /// The demand of the handler, if it holds the body. Begins to discard the body if the handler has dropped it.
    /// While the demand is [`Demand::None`], `cx` is woken when it changes.
    pub(super) fn demand(&mut self, cx: &Context<'_>) -> Option<Demand> {
        let Self::Open { remaining, sender } = self else {
            return None;
        };
        let demand = sender.demand(cx);
        if demand == Demand::Closed {
            *self = Self::Discarding {
                remaining: *remaining,
                discarded: 0,
            };
        }
        Some(demand)
    }

    /// Hands data to the handler. Ready if the state has changed; pending if more bytes are needed. It registers no waker.
    pub(super) fn deliver(&mut self, bytes: &mut BytesMut, cx: &Context<'_>) -> Poll<()> {
        let Self::Open { remaining, sender } = self else {
            return Poll::Ready(());
        };
        let decoded = remaining.decode(bytes);
        let is_ended = *remaining == RemainingBody::Empty;
        match decoded {
            Ok(None) if !is_ended => return Poll::Pending,
            Ok(data) => {
                if let Some(data) = data {
                    sender.send_data(data, remaining.exact_length(), cx);
                }
                if is_ended {
                    sender.finish(cx);
                    *self = Self::Ended;
                }
            }
            Err(fault) => {
                debug!(reason = ?fault, "a request body has invalid framing");
                self.abort(cx);
            }
        }
        Poll::Ready(())
    }

    /// Notifies the handler that the end of the body will not arrive.
    pub(super) fn abort(&mut self, cx: &Context<'_>) {
        if let Self::Open { sender, .. } = self {
            sender.abort(cx);
        }
        *self = Self::Broken;
    }

    /// Discards data. If the state is still [`Discarding`](Self::Discarding) after that, more bytes are needed.
    pub(super) fn discard(&mut self, bytes: &mut BytesMut) {
        while let Self::Discarding { remaining, discarded } = self {
            match remaining.decode(bytes) {
                Ok(Some(data)) => {
                    *discarded += data.len() as u64;
                    if *discarded > MAX_DISCARDED {
                        *self = Self::Abandoned;
                    }
                }
                Ok(None) if *remaining == RemainingBody::Empty => *self = Self::Ended,
                Ok(None) => return,
                Err(_) => *self = Self::Abandoned,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK_64K: usize = 64 * 1024;

    /// The state after the handler has dropped a chunked body and these bytes came.
    fn after_discarding(bytes: &[u8]) -> RequestBody {
        let (mut body, incoming) = RequestBody::new(RemainingBody::chunked());
        drop(incoming);
        let cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(body.demand(&cx), Some(Demand::Closed));
        body.discard(&mut bytes.into());
        body
    }

    #[test]
    fn a_dropped_body_is_discarded_up_to_its_limit() {
        let chunk = |length: usize| [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat();
        let within = [&chunk(CHUNK_64K)[..], b"0\r\n\r\n"].concat();
        assert!(after_discarding(&within).is_ended());
        assert!(after_discarding(&chunk(CHUNK_64K)).may_end());
        assert!(after_discarding(&chunk(CHUNK_64K + 1)).is_unusable());
        assert!(after_discarding(b"no chunk").is_unusable());
    }

    #[test]
    fn a_known_length_above_the_limit_ends_the_connection_once_the_body_is_dropped() {
        let (body, incoming) = RequestBody::new(RemainingBody::Length(MAX_DISCARDED + 1));
        assert!(body.has_reader() && body.may_end());
        drop(incoming);
        assert!(!body.has_reader() && !body.may_end());
    }
}

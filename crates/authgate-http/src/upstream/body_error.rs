//! The errors of request bodies.

use std::io;

/// Why a request body did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestBodyError {
    /// It exceeds its limit of bytes.
    #[error("the request body exceeds its limit")]
    TooLarge,
    /// The client was silent for longer than the limit.
    #[error("the client sent no data of the request body for too long")]
    Timeout,
    /// The client closed the connection, or sent invalid framing; or the body was cancelled.
    #[error("the request body is incomplete or has invalid framing")]
    Broken,
    /// It has no length, and its upstream accepts no such body beyond `buffer.request`.
    #[error("the request body has no length")]
    LengthRequired,
    /// It has no length, and the space for such bodies is used up.
    #[error("the space for request bodies without a length is used up")]
    BufferFull,
    /// It has no length, and could not be stored on disk until the length is known.
    #[error("the request body could not be stored on disk: {0}")]
    Spool(io::ErrorKind),
}

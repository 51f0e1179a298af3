//! How HTTP/1 frames its messages (RFC 9112): which bytes may stand where, and where a body in chunks ends. Both sides read by it: the
//! guard what clients send, the upstream's client what servers answer.

pub(crate) mod chunked;
pub(crate) mod grammar;

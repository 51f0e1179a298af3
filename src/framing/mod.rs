//! How HTTP/1 frames its messages (RFC 9112): which bytes may stand where, and where a message ends. Both sides read by it: the
//! server what clients send, the upstream's client what servers answer. `response` has the rules of heads that hold in every version.

pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod grammar;
pub(crate) mod request;
pub(crate) mod response;
mod said;
pub(crate) mod spelling;
pub(crate) mod target;

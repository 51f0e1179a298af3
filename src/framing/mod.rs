//! How HTTP/1 frames its messages (RFC 9112): which bytes are allowed where, and where a message ends. The server uses
//! these rules to read requests. The upstream client uses them to read responses. `response` has the rules for response
//! heads in every version.

pub(crate) mod body;
pub(crate) mod chunked;
mod framing_fields;
pub(crate) mod grammar;
pub(crate) mod header_case;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod target;

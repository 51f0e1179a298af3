//! How HTTP/1 frames its messages (RFC 9112): which bytes are allowed where, and where a message ends. The server uses
//! these rules to read requests. The upstream client uses them to read responses. `response` has the rules for response
//! heads in every version.

pub mod body;
pub mod chunked;
pub mod fields;
mod framing_fields;
pub mod grammar;
pub mod header_case;
pub mod hop_by_hop;
pub mod request;
pub mod response;
pub mod target;

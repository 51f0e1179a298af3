//! [`EarlyHints`]: early hints (RFC 8297) on their way from an upstream to the client that waits for its response.
//!
//! The client's connection polls its request, and the request polls the upstream connection, all on one thread. Hints
//! that were added during a poll therefore belong to the polled request. The client's connection takes them right after
//! that poll, so no wake-up is needed.

use std::cell::RefCell;
use std::mem;

use http::HeaderMap;

use crate::framing::hop_by_hop;
use crate::framing::response::Content;

/// The fields of 103 responses that were not sent to a client yet.
#[derive(Debug, Default)]
pub struct EarlyHints(RefCell<Vec<HeaderMap>>);

impl EarlyHints {
    /// Adds the fields of one 103 response, without hop-by-hop fields and fields that frame a body.
    pub fn push(&self, mut fields: HeaderMap) {
        hop_by_hop::strip_response(&mut fields);
        Content::None.apply(&mut fields);
        self.0.borrow_mut().push(fields);
    }

    /// Takes all of them.
    pub fn take(&self) -> Vec<HeaderMap> {
        mem::take(&mut *self.0.borrow_mut())
    }
}

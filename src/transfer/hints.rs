//! [`Hints`]: early hints (RFC 8297) on their way from a server to the client that waits for its answer.
//!
//! A client's connection polls its request, and that polls the server's connection, all on one thread. What was put here during a poll
//! is therefore for the request that was polled, and is taken right behind that poll: nothing has to be woken.

use std::cell::RefCell;
use std::mem;

use http::HeaderMap;

use crate::framing::response::Content;
use crate::outbound::hop;

/// Heads of responses 103 that no client has been sent yet.
#[derive(Debug, Default)]
pub struct Hints(RefCell<Vec<HeaderMap>>);

impl Hints {
    /// Adds the fields of one; what concerns the server's connection or frames a body is taken out.
    pub fn put(&self, mut fields: HeaderMap) {
        hop::strip_response(&mut fields);
        Content::None.apply(&mut fields);
        self.0.borrow_mut().push(fields);
    }

    /// Takes all of them.
    pub fn take(&self) -> Vec<HeaderMap> {
        mem::take(&mut *self.0.borrow_mut())
    }
}

//! [`ClientSide`].

use std::cell::RefCell;

use crate::framing::header_case::HeaderCase;
use crate::transfer::early_hints::EarlyHints;

/// What the upstream side needs from the client side, besides the messages.
#[derive(Debug, Clone, Copy)]
pub struct ClientSide<'c> {
    /// How the client wrote the field names of the request.
    pub request_header_case: &'c HeaderCase,
    /// Receives early hints; `None`: the client cannot read them.
    pub early_hints: Option<&'c EarlyHints>,
    /// Receives the case of the response fields; `None`: the client gets them in lower case.
    pub response_header_case: Option<&'c RefCell<HeaderCase>>,
}

impl<'c> ClientSide<'c> {
    /// For requests without a client, such as health checks.
    pub fn without_client(request: &'c HeaderCase) -> Self {
        Self {
            request_header_case: request,
            early_hints: None,
            response_header_case: None,
        }
    }
}

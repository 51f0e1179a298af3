//! [`RequestId`]: the id of a request, from a trusted proxy or made here.

use http::HeaderValue;
use http::header::HeaderName;

/// The request id, in requests and in responses.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted.
const MAX_ID_BYTES: usize = 64;

/// The id of a request in all logs: 128 random bits, or the id from a trusted proxy.
#[derive(Debug, Clone)]
pub struct RequestId {
    pub(super) text: [u8; MAX_ID_BYTES],
    length: usize,
}

impl RequestId {
    /// A new random id.
    pub fn random() -> Self {
        let mut text = [0; MAX_ID_BYTES];
        hex::encode_to_slice(fastrand::u128(..).to_be_bytes(), &mut text[..32]).expect("16 bytes are 32 digits");
        Self { text, length: 32 }
    }

    /// An id from a trusted proxy: up to 64 letters, digits, `.`, `_` and `-`.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if bytes.is_empty() || bytes.len() > MAX_ID_BYTES || !bytes.iter().all(is_allowed) {
            return None;
        }
        let mut text = [0; MAX_ID_BYTES];
        text[..bytes.len()].copy_from_slice(bytes);
        Some(Self {
            text,
            length: bytes.len(),
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).expect("an id is ASCII")
    }

    /// The id as a header value.
    pub fn to_header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text[..self.length]).expect("an id is visible ASCII")
    }

    /// The trace id (W3C Trace Context, section 3.2.2.3): the request id if it is a valid trace id, or else a random
    /// one.
    pub(super) fn to_trace_id(&self) -> Self {
        let own = self.text[..self.length].iter();
        let is_trace = self.length == 32 && own.clone().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_trace && own.clone().any(|byte| *byte != b'0') {
            return self.clone();
        }
        Self::random()
    }
}

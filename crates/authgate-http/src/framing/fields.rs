//! Reads fields that must have one line.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The value of a field that has exactly one line.
pub fn single_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

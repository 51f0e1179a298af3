//! What the head of a response may contain, and what may follow it (RFC 9110, sections 6.4.1, 6.6.1 and 8.6; RFC 9112,
//! section 6.3). These rules hold in every version. A writer uses them and adds only what its own version needs: HTTP/1
//! adds the framing of the body and the `Connection` field.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};

/// The content that follows the head of a response, and the value of its `Content-Length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// This many bytes. `Content-Length` has the same value.
    Length(u64),
    /// Bytes, up to an end that the HTTP version marks. There is no `Content-Length`.
    Unknown,
    /// No content. A received `Content-Length` is kept: it describes the response to GET instead of HEAD, or the 200
    /// instead of the 304.
    Omitted,
    /// No content and no `Content-Length`: 1xx, 204, and a response that opens a tunnel.
    None,
}

impl Content {
    /// The content of a response with this status. `is_head`: the request was HEAD. `length`: the length of the body,
    /// if it is known.
    pub fn for_status(status: StatusCode, is_head: bool, length: Option<u64>) -> Self {
        match (status, length) {
            (StatusCode::NO_CONTENT, _) => Self::None,
            (status, _) if status.is_informational() => Self::None,
            (StatusCode::NOT_MODIFIED, _) => Self::Omitted,
            _ if is_head => Self::Omitted,
            (_, Some(length)) => Self::Length(length),
            (_, None) => Self::Unknown,
        }
    }

    /// Whether content follows the head.
    pub fn follows(self) -> bool {
        match self {
            Self::Length(_) | Self::Unknown => true,
            Self::Omitted | Self::None => false,
        }
    }

    /// Sets, keeps or removes `Content-Length`, so that a writer can send the fields unchanged.
    pub fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::Length(length) if !headers.contains_key(CONTENT_LENGTH) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            Self::Length(_) | Self::Omitted => {}
            Self::Unknown | Self::None => {
                headers.remove(CONTENT_LENGTH);
            }
        }
    }
}

/// Whether a response with this status has a `Date` (RFC 9110, section 6.6.1).
pub fn has_date(status: StatusCode) -> bool {
    !status.is_informational()
}

/// Fields that the writer sets for each connection; received values are not used. `Connection` belongs to the message
/// in a 101 response, and is kept there.
pub fn is_set_by_writer(name: &HeaderName, status: StatusCode) -> bool {
    *name == CONTENT_LENGTH
        || *name == TRANSFER_ENCODING
        || (*name == CONNECTION && status != StatusCode::SWITCHING_PROTOCOLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_follows_from_status_method_and_length() {
        let of = |status: u16, is_head, length| {
            Content::for_status(StatusCode::from_u16(status).expect("a status"), is_head, length)
        };
        for length in [None, Some(0), Some(5)] {
            for is_head in [false, true] {
                for status in [100, 101, 103, 199, 204] {
                    assert_eq!(of(status, is_head, length), Content::None, "{status}");
                }
                assert_eq!(of(304, is_head, length), Content::Omitted);
            }
            for status in [200, 205, 206, 302, 404, 500, 999] {
                assert_eq!(of(status, true, length), Content::Omitted, "{status}");
                assert_eq!(
                    of(status, false, length),
                    length.map_or(Content::Unknown, Content::Length),
                    "{status}"
                );
            }
        }
    }
}

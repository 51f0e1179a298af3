//! Hop-by-hop fields (RFC 9110, section 7.6.1): they concern one connection and must not be forwarded.

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName};

/// Whether a request field is for this hop only.
///
/// `Content-Length` and `Transfer-Encoding` are, because the gateway frames the body again for the next hop. `Expect`
/// is too: the gateway sends the 100 response itself, when the body is first read.
pub fn is_request_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "te"
            | "upgrade"
            | "http2-settings"
            | "expect"
            | "content-length"
            | "transfer-encoding"
            | "trailer"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
    )
}

/// Whether a response field is for this hop only. `Content-Length` is not: it also describes responses to HEAD.
fn is_response_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "proxy-connection"
            | "proxy-authenticate"
    )
}

/// Removes the fields of a response that are for this hop only.
pub fn strip_response(headers: &mut HeaderMap) {
    strip_connection_options(headers);
    strip(headers, is_response_hop_by_hop);
}

/// Removes the trailer fields that are for this hop only, and the one that frames the body (RFC 9110, section 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers, |name| is_response_hop_by_hop(name) || *name == CONTENT_LENGTH);
}

/// Whether a `Connection` line lists this option, which may be a field name.
pub fn is_connection_option(headers: &HeaderMap, option: &HeaderName) -> bool {
    let mut options = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options.any(|named| named.trim_ascii().eq_ignore_ascii_case(option.as_str().as_bytes()))
}

/// Removes the fields that the `Connection` lines name. `Host` is never removed, even if it is named. The caller
/// handles `Content-Length` and `Connection`.
pub fn strip_connection_options(headers: &mut HeaderMap) {
    let words = |line: &http::HeaderValue| -> Vec<HeaderName> {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            // The most common words. A field with one of these names needs no removal here: `strip` removes
            // `Keep-Alive`.
            .filter(|word| !word.eq_ignore_ascii_case(b"keep-alive") && !word.eq_ignore_ascii_case(b"close"))
            .filter_map(|word| HeaderName::from_bytes(word).ok())
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != CONNECTION)
            .collect()
    };
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(words).collect();
    for name in named {
        headers.remove(name);
    }
}

/// Removes the fields for which `is_removed` is true. Most messages have few fields, so one pass over the names is cheaper
/// than a look-up for each name.
pub fn strip(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let removed: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name)).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn fields_named_on_any_connection_line_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-A"),
            ("connection", "x-b,,Host , content-length"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
            ("host", "h"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("content-length", "3"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut response = headers.clone();
        strip_connection_options(&mut headers);
        strip(&mut headers, is_request_hop_by_hop);
        let mut remaining: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        remaining.sort_unstable();
        assert_eq!(remaining, ["host", "x-c"]);
        strip_response(&mut response);
        assert!(response.contains_key(CONTENT_LENGTH) && !response.contains_key("x-a"));
    }
}

//! Hop-by-hop fields (RFC 9110, section 7.6.1): what concerns one connection and must not pass to the next.

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName};

/// Whether a request's field is for this hop only.
///
/// `Content-Length` and `Transfer-Encoding` are: the next hop's framing is made from the body as it was read. `Expect` is answered on this
/// hop, when the body is first read.
pub fn is_of_request(name: &HeaderName) -> bool {
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

/// Whether a response's field is for this hop only. `Content-Length` is not: it also describes answers to HEAD.
fn is_of_response(name: &HeaderName) -> bool {
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

/// Takes out of a response what is for this hop only.
pub fn strip_response(headers: &mut HeaderMap) {
    strip_named(headers);
    strip(headers, is_of_response);
}

/// Takes out of a response's trailers what is for this hop only, and what frames a body that is over (RFC 9110, section 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers, |name| is_of_response(name) || *name == CONTENT_LENGTH);
}

/// Whether a `Connection` line has this word: the name of a field, or an option.
pub fn is_named(headers: &HeaderMap, word: &HeaderName) -> bool {
    let mut words = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.any(|named| named.trim_ascii().eq_ignore_ascii_case(word.as_str().as_bytes()))
}

/// Takes out what every `Connection` line names. `Host` is never taken out, whatever it says.
pub fn strip_named(headers: &mut HeaderMap) {
    let words = |line: &http::HeaderValue| -> Vec<HeaderName> {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            // What most lines say. The field that one of them is called like goes in any case.
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

/// Takes out the fields of such names. Most messages have few of them, so each name is looked at once and nothing is searched for.
pub fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_connection_line_counts() {
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
        strip_named(&mut headers);
        strip(&mut headers, is_of_request);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-c"]);
        strip_response(&mut response);
        assert!(response.contains_key(CONTENT_LENGTH) && !response.contains_key("x-a"));
    }
}

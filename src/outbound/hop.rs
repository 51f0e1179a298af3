//! Hop-by-hop fields (RFC 9110, section 7.6.1): what concerns one connection and must not pass to the next.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Takes out of a request what is for this hop only, and what every `Connection` line names.
///
/// `Content-Length` and `Transfer-Encoding` go too: the next hop's framing is made from the body as it was read. `Expect` is
/// answered on this hop, when the body is first read. `Host` is never taken out, whatever `Connection` says.
pub fn strip_request(headers: &mut HeaderMap) {
    strip_named(headers);
    for name in [
        &TE,
        &UPGRADE,
        &HTTP2_SETTINGS,
        &EXPECT,
        &CONTENT_LENGTH,
        &TRANSFER_ENCODING,
        &TRAILER,
        &KEEP_ALIVE,
    ] {
        headers.remove(name);
    }
    for name in [&PROXY_CONNECTION, &PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
}

/// Takes out of a response what is for this hop only. `Content-Length` stays: it also describes answers to HEAD.
pub fn strip_response(headers: &mut HeaderMap) {
    strip_named(headers);
    for name in [
        &KEEP_ALIVE,
        &TRANSFER_ENCODING,
        &TRAILER,
        &UPGRADE,
        &PROXY_CONNECTION,
        &PROXY_AUTHENTICATE,
    ] {
        headers.remove(name);
    }
}

fn strip_named(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
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
        strip_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-c"]);
        strip_response(&mut response);
        assert!(response.contains_key(CONTENT_LENGTH) && !response.contains_key("x-a"));
    }
}

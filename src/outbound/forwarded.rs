//! Where a request came from, and the fields that say so: `X-Forwarded-*`, `X-Request-Id`, `traceparent`.

use std::net::IpAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The request's id, in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The other end of a connection; made once for all its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    ip: IpAddr,
    scheme: Scheme,
    forwarded_for: HeaderValue,
}

/// How a client reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Peer {
    /// The peer at `ip`.
    pub fn new(ip: IpAddr, scheme: Scheme) -> Self {
        let ip = ip.to_canonical();
        let forwarded_for = HeaderValue::try_from(ip.to_string()).expect("an address is visible ASCII");
        Self {
            ip,
            scheme,
            forwarded_for,
        }
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How it reached us.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

/// 128 random bits, unique enough to find one request in many logs.
#[derive(Debug, Clone)]
pub struct RequestId {
    text: [u8; 32],
}

impl RequestId {
    /// A new one.
    pub fn random() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bits = fastrand::u128(..).to_be_bytes();
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bits) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Self { text }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("hexadecimal digits are ASCII")
    }

    /// The id as a header value.
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text).expect("hexadecimal digits are visible ASCII")
    }
}

/// Says where the request came from. Nobody is trusted to have said so before: what came in was taken out already.
pub(super) fn insert(headers: &mut HeaderMap, peer: &Peer, host: Option<HeaderValue>, id: &RequestId) {
    headers.insert(X_FORWARDED_FOR, peer.forwarded_for.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme.as_str()));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_REQUEST_ID, id.to_value());
    if !has_valid_traceparent(headers) {
        // W3C Trace Context, section 3.2: a broken parent restarts the trace, and its state goes with it.
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, traceparent(id));
    }
}

fn traceparent(id: &RequestId) -> HeaderValue {
    let text = format!("00-{}-{:016x}-00", id.as_str(), fastrand::u64(1..));
    HeaderValue::try_from(text).expect("hexadecimal digits are visible ASCII")
}

/// One line, version 00: `00-<32 hex, not all zero>-<16 hex, not all zero>-<2 hex>`.
fn has_valid_traceparent(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let fields: Vec<&[u8]> = line.as_bytes().split(|byte| *byte == b'-').collect();
    let hex = |field: &[u8], length: usize| {
        field.len() == length && field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |field: &[u8]| field.iter().any(|byte| *byte != b'0');
    match fields.as_slice() {
        [b"00", trace, parent, flags] => {
            hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && not_zero(trace) && not_zero(parent)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traceparent_after(lines: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACEPARENT, HeaderValue::from_static(line));
        }
        let peer = Peer::new(IpAddr::from([192, 0, 2, 1]), Scheme::Https);
        insert(&mut headers, &peer, None, &RequestId::random());
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        headers[TRACEPARENT].to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn a_good_traceparent_passes_and_any_other_is_replaced() {
        const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent_after(&[GOOD]), GOOD);
        for bad in [
            &[GOOD, GOOD][..],
            &["00-x"],
            &[],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
        ] {
            let made = traceparent_after(bad);
            assert!(made != GOOD && made.len() == 55, "{bad:?}: {made}");
        }
    }

    #[test]
    fn ipv4_in_ipv6_is_written_as_ipv4() {
        let peer = Peer::new("::ffff:192.0.2.7".parse().expect("an address"), Scheme::Http);
        assert_eq!(peer.forwarded_for, "192.0.2.7");
    }
}

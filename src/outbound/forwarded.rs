//! Where a request came from, and the fields that say so: `X-Forwarded-*`, `X-Request-Id`, `traceparent`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::HeaderName;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::single;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The request's id, in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Who is at the other end of a connection (RFC 7239, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// It has an address, IPv4 as such where it came in IPv6.
    Ip(IpAddr),
    /// It came over a socket file, and has none.
    Unix,
}

impl From<IpAddr> for Node {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

/// As nginx writes it.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

/// The other end of a connection; made once for all its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    node: Node,
    scheme: Scheme,
    /// `None` over a socket file: no word in the place of an address would be true, and applications read only addresses there.
    forwarded_for: Option<HeaderValue>,
    /// Set where it is a proxy whose word is believed.
    believed: Option<Arc<TrustedProxies>>,
}

/// Whose `X-Forwarded-*` and `X-Request-Id` are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Proxies in these networks; none: nobody.
    pub networks: Vec<IpNet>,
    /// Whoever may connect to our socket files.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether this is one of them.
    pub fn contains(&self, node: Node) -> bool {
        match node {
            Node::Ip(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            Node::Unix => self.unix,
        }
    }
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
    /// The peer that is `node`.
    pub fn new(node: Node, scheme: Scheme, trusted: &Arc<TrustedProxies>) -> Self {
        let forwarded_for = match node {
            Node::Ip(ip) => Some(HeaderValue::try_from(ip.to_string()).expect("an address is visible ASCII")),
            Node::Unix => None,
        };
        Self {
            node,
            scheme,
            forwarded_for,
            believed: trusted.contains(node).then(|| Arc::clone(trusted)),
        }
    }

    /// Who it is.
    pub fn node(&self) -> Node {
        self.node
    }

    /// How it reached us.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

/// Where a request came from, after what trusted proxies say of it was heard. To be read before anything is taken out of a request.
#[derive(Debug, Clone)]
pub struct Source {
    /// The client: the last one on the way here that is no trusted proxy.
    pub client: Node,
    /// The request's id.
    pub id: RequestId,
    /// `X-Forwarded-For`, with the peer appended if it has an address. `None`, here and below: the peer's word does not count, or it says nothing.
    forwarded_for: Option<HeaderValue>,
    scheme: Option<Scheme>,
    host: Option<HeaderValue>,
}

impl Source {
    /// A request from this peer that says nothing of where it came from.
    pub fn unknown(peer: &Peer) -> Self {
        Self {
            client: peer.node,
            id: RequestId::random(),
            forwarded_for: None,
            scheme: None,
            host: None,
        }
    }

    /// Reads what a request says, as far as its peer is believed.
    pub fn of(peer: &Peer, headers: &HeaderMap) -> Self {
        let mut source = Self::unknown(peer);
        let Some(trusted) = &peer.believed else { return source };
        if let Some(id) = single(headers, &X_REQUEST_ID).and_then(RequestId::kept) {
            source.id = id;
        }
        source.scheme = single(headers, &X_FORWARDED_PROTO).and_then(|value| match value.as_bytes() {
            b"http" => Some(Scheme::Http),
            b"https" => Some(Scheme::Https),
            _ => None,
        });
        source.host = single(headers, &X_FORWARDED_HOST).filter(|host| is_host(host)).cloned();
        let lines: Vec<&[u8]> = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .map(HeaderValue::as_bytes)
            .filter(|line| !line.is_empty())
            .collect();
        if lines.is_empty() {
            return source;
        }
        let mut all = lines.join(&b", "[..]);
        source.client = last_untrusted(&all, trusted).unwrap_or(peer.node);
        if let Some(peer) = &peer.forwarded_for {
            all.extend_from_slice(b", ");
            all.extend_from_slice(peer.as_bytes());
        }
        source.forwarded_for = HeaderValue::from_bytes(&all).ok();
        source
    }
}

/// From the right, the first address that is no trusted proxy; if all of them are, the one on the left. What is no address ends the
/// walk: nobody can say who wrote what stands before it.
fn last_untrusted(list: &[u8], trusted: &TrustedProxies) -> Option<Node> {
    let mut last = None;
    for word in list.rsplit(|byte| *byte == b',') {
        let Some(node) = std::str::from_utf8(word).ok().and_then(|word| address(word.trim())) else {
            break;
        };
        last = Some(node);
        if !trusted.contains(node) {
            break;
        }
    }
    last
}

/// An address as proxies write it: bare, or with a port.
fn address(word: &str) -> Option<Node> {
    let bare = word
        .strip_prefix('[')
        .and_then(|word| word.strip_suffix(']'))
        .unwrap_or(word);
    bare.parse()
        .ok()
        .or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|ip: IpAddr| Node::from(ip))
}

fn is_host(value: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"@/?#,\\".contains(byte);
    value.as_bytes().iter().all(plain) && Authority::try_from(value.as_bytes()).is_ok()
}

/// The longest id that is kept.
const LONGEST_ID: usize = 64;

/// What one request is found by in many logs: 128 random bits, or the id that a trusted proxy gave it.
#[derive(Debug, Clone)]
pub struct RequestId {
    text: [u8; LONGEST_ID],
    length: usize,
}

impl RequestId {
    /// A new one.
    pub fn random() -> Self {
        let mut text = [0; LONGEST_ID];
        write_hex(&mut text[..32], &fastrand::u128(..).to_be_bytes());
        Self { text, length: 32 }
    }

    /// One that was given: up to 64 letters, digits, `.`, `_` and `-`.
    fn kept(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if bytes.is_empty() || bytes.len() > LONGEST_ID || !bytes.iter().all(plain) {
            return None;
        }
        let mut text = [0; LONGEST_ID];
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
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text[..self.length]).expect("an id is visible ASCII")
    }

    /// A trace's id (W3C Trace Context, section 3.2.2.3): the same one where it can be.
    fn to_trace(&self) -> Self {
        let own = self.text[..self.length].iter();
        let is_trace = self.length == 32 && own.clone().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_trace && own.clone().any(|byte| *byte != b'0') {
            return self.clone();
        }
        Self::random()
    }
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

/// Says where the request came from. What came in was taken out already; `source` is what was believed of it.
pub(super) fn insert(headers: &mut HeaderMap, peer: &Peer, host: &HeaderValue, source: &Source) {
    if let Some(forwarded_for) = source.forwarded_for.as_ref().or(peer.forwarded_for.as_ref()) {
        headers.insert(X_FORWARDED_FOR, forwarded_for.clone());
    }
    let scheme = source.scheme.unwrap_or(peer.scheme);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    headers.insert(X_FORWARDED_HOST, source.host.as_ref().unwrap_or(host).clone());
    headers.insert(X_REQUEST_ID, source.id.to_value());
    if !has_valid_traceparent(headers) {
        // W3C Trace Context, section 3.2: a broken parent restarts the trace, and its state goes with it.
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, traceparent(&source.id));
    }
}

/// `00-<trace>-<parent>-00`.
fn traceparent(id: &RequestId) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&id.to_trace().text[..32]);
    write_hex(&mut text[36..52], &fastrand::u64(1..).to_be_bytes());
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
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
        let peer = peer("192.0.2.1", &[]);
        let source = Source::unknown(&peer);
        insert(&mut headers, &peer, &HeaderValue::from_static("h"), &source);
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
        let peer = peer("::ffff:192.0.2.7", &[]);
        assert_eq!(peer.forwarded_for.expect("an address"), "192.0.2.7");
    }

    fn peer(ip: &str, trusted: &[&str]) -> Peer {
        let ip: IpAddr = ip.parse().expect("an address");
        peer_at(ip.into(), trusted)
    }

    fn peer_at(node: Node, trusted: &[&str]) -> Peer {
        let (unix, networks): (Vec<_>, Vec<_>) = trusted.iter().partition(|word| **word == "unix");
        let networks = networks
            .into_iter()
            .map(|network: &&str| network.parse().expect("a network"));
        let trusted = Arc::new(TrustedProxies {
            networks: networks.collect(),
            unix: !unix.is_empty(),
        });
        Peer::new(node, Scheme::Http, &trusted)
    }

    /// What is sent on of these fields, and the client's address.
    fn heard(peer: &Peer, fields: &[(&'static str, &'static str)]) -> (HeaderMap, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let source = Source::of(peer, &headers);
        let mut sent = HeaderMap::new();
        insert(&mut sent, peer, &HeaderValue::from_static("own.example"), &source);
        (sent, source.client.to_string())
    }

    const TOLD: [(&str, &str); 4] = [
        ("x-forwarded-for", "198.51.100.9, 10.0.0.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "api.example:8443"),
        ("x-request-id", "a.b_c-1"),
    ];

    #[test]
    fn a_trusted_proxy_is_believed() {
        let (sent, client) = heard(&peer("10.0.0.1", &["10.0.0.0/8"]), &TOLD);
        assert_eq!(client, "198.51.100.9");
        assert_eq!(sent[X_FORWARDED_FOR], "198.51.100.9, 10.0.0.7, 10.0.0.1");
        assert_eq!(sent[X_FORWARDED_PROTO], "https");
        assert_eq!(sent[X_FORWARDED_HOST], "api.example:8443");
        assert_eq!(sent[X_REQUEST_ID], "a.b_c-1");
    }

    #[test]
    fn nobody_else_is() {
        for trusted in [&[][..], &["10.0.0.2/32"], &["2001:db8::/32"]] {
            let (sent, client) = heard(&peer("10.0.0.1", trusted), &TOLD);
            assert_eq!(client, "10.0.0.1");
            assert_eq!(sent[X_FORWARDED_FOR], "10.0.0.1");
            assert_eq!(sent[X_FORWARDED_PROTO], "http");
            assert_eq!(sent[X_FORWARDED_HOST], "own.example");
            assert_eq!(sent[X_REQUEST_ID].len(), 32);
        }
    }

    #[test]
    fn a_peer_without_an_address_is_given_none() {
        let (sent, client) = heard(&peer_at(Node::Unix, &["10.0.0.0/8"]), &TOLD);
        assert_eq!((sent.get(X_FORWARDED_FOR), client.as_str()), (None, "unix:"));
        assert_eq!(sent[X_FORWARDED_PROTO], "http");
        let trusted = peer_at(Node::Unix, &["10.0.0.0/8", "unix"]);
        let (sent, client) = heard(&trusted, &TOLD);
        assert_eq!(sent[X_FORWARDED_FOR], "198.51.100.9, 10.0.0.7");
        assert_eq!(
            (client.as_str(), &sent[X_FORWARDED_PROTO]),
            ("198.51.100.9", &"https".parse().expect("a value"))
        );
        let (sent, client) = heard(&trusted, &[]);
        assert_eq!((sent.get(X_FORWARDED_FOR), client.as_str()), (None, "unix:"));
    }

    #[test]
    fn what_a_trusted_proxy_cannot_have_meant_is_not_sent_on() {
        let trusted = peer("::ffff:10.0.0.1", &["10.0.0.0/8"]);
        let (sent, client) = heard(
            &trusted,
            &[
                ("x-forwarded-for", "spoofed, 203.0.113.5, unknown"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "a@b"),
                ("x-request-id", "not an id"),
            ],
        );
        assert_eq!(client, "10.0.0.1");
        assert_eq!(sent[X_FORWARDED_PROTO], "http");
        assert_eq!(sent[X_FORWARDED_HOST], "own.example");
        assert_eq!(sent[X_REQUEST_ID].len(), 32);
        let walk = |list: &'static str| heard(&trusted, &[("x-forwarded-for", list)]).1;
        assert_eq!(walk("1.2.3.4, 203.0.113.5:443"), "203.0.113.5");
        assert_eq!(walk("1.2.3.4, [2001:db8::5], 10.1.1.1"), "2001:db8::5");
        assert_eq!(walk("10.2.2.2, 10.1.1.1"), "10.2.2.2");
    }
}

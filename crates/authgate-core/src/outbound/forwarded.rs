//! The origin of a request, and the fields that describe it: `X-Forwarded-*`, `X-Real-IP`, `X-Request-Id`,
//! `traceparent`.
//!
//! A field of a trusted proxy is a list, on one line or on several. The nearest proxy has written its last member, so
//! the gateway uses that one. Invalid fields are recorded for the log.

use std::net::{IpAddr, SocketAddr};

use authgate_http::node::Node;
use http::header::HeaderName;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

use super::peer::{Peer, Scheme, TrustedProxies};
use super::request_id::{RequestId, X_REQUEST_ID};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Optional fields that `[forwarded]` in the file enables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OptionalFields {
    /// `X-Real-IP`: the client's address alone.
    pub real_ip: bool,
    /// `X-Forwarded-Port`: the port that the client requested.
    pub port: bool,
}

/// A field of a trusted proxy that describes the origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedField {
    /// `X-Forwarded-For`.
    For,
    /// `X-Forwarded-Proto`.
    Proto,
    /// `X-Forwarded-Host`.
    Host,
    /// `X-Forwarded-Port`.
    Port,
    /// `X-Request-Id`.
    RequestId,
}

impl ForwardedField {
    /// All fields. Invariant: `ALL[field as usize] == field`.
    pub const ALL: [Self; 5] = [Self::For, Self::Proto, Self::Host, Self::Port, Self::RequestId];

    /// The usual spelling of the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::For => "X-Forwarded-For",
            Self::Proto => "X-Forwarded-Proto",
            Self::Host => "X-Forwarded-Host",
            Self::Port => "X-Forwarded-Port",
            Self::RequestId => "X-Request-Id",
        }
    }

    /// What the last member must be, for the log.
    pub fn expected(self) -> &'static str {
        match self {
            Self::For => "IP addresses",
            Self::Proto => "`http` or `https`",
            Self::Host => "a host",
            Self::Port => "a port from 1 to 65535",
            Self::RequestId => "up to 64 letters, digits, `.`, `_` and `-`",
        }
    }
}

/// The fields of a trusted proxy that are not valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InvalidFields(u8);

impl InvalidFields {
    /// Records the field if it was sent without a valid value.
    fn valid_or_record<T>(&mut self, field: ForwardedField, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.0 |= 1 << field as u8;
        }
        value
    }

    /// Whether all received fields are valid.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fields.
    pub fn fields(self) -> impl Iterator<Item = ForwardedField> {
        ForwardedField::ALL
            .into_iter()
            .filter(move |field| self.0 & (1 << *field as u8) != 0)
    }
}

/// The origin of a request, after the fields of trusted proxies were read. Read it before fields are removed from the
/// request.
#[derive(Debug, Clone)]
pub struct ForwardedInfo {
    /// The client: the node nearest to the gateway that is no trusted proxy.
    pub client: Node,
    /// The request id.
    pub id: RequestId,
    /// `X-Forwarded-For`, with the peer appended if it has an address. In this and the next three fields, `None` means
    /// that the peer is not trusted or sent no valid value.
    forwarded_for: Option<HeaderValue>,
    scheme: Option<Scheme>,
    host: Option<HeaderValue>,
    port: Option<u16>,
    /// The fields that a trusted peer sent without a valid value.
    pub invalid_fields: InvalidFields,
}

impl ForwardedInfo {
    /// The origin of a request from this peer, without any forwarding fields.
    pub fn from_peer(peer: &Peer) -> Self {
        Self {
            client: peer.node,
            id: RequestId::random(),
            forwarded_for: None,
            scheme: None,
            host: None,
            port: None,
            invalid_fields: InvalidFields::default(),
        }
    }

    /// Reads the forwarding fields of a request, if its peer is trusted.
    pub fn from_headers(peer: &Peer, headers: &HeaderMap) -> Self {
        let mut forwarded = Self::from_peer(peer);
        let Some(trusted) = &peer.trusted_proxies else {
            return forwarded;
        };
        let mut invalid_fields = InvalidFields::default();
        if let Some(id) = last_member(headers, &X_REQUEST_ID)
            && let Some(id) = invalid_fields.valid_or_record(ForwardedField::RequestId, RequestId::parse(id))
        {
            forwarded.id = id;
        }
        forwarded.scheme = last_member(headers, &X_FORWARDED_PROTO)
            .and_then(|scheme| invalid_fields.valid_or_record(ForwardedField::Proto, Scheme::parse(scheme)));
        forwarded.host = last_member(headers, &X_FORWARDED_HOST)
            .and_then(|host| invalid_fields.valid_or_record(ForwardedField::Host, parse_host(host)));
        forwarded.port = last_member(headers, &X_FORWARDED_PORT)
            .and_then(|port| invalid_fields.valid_or_record(ForwardedField::Port, parse_port(port)));
        let lines: Vec<&[u8]> = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .map(HeaderValue::as_bytes)
            .filter(|line| !line.is_empty())
            .collect();
        if lines.is_empty() {
            forwarded.invalid_fields = invalid_fields;
            return forwarded;
        }
        let mut all = lines.join(&b", "[..]);
        let (client, complete) = last_untrusted(&all, trusted);
        forwarded.client = client.unwrap_or(peer.node);
        invalid_fields.valid_or_record(ForwardedField::For, complete.then_some(()));
        forwarded.invalid_fields = invalid_fields;
        if let Some(peer) = &peer.forwarded_for {
            all.extend_from_slice(b", ");
            all.extend_from_slice(peer.as_bytes());
        }
        forwarded.forwarded_for = HeaderValue::from_bytes(&all).ok();
        forwarded
    }
}

/// The scheme and the host that the client has requested: those of the connection and of the request, or what a trusted proxy says.
pub fn requested_origin<'r>(peer: &Peer, headers: &'r HeaderMap, host: &'r HeaderValue) -> (Scheme, &'r [u8]) {
    if peer.trusted_proxies.is_none() {
        return (peer.scheme, host.as_bytes());
    }
    let scheme = last_member(headers, &X_FORWARDED_PROTO).and_then(Scheme::parse);
    let forwarded = last_member(headers, &X_FORWARDED_HOST).filter(|host| parse_host(host).is_some());
    (scheme.unwrap_or(peer.scheme), forwarded.unwrap_or(host.as_bytes()))
}

/// The last member of a list, which may span several lines (RFC 9110, sections 5.3 and 5.6.1). `None` if the list is
/// empty.
fn last_member<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let lines = headers.get_all(name).iter().rev();
    lines
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .find(|member| !member.is_empty())
}

/// The first address from the right that is no trusted proxy, or the leftmost address if all are trusted proxies. A
/// member that is no address ends the search, because the author of the members before it is unknown. In this case the
/// second value is `false`.
fn last_untrusted(list: &[u8], trusted: &TrustedProxies) -> (Option<Node>, bool) {
    let mut last = None;
    for word in list.rsplit(|byte| *byte == b',') {
        let Some(node) = std::str::from_utf8(word)
            .ok()
            .and_then(|word| parse_address(word.trim()))
        else {
            return (last, false);
        };
        last = Some(node);
        if !trusted.contains(node) {
            break;
        }
    }
    (last, true)
}

/// Parses an address as proxies write it: alone, or with a port.
fn parse_address(word: &str) -> Option<Node> {
    let unbracketed = word
        .strip_prefix('[')
        .and_then(|word| word.strip_suffix(']'))
        .unwrap_or(word);
    unbracketed
        .parse()
        .ok()
        .or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|ip: IpAddr| Node::from(ip))
}

fn parse_host(value: &[u8]) -> Option<HeaderValue> {
    let is_allowed = |byte: &u8| byte.is_ascii_graphic() && !b"@/?#,\\".contains(byte);
    let is_host = value.iter().all(is_allowed) && Authority::try_from(value).is_ok();
    is_host.then(|| HeaderValue::from_bytes(value).ok()).flatten()
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(digits).ok()?;
    let is_canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_canonical)
}

/// Sets the fields that describe the origin. The client's own fields were removed before. `forwarded` is the trusted
/// information from them.
pub(super) fn insert(
    headers: &mut HeaderMap,
    peer: &Peer,
    host: &HeaderValue,
    forwarded: &ForwardedInfo,
    optional: OptionalFields,
) {
    if let Some(forwarded_for) = forwarded.forwarded_for.as_ref().or(peer.forwarded_for.as_ref()) {
        headers.insert(X_FORWARDED_FOR, forwarded_for.clone());
    }
    let scheme = forwarded.scheme.unwrap_or(peer.scheme);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    let host = forwarded.host.as_ref().unwrap_or(host);
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(X_REQUEST_ID, forwarded.id.to_header_value());
    if optional.port {
        let requested = || Authority::try_from(host.as_bytes()).ok()?.port_u16();
        let port = forwarded
            .port
            .or_else(requested)
            .unwrap_or_else(|| scheme.default_port());
        headers.insert(X_FORWARDED_PORT, HeaderValue::from(port));
    }
    if optional.real_ip
        && let Some(address) = peer.address_value(forwarded.client)
    {
        headers.insert(X_REAL_IP, address);
    }
    if peer.trusted_proxies.is_none() || !has_valid_traceparent(headers) {
        // An untrusted client may not choose the trace of its requests. A broken parent restarts the trace (W3C Trace
        // Context, sections 3.2 and 7), so `tracestate` is removed too.
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, traceparent(&forwarded.id));
    }
}

/// `00-<trace>-<parent>-00`.
fn traceparent(id: &RequestId) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&id.to_trace_id().text[..32]);
    hex::encode_to_slice(fastrand::u64(1..).to_be_bytes(), &mut text[36..52]).expect("8 bytes are 16 digits");
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
}

/// Whether there is exactly one line, of version 00: `00-<32 hex, not all zero>-<16 hex, not all zero>-<2 hex>`.
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
    use std::sync::Arc;

    use super::*;

    /// The `traceparent` that is forwarded, and whether `tracestate` is forwarded.
    fn traceparent_after(peer: &Peer, lines: &[&'static str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACEPARENT, HeaderValue::from_static(line));
        }
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        let forwarded = ForwardedInfo::from_peer(peer);
        insert(
            &mut headers,
            peer,
            &HeaderValue::from_static("h"),
            &forwarded,
            OptionalFields::default(),
        );
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        let sent = headers[TRACEPARENT].to_str().expect("ASCII").to_owned();
        (sent, headers.contains_key(TRACESTATE))
    }

    #[test]
    fn only_a_valid_traceparent_of_a_trusted_proxy_is_forwarded() {
        const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trusted = peer("10.0.0.1", &["10.0.0.0/8"]);
        assert_eq!(traceparent_after(&trusted, &[GOOD]), (GOOD.to_owned(), true));
        let (made, state) = traceparent_after(&peer("192.0.2.1", &["10.0.0.0/8"]), &[GOOD]);
        assert!(made != GOOD && made.len() == 55 && !state, "{made}");
        for bad in [
            &[GOOD, GOOD][..],
            &["00-x"],
            &[],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
        ] {
            let (made, state) = traceparent_after(&trusted, bad);
            assert!(made != GOOD && made.len() == 55 && !state, "{bad:?}: {made}");
        }
    }

    #[test]
    fn ipv4_mapped_address_is_written_as_ipv4() {
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

    /// The fields that are forwarded, and the client's address.
    fn insert_from(peer: &Peer, fields: &[(&'static str, &'static str)]) -> (HeaderMap, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let forwarded = ForwardedInfo::from_headers(peer, &headers);
        let mut sent = HeaderMap::new();
        let optional = OptionalFields {
            real_ip: true,
            port: true,
        };
        insert(
            &mut sent,
            peer,
            &HeaderValue::from_static("own.example"),
            &forwarded,
            optional,
        );
        (sent, forwarded.client.to_string())
    }

    fn invalid_fields(peer: &Peer, name: &'static str, value: &'static str) -> Vec<&'static str> {
        let mut headers = HeaderMap::new();
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        ForwardedInfo::from_headers(peer, &headers)
            .invalid_fields
            .fields()
            .map(ForwardedField::name)
            .collect()
    }

    #[test]
    fn last_member_of_a_list_is_used_on_any_line() {
        let trusted = peer("10.0.0.1", &["10.0.0.0/8"]);
        let check = |name: &'static str, lines: &[&'static str], expected: &str| {
            let fields: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
            assert_eq!(insert_from(&trusted, &fields).0[name], expected, "{name}: {lines:?}");
        };
        for https in [
            &["https"][..],
            &["HTTPS"],
            &["https,https"],
            &["http, https"],
            &["http", "https"],
            &["https, ,"],
            &["gopher, hTTps "],
        ] {
            check("x-forwarded-proto", https, "https");
        }
        for http in [
            &["https, http"][..],
            &["https", "HTTP"],
            &["https,wss"],
            &["https", "gopher"],
            &[","],
        ] {
            check("x-forwarded-proto", http, "http");
        }
        check("x-forwarded-host", &["a.example, b.example:8443"], "b.example:8443");
        check("x-forwarded-host", &["a.example", "b.example"], "b.example");
        check("x-forwarded-port", &["80, 8443"], "8443");
        check("x-request-id", &["one", "two, three"], "three");
    }

    #[test]
    fn invalid_fields_of_a_trusted_proxy_are_reported() {
        let trusted = peer("10.0.0.1", &["10.0.0.0/8"]);
        for (name, good, bad) in [
            (
                "x-forwarded-for",
                "spoofed, 203.0.113.5, 10.0.0.2",
                "203.0.113.5, unknown",
            ),
            ("x-forwarded-proto", "https,HTTPS", "wss"),
            ("x-forwarded-host", "a.example, B.example", "a@b"),
            ("x-forwarded-port", "443", "0443"),
            ("x-request-id", "a, b", "a b"),
        ] {
            assert!(invalid_fields(&trusted, name, good).is_empty(), "{name}: {good}");
            let named = invalid_fields(&trusted, name, bad);
            assert!(
                named.len() == 1 && named[0].eq_ignore_ascii_case(name),
                "{name}: {named:?}"
            );
            // Fields from untrusted peers are not reported.
            assert!(invalid_fields(&peer("192.0.2.1", &["10.0.0.0/8"]), name, bad).is_empty());
        }
    }

    #[test]
    fn real_ip_and_port_agree_with_the_other_fields() {
        let trusted = peer("10.0.0.1", &["10.0.0.0/8"]);
        let check = |peer: &Peer, fields: &[(&'static str, &'static str)], ip: Option<&str>, port: &str| {
            let (sent, _) = insert_from(peer, fields);
            let real_ip = sent.get(X_REAL_IP).map(|ip| ip.to_str().expect("ASCII"));
            assert_eq!(
                (real_ip, &sent[X_FORWARDED_PORT]),
                (ip, &port.parse().expect("a value")),
                "{fields:?}"
            );
        };
        check(&trusted, &FORWARDED, Some("198.51.100.9"), "8443");
        check(&trusted, &[("x-forwarded-proto", "https")], Some("10.0.0.1"), "443");
        check(&trusted, &[("x-forwarded-port", "8000")], Some("10.0.0.1"), "8000");
        let fields = [
            ("x-forwarded-port", "8000"),
            ("x-real-ip", "1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        check(&peer("192.0.2.1", &["10.0.0.0/8"]), &fields, Some("192.0.2.1"), "80");
        check(&peer_at(Node::Unix, &[]), &fields, None, "80");
    }

    const FORWARDED: [(&str, &str); 4] = [
        ("x-forwarded-for", "198.51.100.9, 10.0.0.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "api.example:8443"),
        ("x-request-id", "a.b_c-1"),
    ];

    #[test]
    fn fields_of_a_trusted_proxy_are_used() {
        let (sent, client) = insert_from(&peer("10.0.0.1", &["10.0.0.0/8"]), &FORWARDED);
        assert_eq!(client, "198.51.100.9");
        assert_eq!(sent[X_FORWARDED_FOR], "198.51.100.9, 10.0.0.7, 10.0.0.1");
        assert_eq!(sent[X_FORWARDED_PROTO], "https");
        assert_eq!(sent[X_FORWARDED_HOST], "api.example:8443");
        assert_eq!(sent[X_REQUEST_ID], "a.b_c-1");
    }

    #[test]
    fn fields_of_other_peers_are_replaced() {
        for trusted in [&[][..], &["10.0.0.2/32"], &["2001:db8::/32"]] {
            let (sent, client) = insert_from(&peer("10.0.0.1", trusted), &FORWARDED);
            assert_eq!(client, "10.0.0.1");
            assert_eq!(sent[X_FORWARDED_FOR], "10.0.0.1");
            assert_eq!(sent[X_FORWARDED_PROTO], "http");
            assert_eq!(sent[X_FORWARDED_HOST], "own.example");
            assert_eq!(sent[X_REQUEST_ID].len(), 32);
        }
    }

    #[test]
    fn unix_peer_adds_no_address() {
        let (sent, client) = insert_from(&peer_at(Node::Unix, &["10.0.0.0/8"]), &FORWARDED);
        assert_eq!((sent.get(X_FORWARDED_FOR), client.as_str()), (None, "unix:"));
        assert_eq!(sent[X_FORWARDED_PROTO], "http");
        let trusted = peer_at(Node::Unix, &["10.0.0.0/8", "unix"]);
        let (sent, client) = insert_from(&trusted, &FORWARDED);
        assert_eq!(sent[X_FORWARDED_FOR], "198.51.100.9, 10.0.0.7");
        assert_eq!(
            (client.as_str(), &sent[X_FORWARDED_PROTO]),
            ("198.51.100.9", &"https".parse().expect("a value"))
        );
        let (sent, client) = insert_from(&trusted, &[]);
        assert_eq!((sent.get(X_FORWARDED_FOR), client.as_str()), (None, "unix:"));
    }

    #[test]
    fn invalid_fields_of_a_trusted_proxy_are_not_forwarded() {
        let trusted = peer("::ffff:10.0.0.1", &["10.0.0.0/8"]);
        let (sent, client) = insert_from(
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
        let walk = |list: &'static str| insert_from(&trusted, &[("x-forwarded-for", list)]).1;
        assert_eq!(walk("1.2.3.4, 203.0.113.5:443"), "203.0.113.5");
        assert_eq!(walk("1.2.3.4, [2001:db8::5], 10.1.1.1"), "2001:db8::5");
        assert_eq!(walk("10.2.2.2, 10.1.1.1"), "10.2.2.2");
    }
}

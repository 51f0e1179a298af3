//! The names of HTTP versions in ALPN (RFC 7301): both sides of TLS offer them, and connections compare the result.

/// HTTP/2 (RFC 9113, section 3.1).
pub const H2: &[u8] = b"h2";
/// HTTP/1.1 (RFC 7301, section 6).
pub const HTTP_1_1: &[u8] = b"http/1.1";
/// The validation of a certificate authority (RFC 8737, section 6.2). No request is served on such a connection.
pub const ACME_TLS_1: &[u8] = b"acme-tls/1";

/// The protocols that the gateway offers to clients and to upstreams, the preferred one first.
pub fn protocols() -> Vec<Vec<u8>> {
    vec![H2.to_vec(), HTTP_1_1.to_vec()]
}

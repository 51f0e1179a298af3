//! Compares `htu` of a proof with the URI of the request, after syntax-based and scheme-based normalization (RFC 3986, sections 6.2.2 and
//! 6.2.3). Query and fragment are not compared (RFC 9449, section 4.3).

use std::fmt::Write;
use std::net::Ipv6Addr;

use authgate_core::outbound::peer::Scheme;

/// The URI of a request, as its client sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestedUri<'r> {
    pub(crate) scheme: Scheme,
    /// A host, with a port if it is not the default one.
    pub(crate) authority: &'r str,
    /// As sent, without the query.
    pub(crate) path: &'r str,
}

impl RequestedUri<'_> {
    /// Whether `htu` is this URI.
    pub(crate) fn is(&self, htu: &str) -> bool {
        let Some((scheme, rest)) = htu.split_once("://") else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case(self.scheme.as_str()) {
            return false;
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let default_port = self.scheme.default_port();
        let (sent, own) = (
            Authority::parse(authority, default_port),
            Authority::parse(self.authority, default_port),
        );
        sent.is_some() && sent == own && normalized_path(path) == normalized_path(self.path)
    }
}

/// A host in lower case, and its port.
#[derive(PartialEq, Eq)]
struct Authority {
    host: String,
    port: u16,
}

impl Authority {
    /// `None`: it is not valid, or has user information.
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(literal) => {
                let (address, rest) = literal.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                let port = match rest {
                    "" => "",
                    rest => rest.strip_prefix(':')?,
                };
                (format!("[{address}]"), port)
            }
            None => {
                let (host, port) = text.split_once(':').unwrap_or((text, ""));
                (host.to_ascii_lowercase(), port)
            }
        };
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let port = match port {
            "" => default_port,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            _ => return None,
        };
        Some(Self { host, port })
    }
}

/// The path with its escapes in one spelling, and without dot segments. An empty path is `/`.
fn normalized_path(path: &str) -> String {
    let decoded = normalized_escapes(path);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded.strip_prefix('/').unwrap_or(&decoded).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        // RFC 3986, section 5.2.4: a dot segment at the end leaves a slash.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Decodes escapes of unreserved characters, writes the others in upper case, and escapes what a path cannot hold.
fn normalized_escapes(path: &str) -> String {
    let mut normalized = String::with_capacity(path.len());
    let mut bytes = path.as_bytes();
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        let escaped = match (byte, rest) {
            (b'%', [high, low, rest @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, rest)),
            _ => None,
        };
        match escaped {
            Some((byte, rest)) => {
                bytes = rest;
                if is_unreserved(byte) {
                    normalized.push(char::from(byte));
                } else {
                    escape(&mut normalized, byte);
                }
            }
            // A `%` that begins no escape stays as it is.
            None if is_unreserved(*byte) || b"%!$&'()*+,;=:@/".contains(byte) => normalized.push(char::from(*byte)),
            None => escape(&mut normalized, *byte),
        }
    }
    normalized
}

fn escape(text: &mut String, byte: u8) {
    write!(text, "%{byte:02X}").expect("a string takes what is written to it");
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: RequestedUri<'static> = RequestedUri {
        scheme: Scheme::Https,
        authority: "api.example",
        path: "/orders/%7euser",
    };

    #[test]
    fn the_uri_is_compared_after_normalization() {
        for (htu, expected) in [
            ("https://api.example/orders/~user", true),
            ("https://api.example/orders/%7Euser", true),
            ("HTTPS://API.Example/orders/~user", true),
            ("https://api.example:443/orders/~user", true),
            ("https://api.example:/orders/~user", true),
            ("https://api.example/orders/~user?page=2", true),
            ("https://api.example/orders/~user#top", true),
            ("https://api.example/./orders/x/../~user", true),
            ("https://api.example/orders/x/%2e%2E/~user", true),
            ("https://api.example/../orders/~user", true),
            ("https://api.example/orders/~user/", false),
            ("https://api.example/orders//~user", false),
            ("https://api.example/Orders/~user", false),
            ("https://api.example/orders%2f~user", false),
            ("https://api.example/orders", false),
            ("https://api.example", false),
            ("http://api.example/orders/~user", false),
            ("http://api.example:443/orders/~user", false),
            ("wss://api.example/orders/~user", false),
            ("https://api.example:8443/orders/~user", false),
            ("https://api.example:x/orders/~user", false),
            ("https://api.example:99999/orders/~user", false),
            ("https://api.example./orders/~user", false),
            ("https://api.example@evil.example/orders/~user", false),
            ("https://user@api.example/orders/~user", false),
            ("https://other.example/orders/~user", false),
            ("https:///orders/~user", false),
            ("//api.example/orders/~user", false),
            ("/orders/~user", false),
            ("", false),
            (" https://api.example/orders/~user", false),
        ] {
            assert_eq!(API.is(htu), expected, "{htu}");
        }
    }

    #[test]
    fn the_requested_uri_is_normalized_too() {
        let check = |scheme, authority, path, htu| {
            RequestedUri {
                scheme,
                authority,
                path,
            }
            .is(htu)
        };
        assert!(check(Scheme::Http, "API.example:80", "/", "http://api.example"));
        assert!(check(Scheme::Http, "api.example:8080", "/", "http://api.example:8080/"));
        assert!(!check(Scheme::Http, "api.example:8080", "/", "http://api.example/"));
        assert!(check(Scheme::Https, "[0:0::1]:443", "/a", "https://[::1]/a"));
        assert!(!check(Scheme::Https, "[::2]", "/a", "https://[::1]/a"));
        assert!(check(Scheme::Https, "a", "/caf%c3%a9", "https://a/café"));
        assert!(check(Scheme::Https, "a", "/a<b>`", "https://a/a%3Cb%3e%60"));
        assert!(check(Scheme::Https, "a", "/100%", "https://a/100%"));
        assert!(!check(Scheme::Https, "a", "/100%", "https://a/100%25"));
        assert!(check(Scheme::Https, "a", "/a%2Fb", "https://a/a%2fb"));
        assert!(check(Scheme::Https, "a", "/a;v=1,2", "https://a/a;v=1,2"));
        assert!(!check(Scheme::Https, "a", "/a%3Bv", "https://a/a;v"));
    }

    /// RFC 3986, section 5.4.
    #[test]
    fn dot_segments_are_removed_as_the_rfc_does() {
        for (path, expected) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/b/c/.", "/b/c/"),
            ("/b/c/..", "/b/"),
            ("/b/c/../..", "/"),
            ("/b/c/../../../g", "/g"),
            ("/./g", "/g"),
            ("/g.", "/g."),
            ("/..g", "/..g"),
            ("//a//..//b", "//a//b"),
            ("", "/"),
        ] {
            assert_eq!(normalized_path(path), expected, "{path}");
        }
    }
}

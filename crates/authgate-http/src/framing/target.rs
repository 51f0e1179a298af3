//! The target of a request (RFC 9112, section 3.2), and how the gateway keeps a target that a [`Uri`] cannot hold.
//!
//! `Uri` accepts no `` ` ``, `<` and `>` in a path, and no `"`, `<` and `>` in a query. No RFC allows these bytes
//! there, but clients send them, servers accept them, and there is only one way to read them. In such a request, the
//! `Uri` has these bytes percent-encoded, and [`RawTarget`] has the target as the client sent it. Code that reads only the
//! `Uri` therefore sees an equivalent target, never a different one.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::Extensions;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};

use super::grammar::{ParseError, is_target, malformed};

/// A path, and a query if there is one, exactly as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTarget {
    /// Invariant: visible ASCII that begins with `/`.
    text: Arc<str>,
    /// The position of the `?` before the query, or the length of `text` if there is no query.
    path_end: usize,
}

impl RawTarget {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn path(&self) -> &str {
        &self.text[..self.path_end]
    }
}

/// The path and the query of the request, exactly as the client sent them.
pub fn path_and_query(head: &Parts) -> &str {
    match head.extensions.get::<RawTarget>() {
        Some(raw) => raw.as_str(),
        None => head.uri.path_and_query().map_or("/", |target| target.as_str()),
    }
}

/// The path of the request, exactly as the client sent it. The route table looks up this path.
pub fn path(head: &Parts) -> &str {
    path_of(&head.uri, &head.extensions)
}

/// As [`path`], of a request with this `Uri` and these extensions.
pub fn path_of<'h>(uri: &'h Uri, extensions: &'h Extensions) -> &'h str {
    match extensions.get::<RawTarget>() {
        Some(raw) => raw.path(),
        None => uri.path(),
    }
}

/// Reads a target: `/path?query`, an absolute URI, an authority or `*`.
pub(super) fn read(bytes: &Bytes, range: Range<usize>) -> Result<(Uri, Option<RawTarget>), ParseError> {
    match parse_uri(bytes.slice(range.clone())) {
        Some(uri) => Ok((uri, None)),
        None => read_raw(&bytes[range]),
    }
}

/// The `Uri` that holds the target unchanged, if one can.
fn parse_uri(target: Bytes) -> Option<Uri> {
    match target.first() {
        Some(b'/') => PathAndQuery::from_maybe_shared(target).map(Uri::from).ok(),
        _ => Uri::from_maybe_shared(target).ok(),
    }
}

/// Reads a target that a `Uri` cannot hold.
fn read_raw(target: &[u8]) -> Result<(Uri, Option<RawTarget>), ParseError> {
    const MALFORMED: ParseError = ParseError::Malformed("its target");
    let text = std::str::from_utf8(target).map_err(|_| MALFORMED)?;
    // The path begins after the authority. The authority must be valid as it is.
    let path_begin = match text.find("://") {
        _ if text.starts_with('/') => 0,
        None => return Err(MALFORMED),
        Some(scheme) => {
            let authority = scheme + "://".len();
            let length = text[authority..].find(['/', '?']).ok_or(MALFORMED)?;
            authority + length
        }
    };
    let (origin, sent) = text.split_at(path_begin);
    let path_end = sent.find('?').unwrap_or(sent.len());
    let mut encoded = String::with_capacity(text.len() + 32);
    encoded.push_str(origin);
    for (at, byte) in sent.bytes().enumerate() {
        match byte {
            b'<' => encoded.push_str("%3C"),
            b'>' => encoded.push_str("%3E"),
            b'`' if at < path_end => encoded.push_str("%60"),
            b'"' if at >= path_end => encoded.push_str("%22"),
            byte if is_target(byte) => encoded.push(char::from(byte)),
            _ => return Err(MALFORMED),
        }
    }
    if encoded.len() >= usize::from(u16::MAX) {
        return Err(ParseError::TargetTooLong);
    }
    let Some(uri) = parse_uri(Bytes::from(encoded)) else {
        return malformed("its target");
    };
    // An empty path is `/` (RFC 9112, section 3.2.1).
    let root = if sent.starts_with('/') { "" } else { "/" };
    let raw = RawTarget {
        text: [root, sent].concat().into(),
        path_end: root.len() + path_end,
    };
    Ok((uri, Some(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &'static str, uri: &str, raw: Option<(&str, &str)>) {
        let bytes = Bytes::from_static(target.as_bytes());
        let (parsed, kept) = read(&bytes, 0..bytes.len()).expect("a target");
        assert_eq!(parsed.to_string(), uri);
        let kept = kept.as_ref().map(|raw| (raw.as_str(), raw.path()));
        assert_eq!(kept, raw, "{target}");
    }

    #[test]
    fn target_that_no_uri_can_hold_is_kept_as_raw_target() {
        check("/a?b=c", "/a?b=c", None);
        check("/a\"{}|^\\?{}|^\\`", "/a\"{}|^\\?{}|^\\`", None);
        check("/a`<b>?c", "/a%60%3Cb%3E?c", Some(("/a`<b>?c", "/a`<b>")));
        check("/a?b=\"<`>\"", "/a?b=%22%3C`%3E%22", Some(("/a?b=\"<`>\"", "/a")));
        check("/?<", "/?%3C", Some(("/?<", "/")));
        check("http://h/`?\"", "http://h/%60?%22", Some(("/`?\"", "/`")));
        check("HTTPS://h:80?<", "https://h:80/?%3C", Some(("/?<", "/")));
    }

    #[test]
    fn other_target_that_no_uri_can_hold_is_refused() {
        for target in [
            "`",
            "<",
            "http://h`/x",
            "http://<h>/x",
            "`://h/x",
            "h<x",
            "http:/<",
            "http://h",
            "/\u{e9}<",
            "/a\u{7f}<",
            "/a#<",
            "/<#",
        ] {
            assert_eq!(
                read_raw(target.as_bytes()).err(),
                Some(ParseError::Malformed("its target")),
                "{target}"
            );
        }
        let long = format!("/{}", "`".repeat(40_000));
        assert_eq!(read_raw(long.as_bytes()).err(), Some(ParseError::TargetTooLong));
    }
}

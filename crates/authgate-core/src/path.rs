//! [`RequestPath`]: all interpretations (readings) of a request path that some server could make.
//!
//! If the gateway reads `/admin;x/..%2fpublic` as one path and the upstream as another, the wrong policy applies. So the gateway looks up
//! the route for each reading, and all must agree. The path is forwarded as it was sent. This file makes the readings; `proxy::routes`
//! compares their routes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use percent_encoding::AsciiSet;

/// Maximum number of readings of one path. Ordinary paths have one; a path with more than this is an attack.
const MAX_READINGS: usize = 64;
/// Maximum size of all readings together, in bytes: making them must not cost more than reading the request.
const MAX_TOTAL_BYTES: usize = 128 * 1024;

/// The path of a request target as it was sent, proven to be well-formed.
#[derive(Debug, Clone, Copy)]
pub struct RequestPath<'r> {
    raw: &'r str,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is malformed.
    #[error("it does not begin with `/`, or holds a control character, `#`, or `%` without two hexadecimal digits")]
    Malformed,
    /// It has more readings than any legitimate path.
    #[error("it has too many possible readings")]
    TooManyReadings,
}

impl<'r> RequestPath<'r> {
    /// Parses the path of a request target (RFC 9112, section 3.2.1), without its query.
    ///
    /// # Errors
    /// A `%` without two hex digits, a control character (also a percent-encoded one), `#`, or no leading `/`.
    pub fn parse(raw: &'r str) -> Result<Self, PathError> {
        let bytes = raw.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::Malformed);
        }
        let mut remaining = bytes;
        while let Some((&byte, after)) = remaining.split_first() {
            remaining = after;
            match byte {
                0..=0x20 | 0x7F | b'#' => return Err(PathError::Malformed),
                b'%' => match hex_pair(after) {
                    None | Some(0..=0x1F | 0x7F) => return Err(PathError::Malformed),
                    Some(_) => remaining = &after[2..],
                },
                _ => {}
            }
        }
        Ok(Self { raw })
    }

    /// The path as it was sent.
    pub fn as_str(self) -> &'r str {
        self.raw
    }

    /// All distinct readings, beginning with the path as sent. Case is kept: folding commutes with all other steps, so a case-insensitive
    /// comparison folds both sides.
    ///
    /// # Errors
    /// The path has more readings than any legitimate path.
    pub fn readings(self) -> Result<Readings<'r>, PathError> {
        let bytes = self.raw.as_bytes();
        if is_plain(bytes) {
            return Ok(Readings {
                raw: bytes,
                others: Vec::new(),
            });
        }
        let mut seen: BTreeSet<(Cow<'_, [u8]>, u8)> = BTreeSet::new();
        let mut queue = vec![(Cow::Borrowed(bytes), 0)];
        queue.extend(encode(bytes).map(|encoded| (Cow::Owned(encoded), 0)));
        let mut total_bytes = 0;
        while let Some(reading) = queue.pop() {
            if seen.contains(&reading) {
                continue;
            }
            let (path, decoded) = &reading;
            total_bytes += path.len();
            if total_bytes > MAX_TOTAL_BYTES || seen.len() == MAX_READINGS {
                return Err(PathError::TooManyReadings);
            }
            for step in [cut_parameters, backslash_as_slash, collapse_slashes, resolve_dots] {
                queue.extend(step(path).map(|next| (Cow::Owned(next), *decoded)));
            }
            if *decoded < 2 {
                queue.extend(decode_once(path).map(|next| (Cow::Owned(next), decoded + 1)));
            }
            seen.insert(reading);
        }
        let mut others: BTreeSet<Vec<u8>> = seen.into_iter().map(|(path, _)| path.into_owned()).collect();
        others.remove(bytes);
        Ok(Readings {
            raw: bytes,
            others: others.into_iter().collect(),
        })
    }
}

/// The readings of one path.
#[derive(Debug)]
pub struct Readings<'r> {
    /// As it was sent.
    pub raw: &'r [u8],
    /// Other readings; usually none.
    pub others: Vec<Vec<u8>>,
}

/// Whether the path has only one reading: no byte that a server treats specially, no empty segment and no dot segment.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        match byte {
            b'%' | b'\\' | b';' | b'`' | b'<' | b'>' => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ => before = byte,
        }
    }
    true
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// `None` if nothing is encoded. A `%` from an earlier decoding that does not begin an encoding is kept.
fn decode_once(path: &[u8]) -> Option<Vec<u8>> {
    match Cow::from(percent_encoding::percent_decode(path)) {
        Cow::Owned(decoded) => Some(decoded),
        Cow::Borrowed(_) => None,
    }
}

/// Percent-encodes bytes that RFC 3986 does not allow in a path, as conforming clients and servers do; the gateway sends them this way over
/// HTTP/2.
fn encode(path: &[u8]) -> Option<Vec<u8>> {
    const NOT_IN_PATH: &AsciiSet = &AsciiSet::EMPTY.add(b'`').add(b'<').add(b'>');
    let is_not_in_path = |byte: &u8| matches!(byte, b'`' | b'<' | b'>');
    let encoded = || percent_encoding::percent_encode(path, NOT_IN_PATH);
    path.iter()
        .any(is_not_in_path)
        .then(|| encoded().to_string().into_bytes())
}

fn backslash_as_slash(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b'\\').then(|| {
        path.iter()
            .map(|&byte| if byte == b'\\' { b'/' } else { byte })
            .collect()
    })
}

/// Path parameters (RFC 3986, section 3.3) removed as servlet containers do: from `;` to the end of the segment.
fn cut_parameters(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b';').then(|| {
        let mut out = Vec::with_capacity(path.len());
        let mut cutting = false;
        for &byte in path {
            cutting = byte != b'/' && (cutting || byte == b';');
            if !cutting {
                out.push(byte);
            }
        }
        out
    })
}

fn collapse_slashes(path: &[u8]) -> Option<Vec<u8>> {
    path.windows(2).any(|pair| pair == b"//").then(|| {
        let mut out: Vec<u8> = Vec::with_capacity(path.len());
        for &byte in path {
            if byte != b'/' || out.last() != Some(&b'/') {
                out.push(byte);
            }
        }
        out
    })
}

/// RFC 3986, section 5.2.4, for absolute paths.
fn resolve_dots(path: &[u8]) -> Option<Vec<u8>> {
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    if !path.split(|byte| *byte == b'/').any(is_dots) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == b".." {
            kept.pop();
        } else if segment != b"." {
            kept.push(segment);
        }
        if is_dots(segment) && segments.peek().is_none() {
            kept.push(b"");
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &[&str]) {
        let readings = RequestPath::parse(path)
            .and_then(RequestPath::readings)
            .expect("a readable path");
        assert_eq!(readings.raw, path.as_bytes());
        let others: Vec<_> = readings
            .others
            .iter()
            .map(|other| String::from_utf8_lossy(other).into_owned())
            .collect();
        for wanted in expected {
            assert!(
                others.iter().any(|other| other == wanted),
                "{path}: {wanted} is not among {others:?}"
            );
        }
        if expected.is_empty() {
            assert!(others.is_empty(), "{path}: {others:?}");
        }
    }

    #[test]
    fn ordinary_paths_have_one_reading() {
        for path in ["/", "/api/orders/17/", "/a.b/c-d_e~f", "/x/y.json", "/caf\u{e9}"] {
            check(path, &[]);
        }
    }

    #[test]
    fn readings_of_all_kinds_of_servers_are_found() {
        check("/a%2Fb", &["/a/b"]);
        check("/a/%2e%2e/b", &["/b", "/a/../b"]);
        check("/a/%252e%252e/b", &["/b"]);
        check("/public/..;/admin", &["/admin"]);
        check("/public/..%3b/admin", &["/admin"]);
        check("/public\\..\\admin", &["/admin"]);
        check("/public/%5c..%5cadmin", &["/public/admin", "/admin"]);
        check("//admin", &["/admin"]);
        check("/a/.", &["/a/"]);
        check("/a/..", &["/"]);
        check("/../../x", &["/x"]);
        check("/a;v=1/b;w", &["/a/b"]);
        check("/a//../b", &["/b", "/a/b"]);
        check("/a`/<b>", &["/a%60/%3Cb%3E"]);
        check("/a%3c/../`", &["/%60", "/`", "/a</../`", "/a%3c/../%60"]);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [
            "", "*", "a", "/%", "/%2", "/%zz", "/a#b", "/a\u{7f}", "/a b", "/%00", "/%0a", "/%7F",
        ] {
            assert!(RequestPath::parse(path).is_err(), "{path:?}");
        }
        assert!(RequestPath::parse("/100%25").and_then(RequestPath::readings).is_ok());
    }

    #[test]
    fn number_of_readings_is_limited() {
        let long = format!("/{}", "%252e;/".repeat(16 * 1024));
        let complex = format!("/{}", "%2525252f;a/..//\\%252e%252e/".repeat(40));
        let readings = |path: &str| {
            RequestPath::parse(path)
                .and_then(RequestPath::readings)
                .map(|readings| readings.others.len())
        };
        assert_eq!(readings(&long), Err(PathError::TooManyReadings));
        assert!(readings(&complex).is_ok_and(|others| others <= 2 * MAX_READINGS));
    }
}

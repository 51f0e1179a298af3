//! Keeps the case in which field names were written. HTTP/1 ignores case, but some peers do not, and a proxy has no
//! reason to change it.
//!
//! A `HeaderMap` has names in lower case. Its values are slices of the head that contained them, so the address of a
//! value leads to its name. No memory is used per field, and most lines are copied whole.
//!
//! Invariant: the written name differs from the field's name in case only, and the written value is the field's own
//! value.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// The original head of a message, which has the names as they were written. It is empty if names arrived in lower
/// case, over HTTP/2.
#[derive(Debug, Default)]
pub struct HeaderCase(Bytes);

/// How the head contains a field.
enum OriginalField<'h> {
    /// As a line with one space before the value and none after it: the start and the end of the line.
    Line(usize, usize),
    /// With other spaces around the value: the name as written.
    Name(&'h [u8]),
    /// Not in the head: the value has another address, or belongs to another name.
    Absent,
}

impl HeaderCase {
    /// The header case of a message with this head.
    pub fn from_head(head: Bytes) -> Self {
        Self(head)
    }

    /// Writes fields. A name that is not in the head is written as `configured` has it, or else in lower case.
    #[inline]
    pub fn write<'m>(
        &self,
        out: &mut Vec<u8>,
        fields: impl Iterator<Item = (&'m HeaderName, &'m HeaderValue)>,
        configured: Option<&ConfiguredNames>,
    ) {
        // The range of adjacent lines that are waiting to be copied together.
        let (mut start, mut end) = (0, 0);
        for (name, value) in fields {
            let name = name.as_str();
            let original = self.find(name.as_bytes(), value.as_bytes());
            if let OriginalField::Line(line_start, line_end) = original {
                if line_start != end {
                    self.copy_lines(out, start, end);
                    start = line_start;
                }
                end = line_end;
                continue;
            }
            self.copy_lines(out, start, end);
            (start, end) = (0, 0);
            if let OriginalField::Name(name) = original {
                write_field(out, name, value);
            } else if let Some(prefix) = configured.and_then(|names| names.find(name)) {
                out.extend_from_slice(prefix.as_bytes());
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b"\r\n");
            } else {
                write_field(out, name.as_bytes(), value);
            }
        }
        self.copy_lines(out, start, end);
    }

    #[inline(always)]
    fn copy_lines(&self, out: &mut Vec<u8>, start: usize, end: usize) {
        if start < end
            && let Some(lines) = self.0.get(start..end)
        {
            out.extend_from_slice(lines);
        }
    }

    /// Finds a field in the head by the address of its value. The value itself needs no comparison: only the bytes
    /// around it are compared.
    #[inline(always)]
    fn find(&self, name: &[u8], value: &[u8]) -> OriginalField<'_> {
        let value_start = value.as_ptr().addr().wrapping_sub(self.0.as_ptr().addr());
        if value_start > self.0.len() {
            return OriginalField::Absent;
        }
        let (start, end) = (value_start.wrapping_sub(name.len() + 2), value_start + value.len() + 2);
        if let Some(line) = self.0.get(start..end)
            && let Some((written, remaining)) = line.split_at_checked(name.len())
            && remaining.starts_with(b": ")
            && remaining.ends_with(b"\r\n")
        {
            return match is_same_name(written, name) {
                true => OriginalField::Line(start, end),
                false => OriginalField::Absent,
            };
        }
        self.find_name(name, value_start)
    }

    /// Finds the name before a value that has other spaces around it.
    #[cold]
    fn find_name(&self, name: &[u8], value_start: usize) -> OriginalField<'_> {
        let before = self.0.get(..value_start).unwrap_or_default();
        let before_colon = before.trim_ascii_end().strip_suffix(b":").unwrap_or_default();
        let start = before_colon.len().checked_sub(name.len());
        match start.and_then(|start| before_colon.get(start..)) {
            Some(written) if written.eq_ignore_ascii_case(name) => OriginalField::Name(written),
            _ => OriginalField::Absent,
        }
    }
}

/// Writes a field with the name as given.
#[inline(never)]
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &HeaderValue) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether `written` equals `lower`, which is in lower case and of the same length. Names of 4 to 16 bytes are compared
/// as two words that may overlap.
#[inline(always)]
fn is_same_name(written: &[u8], lower: &[u8]) -> bool {
    if let (Some(first), Some(lower_first), Some(last), Some(lower_last)) = (
        written.first_chunk(),
        lower.first_chunk(),
        written.last_chunk(),
        lower.last_chunk(),
    ) {
        if lower.len() <= 16 {
            return is_same_word(u64::from_le_bytes(*first), u64::from_le_bytes(*lower_first))
                && is_same_word(u64::from_le_bytes(*last), u64::from_le_bytes(*lower_last));
        }
    } else if let (Some(first), Some(lower_first), Some(last), Some(lower_last)) = (
        written.first_chunk(),
        lower.first_chunk(),
        written.last_chunk(),
        lower.last_chunk(),
    ) {
        // Join the two words: one comparison is enough.
        let pair = |first: &[u8; 4], last: &[u8; 4]| {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        };
        return is_same_word(pair(first, last), pair(lower_first, lower_last));
    }
    written.eq_ignore_ascii_case(lower)
}

/// Whether eight bytes equal `lower`, which is in lower case. The sums set the highest bit of bytes that are at least
/// `A`, or above `Z`.
#[inline(always)]
fn is_same_word(word: u64, lower: u64) -> bool {
    const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;
    if word == lower {
        return true;
    }
    let low_bits = word & (EVERY_BYTE * 0x7f);
    let at_least_a = low_bits + EVERY_BYTE * (0x80 - b'A' as u64);
    let above_z = low_bits + EVERY_BYTE * (0x7f - b'Z' as u64);
    let uppercase = (at_least_a ^ above_z) & !word & (EVERY_BYTE * 0x80);
    word | (uppercase >> 2) == lower
}

/// The case of the names that the gateway itself adds, as the configuration file writes them.
#[derive(Debug, Default)]
pub struct ConfiguredNames {
    names: Vec<ConfiguredName>,
    /// The lengths of the names modulo 64, one bit for each. This check excludes most other fields without a search.
    lengths: u64,
}

#[derive(Debug)]
struct ConfiguredName {
    lower: Box<str>,
    /// As the file writes it, with a colon and a space.
    prefix: Box<str>,
}

impl ConfiguredNames {
    /// Names as the file writes them. If the file writes a name in several ways, the first one is used.
    pub fn new<'n>(written: impl IntoIterator<Item = &'n str>) -> Self {
        let (mut names, mut lengths): (Vec<ConfiguredName>, u64) = (Vec::new(), 0);
        for name in written.into_iter().chain(["X-User-Id", "X-User-Name"]) {
            let lower: Box<str> = name.to_ascii_lowercase().into();
            if names.iter().all(|name| name.lower != lower) {
                lengths |= length_bit(&lower);
                let prefix = format!("{name}: ").into();
                names.push(ConfiguredName { lower, prefix });
            }
        }
        Self { names, lengths }
    }

    #[inline]
    fn find(&self, lower: &str) -> Option<&str> {
        match self.lengths & length_bit(lower) {
            0 => None,
            _ => self.search(lower),
        }
    }

    fn search(&self, lower: &str) -> Option<&str> {
        let found = self.names.iter().find(|name| *name.lower == *lower);
        found.map(|name| &*name.prefix)
    }
}

fn length_bit(name: &str) -> u64 {
    1 << (name.len() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(header_case: &HeaderCase, configured: &ConfiguredNames, name: &str, value: &HeaderValue) -> String {
        let mut out = Vec::new();
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        header_case.write(&mut out, std::iter::once((&name, value)), Some(configured));
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn field_name_is_written_in_its_original_case() {
        let head = Bytes::from_static(
            b"GET / HTTP/1.1\r\nHost: h\r\nX-A:1\r\nX-LONGER-than-sixteen-Bytes: 2 \r\nx-EMPTY:\r\nUser-Agent: canary\r\n\r\n",
        );
        let header_case = HeaderCase::from_head(head.clone());
        let value = |text: &str| {
            let at = String::from_utf8_lossy(&head).find(text).expect("it is there") + text.len() - 1;
            HeaderValue::from_maybe_shared(head.slice(at..=at)).expect("a value")
        };
        for (name, value, line) in [
            ("host", value(": h"), "Host: h\r\n"),
            ("x-a", value("X-A:1"), "X-A: 1\r\n"),
            (
                "x-longer-than-sixteen-bytes",
                value(": 2"),
                "X-LONGER-than-sixteen-Bytes: 2\r\n",
            ),
            // The value belongs to another name, or is not in the head.
            ("x-b", value("X-A:1"), "x-b: 1\r\n"),
            (
                "x-longer-than-sixteen-bytez",
                value(": 2"),
                "x-longer-than-sixteen-bytez: 2\r\n",
            ),
            (
                "x-a-very-long-name-that-reaches-over-the-beginning-of-it",
                value(": h"),
                "x-a-very-long-name-that-reaches-over-the-beginning-of-it: h\r\n",
            ),
            ("host", HeaderValue::from_static("h"), "host: h\r\n"),
            ("host", HeaderValue::from_static(""), "host: \r\n"),
        ] {
            assert_eq!(written(&header_case, &ConfiguredNames::default(), name, &value), line);
        }
        let elsewhere = written(
            &HeaderCase::default(),
            &ConfiguredNames::default(),
            "host",
            &value(": h"),
        );
        assert_eq!(elsewhere, "host: h\r\n");
    }

    #[test]
    fn adjacent_lines_are_copied_together() {
        let head = Bytes::from_static(b"GET / HTTP/1.1\r\nA-One: 1\r\nB-Two: 2\r\nC-Three: 3\r\nD-Four: 4\r\n\r\n");
        let field = |name: &'static str, digit: &str| {
            let at = String::from_utf8_lossy(&head)
                .find(&format!(": {digit}"))
                .expect("it is there")
                + 2;
            let value = HeaderValue::from_maybe_shared(head.slice(at..=at)).expect("a value");
            (HeaderName::from_static(name), value)
        };
        let (one, two, three, four) = (
            field("a-one", "1"),
            field("b-two", "2"),
            field("c-three", "3"),
            field("d-four", "4"),
        );
        let own = (HeaderName::from_static("x-own"), HeaderValue::from_static("0"));
        let copied = (HeaderName::from_static("x-copy"), three.1.clone());
        for (fields, wanted) in [
            (vec![&one, &two, &four], "A-One: 1\r\nB-Two: 2\r\nD-Four: 4\r\n"),
            (
                vec![&own, &one, &copied, &two],
                "x-own: 0\r\nA-One: 1\r\nx-copy: 3\r\nB-Two: 2\r\n",
            ),
            (
                vec![&four, &three, &four, &own],
                "D-Four: 4\r\nC-Three: 3\r\nD-Four: 4\r\nx-own: 0\r\n",
            ),
            (vec![], ""),
        ] {
            let mut out = Vec::new();
            let fields = fields.into_iter().map(|(name, value)| (name, value));
            HeaderCase::from_head(head.clone()).write(&mut out, fields, None);
            assert_eq!(String::from_utf8_lossy(&out), wanted);
        }
    }

    #[test]
    fn added_field_names_have_the_configured_case() {
        let configured = ConfiguredNames::new(["x-USER-id", "X-Tenant-ID", "x-tenant-id"]);
        let header_case = HeaderCase::default();
        for (name, line) in [
            ("x-tenant-id", "X-Tenant-ID: 1\r\n"),
            ("x-user-id", "x-USER-id: 1\r\n"),
            ("x-user-name", "X-User-Name: 1\r\n"),
            ("traceparent", "traceparent: 1\r\n"),
            ("x-other", "x-other: 1\r\n"),
        ] {
            assert_eq!(
                written(&header_case, &configured, name, &HeaderValue::from_static("1")),
                line
            );
        }
    }

    #[test]
    fn names_are_the_same_only_if_they_differ_in_case_alone() {
        for (one, other, same) in [
            (&b"Accept"[..], &b"accept"[..], true),
            (b"Authorization", b"authorization", true),
            (b"Authorizatioo", b"authorization", false),
            (b"Buthorization", b"authorization", false),
            (b"X-Forwarded-Proto", b"x-forwarded-proto", true),
            (b"X-Forwarded_Proto", b"x-forwarded-proto", false),
            (b"AZaz09!#$%&'*+-.", b"azaz09!#$%&'*+-.", true),
            (b"[A@Z^_`|~\x80\xc1", b"{a@z^_`|~\x80\xc1", false),
            (b"@Z^_`|~\x80\xc1\xe1", b"@z^_`|~\x80\xc1\xe1", true),
            (b"TE", b"te", true),
            (b"TD", b"te", false),
        ] {
            assert_eq!(is_same_name(one, other), same, "{}", one.escape_ascii());
        }
    }
}

//! Escapes untrusted text for terminals and logs: only printable characters are written unchanged.
//!
//! Other characters are escaped as in JSON (`\u009b`): control characters, which control a terminal, and characters that reorder or hide
//! text. The form is the same in text and in JSON, where such characters occur in strings only. So the writer escapes whole lines, and
//! callers need not do it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// An untrusted text. Its `Display` writes printable characters only, on one line.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'t>(pub &'t str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(self.0, |_| false))
    }
}

/// The text with everything escaped that is neither printable nor kept.
pub fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_kept = |c: char| is_printable(c) || keep(c);
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_kept(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String never fails.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
}

/// Whether `Debug` of a string prints a character unchanged: no control or format characters, no private or unassigned code points.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // `Debug` escapes a combining mark only at the start of a text, so put a letter before the character.
    let mut text = [b'a', 0, 0, 0, 0];
    let length = c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..=length]).is_ok_and(|text| text.escape_debug().nth(2).is_none())
}

/// The message of a serde error, without the value that it found: `invalid type: string "…", expected u64` would quote it.
pub fn without_values(message: &str) -> Cow<'_, str> {
    for begin in ["invalid type: ", "invalid value: ", "unknown variant "] {
        let parts = message
            .strip_prefix(begin)
            .and_then(|details| details.rsplit_once(", expected "));
        if let Some((found, expected)) = parts {
            let kind = found.split(['"', '`']).next().unwrap_or_default();
            return Cow::Owned(format!("{}, expected {expected}", [begin, kind].concat().trim_end()));
        }
    }
    Cow::Borrowed(message)
}

/// Writes text or JSON to a terminal, a pipe or a file. Newlines and tabs are kept. Each write must hold whole characters, as with
/// `write!`.
#[derive(Debug)]
pub struct PrintableWriter<W>(pub W);

impl<W: Write> Write for PrintableWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0
            .write_all(escape(&text, |c| matches!(c, '\n' | '\t')).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes a log: each write is one line with its newline. Other newlines in it are escaped, so that untrusted text cannot forge a line.
#[derive(Debug)]
pub struct LogWriter<W> {
    /// The destination of lines.
    pub out: W,
    /// Whether the log itself writes colours.
    pub colours: bool,
}

impl<W: Write> Write for LogWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = String::with_capacity(line.len() + 1);
        let mut remaining = line;
        while self.colours
            && let Some((before, colour, after)) = split_at_colour(remaining)
        {
            escaped += &escape(before, |_| false);
            escaped += colour;
            remaining = after;
        }
        escaped += &escape(remaining, |_| false);
        escaped.push('\n');
        self.out.write_all(escaped.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The text before the first colour sequence (`ESC [ digits ; … m`), that sequence, and what follows it.
fn split_at_colour(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("\u{1b}[").find_map(|(at, begin)| {
        let parameters = &text[at + begin.len()..];
        let length = parameters
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b';')
            .count();
        let end = at + begin.len() + length + 1;
        parameters[length..]
            .starts_with('m')
            .then(|| (&text[..at], &text[at..end], &text[end..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_bidirectional_marks_are_escaped() {
        for (text, expected) in [
            ("ada", "ada"),
            (
                "zo\u{eb} 日本語 e\u{301} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} 😀",
                "zo\u{eb} 日本語 e\u{301} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} 😀",
            ),
            ("a\u{9b}2Jb", "a\\u009b2Jb"),
            (
                "\u{1b}[31m\u{7f}\0\r\n\t",
                "\\u001b[31m\\u007f\\u0000\\u000d\\u000a\\u0009",
            ),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u202eb\\u2066c\\u200f"),
            ("\u{feff}\u{2028}\u{ad}\u{61c}", "\\ufeff\\u2028\\u00ad\\u061c"),
            ("\u{e0041}", "\\udb40\\udc41"),
            ("\\ \" '", "\\ \" '"),
        ] {
            assert_eq!(Printable(text).to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let text = serde_json::json!({ "a\u{9b}": "\u{202e}\u{7f}\u{e0041}\n" }).to_string();
        let escaped = escape(&text, |_| false);
        assert_ne!(escaped, text);
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(read(&escaped), read(&text));
    }

    #[test]
    fn log_writer_keeps_one_line_and_its_own_colours() {
        let written = |colours, text: &str| {
            let mut out = Vec::new();
            LogWriter { out: &mut out, colours }
                .write_all(text.as_bytes())
                .expect("memory");
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(written(false, "a\u{1b}[2mb\nc\n"), "a\\u001b[2mb\\u000ac\n");
        assert_eq!(
            written(true, "\u{1b}[2ma\u{1b}[0m \u{1b}[2J\u{9b}1m\u{1b}[1;31mb\n"),
            "\u{1b}[2ma\u{1b}[0m \\u001b[2J\\u009b1m\u{1b}[1;31mb\n"
        );
    }

    #[test]
    fn serde_error_does_not_quote_the_value() {
        for (message, expected) in [
            (
                r#"invalid type: string "canary, expected x", expected u64 at line 1 column 3"#,
                "invalid type: string, expected u64 at line 1 column 3",
            ),
            (
                "invalid value: integer `5`, expected a name",
                "invalid value: integer, expected a name",
            ),
            (
                "unknown variant `canary`, expected `a` or `b`",
                "unknown variant, expected `a` or `b`",
            ),
            (
                "invalid type: null, expected a map",
                "invalid type: null, expected a map",
            ),
            (
                "missing field `id` at line 1 column 2",
                "missing field `id` at line 1 column 2",
            ),
        ] {
            assert_eq!(without_values(message), expected);
        }
    }
}

//! Which bytes may stand where (RFC 9110, RFC 9112, RFC 3986), and what is said of a message that has others.

/// Why a message is not let through. The text of the first is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It can be read in more than one way.
    Malformed(&'static str),
    /// Its target is longer than it may be.
    TargetTooLong,
    /// Its fields are more or longer than they may be.
    HeadTooLarge,
}

pub(crate) fn malformed<T>(what: &'static str) -> Result<T, Fault> {
    Err(Fault::Malformed(what))
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110, section 5.5: blanks, what is visible, and what is beyond ASCII.
pub(crate) fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Visible ASCII but `#`, which begins a fragment, and `<` and `>`, which no URI has. The rest of what RFC 3986 does not allow is sent
/// by too many clients. `#` and what is not ASCII would be read in more than one way.
pub(crate) fn is_target(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'<' | b'>')
}

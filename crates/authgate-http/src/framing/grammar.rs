//! Which bytes are allowed where (RFC 9110, RFC 9112, RFC 3986), and the errors of messages that break these rules.

/// Why a message is refused. The text of `Malformed` is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// The message can be read in more than one way.
    Malformed(&'static str),
    /// The target is longer than the limit.
    TargetTooLong,
    /// The head has too many fields or too many bytes.
    HeadTooLarge,
}

pub fn malformed<T>(what: &'static str) -> Result<T, ParseError> {
    Err(ParseError::Malformed(what))
}

/// RFC 9110, section 5.6.2.
pub fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let (mut table, symbols) = ([false; 256], b"!#$%&'*+-.^_`|~");
        let mut at = 0;
        while at < 128 {
            table[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        at = 0;
        while at < symbols.len() {
            table[symbols[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// Whether a byte is allowed in a method: a token character that is no lowercase letter. Methods are case-sensitive
/// (RFC 9110, section 9.1), but some servers convert them to upper case. Such a server reads `post` as `POST`, but the
/// rules of a route do not.
pub fn is_method(byte: u8) -> bool {
    is_token(byte) && !byte.is_ascii_lowercase()
}

/// The number of bytes at the start of `bytes` for which `allowed` is true.
pub fn prefix_length(bytes: &[u8], allowed: impl Fn(u8) -> bool) -> usize {
    // Check 32 bytes at a time, without an early exit inside a block: the compiler can then use vector instructions.
    const BLOCK: usize = 32;
    let all = |block: &&[u8]| block.iter().fold(true, |all, byte| all & allowed(*byte));
    let whole = bytes.chunks_exact(BLOCK).take_while(all).count() * BLOCK;
    let remaining = &bytes[whole..];
    whole
        + remaining
            .iter()
            .position(|byte| !allowed(*byte))
            .unwrap_or(remaining.len())
}

/// RFC 9110, section 5.5: spaces, tabs, visible ASCII, and bytes above 0x7F.
pub fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Visible ASCII except `#`. Clients send bytes that RFC 3986 does not allow, and servers accept them. Only `#`, which
/// begins a fragment, and bytes above 0x7F can be read in more than one way.
pub fn is_target(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'#'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_at_first_byte_that_is_not_allowed() {
        for length in [0, 1, 31, 32, 33, 63, 64, 65, 200] {
            let mut bytes = vec![b'a'; length];
            assert_eq!(prefix_length(&bytes, is_value), length);
            for at in 0..length {
                bytes[at] = b'\r';
                assert_eq!(prefix_length(&bytes, is_value), at);
                bytes[at] = b'a';
            }
        }
    }

    #[test]
    fn token_bytes_are_those_of_rfc_9110() {
        let tokens = (0..=255).filter(|byte| is_token(*byte)).count();
        assert_eq!(tokens, 26 + 26 + 10 + 15);
        assert!(b"azAZ09!#$%&'*+-.^_`|~".iter().all(|byte| is_token(*byte)));
    }
}

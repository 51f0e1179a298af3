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
    const TOKEN: [bool; 256] = {
        let (mut table, others) = ([false; 256], b"!#$%&'*+-.^_`|~");
        let mut at = 0;
        while at < 128 {
            table[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        at = 0;
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// A byte of a method: one of a token, but no lowercase letter. Methods are case-sensitive (RFC 9110, section 9.1), but some servers
/// convert them to upper case: `post` is `POST` there, and would be `post` for the rules of a route.
pub(crate) fn is_method(byte: u8) -> bool {
    is_token(byte) && !byte.is_ascii_lowercase()
}

/// How many bytes at the start of `bytes` are all such.
pub(crate) fn run(bytes: &[u8], such: impl Fn(u8) -> bool) -> usize {
    // Many at once, and no way out in the middle of them: that is a few instructions.
    const AT_ONCE: usize = 32;
    let all = |chunk: &&[u8]| chunk.iter().fold(true, |all, byte| all & such(*byte));
    let whole = bytes.chunks_exact(AT_ONCE).take_while(all).count() * AT_ONCE;
    let rest = &bytes[whole..];
    whole + rest.iter().position(|byte| !such(*byte)).unwrap_or(rest.len())
}

/// RFC 9110, section 5.5: blanks, what is visible, and what is beyond ASCII.
pub(crate) fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Visible ASCII but `#`. Clients send bytes that RFC 3986 does not allow, and servers take them; only `#`, which begins a fragment, and
/// bytes beyond ASCII are read in more than one way.
pub(crate) fn is_target(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'#'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_it_ends() {
        for length in [0, 1, 31, 32, 33, 63, 64, 65, 200] {
            let mut bytes = vec![b'a'; length];
            assert_eq!(run(&bytes, is_value), length);
            for at in 0..length {
                bytes[at] = b'\r';
                assert_eq!(run(&bytes, is_value), at);
                bytes[at] = b'a';
            }
        }
    }

    #[test]
    fn tokens_are_letters_digits_and_a_few_more() {
        let tokens = (0..=255).filter(|byte| is_token(*byte)).count();
        assert_eq!(tokens, 26 + 26 + 10 + 15);
        assert!(b"azAZ09!#$%&'*+-.^_`|~".iter().all(|byte| is_token(*byte)));
    }
}

//! Where each HTTP/1 message of a connection begins and ends, and whether all of it can be read in one way only (RFC 9112).
//!
//! The bytes go on as they are; nothing is decoded and nothing is kept of them but what framing needs. What this refuses, the
//! parser behind it never sees, so it may be as lax as it likes: a bare LF, blanks around a chunk's size, two lengths that agree.

use super::head::{Body, Bounds, Head};
use crate::framing::chunked::Chunked;
use crate::framing::grammar::{Fault, malformed};

/// Reads along with a connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    bounds: Bounds,
    state: State,
}

#[derive(Debug)]
enum State {
    Between(Lead),
    Head(Head),
    /// So much of a body of known length is left.
    Length(u64),
    Chunked(Chunked),
}

/// What has come before a message. One empty line is forgiven (RFC 9112, section 2.2), and no more: the parser behind would gather
/// them without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    Nothing,
    Cr,
    EmptyLine,
}

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// All may pass.
    All,
    /// So many of them may pass, and then nothing more, ever. `Some` fault is in a head, which nobody has seen whole and nobody
    /// else can answer; without one it is in a body, whose reader finds it cut off.
    UpTo(usize, Option<Fault>),
    /// So many of them may pass: a message has ended there. What the rest is depends on the answer, which may end HTTP.
    Message(usize),
}

impl Scanner {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::Between(Lead::Nothing),
        }
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether a body has begun and not ended.
    pub(crate) fn in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Reads on.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        // Where the head that is being read began, if it began here.
        let mut begun = 0;
        while at < bytes.len() {
            if let State::Between(Lead::Nothing | Lead::EmptyLine) = self.state {
                begun = at;
            }
            match self.step(&bytes[at..]) {
                Ok(taken) => {
                    at += taken;
                    if let State::Between(Lead::Nothing) = self.state {
                        return Scanned::Message(at);
                    }
                }
                Err(_) if self.in_body() => return Scanned::UpTo(at, None),
                Err(fault) => return Scanned::UpTo(begun, Some(fault)),
            }
        }
        Scanned::All
    }

    /// Takes one byte at least, and at once all that need no second look.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let Some(&first) = bytes.first() else { return Ok(0) };
        let (next, taken) = match &mut self.state {
            State::Between(lead) => (
                match (*lead, first) {
                    (Lead::Nothing, b'\r') => State::Between(Lead::Cr),
                    (Lead::Cr, b'\n') => State::Between(Lead::EmptyLine),
                    (Lead::Cr, _) => return malformed("a bare CR before it"),
                    (Lead::Nothing | Lead::EmptyLine, _) => State::Head(Head::begin(self.bounds, first)?),
                },
                1,
            ),
            State::Head(head) => {
                let run = head.run(bytes);
                if run > 0 {
                    return Ok(run);
                }
                match head.byte(first)? {
                    None => return Ok(1),
                    Some(Body::Length(0)) => (State::Between(Lead::Nothing), 1),
                    Some(Body::Length(length)) => (State::Length(length), 1),
                    Some(Body::Chunked) => (State::Chunked(Chunked::BEGIN), 1),
                }
            }
            State::Length(left) => match pass(*left, bytes) {
                (0, taken) => (State::Between(Lead::Nothing), taken),
                (left, taken) => (State::Length(left), taken),
            },
            State::Chunked(Chunked::Data(left)) => match pass(*left, bytes) {
                (0, taken) => (State::Chunked(Chunked::DataCr), taken),
                (left, taken) => (State::Chunked(Chunked::Data(left)), taken),
            },
            State::Chunked(chunked) => match chunked.byte(first)? {
                None => (State::Between(Lead::Nothing), 1),
                Some(next) => (State::Chunked(next), 1),
            },
        };
        self.state = next;
        Ok(taken)
    }
}

/// Data is passed over in one step: what is left of it then, and how much came.
fn pass(left: u64, bytes: &[u8]) -> (u64, usize) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (left - taken as u64, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes: 8 * 1024,
        fields: 10,
    };

    /// The outcome of all messages, as if each were answered, in pieces of that size.
    fn scan_in(bytes: &[u8], size: usize) -> Scanned {
        let (mut scanner, mut at) = (Scanner::new(BOUNDS), 0);
        while at < bytes.len() {
            let piece = &bytes[at..bytes.len().min(at + size)];
            match scanner.scan(piece) {
                Scanned::All => at += piece.len(),
                Scanned::Message(passed) => at += passed,
                Scanned::UpTo(passed, fault) => return Scanned::UpTo(at + passed, fault),
            }
        }
        Scanned::All
    }

    /// The outcome, however the bytes are cut.
    fn scan(bytes: &[u8]) -> Scanned {
        let whole = scan_in(bytes, bytes.len());
        match (whole, scan_in(bytes, 1)) {
            (Scanned::All, Scanned::All) => {}
            (Scanned::UpTo(_, one), Scanned::UpTo(_, other)) if one == other => {}
            different => panic!("{different:?}: {:?}", bytes.escape_ascii().to_string()),
        }
        whole
    }

    #[test]
    fn what_follows_a_message_waits_for_its_answer() {
        let (one, two) = ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab", "\0\x01");
        let text = format!("{one}{two}");
        assert_eq!(Scanner::new(BOUNDS).scan(text.as_bytes()), Scanned::Message(one.len()));
        let chunks = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n";
        let text = format!("{chunks}{two}");
        assert_eq!(
            Scanner::new(BOUNDS).scan(text.as_bytes()),
            Scanned::Message(chunks.len())
        );
    }

    fn good(text: &str) {
        assert_eq!(scan(text.as_bytes()), Scanned::All, "{text:?}");
        // Whole messages are followed by another one, and by nothing else.
        let next = format!("{text}\0");
        let end = Scanned::UpTo(text.len(), Some(Fault::Malformed("it does not begin with a method")));
        assert_eq!(scan(next.as_bytes()), end, "{text:?} has not ended");
    }

    /// A head that is refused, after another message that is good.
    fn bad(head: &str) {
        let before = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
        let text = format!("{before}{head}");
        // One empty line passes.
        let empty = if head.starts_with("\r\n") { 2 } else { 0 };
        assert!(
            matches!(scan(text.as_bytes()), Scanned::UpTo(at, Some(Fault::Malformed(_))) if at == before.len() + empty),
            "{head:?}: {:?}",
            scan(text.as_bytes())
        );
    }

    #[test]
    fn messages_that_can_be_read_in_one_way_pass() {
        for text in [
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\nGET /?a=%20&b[]=^`{} HTTP/1.1\r\nhost:h\r\nX-Empty:\r\nX: a\tb \u{e9}\r\n\r\n",
            "GET /\"{}|^ HTTP/1.0\r\nHost: h\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\nGET /y HTTP/1.1\r\nHost: h\r\n\r\n",
            "M-SEARCH /x HTTP/1.1\r\nHost:\t h \r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: \t5 \r\n\r\nab\n\0cGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked \r\n\r\n3\r\nabc\r\n0a;x=\"y\\\"\";z;a=b\r\n0123456789\r\n000\r\nA: b\r\n\r\n",
        ] {
            good(text);
        }
    }

    #[test]
    fn heads_that_could_be_read_otherwise_are_refused() {
        for line in [
            "\nGET / HTTP/1.1\r\n",
            "\rGET / HTTP/1.1\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "GE(T / HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1 \r\n",
            "GET /  HTTP/1.1\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / HTTP/1.10\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / http/1.1\r\n",
            "GET /\r\n",
            "GET HTTP/1.1\r\n",
            "GET /#x HTTP/1.1\r\n",
            "GET /?#x HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
            "GET /\t HTTP/1.1\r\n",
            "GET /<x> HTTP/1.1\r\n",
            "GET :// HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
        ] {
            bad(&format!("{line}Host: h\r\n\r\n"));
        }
        for fields in [
            "X: a\nb",
            "X: a\rb",
            "X: a\0b",
            "X: a\x7fb",
            "X : a",
            "X\t: a",
            " X: a",
            "X: a\r\n b",
            "X",
            ": a",
            "X\u{e9}: a",
            "Host: i",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 1 1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "content-length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: chun ked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding:",
        ] {
            bad(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
        }
        bad("GET / HTTP/1.1\r\n\r\n");
        bad("GET / HTTP/1.0\r\n\r\n");
        bad("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[test]
    fn a_body_that_breaks_its_framing_is_cut_there() {
        for chunks in [
            "g\r\n",
            "\r\n",
            ";\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "-1\r\n",
            "0x1\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\rx",
            "0000000000000001\r\n",
            "1;a\nb\r\n",
            "1;\r\na\r\n",
            "1; a\r\na\r\n",
            "1;a=\r\na\r\n",
            "1;a=b=c\r\na\r\n",
            "1;a=\"b\r\na\r\n",
            "1;a=\"b\"c\r\na\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\n\rx",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            assert!(matches!(scan(text.as_bytes()), Scanned::UpTo(_, None)), "{chunks:?}");
        }
        let long = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
            "x".repeat(300)
        );
        assert!(matches!(scan(long.as_bytes()), Scanned::UpTo(_, None)));
        let trailers = "A: b\r\n".repeat(2000);
        let long = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
        assert!(matches!(scan(long.as_bytes()), Scanned::UpTo(_, None)));
    }

    #[test]
    fn heads_are_bounded() {
        let with = |target: usize, fields: usize, value: usize| {
            let mut text = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "x".repeat(target));
            for at in 0..fields {
                text += &format!("X-{at}: {}\r\n", "y".repeat(value));
            }
            scan((text + "\r\n").as_bytes())
        };
        assert_eq!(with(8000, 0, 0), Scanned::All);
        assert_eq!(with(8192, 0, 0), Scanned::UpTo(0, Some(Fault::TargetTooLong)));
        assert_eq!(with(1, 9, 1), Scanned::All);
        assert_eq!(with(1, 10, 1), Scanned::UpTo(0, Some(Fault::HeadTooLarge)));
        assert_eq!(with(1, 1, 8190), Scanned::UpTo(0, Some(Fault::HeadTooLarge)));
        assert_eq!(with(8100, 1, 200), Scanned::UpTo(0, Some(Fault::HeadTooLarge)));
    }
}

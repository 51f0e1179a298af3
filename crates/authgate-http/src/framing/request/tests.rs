//! Heads and bodies as bytes: complete, in pieces, and malformed.

use bytes::BytesMut;
use http::Uri;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 8 * 1024,
    fields: 10,
};

/// Where an error was found: after this many bytes of complete messages, and in a head, or (`None`) in a body.
type Found = Option<(usize, Option<ParseError>)>;

/// What the reader finds in all messages, if the bytes arrive in pieces of this size.
fn find_in(bytes: &[u8], size: usize) -> Found {
    let (mut reader, mut body, mut whole) = (HeadReader::new(LIMITS), RemainingBody::Empty, 0);
    let (mut unread, mut received) = (BytesMut::new(), 0);
    for piece in bytes.chunks(size) {
        unread.extend_from_slice(piece);
        received += piece.len();
        while !unread.is_empty() {
            if body != RemainingBody::Empty {
                if body.decode(&mut unread).is_err() {
                    return Some((whole, None));
                }
            } else {
                match reader.read(&unread) {
                    Ok(None) => break,
                    Ok(Some(end)) => match reader.take(&unread.split_to(end).freeze()) {
                        Ok(head) => body = head.body,
                        Err(error) => return Some((whole, Some(error))),
                    },
                    Err(error) => return Some((whole, Some(error))),
                }
            }
            if body == RemainingBody::Empty {
                whole = received - unread.len();
            }
        }
    }
    None
}

/// What the reader finds; it must be the same for every piece size.
fn find(bytes: &[u8]) -> Found {
    let whole = find_in(bytes, bytes.len());
    for size in [1, 3] {
        assert_eq!(find_in(bytes, size), whole, "{:?}", bytes.escape_ascii().to_string());
    }
    whole
}

fn assert_accepted(text: &str) {
    assert_eq!(find(text.as_bytes()), None, "{text:?}");
    // Another complete message follows, and nothing else.
    let next = format!("{text}\0");
    let end = Some((
        text.len(),
        Some(ParseError::Malformed("it does not begin with a method")),
    ));
    assert_eq!(find(next.as_bytes()), end, "{text:?} has not ended");
}

/// Checks that a head is refused after a valid message.
fn assert_refused(head: &str) {
    let before = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let text = format!("{before}{head}");
    let found = find(text.as_bytes());
    assert!(
        matches!(found, Some((at, Some(ParseError::Malformed(_)))) if at == before.len()),
        "{head:?}: {found:?}"
    );
}

#[test]
fn unambiguous_messages_are_accepted() {
    for text in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\nGET /?a=%20&b[]=^`{} HTTP/1.1\r\nhost:h\r\nX-Empty:\r\nX: a\tb \u{e9}\r\n\r\n",
        "GET /\"{}|^ HTTP/1.0\r\nHost: h\r\n\r\n",
        "GET /`<x>?\"<y>\" HTTP/1.1\r\nHost: h\r\n\r\nGET http://h?<\" HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\nGET /y HTTP/1.1\r\nHost: h\r\n\r\n",
        "M-SEARCH /x HTTP/1.1\r\nHost:\t h \r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: \t5 \r\n\r\nab\n\0cGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked \r\n\r\n3\r\nabc\r\n0a;x=\"y\\\"\";z;a=b\r\n0123456789\r\n000\r\nA: b\r\n\r\n",
    ] {
        assert_accepted(text);
    }
}

#[test]
fn ambiguous_heads_are_refused() {
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
        "GET /<\u{e9} HTTP/1.1\r\n",
        "GET http://<h>/ HTTP/1.1\r\n",
        "GET :// HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
    ] {
        assert_refused(&format!("{line}Host: h\r\n\r\n"));
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
        "Content-Length: 9223372036854775808",
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
        assert_refused(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
    }
    assert_refused("GET / HTTP/1.1\r\n\r\n");
    assert_refused("GET / HTTP/1.0\r\n\r\n");
    assert_refused("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn body_with_invalid_framing_is_refused() {
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
        assert!(matches!(find(text.as_bytes()), Some((_, None))), "{chunks:?}");
    }
    let long = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
        "x".repeat(300)
    );
    assert!(matches!(find(long.as_bytes()), Some((_, None))));
    let trailers = "A: b\r\n".repeat(2000);
    let long = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
    assert!(matches!(find(long.as_bytes()), Some((_, None))));
}

#[test]
fn head_yields_request_body_and_connection_options() {
    let read = |text: &str| {
        let mut reader = HeadReader::new(LIMITS);
        assert_eq!(reader.read(text.as_bytes()), Ok(Some(text.len())));
        let head = reader.take(&Bytes::copy_from_slice(text.as_bytes()));
        assert!(!reader.has_started());
        head.expect("a head")
    };
    let head = read(
        "\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nX-A:  1 \t\r\nx-a:\r\nExpect: 100-Continue\r\nContent-Length: 7\r\n\r\n",
    );
    let request = &head.request;
    assert_eq!(
        (request.method(), request.uri()),
        (&Method::POST, &Uri::from_static("/a?b"))
    );
    assert_eq!(request.version(), Version::HTTP_11);
    let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["1", ""]);
    assert_eq!(
        (head.body, head.keeps_alive, head.expects_continue),
        (RemainingBody::Length(7), true, true)
    );
    let keeps_alive = |first: &str, line: &str| read(&format!("GET / {first}\r\nHost: h\r\n{line}\r\n")).keeps_alive;
    assert!(keeps_alive("HTTP/1.1", "") && !keeps_alive("HTTP/1.0", ""));
    assert!(!keeps_alive("HTTP/1.1", "Connection: x, Close\r\n"));
    assert!(keeps_alive("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    assert!(!keeps_alive(
        "HTTP/1.1",
        "Connection: keep-alive\r\nConnection: close\r\n"
    ));
}

#[test]
fn heads_beyond_a_limit_are_refused() {
    let with = |target: usize, fields: usize, value: usize| {
        let mut text = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "x".repeat(target));
        for at in 0..fields {
            text += &format!("X-{at}: {}\r\n", "y".repeat(value));
        }
        find((text + "\r\n").as_bytes())
    };
    assert_eq!(with(8000, 0, 0), None);
    assert_eq!(with(8192, 0, 0), Some((0, Some(ParseError::TargetTooLong))));
    assert_eq!(with(1, 9, 1), None);
    assert_eq!(with(1, 10, 1), Some((0, Some(ParseError::HeadTooLarge))));
    assert_eq!(with(1, 1, 8190), Some((0, Some(ParseError::HeadTooLarge))));
    assert_eq!(with(8100, 1, 200), Some((0, Some(ParseError::HeadTooLarge))));
}

//! HTTP/1 messages: requests of clients and responses of servers.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::Empty;
use hyper::client::conn::http1 as hyper_http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::framing::body::RemainingBody;
use crate::framing::grammar::ParseError;
use crate::framing::header_case::{ConfiguredNames, HeaderCase};
use crate::framing::request::{HeadLimits, HeadReader};
use crate::upstream::ClientSide;
use crate::upstream::body::RequestBody;
use crate::upstream::http1::{Connection, ResponseOrUpgrade};

/// Requests over HTTP/1. The result is the same however the bytes are split, and no byte after an error is read. For
/// each accepted head, httparse gives the same result.
pub fn framing(bytes: &[u8]) {
    let whole = requests(bytes, bytes.len().max(1));
    for cut in [1, 2, 7] {
        assert_eq!(requests(bytes, cut), whole, "cut into pieces of {cut}");
    }
}

/// The requests that were read from the bytes of a client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Requests {
    heads: Vec<(Method, Uri, HeaderMap)>,
    bodies: Vec<Vec<u8>>,
    /// The error that ended the reading. `Some(None)` is an error in a body, which has no reported reason.
    error: Option<Option<ParseError>>,
}

fn requests(bytes: &[u8], cut: usize) -> Requests {
    let (mut reader, mut body) = (
        HeadReader::new(HeadLimits { bytes: 1024, fields: 8 }),
        RemainingBody::Empty,
    );
    let (mut read, mut unread) = (Requests::default(), BytesMut::new());
    for piece in bytes.chunks(cut) {
        unread.extend_from_slice(piece);
        while !unread.is_empty() {
            if body != RemainingBody::Empty {
                match body.decode(&mut unread) {
                    Ok(Some(data)) => read.bodies.last_mut().expect("a body").extend_from_slice(&data),
                    Ok(None) => {}
                    Err(_) => {
                        read.error = Some(None);
                        return read;
                    }
                }
                continue;
            }
            let taken = reader.read(&unread).and_then(|end| {
                let head = end.map(|end| unread.split_to(end).freeze());
                head.map(|head| Ok((reader.take(&head)?, head))).transpose()
            });
            match taken {
                Ok(None) => break,
                Ok(Some((head, bytes))) => {
                    assert_httparse_agrees(&head.request, &bytes);
                    body = head.body;
                    let (head, ()) = head.request.into_parts();
                    read.heads.push((head.method, head.uri, head.headers));
                    read.bodies.push(Vec::new());
                }
                Err(error) => {
                    read.error = Some(Some(error));
                    return read;
                }
            }
        }
    }
    read
}

/// Checks that httparse reads the same head.
fn assert_httparse_agrees(head: &Request<()>, bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut expected = httparse::Request::new(&mut fields);
    let length = expected.parse(bytes).expect("httparse reads each accepted head");
    assert_eq!(length, httparse::Status::Complete(bytes.len()));
    assert_eq!(expected.method, Some(head.method().as_str()));
    let minor = if head.version() == Version::HTTP_10 { 0 } else { 1 };
    assert_eq!(expected.version, Some(minor));
    let mut headers = HeaderMap::new();
    for field in &*expected.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(field.value).expect("a value"));
    }
    assert_eq!(&headers, head.headers());
}

/// Responses of a server. The result is the same however the bytes are split. For each response that authgate accepts,
/// hyper, which accepts more, gives the same result. The first byte selects the request.
pub fn response(bytes: &[u8]) {
    let Some((first, answer)) = bytes.split_first() else {
        return;
    };
    let method = if first % 2 == 0 { Method::GET } else { Method::HEAD };
    let whole = own_response(&method, answer, answer.len().max(1));
    for cut in [1, 2, 7] {
        assert_eq!(own_response(&method, answer, cut), whole, "cut into pieces of {cut}");
    }
    let Some(read) = whole else { return };
    let expected = hyper_response(&method, answer).expect("hyper reads each head that we read");
    let same = |name: &HeaderName| read.headers.get_all(name).iter().eq(expected.headers.get_all(name));
    // A length that is repeated with the same value is forwarded once.
    let differ: Vec<_> = expected
        .headers
        .keys()
        .filter(|name| **name != CONTENT_LENGTH && !same(name))
        .collect();
    assert_eq!(
        (read.status, read.headers.keys_len(), differ),
        (expected.status, expected.headers.keys_len(), vec![])
    );
    if read.complete && read.status != StatusCode::SWITCHING_PROTOCOLS {
        assert!(expected.complete, "hyper reads each body that we read as complete");
        assert_eq!(read.body, expected.body);
    }
}

/// A response whose head was read.
#[derive(Debug, PartialEq, Eq)]
struct ReadResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    complete: bool,
}

fn own_response(method: &Method, answer: &[u8], cut: usize) -> Option<ReadResponse> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method.clone();
    let (names, header_case) = (ConfiguredNames::default(), HeaderCase::default());
    let client = ClientSide::without_client(&header_case);
    let exchange = Connection::new(ScriptedServer::new(answer, cut)).exchange(
        &head,
        &names,
        RequestBody::empty(),
        Duration::MAX / 4,
        &client,
    );
    let exchanged = exchange.now_or_never().expect("the server never waits");
    match exchanged.ok()? {
        ResponseOrUpgrade::Upgraded(head, _) => Some(ReadResponse {
            status: head.status(),
            headers: head.headers().clone(),
            body: Vec::new(),
            complete: true,
        }),
        ResponseOrUpgrade::Response(response) => {
            let (head, mut body) = response.into_parts();
            let (read, complete) = read_to_end(&mut body);
            assert!(!complete || body.is_end_stream());
            let reusable = body.into_connection().is_some();
            assert!(complete || !reusable, "a connection is reused after an incomplete body");
            Some(ReadResponse {
                status: head.status,
                headers: head.headers,
                body: read,
                complete,
            })
        }
    }
}

fn hyper_response(method: &Method, answer: &[u8]) -> Option<ReadResponse> {
    let server = TokioIo::new(ScriptedServer::new(answer, answer.len().max(1)));
    let mut builder = hyper_http1::Builder::new();
    let handshake = builder.max_headers(256).handshake(server).now_or_never();
    let (mut sender, connection) = handshake.expect("the server never waits").ok()?;
    let mut connection = pin!(connection);
    let request = Request::builder().method(method).body(Empty::<Bytes>::new());
    let mut sent = pin!(sender.send_request(request.expect("a request")));
    let mut drive = |cx: &mut Context<'_>| {
        let _ = connection.as_mut().poll(cx);
    };
    let mut response: Option<Response<_>> = None;
    for _ in 0..64 {
        let polled = poll_fn(|cx| {
            drive(cx);
            Poll::Ready(sent.as_mut().poll(cx))
        });
        if let Some(Poll::Ready(answer)) = polled.now_or_never() {
            response = Some(answer.ok()?);
            break;
        }
    }
    let (head, mut body) = response?.into_parts();
    let mut read = ReadResponse {
        status: head.status,
        headers: head.headers,
        body: Vec::new(),
        complete: false,
    };
    // Poll the connection and the body in turn, as often as the response can have frames.
    for _ in 0..2 * answer.len() + 64 {
        let frame = poll_fn(|cx| {
            drive(cx);
            Poll::Ready(Pin::new(&mut body).poll_frame(cx))
        });
        match frame.now_or_never() {
            Some(Poll::Ready(Some(Ok(frame)))) => read.body.extend(frame.into_data().unwrap_or_default()),
            Some(Poll::Ready(Some(Err(_)))) => return Some(read),
            Some(Poll::Ready(None)) => {
                read.complete = true;
                return Some(read);
            }
            Some(Poll::Pending) | None => {}
        }
    }
    Some(read)
}

/// The data of a body that never waits, and whether the body has ended.
fn read_to_end<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).now_or_never();
        match frame.expect("the server never waits") {
            Some(Ok(frame)) => data.extend(frame.into_data().unwrap_or_default()),
            Some(Err(_)) => return (data, false),
            None => return (data, true),
        }
    }
}

/// A server that accepts all input, sends these bytes in pieces of size `cut`, and then closes.
struct ScriptedServer {
    bytes: Bytes,
    cut: usize,
    received_request: bool,
}

impl ScriptedServer {
    fn new(bytes: &[u8], cut: usize) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(bytes),
            cut,
            received_request: false,
        }
    }
}

impl AsyncRead for ScriptedServer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.received_request {
            // The caller polls again without a wake-up.
            return Poll::Pending;
        }
        let count = self.cut.min(self.bytes.len()).min(buf.remaining());
        let piece = self.bytes.split_to(count);
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ScriptedServer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.received_request = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason for the own client, besides its speed. If hyper becomes as strict, this fails: see docs/adr/0001-own-http1-reader.md.
    #[test]
    fn hyper_reads_responses_that_have_two_readings_or_no_limit() {
        const OK: &str = "HTTP/1.1 200 OK\r\n";
        let chunks = "2\r\nok\r\n0\r\n\r\n";
        for answer in [
            format!("{OK}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{chunks}"),
            format!("{OK}Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}"),
            format!("{OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("{OK}Transfer-Encoding: gzip\r\n\r\nok"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n2 ;a\r\nok\r\n0\r\n\r\n"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n2;\0\r\nok\r\n0\r\n\r\n"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n0000000000000000002\r\nok\r\n0\r\n\r\n"),
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n".to_owned(),
            format!(
                "{}{OK}Content-Length: 2\r\n\r\nok",
                "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)
            ),
        ] {
            let own = own_response(&Method::GET, answer.as_bytes(), answer.len());
            assert!(own.is_none_or(|read| !read.complete), "{answer}");
            let hyper = hyper_response(&Method::GET, answer.as_bytes());
            assert!(hyper.is_some_and(|read| read.complete), "{answer}");
        }
    }
}

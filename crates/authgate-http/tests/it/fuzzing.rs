//! The fuzz targets of this crate on stable Rust.

use authgate_http::fuzzing;
use fuzz_inputs::{CASES, fuzz};

#[test]
fn framings() {
    fuzz(
        fuzzing::framing,
        CASES,
        &[
            "GET / HTTP/1.1\r\n",
            "POST /x?y HTTP/1.0\r\n",
            "GET http://h/x HTTP/1.1\r\n",
            "Host: h\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: ",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: ",
            "X: y\r\n",
            "\r\n",
            "\r",
            "\n",
            " ",
            "\t",
            "5\r\nabcde\r\n",
            "0\r\n",
            "a;b=\"c\"\r\n",
            "abcde",
            "chunked",
            "GET ",
            "HTTP/1.1",
            ":",
            "\u{e9}",
            "\0",
        ],
    );
}

#[test]
fn responses() {
    fuzz(
        fuzzing::response,
        CASES,
        &[
            "\0HTTP/1.1 200 OK\r\n",
            "\x01HTTP/1.1 200 OK\r\n",
            "\0HTTP/1.0 404 Nothing here\r\n",
            "\0HTTP/1.1 304\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n",
            "HTTP/1.1 204 No Content\r\n",
            "Content-Length: 5\r\n",
            "content-length: 5, 5\r\n",
            "Content-Length: 3\r\n",
            "Content-Length: -1\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            "X: y\r\n",
            "X : y\r\n",
            " folded\r\n",
            "\r\n",
            "\n",
            "5\r\nhello\r\n",
            "3;a=b\r\nabc\r\n",
            "0\r\n",
            "0\r\nA: b\r\n\r\n",
            "hello",
        ],
    );
}

//! The fuzz targets of `fuzz/` on stable Rust: the same functions, a fixed number of inputs, a fixed seed. Inputs are made of pieces of the
//! grammar, because this does not watch branches as a fuzzer does.

use authgate_http::fuzzing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as Budget, RngAlgorithm, RngSeed, TestRunner};

const CASES: u32 = 100_000;

/// Calls a target with [`CASES`] inputs: random bytes, and pieces of the grammar in random order.
fn fuzz(target: fn(&[u8]), pieces: &'static [&'static str]) {
    let mut runner = TestRunner::new(Budget {
        cases: CASES,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x6675_7a7a),
        ..Budget::default()
    });
    let piece = prop_oneof![
        8 => select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
        1 => "[ -~]{0,6}".prop_map(String::into_bytes),
    ];
    let input = prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        6 => vec(piece, 0..24).prop_map(|pieces| pieces.concat()),
    ];
    if let Err(error) = runner.run(&input, |bytes| {
        target(&bytes);
        Ok(())
    }) {
        panic!("{error}");
    }
}

#[test]
fn framings() {
    fuzz(
        fuzzing::framing,
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

//! The doors of `fuzz/`, opened on stable Rust: the same entry points, a fixed budget, a fixed seed. What a fuzzer would find by
//! watching branches is helped by strategies that know the grammar.

use authgate_auth::fuzzing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as Budget, RngAlgorithm, RngSeed, TestRunner};

const CASES: u32 = 100_000;

/// Opens a door with so many inputs: any bytes, and pieces of the grammar put together in any order.
fn open(door: fn(&[u8]), cases: u32, pieces: &'static [&'static str]) {
    let mut runner = TestRunner::new(Budget {
        cases,
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
        door(&bytes);
        Ok(())
    }) {
        panic!("{error}");
    }
}

#[test]
fn credentials() {
    open(
        fuzzing::credential,
        CASES / 2,
        &[
            "Token", "Bearer", " ", "\t", "\n", ",", "abc", "\u{a0}", "\u{85}", "\u{b}", "\"", "=",
        ],
    );
}

#[test]
fn tokens() {
    open(
        fuzzing::jws,
        CASES / 2,
        &[
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJhbGciOiJub25lIn0",
            "eyJ1c2VyX2lkIjoiMSIsImV4cCI6OTk5OTk5OTk5OX0",
            ".",
            "..",
            "=",
            "==",
            "e30",
            "AAAA",
            "-_",
            "+/",
        ],
    );
}

#[test]
fn claims() {
    open(
        fuzzing::claims,
        CASES / 10,
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"exp\":",
            "\"iat\":",
            "\"nbf\":",
            "\"user_id\":",
            "\"sub\":",
            "\"jti\":",
            "\"username\":",
            "\"groups\":",
            "1700000000",
            "1700000001",
            "9999999999",
            "1e99",
            "1.5",
            "-1",
            "true",
            "null",
            "\"1\"",
            "\"\"",
            "\"a\\nb\"",
            "\"\\ud800\"",
            "\"\u{e9}\"",
            "NaN",
            "18446744073709551616",
            " ",
            "{\"exp\":1700000300,\"user_id\":",
            "{\"exp\":1700000300.5,\"user_id\":\"1\"}",
            "\"exp\":1700000300,",
        ],
    );
}

#[test]
fn records() {
    open(
        |bytes| {
            fuzzing::token_record(bytes);
            fuzzing::user_record(bytes);
        },
        CASES,
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "{\"user\":\"42\"",
            "{\"id\":\"42\",\"active\":true",
            "\"created\":",
            "\"expires\":",
            "\"revoked\":",
            "\"scopes\":[\"a\"]",
            "\"groups\":[\"a\",\"b\"]",
            "\"attributes\":{\"a\":{\"b\":[1,2.5,null]}}",
            "\"password_md5\":",
            "\"username\":\"ada\"",
            "\"email\":\"\"",
            "null",
            "{\"id\":\"1\",\"active\":true,\"attributes\":{\"a\":",
            "0.1",
            "7",
            "3",
            "9",
            "e-7",
            "1",
            "-9223372036854775808",
            "1e3",
            "\" \"",
            "\"name\":\"\\u0000\"",
            "true",
        ],
    );
}

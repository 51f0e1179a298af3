//! The doors of `fuzz/`, opened on stable Rust: the same entry points, a fixed budget, a fixed seed. What a fuzzer would find by
//! watching branches is helped by strategies that know the grammar.

use authgate::fuzzing;
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
fn configurations() {
    open(
        fuzzing::config,
        CASES / 4,
        &[
            "[server]\n",
            "listen = [\"127.0.0.1:0\"]\n",
            "[server.tls]\n",
            "[server.limits]\n",
            "[log]\n",
            "[admin]\n",
            "[stores.redis]\n",
            "[stores.file]\n",
            "kind = \"redis\"\n",
            "kind = \"embedded\"\n",
            "file = \"tokens.toml\"\n",
            "url = \"redis://127.0.0.1:6379/0\"\n",
            "[authenticators.token]\n",
            "[authenticators.jwt]\n",
            "kind = \"token\"\n",
            "kind = \"jwt\"\n",
            "users = \"none\"\n",
            "profile = \"rfc9068\"\n",
            "keys = [{ algorithm = \"HS256\", secret = \"0123456789abcdef0123456789abcdef\" }]\n",
            "leeway = \"30s\"\n",
            "cache = { entries = 5, ttl = \"1s\" }\n",
            "[identity]\n",
            "headers = { X-User-Id = \"id\" }\n",
            "[upstreams.app]\n",
            "servers = [\"http://127.0.0.1:8000\"]\n",
            "[[routes]]\n",
            "path = \"/api/*\"\n",
            "host = \"*.example.com\"\n",
            "methods = [\"GET\"]\n",
            "authenticate = [\"token\", \"jwt\"]\n",
            "public = true\n",
            "upstream = \"app\"\n",
            "require = { groups = { any = [\"a\"] } }\n",
            "errors = \"problem\"\n",
            "\n",
            "=",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "#",
            "true",
            "-1",
            "\"10s\"",
            "{ env = \"HOME\" }",
            "a.b = 1\n",
            "\u{0}",
        ],
    );
}

#[test]
fn paths() {
    open(
        fuzzing::path,
        CASES,
        &[
            "/",
            "/",
            "/api",
            "/admin",
            "/api/login",
            "%2f",
            "%2F",
            "%2e",
            "%2e%2e",
            "..",
            ".",
            ";",
            ";a=1",
            "\\",
            "%5c",
            "//",
            "%25",
            "%252e",
            "%252f",
            "%61dmin",
            "ADMIN",
            "Api",
            "%00",
            "%",
            "%zz",
            "#",
            "x",
            "\u{e9}",
            "%e9",
        ],
    );
}

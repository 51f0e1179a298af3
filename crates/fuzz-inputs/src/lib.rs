//! Calls a fuzz target on stable Rust: a fixed number of inputs, a fixed seed. Inputs are made of pieces of the grammar, because this does not
//! watch branches as a fuzzer does.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};

/// The number of inputs for a target that takes little time.
pub const CASES: u32 = 100_000;

/// Calls `target` with this many inputs: random bytes, and `pieces` in random order.
///
/// # Panics
/// The target panics. The message has the smallest such input that was found.
pub fn fuzz(target: fn(&[u8]), cases: u32, pieces: &'static [&'static str]) {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x6675_7a7a),
        ..Config::default()
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

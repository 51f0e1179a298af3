//! Tests of the engine alone: a small handler behind a real worker, and an upstream in front of a plain TCP server.

#![allow(clippy::unwrap_used, reason = "test helpers may fail the test")]
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    reason = "these types are used in this binary only"
)]

mod drain;
mod fuzzing;
mod harness;
mod http1;
mod http2;
mod hyper;
mod upstream;

//! What the program was built from, for `authgate --version`, `authgate_build_info` and `/status.json`.

/// The version, such as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of the compiler, such as `1.95.0`.
pub const RUSTC: &str = env!("AUTHGATE_RUSTC");

/// `0.1.0 (rustc 1.95.0, x86_64-unknown-linux-gnu)`. A release has its commit first.
pub const DESCRIPTION: &str = env!("AUTHGATE_BUILD");

//! Passes to `telemetry::build` what the program was built from.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs"); // and whenever the compiler is another one, as Cargo does by itself
    println!("cargo::rerun-if-env-changed=AUTHGATE_COMMIT");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let line = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    // "rustc 1.95.0 (commit and date)"
    let version = line.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=AUTHGATE_RUSTC={version}");
    // The script that builds a release sets it. Asking Git would fail without the repository, and would build again after each commit.
    let commit = env::var("AUTHGATE_COMMIT").map_or_else(|_| String::new(), |commit| format!("{commit}, "));
    let target = env::var("TARGET").unwrap_or_default();
    let release = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=AUTHGATE_BUILD={release} ({commit}rustc {version}, {target})");
}

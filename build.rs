//! Passes the compiler's version on to `authgate_build_info`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs"); // and whenever the compiler is another one, as Cargo does by itself
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let line = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    // "rustc 1.95.0 (commit and date)"
    let version = line.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=AUTHGATE_RUSTC={version}");
}

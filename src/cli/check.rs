//! `authgate check`.

use std::io::{self, Write};
use std::path::Path;

use super::{Failure, load};
use crate::examples;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let loaded = load(file)?;
    let config = &loaded.config;
    let mut out = io::stdout().lock();
    let text = format!(
        "{}: good. {} routes, {} upstreams, {} authenticators, {} stores.",
        file.display(),
        config.routes.len(),
        config.upstreams.len(),
        config.authenticators.len(),
        config.stores.len()
    );
    let _ = writeln!(out, "{text}");
    if !examples::used_by(config).is_empty() {
        let _ = writeln!(
            out,
            "It uses example keys that are known to the world: `authgate demo` takes it, `authgate run` does not."
        );
    }
    Ok(())
}

//! `authgate check`.

use std::io::{self, Write};
use std::path::Path;

use super::{Failure, load};
use crate::examples;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let loaded = load(file)?;
    let config = &loaded.config;
    let mut out = io::stdout().lock();
    let count = |count: usize, of: &str| format!("{count} {of}{}", if count == 1 { "" } else { "s" });
    let text = format!(
        "{}: good. {}, {}, {}, {}.",
        file.display(),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.authenticators.len(), "authenticator"),
        count(config.stores.len(), "store"),
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

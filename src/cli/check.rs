//! `authgate check`: reads a file as `run` does, and says what is wrong with it.

use std::path::{Path, PathBuf};

use super::{Failure, output};
use crate::config::{self, Loaded};
use crate::examples;

/// Print every problem of the configuration, each with its line and what to write instead
///
/// Exit code 0: the file can be used, there may be warnings. Exit code 2: it cannot be used.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration, in place of --config
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the problems as JSON on standard output
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  authgate check gateway.toml
  authgate check --json gateway.toml

With --json: {\"problems\": [{\"severity\": \"error\"|\"warning\", \"key\", \"file\", \"line\", \"column\", \"message\", \"help\"}]}.
`line` and `column` count from 1, and are null where the file as a whole is meant.";

pub(super) fn run(args: &Args, configured: &Path) -> Result<(), Failure> {
    let file = args.file.as_deref().unwrap_or(configured);
    match (config::load(file), args.json) {
        (Ok(Loaded { warnings, .. }), true) => output::json(&warnings.to_json()),
        (Err(error), true) => {
            output::json(&error.report().to_json())?;
            Err(Failure::Reported)
        }
        (Ok(loaded), false) => good(file, &loaded),
        (Err(error), false) => Err(Failure::Config(error)),
    }
}

fn good(file: &Path, loaded: &Loaded) -> Result<(), Failure> {
    super::warn(&loaded.warnings);
    let config = &loaded.config;
    let count = |count: usize, of: &str| format!("{count} {of}{}", if count == 1 { "" } else { "s" });
    output::line(format_args!(
        "{}: good. {}, {}, {}, {}.",
        file.display(),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.authenticators.len(), "authenticator"),
        count(config.stores.len(), "store"),
    ))?;
    if !examples::used_by(config).is_empty() {
        output::line(format_args!(
            "It uses example keys that are known to the world: `authgate demo` takes it, `authgate run` does not."
        ))?;
    }
    Ok(())
}

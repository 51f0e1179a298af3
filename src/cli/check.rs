//! `authgate check`: reads the configuration as `run` does, and reports its problems.

use std::path::{Path, PathBuf};

use super::{Failure, output};
use crate::config::{self, Loaded};
use crate::examples;

/// Validate the configuration and print every problem with its line and the fix
///
/// Exit code 0: the configuration is valid; there may be warnings. Exit code 2: it has errors.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration file, instead of --config
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
`line` and `column` count from 1, and are null for a problem of the whole file.";

pub(super) fn run(args: &Args, configured: &Path) -> Result<(), Failure> {
    let file = args.file.as_deref().unwrap_or(configured);
    match (config::load(file), args.json) {
        (Ok(Loaded { warnings, .. }), true) => output::json(&warnings.to_json()),
        (Err(error), true) => {
            output::json(&error.report().to_json())?;
            Err(Failure::Reported)
        }
        (Ok(loaded), false) => report_valid(file, &loaded),
        (Err(error), false) => Err(Failure::Config(error)),
    }
}

fn report_valid(file: &Path, loaded: &Loaded) -> Result<(), Failure> {
    super::warn(&loaded.warnings);
    let config = &loaded.config;
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    output::line(format_args!(
        "{}: valid. {}, {}, {}, {}.",
        file.display(),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.authenticators.len(), "authenticator"),
        count(config.stores.len(), "store"),
    ))?;
    if !examples::used_by(config).is_empty() {
        output::line(format_args!(
            "It uses example keys that are public: `authgate demo` accepts them, `authgate run` refuses them."
        ))?;
    }
    Ok(())
}

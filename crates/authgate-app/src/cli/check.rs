//! `authgate check`: reads the configuration as `run` does, and reports its problems.

use std::path::{Path, PathBuf};

use super::{Failure, embedded_size, online, output};
use crate::config::{self, ConfigError, Loaded};
use crate::{examples, reference};

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
    /// Also connect to the stores, and report what is wrong there: a store that does not answer, or a layout record, table,
    /// column or right that is missing
    #[arg(long)]
    online: bool,
    /// Print what the reference says about a key or a table, and check no file
    #[arg(long, value_name = "KEY", conflicts_with_all = ["file", "json", "online"])]
    key: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  authgate check gateway.toml
  authgate check --json gateway.toml
  authgate check --online gateway.toml
  authgate check --key server.limits.header_timeout

With --json: {\"problems\": [{\"severity\": \"error\"|\"warning\", \"key\", \"file\", \"line\", \"column\", \"message\", \"help\"}]}.
`line` and `column` count from 1, and are null for a problem of the whole file.";

pub(super) fn run(args: &Args, configured: &Path) -> Result<(), Failure> {
    if let Some(key) = &args.key {
        let text = reference::key_help(key).map_err(Failure::Usage)?;
        return output::bytes(text.as_bytes());
    }
    let file = args.file.as_deref().unwrap_or(configured);
    let loaded = config::load(file).map_err(Failure::Config);
    let loaded = loaded.and_then(|loaded| if args.online { online(loaded) } else { Ok(loaded) });
    let loaded = loaded.map(with_sizes);
    match (loaded, args.json) {
        (Ok(Loaded { warnings, .. }), true) => output::json(&warnings.to_json()),
        (Err(Failure::Config(error)), true) => {
            output::json(&error.report().to_json())?;
            Err(Failure::Reported)
        }
        (Ok(loaded), false) => report_valid(file, &loaded),
        (Err(failure), _) => Err(failure),
    }
}

/// Adds what is wrong in the stores.
fn online(loaded: Loaded) -> Result<Loaded, Failure> {
    let findings = online::findings(&loaded.config)?;
    let warnings = loaded.warnings.with(&loaded.source, findings);
    if warnings.has_errors() {
        return Err(ConfigError::of_report(&loaded.source, warnings).into());
    }
    Ok(Loaded { warnings, ..loaded })
}

/// Adds which embedded stores are too large.
fn with_sizes(loaded: Loaded) -> Loaded {
    let findings = embedded_size::findings(&loaded.config);
    let warnings = loaded.warnings.with(&loaded.source, findings);
    Loaded { warnings, ..loaded }
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

//! The command line: one file per command family, no domain logic.

mod admin_client;
mod check;
mod completions;
mod demo;
pub mod django;
mod echo;
mod embedded_size;
mod explain;
mod http_client;
mod init;
mod jwt;
mod man;
mod online;
mod output;
mod parity;
mod probe;
mod reload;
pub mod revoke;
mod run;
mod stores;
pub mod token;
mod top;
pub mod user;
mod values;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use authgate_auth::{KindSettings, store};
use authgate_core::printable::PrintableWriter;
use authgate_dataplane::telemetry::build;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, ConfigError, Loaded, Report, ReportFormat};

/// A reverse proxy that handles authentication for existing HTTP APIs.
///
/// It terminates TLS. It verifies `Authorization: Token <key>` against a store and `Authorization: Bearer <jwt>` against signing keys.
/// Allowed requests are forwarded with the user's identity in headers. The configuration file is gateway.toml.
#[derive(Debug, Parser)]
#[command(name = "authgate", version = build::DESCRIPTION, about, long_about, max_term_width = 110, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration file; without it, gateway.toml in this folder
    #[arg(long, global = true, value_name = "FILE", env = "AUTHGATE_CONFIG")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

/// The configuration file, unless `--config` or the environment names another.
const DEFAULT_FILE: &str = "gateway.toml";

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 failure, 2 usage or configuration error.
Logs go to standard error, data to standard output.

First steps:
  authgate demo                          try the gateway, with public example keys
  authgate init                          write a gateway.toml, from five questions
  authgate check --config gateway.toml   print every problem of the configuration, with the fix
  authgate run --config gateway.toml     serve until SIGTERM";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run(run::Args),
    Check(check::Args),
    Reload(reload::Args),
    Probe(probe::Args),
    Top(top::Args),
    Parity(parity::Args),
    Demo(demo::Args),
    Init(init::Args),
    Token(token::Args),
    User(user::Args),
    Revoke(revoke::Args),
    Django(django::Args),
    Jwt(jwt::Args),
    /// Run only the demo's upstream, which answers with the request it received, as JSON.
    Echo(echo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The commands and their flags, as data.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The parts of the configuration that store commands use.
#[derive(Debug)]
pub struct StoreContext<'c> {
    /// The configured stores.
    pub stores: &'c [store::StoreSettings],
    /// The largest leeway of any JWT authenticator: a revoked `jti` is kept this long after its token has expired.
    pub largest_leeway: Duration,
    /// All authenticators.
    pub authenticators: &'c [&'c KindSettings],
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has errors: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has errors, which are already printed: exit code 2.
    #[error("the configuration has errors")]
    Reported,
    /// Wrong arguments: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The command ran and failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// Parses the arguments, runs the command, and returns its exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (text, code) = match arguments.run() {
        Ok(()) => return ExitCode::SUCCESS,
        // The report adds its own colours and escapes quoted parts of the file.
        Err(Failure::Config(error)) => {
            let _ = writeln!(io::stderr(), "{}", error.render(ReportFormat::for_stderr()));
            return ExitCode::from(2);
        }
        Err(Failure::Reported) => return ExitCode::from(2),
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Failed(text)) => (text, 1),
    };
    // Standard error may be closed: then only the exit code reports the failure.
    let _ = writeln!(PrintableWriter(io::stderr()), "error: {text}");
    ExitCode::from(code)
}

impl Arguments {
    fn run(&self) -> Result<(), Failure> {
        let file = self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        match &self.command {
            Command::Run(args) => run::run(args, file),
            Command::Check(args) => check::run(args, file),
            Command::Reload(args) => reload::run(args, file),
            Command::Probe(args) => probe::run(args, file),
            Command::Top(args) => top::run(args, file),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(args),
            Command::Parity(args) => parity::run(args),
            Command::Demo(args) => demo::run(args, self.config.as_deref()),
            Command::Init(args) => init::run(args, file),
            Command::Echo(args) => echo::run(args),
            Command::Jwt(args) => jwt::run(args, file),
            Command::Token(args) => with_stores(file, |context| token::run(args, context, file)),
            Command::User(args) => with_stores(file, |context| user::run(args, context)),
            Command::Django(args) => with_stores(file, |context| django::run(args, context)),
            Command::Revoke(args) => with_stores(file, |context| revoke::run(args, context)),
        }
    }
}

/// A runtime for commands that talk to a server.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// Reads the configuration; prints its warnings to standard error.
fn load(file: &Path) -> Result<Loaded, Failure> {
    let mut loaded = config::load(file)?;
    loaded.warnings = loaded.warnings.without_start();
    warn(&loaded.warnings);
    Ok(loaded)
}

fn warn(warnings: &Report) {
    if !warnings.problems().is_empty() {
        let _ = writeln!(io::stderr(), "{}\n", warnings.render(ReportFormat::for_stderr()));
    }
}

fn with_stores(file: &Path, command: impl FnOnce(&StoreContext<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let config = config::load(file)?.config;
    let authenticators: Vec<&KindSettings> = config.authenticators.values().map(|one| &one.kind).collect();
    command(&StoreContext {
        stores: &config.stores,
        largest_leeway: config.largest_leeway(),
        authenticators: &authenticators,
    })
}

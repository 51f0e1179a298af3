//! The command line: one file a command family, no logic of their own.

mod check;
mod demo;
mod echo;
mod explain;
mod jwt;
mod output;
pub mod revoke;
mod run;
mod stores;
pub mod token;
pub mod user;
mod values;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::auth::store;
use crate::config::{self, ConfigError, Loaded, Look, Report};
use crate::printable::PrintableWriter;

/// A reverse proxy that handles authentication for existing HTTP APIs.
///
/// It terminates TLS, verifies `Authorization: Token <key>` with a store and `Authorization: Bearer <jwt>` with keys, and forwards
/// what is allowed, with the user's identity in headers. gateway.toml configures it.
#[derive(Debug, Parser)]
#[command(name = "authgate", version, about, long_about, max_term_width = 110, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "AUTHGATE_CONFIG",
        default_value = "gateway.toml"
    )]
    config: PathBuf,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong use or configuration.
Logs go to standard error, data to standard output.

First steps:
  authgate demo                          see it work, with keys that are known to the world
  authgate check --config gateway.toml   every problem of a file, with what to write instead
  authgate run --config gateway.toml     serve until SIGTERM";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run(run::Args),
    Check(check::Args),
    /// Run the shipped example before a built-in upstream, on loopback, and print curl lines to try.
    Demo(demo::Args),
    Token(token::Args),
    User(user::Args),
    Revoke(revoke::Args),
    Jwt(jwt::Args),
    /// The demo's upstream alone: answers with the request that it received, as JSON.
    Echo(echo::Args),
}

/// What commands that write to a store need of the configuration.
#[derive(Debug)]
pub struct StoreContext<'c> {
    /// The stores of the file.
    pub stores: &'c [store::Settings],
    /// The largest leeway of any JWT authenticator: a revoked `jti` is remembered that much longer than its token lives.
    pub largest_leeway: Duration,
}

/// Why a command ends without having done its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be used: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The same, and its problems are printed already.
    #[error("the configuration cannot be used")]
    Reported,
    /// It was called wrongly: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It tried and failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (text, code) = match arguments.run() {
        Ok(()) => return ExitCode::SUCCESS,
        // It has colours of its own, and escapes what it shows of the file.
        Err(Failure::Config(error)) => {
            let _ = writeln!(io::stderr(), "{}", error.render(Look::of_stderr()));
            return ExitCode::from(2);
        }
        Err(Failure::Reported) => return ExitCode::from(2),
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Failed(text)) => (text, 1),
    };
    // If standard error is closed, the exit code has to do.
    let _ = writeln!(PrintableWriter(io::stderr()), "error: {text}");
    ExitCode::from(code)
}

impl Arguments {
    fn run(&self) -> Result<(), Failure> {
        let file = &self.config;
        match &self.command {
            Command::Run(args) => run::run(args, file),
            Command::Check(args) => check::run(args, file),
            Command::Demo(args) => demo::run(args, file),
            Command::Echo(args) => echo::run(args),
            Command::Jwt(args) => jwt::run(args, file),
            Command::Token(args) => with_stores(file, |context| token::run(args, context, file)),
            Command::User(args) => with_stores(file, |context| user::run(args, context)),
            Command::Revoke(args) => with_stores(file, |context| revoke::run(args, context)),
        }
    }
}

/// Reads the configuration; what is only odd about it goes to standard error.
fn load(file: &Path) -> Result<Loaded, Failure> {
    let loaded = config::load(file)?;
    warn(&loaded.warnings);
    Ok(loaded)
}

fn warn(warnings: &Report) {
    if !warnings.problems().is_empty() {
        let _ = writeln!(io::stderr(), "{}\n", warnings.render(Look::of_stderr()));
    }
}

fn with_stores(file: &Path, command: impl FnOnce(&StoreContext<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let config = config::load(file)?.config;
    command(&StoreContext {
        stores: &config.stores,
        largest_leeway: config.largest_leeway(),
    })
}

//! `authgate jwt`: signs a JWT for development, or explains one.

mod inspect;
mod mint;

use std::path::Path;

use clap::Subcommand;

use super::Failure;

/// For development: sign a JWT, or explain one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign a JWT with --key, or with the example key that the demo accepts
    Mint(mint::Args),
    Inspect(inspect::Args),
}

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    match &args.command {
        Command::Mint(args) => mint::run(args),
        Command::Inspect(args) => inspect::run(args, file),
    }
}

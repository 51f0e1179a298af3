//! `authgate completions`: the script with which a shell completes commands and flags.

use clap_complete::Shell;

use super::{Failure, output};

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  authgate completions bash >/usr/share/bash-completion/completions/authgate
  authgate completions zsh >/usr/share/zsh/vendor-completions/_authgate
  authgate completions fish >/usr/share/fish/vendor_completions.d/authgate.fish
  source <(authgate completions bash)   # for this shell alone

The Debian package has these files.";

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "authgate", &mut script);
    output::bytes(&script)
}

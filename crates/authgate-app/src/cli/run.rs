//! `authgate run`: serves until SIGTERM or SIGINT.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::path::Path;

use authgate_dataplane::telemetry::{self, LogGuard};

use super::{Failure, load};
use crate::app::{App, ConfigFile, ExampleKeys, WatchedFiles, on_own_thread};
use crate::config::Loaded;
use crate::examples;
use crate::service_manager::ServiceManager;

/// Serve until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept the keys, certificates and tokens of certs-example, which are public. All listeners must be on loopback.
    #[arg(long)]
    example_keys: bool,
}

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    // The log is written until it is dropped.
    let (app, _log) = on_own_thread(|| start(args, file))?;
    app.run(|_| {}).map_err(failed)
}

/// Reads the configuration, and builds the gateway.
fn start(args: &Args, file: &Path) -> Result<(App, LogGuard), Failure> {
    let loaded = load(file)?;
    refuse_example_keys(args, &loaded)?;
    let service_manager = ServiceManager::from_environment().map_err(failed)?;
    let log = telemetry::start(loaded.config.log);
    let watched = WatchedFiles::new(file, &loaded);
    let (path, log_control) = (file.to_owned(), log.control.clone());
    let config_file = ConfigFile::new(path, loaded.source, watched, args.allowed(), log_control);
    let app = App::bind(loaded.config, service_manager).map_err(failed)?;
    Ok((app.reload_from(config_file), log))
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

impl Args {
    fn allowed(&self) -> ExampleKeys {
        if self.example_keys {
            ExampleKeys::OnLoopback
        } else {
            ExampleKeys::Refused
        }
    }
}

fn refuse_example_keys(args: &Args, loaded: &Loaded) -> Result<(), Failure> {
    if args.allowed().allow(&loaded.config) {
        return Ok(());
    }
    let used = examples::used_by(&loaded.config);
    let mut text = String::from("the configuration uses example keys that are shipped with authgate and public:\n");
    for example in &used {
        let _ = writeln!(text, "  {}: {}", example.key, example.description);
    }
    text.push_str("\nCreate your own keys and configure them instead:\n");
    let commands: BTreeSet<&str> = used.iter().map(|example| example.commands).collect();
    for command in commands {
        let _ = writeln!(text, "\n  {}", command.replace('\n', "\n  "));
    }
    text.push_str(if args.example_keys {
        "\n--example-keys works on loopback only, but server.listen or admin.listen has other addresses."
    } else {
        "\nTo try the example keys: `authgate demo`, or `authgate run --example-keys` on loopback."
    });
    Err(Failure::Usage(text))
}

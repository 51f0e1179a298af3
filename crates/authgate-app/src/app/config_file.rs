//! [`ConfigFile`]: the file of the configuration in force.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use authgate_dataplane::telemetry::LogControl;
use authgate_http::server::address::Address;

use super::watched_files::{ConfigWatch, WatchedFiles};
use crate::config::{Config, ConfigError, Refusal, Report, Source};
use crate::examples;

/// The file of the configuration in force.
#[derive(Debug)]
pub struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) example_keys: ExampleKeys,
    pub(super) log: LogControl,
    in_force: Mutex<Source>,
    pub(super) watched: WatchedFiles,
    /// Set before the first reload.
    pub(super) watch: OnceLock<Mutex<ConfigWatch>>,
}

/// Whether a configuration may use the keys of certs-example, which are public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExampleKeys {
    /// It may not.
    Refused,
    /// It may, on loopback.
    OnLoopback,
}

impl ExampleKeys {
    /// Whether it may use the example keys that it uses.
    pub fn allow(self, config: &Config) -> bool {
        // The mode of an admin socket file restricts it to this user.
        let admin = config.admin.listen.iter().filter(|address| address.tcp().is_some());
        let is_loopback = config.server.listen.iter().chain(admin).all(Address::is_loopback);
        (self == Self::OnLoopback && is_loopback) || examples::used_by(config).is_empty()
    }
}

impl ConfigFile {
    /// The file at `path`, whose text is `source`. `watched`: the files to watch from the start.
    pub fn new(
        path: PathBuf,
        source: Source,
        watched: WatchedFiles,
        example_keys: ExampleKeys,
        log: LogControl,
    ) -> Self {
        Self {
            watched,
            watch: OnceLock::new(),
            path,
            example_keys,
            log,
            in_force: Mutex::new(source),
        }
    }

    /// The text and the files of the configuration in force.
    pub(super) fn in_force(&self) -> MutexGuard<'_, Source> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a reload that has panicked.
    pub(super) fn defect(&self) -> ConfigError {
        let refusal = Refusal {
            key: "server".to_owned(),
            message: "the reload has stopped at a defect of the gateway, and nothing has changed".to_owned(),
            help: "report it with the lines of standard error about the panic, and undo the last change of the file"
                .to_owned(),
        };
        ConfigError::refused(&self.in_force(), &Report::default(), [refusal])
    }

    pub(super) fn update_watch(&self, update: impl FnOnce(&mut ConfigWatch)) {
        if let Some(watch) = self.watch.get() {
            update(&mut watch.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

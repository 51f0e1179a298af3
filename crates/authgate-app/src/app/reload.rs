//! Reads the configuration again while the gateway serves: all of it comes into force, or nothing changes.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use authgate_core::label_value::LabelValue;
use authgate_dataplane::telemetry::labels;
use authgate_http::server::stage::Stage;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::config_file::ConfigFile;
use super::error::AppError;
use super::listeners::{Configured, Prepared};
use super::max_connections;
use super::memory;
use super::reloader::Reloader;
use super::watched_files::{ConfigWatch, WatchedFiles};
use crate::config::{self, Change, ConfigError, Loaded, Refusal, Report, Severity};
use crate::control::reload::ReloadOutcome;
use crate::examples;

/// How long a reload waits for workers. One that serves the new configuration later does so without its wait.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The most changes and problems that the log and an answer list.
const MAX_LISTED: usize = 100;

/// What has caused a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `POST /reload`, which `authgate reload` sends.
    Command,
    /// A file has changed.
    FileChange,
}

impl Trigger {
    /// Whether a person or their tool has asked for it, and not a file.
    fn is_by_operator(self) -> bool {
        match self {
            Self::Signal | Self::Command => true,
            Self::FileChange => false,
        }
    }

    /// Its name in the log.
    fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Signal => &labels::TRIGGER_SIGNAL,
            Self::Command => &labels::TRIGGER_COMMAND,
            Self::FileChange => &labels::TRIGGER_FILE_CHANGE,
        }
    }
}

/// How a reload ended.
#[derive(Debug)]
pub enum Reloaded {
    /// The configuration of the file is in force.
    Applied {
        /// What is different.
        changes: Vec<Change>,
        /// Its warnings.
        warnings: Report,
    },
    /// The file cannot be used, and nothing has changed.
    Refused(ConfigError),
}

/// Why no reload began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReloaded {
    /// Another one is under way.
    Busy,
    /// The process was started without a file.
    NoFile,
    /// A shutdown has begun.
    Stopping,
}

/// A configuration that the workers have received.
struct Applied {
    changes: Vec<Change>,
    watched: WatchedFiles,
    warnings: Report,
    /// Its addresses, which are bound.
    addresses: Prepared,
    max_connections: usize,
    /// Connections that are open now were made under other rules for clients.
    drains: bool,
}

impl Reloader {
    /// Reads the file again, after a reload that is under way.
    ///
    /// # Errors
    /// No reload began.
    pub async fn reload(&self, trigger: Trigger) -> Result<Reloaded, NotReloaded> {
        let file = self.0.file.as_ref().ok_or(NotReloaded::NoFile)?;
        let _turn = self.0.turn.lock().await;
        self.check_serving()?;
        Ok(self.reload_file(file, trigger).await)
    }

    /// Reads the file again, if no reload is under way.
    ///
    /// # Errors
    /// No reload began.
    pub async fn try_reload(&self, trigger: Trigger) -> Result<Reloaded, NotReloaded> {
        let file = self.0.file.as_ref().ok_or(NotReloaded::NoFile)?;
        let turn = self.0.turn.try_lock();
        self.check_serving()?;
        let _turn = turn.map_err(|_| NotReloaded::Busy)?;
        Ok(self.reload_file(file, trigger).await)
    }

    /// No reload begins after the shutdown has begun: [`drain`](super::drain) sets the stage before it waits for its turn.
    fn check_serving(&self) -> Result<(), NotReloaded> {
        match *self.0.pool.stage.borrow() {
            Stage::Serving => Ok(()),
            Stage::NotReady | Stage::Draining | Stage::Aborting => Err(NotReloaded::Stopping),
        }
    }

    /// Reloads after each notification, until a shutdown. Those that come during a reload cause one more.
    pub(super) async fn reload_when(self, notified: Arc<Notify>, trigger: Trigger) {
        loop {
            notified.notified().await;
            let reloader = self.clone();
            // A task of its own: a panic in it does not end this loop.
            let reload = tokio::spawn(async move { reloader.reload(trigger).await });
            let trigger = trigger.label();
            match reload.await {
                Ok(Ok(_)) => {}
                Ok(Err(NotReloaded::Stopping)) => return,
                Ok(Err(NotReloaded::NoFile | NotReloaded::Busy)) => warn!(
                    trigger,
                    "no reload: this process was started without a configuration file that can be read again"
                ),
                Err(problem) => error!(trigger, reason = %problem, "a reload has stopped unexpectedly"),
            }
        }
    }

    /// Answers `POST /reload` from now on.
    pub(super) fn answer_commands(&self) {
        if self.0.file.is_none() {
            return;
        }
        let reloader = Arc::downgrade(&self.0);
        self.0.admin.reload.connect(move || {
            let reloader = reloader.upgrade().map(Self);
            async move {
                let Some(reloader) = reloader else {
                    return ReloadOutcome::Stopping;
                };
                match reloader.try_reload(Trigger::Command).await {
                    Ok(Reloaded::Applied { changes, warnings }) => ReloadOutcome::Applied {
                        changes: list_changes(&changes),
                        warnings: problems(&warnings),
                    },
                    Ok(Reloaded::Refused(refused)) => ReloadOutcome::Refused {
                        problems: problems(refused.report()),
                    },
                    Err(NotReloaded::Stopping) => ReloadOutcome::Stopping,
                    Err(NotReloaded::Busy | NotReloaded::NoFile) => ReloadOutcome::Busy,
                }
            }
        });
    }

    /// Reloads after each change of a watched file, from now on. Call it on the control runtime.
    pub(super) fn watch_files(&self) -> io::Result<()> {
        let Some(file) = &self.0.file else { return Ok(()) };
        let watch = ConfigWatch::start(file.watched.clone())?;
        let changed = watch.changed();
        // Only called once.
        let _ = file.watch.set(Mutex::new(watch));
        tokio::spawn(self.clone().reload_when(changed, Trigger::FileChange));
        Ok(())
    }

    async fn reload_file(&self, file: &ConfigFile, trigger: Trigger) -> Reloaded {
        let mut reloading = self.0.process.service_manager.reloading();
        let reloader = self.clone();
        // Reading and checking may take long, and must not delay probes.
        let applied = spawn_blocking(move || memory::on_own_thread(|| reloader.read_and_apply())).await;
        let applied = applied.unwrap_or_else(|_panicked| Err(file.defect()));
        let reloaded = match applied {
            Ok(Applied {
                changes,
                watched,
                warnings,
                addresses,
                max_connections,
                drains,
            }) => {
                file.update_watch(|watch| watch.applied(watched));
                if timeout(WORKERS_TIMEOUT, self.wait_for_workers()).await.is_err() {
                    warn!(timeout = ?WORKERS_TIMEOUT, "a worker does not serve the new configuration yet");
                }
                self.0.pool.set_max_connections(max_connections);
                self.0.pool.set_drain_timeout(self.drain_times().timeout);
                if drains {
                    self.0.listeners.drain_connections();
                }
                self.0.listeners.replace(addresses).await;
                self.report_listeners();
                if trigger.is_by_operator() {
                    self.0.snapshots.borrow().permit_other_layouts();
                }
                reloading.status = "serving with the configuration that was read again";
                Reloaded::Applied { changes, warnings }
            }
            Err(refused) => {
                file.update_watch(|watch| watch.refused(refused.files()));
                reloading.status = "serving with the old configuration: the new one cannot be used, see the log";
                Reloaded::Refused(refused)
            }
        };
        self.record(trigger, &reloaded);
        memory::release_soon();
        reloaded
    }

    /// Serves with the configuration of the file. If it cannot be used, nothing changes.
    fn read_and_apply(&self) -> Result<Applied, ConfigError> {
        let file = self.0.file.as_ref().expect("`reload` has found it");
        let loaded = config::load_again(&file.path)?;
        let watched = WatchedFiles::new(&file.path, &loaded);
        let Loaded {
            config,
            warnings,
            source,
        } = loaded;
        let log = config.log;
        let mut refusals = Vec::new();
        if !file.example_keys.allow(&config) {
            refusals.extend(examples::used_by(&config).into_iter().map(|used| Refusal {
                key: used.key,
                message: format!("this is {}", used.description),
                help: format!("create your own: `{}`", used.commands),
            }));
        }
        refusals.extend(self.0.fixed.refusals(&config));
        if !refusals.is_empty() {
            return Err(ConfigError::refused(&source, &warnings, refusals));
        }
        let weakest = self.0.snapshots.borrow().security.weakest_connection();
        let (wanted, max_connections) = (Configured::all(&config), max_connections(&config));
        // Before the snapshot is replaced: after that, nothing can fail.
        let changes = file.in_force().changes(&source);
        match self.replace(config, || self.0.listeners.prepare(wanted)) {
            Ok(addresses) => {
                file.log.apply(log);
                *file.in_force() = source;
                Ok(Applied {
                    drains: !weakest.is_accepted_under(&self.0.snapshots.borrow().security),
                    changes,
                    watched,
                    warnings,
                    addresses,
                    max_connections,
                })
            }
            Err(error) => Err(ConfigError::refused(&source, &warnings, [refusal(&error)])),
        }
    }

    fn record(&self, trigger: Trigger, reloaded: &Reloaded) {
        let (metrics, trigger) = (&self.0.process.metrics, trigger.label());
        match reloaded {
            Reloaded::Applied { changes, warnings } => {
                metrics.record_applied_reload(SystemTime::now());
                log_problems(warnings);
                let lines = list_changes(changes);
                let changes = lines.join("; ");
                self.0.admin.configuration.record_applied(lines);
                info!(trigger, changes, "the configuration was read again and is in force");
            }
            Reloaded::Refused(refused) => {
                metrics.count_refused_reload();
                self.0.admin.configuration.record_refused(problems(refused.report()));
                log_problems(refused.report());
                let errors = refused.report().problems().iter();
                let errors = errors.filter(|problem| problem.severity == Severity::Error).count();
                error!(
                    trigger,
                    errors, "the configuration was read again and cannot be used; nothing has changed"
                );
            }
        }
    }
}

/// Problems in the form of `authgate check --json`, up to a limit.
fn problems(report: &Report) -> Vec<Value> {
    let mut json = report.to_json();
    let mut problems = match json["problems"].take() {
        Value::Array(problems) => problems,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
    };
    problems.truncate(MAX_LISTED);
    problems
}

/// Logs problems in the words of `authgate check`.
fn log_problems(report: &Report) {
    for problem in report.problems().iter().take(MAX_LISTED) {
        let (key, reason, help) = (&*problem.key, &*problem.message, &*problem.help);
        let (file, line) = (report.file(), report.line_of(problem));
        match problem.severity {
            Severity::Error => error!(key, file, line, reason, help, "an error in the configuration"),
            Severity::Warning => warn!(key, file, line, reason, help, "a warning about the configuration"),
        }
    }
}

/// One line for each change, up to a limit. No line: nothing has changed.
pub fn list_changes(changes: &[Change]) -> Vec<String> {
    let mut lines: Vec<String> = changes.iter().take(MAX_LISTED).map(Change::to_string).collect();
    if let Some(more) = changes.len().checked_sub(MAX_LISTED).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// What a valid configuration asks for, and the process cannot do.
fn refusal(error: &AppError) -> Refusal {
    let key = match error {
        AppError::Bind { key, .. } => key,
        AppError::Inherited(_) => "server.listen",
        AppError::Tls(_) => "server.tls",
        AppError::Io(_) | AppError::Worker(_) | AppError::Stopping => "server",
    };
    let help = match error {
        AppError::Bind { .. } => "write an address of this machine that no other listener has, and reload again",
        AppError::Inherited(_) => "keep the address in the file, or restart the gateway without the socket",
        AppError::Tls(_) => "correct `[server.tls]`, and reload again",
        AppError::Stopping => "restart the gateway to use the file",
        AppError::Io(_) | AppError::Worker(_) => "reload again",
    };
    Refusal {
        key: (*key).to_owned(),
        message: error.to_string(),
        help: help.to_owned(),
    }
}

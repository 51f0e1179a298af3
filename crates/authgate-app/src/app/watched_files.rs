//! Which files cause a reload when they change, by `server.watch`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authgate_dataplane::file::Fingerprint;
use tokio::sync::Notify;

use crate::config::{Loaded, NamedFile, WatchMode};
use crate::watch::{FileWatch, Intervals};

/// The files that are watched, each as it was when the gateway read it. `None`: `server.watch` is off.
#[derive(Debug, Clone)]
pub struct WatchedFiles(Option<BTreeMap<PathBuf, Option<Fingerprint>>>);

impl WatchedFiles {
    /// Those of a configuration that was read from `path`.
    pub fn new(path: &Path, loaded: &Loaded) -> Self {
        let (config, source) = (&loaded.config, &loaded.source);
        let configuration = match config.watch {
            WatchMode::Off => return Self(None),
            WatchMode::Keys => None,
            WatchMode::All => Some((path.to_owned(), Some(source.fingerprint()))),
        };
        let named = source.files().iter().filter_map(watched);
        Self(Some(named.chain(configuration).collect()))
    }
}

/// `None`: a folder.
fn watched(named: &NamedFile) -> Option<(PathBuf, Option<Fingerprint>)> {
    (!named.path.is_dir()).then(|| (named.path.clone(), Some(named.fingerprint)))
}

/// Notifies of changes of the files of the configuration in force.
#[derive(Debug)]
pub(super) struct ConfigWatch {
    watch: FileWatch,
    changed: Arc<Notify>,
    in_force: WatchedFiles,
}

impl ConfigWatch {
    /// Watches these files.
    ///
    /// # Errors
    /// The thread of the watch cannot be started.
    pub(super) fn start(in_force: WatchedFiles) -> io::Result<Self> {
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        let watch = FileWatch::start(Intervals::default(), move || notify.notify_one())?;
        watch.follow(in_force.0.clone().unwrap_or_default());
        Ok(Self {
            watch,
            changed,
            in_force,
        })
    }

    /// Notified after each change.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The configuration was read again, and these are its files.
    pub(super) fn applied(&mut self, files: WatchedFiles) {
        self.watch.follow(files.0.clone().unwrap_or_default());
        self.in_force = files;
    }

    /// The configuration was read again and refused. A change of a file that it names causes a reload too: it may make it usable.
    pub(super) fn refused(&mut self, named: &[NamedFile]) {
        let Some(in_force) = &self.in_force.0 else { return };
        // `None`: as it was reported.
        let in_force = in_force.keys().map(|file| (file.clone(), None));
        self.watch
            .follow(in_force.chain(named.iter().filter_map(watched)).collect());
    }
}

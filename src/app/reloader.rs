//! [`Reloader`]: replaces the snapshot that the process serves.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::error::AppError;
use super::process::Process;
use super::reload::{ConfigFile, Fixed};
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::control::admin::{Admin, AdminView};
use crate::control::redirect::{Redirect, RedirectRules};

/// Replaces the snapshot of a running gateway; clones do the same.
#[derive(Clone)]
pub struct Reloader(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) process: Arc<Process>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) admin: Arc<Admin>,
    redirect: Arc<Redirect>,
    progress: Progress,
    /// The runtime of the tasks that watch stores.
    runtime: Handle,
    /// Held while a snapshot is made and replaced.
    replacing: Mutex<()>,
    /// The file of the configuration; `None` if it cannot be read again.
    pub(super) file: Option<ConfigFile>,
    /// Held during a reload.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) fixed: Fixed,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    /// Call it on the control runtime.
    pub(super) fn new(
        process: Arc<Process>,
        snapshots: watch::Sender<Arc<Snapshot>>,
        admin: Arc<Admin>,
        redirect: Arc<Redirect>,
        progress: Progress,
        file: Option<ConfigFile>,
        fixed: Fixed,
    ) -> Self {
        Self(Arc::new(Inner {
            process,
            snapshots,
            admin,
            redirect,
            progress,
            runtime: Handle::current(),
            replacing: Mutex::new(()),
            file,
            turn: tokio::sync::Mutex::new(()),
            fixed,
        }))
    }

    /// Serves new requests with this configuration. Requests that have begun end with the one that they began with.
    ///
    /// Listeners, the number of workers, the limit of connections, and the times of a drain stay as they were at the start.
    ///
    /// # Errors
    /// TLS cannot be set up. Then nothing changes.
    pub fn apply(&self, config: Config) -> Result<(), AppError> {
        let inner = &*self.0;
        let _replacing = inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let _entered = inner.runtime.enter();
        let previous = Arc::clone(&inner.snapshots.borrow());
        let snapshot = Snapshot::new(config, &inner.process, Some(&previous))?;
        snapshot.watch_stores();
        snapshot.start_acme();
        inner.process.metrics.observe(snapshot.observed());
        inner.admin.view.store(Arc::new(admin_view(&snapshot)));
        inner.redirect.update(redirect_rules(&snapshot));
        inner.snapshots.send_replace(Arc::new(snapshot));
        Ok(())
    }

    /// Waits until every worker serves the configuration that was applied last, or a later one. A worker that hangs delays it, so set a
    /// timeout.
    pub async fn wait_for_workers(&self) {
        let number = self.0.snapshots.borrow().number;
        self.0.progress.wait_until_all_serve(number).await;
    }
}

/// The number of the snapshot that each worker serves; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Progress(watch::Sender<Box<[Option<u64>]>>);

impl Progress {
    /// No worker serves a snapshot yet.
    pub(super) fn new(workers: usize) -> Self {
        Self(watch::Sender::new(vec![None; workers].into()))
    }

    /// The worker with this index serves this snapshot.
    pub(super) fn report(&self, worker: usize, snapshot: &Snapshot) {
        self.0.send_modify(|serving| serving[worker] = Some(snapshot.number));
    }

    async fn wait_until_all_serve(&self, number: u64) {
        let mut serving = self.0.subscribe();
        let all = serving.wait_for(|workers| workers.iter().all(|serving| *serving >= Some(number)));
        all.await.expect("`self` is a sender of this channel");
    }
}

pub(super) fn admin_view(snapshot: &Snapshot) -> AdminView {
    AdminView {
        stores: snapshot.stores.clone(),
        certificates: Arc::clone(&snapshot.certificates),
        acme: snapshot.acme.clone(),
        access: snapshot.admin.clone(),
    }
}

pub(super) fn redirect_rules(snapshot: &Snapshot) -> RedirectRules {
    RedirectRules {
        hosts: snapshot.hosts.clone(),
        credential_headers: snapshot.credential_headers.clone(),
        acme: snapshot.acme.clone(),
    }
}

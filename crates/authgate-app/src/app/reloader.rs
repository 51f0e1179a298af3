//! [`Reloader`]: replaces the snapshot that the process serves.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use authgate_dataplane::gateway::Drain;
use authgate_http::server::worker::WorkerPool;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::config_file::ConfigFile;
use super::error::AppError;
use super::fixed::Fixed;
use super::https_port;
use super::listeners::Listeners;
use super::process::Process;
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::control::admin::{Admin, AdminView};
use crate::control::redirect::{Redirect, RedirectRules};
use crate::control::revoke::Revoker;
use crate::control::status::ListenerPurpose;

/// Replaces the snapshot of a running gateway; clones do the same.
#[derive(Clone)]
pub struct Reloader(pub(super) Arc<Inner>);

pub(super) struct Inner {
    running: Running,
    /// The runtime of the tasks that watch stores.
    runtime: Handle,
    /// Held while a snapshot is made and replaced.
    replacing: Mutex<()>,
    /// Held during a reload.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// The parts of a running gateway that a reload changes or asks.
pub(super) struct Running {
    pub(super) process: Arc<Process>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) admin: Arc<Admin>,
    pub(super) redirect: Arc<Redirect>,
    pub(super) progress: Progress,
    pub(super) listeners: Listeners,
    pub(super) pool: Arc<WorkerPool>,
    /// The file of the configuration; `None` if it cannot be read again.
    pub(super) file: Option<ConfigFile>,
    pub(super) fixed: Fixed,
}

impl std::ops::Deref for Inner {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    /// Call it on the control runtime.
    pub(super) fn new(running: Running) -> Self {
        Self(Arc::new(Inner {
            running,
            runtime: Handle::current(),
            replacing: Mutex::new(()),
            turn: tokio::sync::Mutex::new(()),
        }))
    }

    /// Serves new requests with this configuration. Requests that have begun end with the one that they began with.
    ///
    /// Listeners and the limit of connections stay as they are; a reload changes them too.
    ///
    /// # Errors
    /// TLS cannot be set up. Then nothing changes.
    pub fn apply(&self, config: Config) -> Result<(), AppError> {
        self.replace(config, || Ok(()))
    }

    /// As [`Self::apply`]. `prepare` is called when all else has succeeded. If it fails, nothing changes.
    pub(super) fn replace<P>(
        &self,
        config: Config,
        prepare: impl FnOnce() -> Result<P, AppError>,
    ) -> Result<P, AppError> {
        let inner = &*self.0;
        let _replacing = inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let _entered = inner.runtime.enter();
        let previous = Arc::clone(&inner.snapshots.borrow());
        let snapshot = Snapshot::new(config, &inner.process, Some(&previous))?;
        let prepared = prepare()?;
        snapshot.watch_stores();
        snapshot.start_acme();
        inner.process.metrics.observe(snapshot.observed());
        inner.admin.view.store(Arc::new(admin_view(&snapshot)));
        inner.snapshots.send_replace(Arc::new(snapshot));
        self.report_listeners();
        Ok(prepared)
    }

    /// Updates what depends on the open addresses and the snapshot: redirects, and `/status.json`.
    pub(super) fn report_listeners(&self) {
        let inner = &*self.0;
        let snapshot = Arc::clone(&inner.snapshots.borrow());
        let status = inner
            .listeners
            .status(snapshot.tls.is_some(), snapshot.admin.tls.is_some());
        let clients = status
            .iter()
            .filter(|listener| listener.purpose == ListenerPurpose::Clients);
        let port = https_port(clients.map(|listener| &listener.address));
        inner.redirect.update(redirect_rules(&snapshot, port));
        inner.admin.listeners.store(Arc::new(status));
    }

    /// Waits until the recorded requests are in their file.
    pub(super) fn flush_recording(&self) {
        let recorder = self.0.snapshots.borrow().recorder.clone();
        if let Some(recorder) = recorder {
            recorder.flush();
        }
    }

    /// The times of a shutdown that begins now.
    pub(super) fn drain_times(&self) -> Drain {
        self.0.snapshots.borrow().drain
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
        routes: Arc::clone(&snapshot.routes),
        upstreams: snapshot.upstreams.values().cloned().collect(),
        authenticators: snapshot.authenticators.values().cloned().collect(),
        stores: snapshot.stores.clone(),
        certificates: Arc::clone(&snapshot.certificates),
        acme: snapshot.acme.clone(),
        endpoints: snapshot.endpoints().map(|(_, endpoint)| Arc::clone(endpoint)).collect(),
        key_sources: snapshot.key_sources().cloned().collect(),
        key_set: snapshot.key_set.clone(),
        revoker: Arc::new(Revoker {
            authenticators: snapshot.authenticators.values().cloned().collect(),
            stores: snapshot.stores.clone(),
        }),
        redacted: Arc::clone(&snapshot.redacted),
        access: snapshot.admin.clone(),
    }
}

pub(super) fn redirect_rules(snapshot: &Snapshot, port: u16) -> RedirectRules {
    RedirectRules {
        port,
        hosts: snapshot.hosts.clone(),
        credential_headers: snapshot.credential_headers.clone(),
        acme: snapshot.acme.clone(),
    }
}

//! [`Process`]: what lives as long as the process. [`Reloader`] replaces the snapshot that the process serves.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use authgate_auth::dependencies::ChangeCounters;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::AppError;
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::control::admin::{Admin, AdminView};
use crate::control::redirect::{Redirect, RedirectRules};
use crate::telemetry::metrics::Metrics;

/// What lives as long as the process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Every metric. Counters keep their values from one snapshot to the next.
    pub(super) metrics: Arc<Metrics>,
    /// The counters of changes in stores, which cached decisions depend on.
    pub(super) counters: Arc<ChangeCounters>,
}

/// Replaces the snapshot of a running gateway; clones do the same.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    process: Arc<Process>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    admin: Arc<Admin>,
    redirect: Arc<Redirect>,
    /// The runtime of the tasks that watch stores.
    runtime: Handle,
    /// Held while a snapshot is made and replaced.
    replacing: Mutex<()>,
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
    ) -> Self {
        Self(Arc::new(Inner {
            process,
            snapshots,
            admin,
            redirect,
            runtime: Handle::current(),
            replacing: Mutex::new(()),
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
        inner.process.metrics.observe(snapshot.observed());
        inner.admin.view.store(Arc::new(admin_view(&snapshot)));
        inner.redirect.update(redirect_rules(&snapshot));
        inner.snapshots.send_replace(Arc::new(snapshot));
        Ok(())
    }
}

pub(super) fn admin_view(snapshot: &Snapshot) -> AdminView {
    AdminView {
        stores: snapshot.stores.clone(),
        hosts: snapshot.admin_hosts.clone(),
    }
}

pub(super) fn redirect_rules(snapshot: &Snapshot) -> RedirectRules {
    RedirectRules {
        hosts: snapshot.hosts.clone(),
        credential_headers: snapshot.credential_headers.clone(),
    }
}

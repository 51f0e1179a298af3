//! The task that renews certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tracing::{debug, info};

use super::Inner;
use super::order::{OrderError, Orders};
use super::store::LockState;

/// How often the folder is read for certificates of other gateways.
const POLL: Duration = Duration::from_secs(60);
/// The shortest pause between two turns of the task. Meanwhile another gateway that has the lock may obtain the certificate.
const PAUSE: Duration = Duration::from_secs(1);

/// Renews certificates, and takes over those of other gateways.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let wait = turn(&inner).await;
        sleep(wait.clamp(PAUSE, POLL)).await;
    }
}

/// Orders what is due, or else reads the folder. Returns how long nothing is due.
async fn turn(inner: &Arc<Inner>) -> Duration {
    if inner.due(SystemTime::now()).is_empty() {
        reload(inner).await;
    }
    if !inner.due(SystemTime::now()).is_empty() {
        order_due(inner).await;
    }
    let next = inner.domains().iter().map(|domain| domain.due).min();
    let wait = next.and_then(|next| next.duration_since(SystemTime::now()).ok());
    wait.unwrap_or_default()
}

/// Reads the certificates of the folder.
async fn reload(inner: &Arc<Inner>) {
    let reading = Arc::clone(inner);
    inner.store.run(move |_| reading.load_certificates()).await;
}

/// Orders what is due, if this gateway gets the lock.
async fn order_due(inner: &Arc<Inner>) {
    let lock = match inner.store.run(|files| files.lock()).await {
        Ok(LockState::Acquired(lock)) => lock,
        Ok(LockState::Held) => {
            debug!("another gateway orders certificates");
            return reload(inner).await;
        }
        Err(problem) => {
            for at in inner.due(SystemTime::now()) {
                inner.failed(at, &OrderError::Store(problem.to_string()));
            }
            return;
        }
    };
    let mut orders = Orders::new(&inner.settings, &inner.store, lock);
    // Another gateway may have renewed them before it released the lock.
    reload(inner).await;
    for at in inner.due(SystemTime::now()) {
        let name = inner.settings.domains[at].as_str();
        let first = inner.domains()[at].challenge;
        info!(
            acme.domain = name,
            directory = inner.settings.directory,
            "ordering a certificate"
        );
        let obtained = orders.obtain(name, first).await;
        let served = obtained.and_then(|(certificate, challenge)| {
            inner.domains()[at].challenge = challenge;
            inner.serve(at, &certificate);
            Ok(challenge)
        });
        match served {
            Ok(challenge) => {
                let expires = inner.domains()[at].life.map(|life| life.not_after_text());
                info!(
                    acme.domain = name,
                    expires,
                    challenge = challenge.name(),
                    "a certificate was obtained"
                );
            }
            Err(problem) => inner.failed(at, &problem),
        }
    }
    orders.end().await;
}

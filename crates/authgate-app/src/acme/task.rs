//! The task that renews certificates, and its supervision.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error, info};

use super::Inner;
use super::order::{OrderError, Orders};
use super::schedule::{self, Failure};
use super::store::LockState;

/// How often the folder is read for certificates of other gateways.
const POLL: Duration = Duration::from_secs(60);
/// The shortest pause between two turns of the task. Meanwhile another gateway that has the lock may obtain the certificate.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the task. If it panics, reports that and starts it again after a pause.
pub(super) async fn supervise<F>(inner: Arc<Inner>, run: impl Fn(Arc<Inner>) -> F)
where
    F: Future<Output = Infallible> + Send + 'static,
{
    for failed in 0.. {
        // Dropping it ends the task.
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(&inner)));
        let Some(Err(ended)) = task.join_next().await else {
            return;
        };
        let pause = schedule::pause(failed, Failure::NotRefused, None, fastrand::f64());
        *inner.stopped() = Some(format!("the task that renews certificates has failed: {ended}"));
        error!(
            reason = %ended,
            retry = format!("{} s", pause.as_secs()),
            "the task that renews certificates has failed, which is a bug, and starts again; the present certificates are served"
        );
        sleep(pause).await;
    }
}

/// Renews certificates, and takes over those of other gateways.
pub(super) async fn run(inner: Arc<Inner>) -> Infallible {
    loop {
        let wait = turn(&inner).await;
        *inner.stopped() = None;
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
            inner.obtained(at, &certificate)?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::acme::{Acme, AcmeSettings};

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_task_is_reported_and_the_task_starts_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let acme = Acme::new(AcmeSettings {
            domains: vec!["a.example".to_owned()],
            email: None,
            directory: "https://ca.example/directory".to_owned(),
            ca: None,
            store: folder.path().to_owned(),
            has_http: false,
        });
        let started = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&started);
        let panicking = move |inner: Arc<Inner>| {
            let counted = Arc::clone(&counted);
            async move {
                // A panic where the thread may block ends the task too.
                match counted.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("the first time"),
                    1 => inner.store.run(|_| panic!("the second time")).await,
                    _ => *inner.stopped() = None,
                }
                std::future::pending().await
            }
        };
        let task = tokio::spawn(supervise(Arc::clone(&acme.inner), panicking));
        for (number, words) in [(1, "the first time"), (2, "the second time")] {
            let has_words = |error: &String| error.contains("has failed") && error.contains(words);
            while !acme.status()[0].last_error.as_ref().is_some_and(has_words) {
                sleep(Duration::from_millis(100)).await;
            }
            assert!(acme.samples()[0].is_failing);
            while started.load(Ordering::SeqCst) <= number {
                sleep(Duration::from_millis(100)).await;
            }
        }
        while acme.samples()[0].is_failing {
            sleep(Duration::from_millis(100)).await;
        }
        task.abort();
    }
}

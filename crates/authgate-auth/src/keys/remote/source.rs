//! [`SharedKeySource`]: fetches the keys of one issuer, and has what all workers verify with.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use authgate_core::identity::KeyIdentity;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::documents::{Documents, Provider};
use super::error::{FetchProblem, KeysError};
use super::refresh;
use super::settings::RemoteKeys;
use super::state::{Confirmed, KeySourceStatus, KeyState, KnownKeys};
use crate::dependencies::{ChangeCounters, Dependencies, StoreItem};
use crate::keys::SkippedKey;
use crate::labels;
use crate::metrics::{KeySourceMetrics, ObservedKeySource};

/// The keys of one issuer, fetched by one task for all workers. It lives as long as a configuration has these settings.
///
/// Dropping it ends the task.
pub struct SharedKeySource {
    inner: Arc<Inner>,
    task: OnceLock<AbortHandle>,
}

struct Inner {
    authenticator: Arc<str>,
    settings: Arc<RemoteKeys>,
    /// The URL of the configuration, which is also its name in `counters`.
    name: Arc<str>,
    documents: Arc<dyn Documents>,
    counters: Arc<ChangeCounters>,
    state: watch::Sender<KeyState>,
    /// Notified by a request whose token names an unknown key.
    wanted: Notify,
    metrics: KeySourceMetrics,
}

impl fmt::Debug for SharedKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKeySource")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

impl Drop for SharedKeySource {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl SharedKeySource {
    /// Makes a source without keys. `counters` hold the items that cached decisions depend on.
    pub(crate) fn new(
        authenticator: &Arc<str>,
        settings: &Arc<RemoteKeys>,
        counters: &Arc<ChangeCounters>,
    ) -> Arc<Self> {
        let documents = Arc::new(Provider::new(settings));
        Self::with_documents(authenticator, settings, counters, documents)
    }

    fn with_documents(
        authenticator: &Arc<str>,
        settings: &Arc<RemoteKeys>,
        counters: &Arc<ChangeCounters>,
        documents: Arc<dyn Documents>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(Inner {
                authenticator: Arc::clone(authenticator),
                name: settings.location.as_str().into(),
                documents,
                settings: Arc::clone(settings),
                counters: Arc::clone(counters),
                state: watch::Sender::default(),
                wanted: Notify::new(),
                metrics: KeySourceMetrics::default(),
            }),
            task: OnceLock::new(),
        })
    }

    /// Fetches on the current runtime from now on. Only the first call has an effect.
    pub(crate) fn start(&self) {
        self.task.get_or_init(|| {
            self.inner.documents.start();
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move { tokio::join!(inner.fetch_when_due(), inner.forget_when_too_old()) })
                .abort_handle()
        });
    }

    pub(crate) fn settings(&self) -> &Arc<RemoteKeys> {
        &self.inner.settings
    }

    /// The deadline for one fetch.
    pub(crate) fn timeout(&self) -> Duration {
        self.inner.settings.timeout
    }

    /// Whether it had keys at least once since the start.
    pub fn was_reached(&self) -> bool {
        self.inner.state.borrow().confirmed.is_some()
    }

    /// The URL of the configuration.
    pub fn location(&self) -> &Arc<str> {
        &self.inner.name
    }

    /// What a scrape reads of it.
    pub fn observed(&self) -> ObservedKeySource {
        let state = self.inner.state.borrow();
        ObservedKeySource {
            authenticator: Arc::clone(&self.inner.authenticator),
            location: Arc::clone(&self.inner.name),
            metrics: self.inner.metrics.clone(),
            age: state.confirmed.map(|confirmed| confirmed.at.elapsed()),
            keys: state.known.as_ref().map_or(0, |known| known.keys.len()),
        }
    }

    /// Its state.
    pub fn status(&self) -> KeySourceStatus {
        let state = self.inner.state.borrow().clone();
        let known = state.known.as_deref();
        KeySourceStatus {
            authenticator: Arc::clone(&self.inner.authenticator),
            location: self.inner.name.as_ref().to_owned(),
            keys: known.map_or_else(Vec::new, KnownKeys::names),
            left_out: known.map_or_else(Vec::new, |known| {
                known.left_out.iter().map(ToString::to_string).collect()
            }),
            last_success: state.confirmed.map(|confirmed| confirmed.wall_clock),
            next_fetch: state
                .next
                .map(|next| SystemTime::now() + next.saturating_duration_since(Instant::now())),
            failures: state.failures,
            error: state.problem.as_ref().map(ToString::to_string),
        }
    }

    /// The present keys. If there are none, it asks for a fetch, so that they are there one `cooldown` after the provider is.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn keys(&self) -> Result<Arc<KnownKeys>, KeysError> {
        let state = self.inner.state.borrow();
        let name = || Arc::clone(&self.inner.name);
        let is_young = |confirmed: Confirmed| confirmed.at.elapsed() < self.inner.settings.max_stale;
        let missing = match (&state.known, state.confirmed) {
            (Some(known), Some(confirmed)) if is_young(confirmed) => return Ok(Arc::clone(known)),
            (Some(_) | None, Some(_)) => KeysError::TooOld(name()),
            (Some(_) | None, None) => KeysError::NotYet(name()),
        };
        self.inner.wanted.notify_one();
        Err(missing)
    }

    /// Whether `known` are the present keys.
    pub(crate) fn has_still(&self, known: &Arc<KnownKeys>) -> bool {
        let state = self.inner.state.borrow();
        state.known.as_ref().is_some_and(|present| Arc::ptr_eq(present, known))
    }

    /// Waits for one fetch, because a token names a key that `known` does not have. `None`: there are no other keys than these, or the last
    /// fetch was less than `cooldown` ago.
    ///
    /// # Errors
    /// The last fetch has failed, or it does not end before the deadline.
    pub(crate) async fn newer_than(
        &self,
        known: &Arc<KnownKeys>,
        deadline: Instant,
    ) -> Result<Option<Arc<KnownKeys>>, KeysError> {
        let mut states = self.inner.state.subscribe();
        let mut has_asked = false;
        loop {
            let (present, problem, may_fetch, is_fetching) = {
                let state = states.borrow_and_update();
                let may_fetch = self.inner.may_fetch(&state, Instant::now());
                (
                    state.known.clone(),
                    state.problem.is_some(),
                    may_fetch,
                    state.is_fetching,
                )
            };
            match present {
                Some(present) if !Arc::ptr_eq(&present, known) => return Ok(Some(present)),
                Some(_) => {}
                // They have become too old.
                None => return self.keys().map(Some),
            }
            if !is_fetching {
                match (may_fetch, problem) {
                    (false, true) => return Err(KeysError::FetchFailed(Arc::clone(&self.inner.name))),
                    (false, false) => return Ok(None),
                    (true, _) if !has_asked => {
                        has_asked = true;
                        self.inner.wanted.notify_one();
                    }
                    (true, _) => {}
                }
            }
            // The sender lives as long as this source.
            if timeout_at(deadline, states.changed()).await.is_err() {
                return Err(KeysError::Timeout(Arc::clone(&self.inner.name)));
            }
        }
    }

    /// The decision depends on the present set: it is no longer valid when the set changes. Call it before the set is read again.
    pub(crate) fn mark_set(&self, dependencies: &mut Dependencies) {
        let inner = &self.inner;
        inner.counters.mark(dependencies, &inner.name, StoreItem::KeySet);
    }

    /// The decision depends on this key: it is no longer valid when the key leaves the set. Call it before the set is read again.
    pub(crate) fn mark_key(&self, dependencies: &mut Dependencies, key: &KeyIdentity) {
        let inner = &self.inner;
        inner.counters.mark(dependencies, &inner.name, StoreItem::Key(key));
    }
}

impl KnownKeys {
    /// The `kid` and algorithm of each key.
    fn names(&self) -> Vec<(String, &'static str)> {
        let names = self.keys.iter();
        names.map(|key| (key.id().to_owned(), key.algorithm().name())).collect()
    }

    fn has(&self, key: &KeyIdentity) -> bool {
        self.keys.iter().any(|own| **own.identity() == *key)
    }
}

impl Inner {
    /// Whether the last fetch has begun at least `cooldown` ago.
    fn may_fetch(&self, state: &KeyState, now: Instant) -> bool {
        state.began.is_none_or(|began| now >= began + self.settings.cooldown)
    }

    /// Fetches at once, and then whenever the next fetch is due or wanted.
    async fn fetch_when_due(&self) {
        loop {
            let next = self.state.borrow().next;
            let due = async {
                if let Some(next) = next {
                    sleep_until(next).await;
                }
            };
            tokio::select! {
                () = due => {}
                () = self.wanted.notified() => {
                    // It may have been wanted before the last fetch began.
                    if !self.may_fetch(&self.state.borrow(), Instant::now()) {
                        continue;
                    }
                }
            }
            self.fetch().await;
        }
    }

    /// Forgets the keys when no fetch has succeeded for `max_stale`.
    async fn forget_when_too_old(&self) {
        let mut states = self.state.subscribe();
        loop {
            let end = {
                let state = states.borrow_and_update();
                let confirmed = state.confirmed.filter(|_| state.known.is_some());
                confirmed.map(|confirmed| confirmed.at + self.settings.max_stale)
            };
            let too_old = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The sender lives as long as this task.
                _ = states.changed() => {}
                () = too_old => {
                    let mut forgotten = None;
                    self.state.send_modify(|state| forgotten = state.known.take());
                    self.end_decisions(forgotten.as_deref(), None);
                    error!(
                        authenticator = %self.authenticator, keys = %self.name,
                        "the keys are older than max_stale; requests that need them get 503 until a fetch succeeds"
                    );
                }
            }
        }
    }

    /// Fetches once.
    async fn fetch(&self) {
        let began = Instant::now();
        self.state.send_modify(|state| {
            state.began = Some(began);
            state.is_fetching = true;
        });
        // A task of its own: a panic while a set is parsed must not end the task that ends the keys after `max_stale`. Dropping the set of
        // tasks ends it.
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&self.documents).fetch(began + self.settings.timeout));
        let fetched = match task.join_next().await {
            Some(Ok(fetched)) => fetched,
            Some(Err(error)) => Err(FetchProblem::Panicked(error.to_string())),
            None => Err(FetchProblem::Panicked("no task".to_owned())),
        };
        self.metrics.record_fetch(match &fetched {
            Ok(_) => &labels::FETCH_OK,
            Err(problem) => problem.label_value(),
        });
        match fetched {
            Ok((keys, max_age)) => self.succeeded(began, keys, max_age),
            Err(problem) => self.failed(began, problem),
        }
    }

    fn succeeded(&self, began: Instant, fetched: KnownKeys, max_age: Option<Duration>) {
        let next = began + refresh::after_success(&self.settings, max_age, fastrand::f64());
        let fetched = Arc::new(fetched);
        let (mut before, mut recovered) = (None, false);
        self.state.send_modify(|state| {
            before.clone_from(&state.known);
            recovered = state.problem.is_some();
            // Equal keys stay the same ones, so that waiting requests see that nothing has changed.
            if state.known.as_ref() != Some(&fetched) {
                state.known = Some(Arc::clone(&fetched));
            }
            *state = KeyState {
                known: state.known.take(),
                confirmed: Some(Confirmed {
                    at: began,
                    wall_clock: SystemTime::now(),
                }),
                began: Some(began),
                is_fetching: false,
                problem: None,
                failures: 0,
                next: Some(next),
            };
        });
        // After the keys are replaced: a decision that was made with the old ones after this would not see the change.
        self.end_decisions(before.as_deref(), Some(&fetched));
        if before.as_ref() != Some(&fetched) {
            self.log_keys(&fetched, before.as_deref());
        } else if recovered {
            info!(authenticator = %self.authenticator, keys = %self.name, "the keys can be fetched again");
        }
    }

    fn failed(&self, began: Instant, problem: FetchProblem) {
        let text = problem.to_string();
        let (mut is_new, mut has_keys) = (false, false);
        self.state.send_modify(|state| {
            is_new = state.problem.as_ref() != Some(&problem);
            has_keys = state.known.is_some();
            state.failures = state.failures.saturating_add(1);
            state.problem = Some(problem);
            state.is_fetching = false;
            state.next = Some(began + refresh::after_failure(&self.settings, state.failures, fastrand::f64()));
        });
        if !is_new {
            return;
        }
        let (authenticator, keys) = (&self.authenticator, &self.name);
        if has_keys {
            warn!(%authenticator, %keys, reason = text, max_stale = ?self.settings.max_stale, "the keys could not be fetched; the present ones are used until max_stale");
        } else {
            error!(%authenticator, %keys, reason = text, "the keys could not be fetched; requests that need them get 503 until a fetch succeeds");
        }
    }

    /// Ends the cached decisions that depend on what has changed.
    fn end_decisions(&self, before: Option<&KnownKeys>, now: Option<&KnownKeys>) {
        if before == now {
            return;
        }
        self.counters.changed(&self.name, StoreItem::KeySet);
        let removed = before.into_iter().flat_map(|before| &before.keys);
        let removed = removed.filter(|key| now.is_none_or(|now| !now.has(key.identity())));
        for key in removed {
            self.counters.changed(&self.name, StoreItem::Key(key.identity()));
        }
    }

    fn log_keys(&self, fetched: &KnownKeys, before: Option<&KnownKeys>) {
        let (authenticator, keys) = (&self.authenticator, &self.name);
        if before.is_none_or(|before| before.keys != fetched.keys) {
            let kids: Vec<String> = fetched
                .names()
                .into_iter()
                .map(|(kid, algorithm)| format!("{kid} ({algorithm})"))
                .collect();
            let kids = authgate_core::printable::Printable(&kids.join(", ")).to_string();
            info!(%authenticator, %keys, kids, "the keys were fetched, and are in use");
        }
        if before.is_none_or(|before| before.left_out != fetched.left_out) {
            let left_out_before = before.map_or(&[][..], |before| &before.left_out);
            let is_new = |key: &&SkippedKey| !left_out_before.iter().any(|before| before.is_same(key));
            for key in fetched.left_out.iter().filter(is_new) {
                warn!(%authenticator, %keys, reason = %key, "a key of the set is not used");
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

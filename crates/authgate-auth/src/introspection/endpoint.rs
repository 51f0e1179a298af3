//! [`SharedEndpoint`]: an introspection endpoint, which all workers ask through one client.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use authgate_core::secret::Secret;
use authgate_http::log_throttle::LogThrottle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::answer::Answer;
use super::endpoint_settings::EndpointSettings;
use super::error::IntrospectionError;
use super::location::{Discovery, Location};
use crate::fetch::{HttpClient, Proxies};
use crate::labels;
use crate::metrics::IntrospectionMetrics;
use crate::now::{Now, milliseconds};
use crate::outage::{Asked, Outage, OutageStatus};

/// How many tokens are introspected at once, over all workers. Further ones wait, within the timeout.
const MAX_CONCURRENT: usize = 64;

/// After so many tokens in a row that it could not answer, an endpoint is down. Fewer may be the fault of one token.
const DOWN_AFTER: u32 = 3;
/// How long ago the last failure may be, beside the time that two probes take.
const RECENT: Duration = Duration::from_secs(2);
/// The shortest time between two probes of an endpoint that is down, in milliseconds.
const PROBE_EVERY: u64 = 500;

/// The endpoint of one authenticator. It lives as long as a configuration has these settings.
#[derive(Debug)]
pub struct SharedEndpoint {
    authenticator: Arc<str>,
    settings: Arc<EndpointSettings>,
    client: Arc<HttpClient>,
    discovery: Discovery,
    permits: Semaphore,
    metrics: IntrospectionMetrics,
    health: Mutex<Health>,
    outage: Outage,
    /// How often in a row it could not answer.
    failures_in_a_row: AtomicU32,
    /// When it could not answer last, on the clock of [`Now::uptime_ms`].
    last_failure: AtomicU64,
    /// One probe at a time.
    probe: Arc<Semaphore>,
    /// When the last probe began, on the clock of [`Now::uptime_ms`].
    last_probe: AtomicU64,
}

/// How the last introspections ended.
#[derive(Debug, Default)]
struct Health {
    last_success: Option<SystemTime>,
    /// The error of the last introspection; `None`: it has succeeded, or there was none.
    error: Option<IntrospectionError>,
    failures: u64,
    log: LogThrottle,
    /// Whether the log has a failure, and no success after it.
    is_failure_logged: bool,
}

/// The state of an endpoint, for reports.
#[derive(Debug, Clone)]
pub struct IntrospectionStatus {
    /// The name of its authenticator.
    pub authenticator: Arc<str>,
    /// When it last answered.
    pub last_success: Option<SystemTime>,
    /// Why the last introspection has failed. `None`: it has succeeded, or there was none.
    pub error: Option<String>,
    /// How many introspections have failed.
    pub failures: u64,
    /// Its present outage.
    pub outage: Option<OutageStatus>,
}

impl SharedEndpoint {
    /// Makes the shared part of an authenticator. It does not connect.
    pub(crate) fn new(authenticator: &Arc<str>, settings: &Arc<EndpointSettings>) -> Arc<Self> {
        Arc::new(Self {
            authenticator: Arc::clone(authenticator),
            client: HttpClient::new(&settings.tls, MAX_CONCURRENT, Proxies::of_environment()),
            settings: Arc::clone(settings),
            discovery: Discovery::default(),
            permits: Semaphore::new(MAX_CONCURRENT),
            metrics: IntrospectionMetrics::default(),
            health: Mutex::default(),
            outage: Outage::new(Asked::Endpoint(Arc::clone(authenticator))),
            failures_in_a_row: AtomicU32::new(0),
            last_failure: AtomicU64::new(0),
            probe: Arc::new(Semaphore::new(1)),
            last_probe: AtomicU64::new(0),
        })
    }

    /// Asks on the current runtime from now on. Only the first call has an effect.
    pub(crate) fn start(&self) {
        self.client.start();
    }

    /// The deadline for one token.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    pub(crate) fn settings(&self) -> &Arc<EndpointSettings> {
        &self.settings
    }

    /// Its metrics.
    pub fn metrics(&self) -> &IntrospectionMetrics {
        &self.metrics
    }

    /// Its state.
    pub fn status(&self) -> IntrospectionStatus {
        let health = self.health();
        IntrospectionStatus {
            authenticator: Arc::clone(&self.authenticator),
            last_success: health.last_success,
            error: health.error.as_ref().map(ToString::to_string),
            failures: health.failures,
            outage: self.outage.status(),
        }
    }

    /// Its outages.
    pub(crate) fn outage(&self) -> &Outage {
        &self.outage
    }

    /// The present outage, if the last tokens were not answered. If that was long ago, the endpoint has to be asked.
    pub(crate) fn down(&self) -> Option<&Outage> {
        if self.failures_in_a_row.load(Ordering::Relaxed) < DOWN_AFTER {
            return None;
        }
        let since = Now::read()
            .uptime_ms
            .saturating_sub(self.last_failure.load(Ordering::Relaxed));
        // Meanwhile a probe has failed, if there were requests.
        let is_recent = since <= milliseconds(RECENT.saturating_add(self.settings.timeout.saturating_mul(2)));
        is_recent.then_some(&self.outage)
    }

    /// If the endpoint is down, asks it about a token that it has known, to find out whether it answers again. Nothing waits for the answer.
    /// One probe runs at a time, and begins at least [`PROBE_EVERY`] after the one before it.
    pub(crate) fn probe(self: &Arc<Self>, token: &[u8]) {
        let (now, last) = (Now::read(), self.last_probe.load(Ordering::Relaxed));
        let is_due = self.down().is_some() && now.uptime_ms.saturating_sub(last) >= PROBE_EVERY;
        let Some(permit) = is_due
            .then(|| Arc::clone(&self.probe).try_acquire_owned().ok())
            .flatten()
        else {
            return;
        };
        self.last_probe.store(now.uptime_ms, Ordering::Relaxed);
        let (endpoint, token) = (Arc::clone(self), Secret::new(token.to_vec()));
        self.client.spawn(async move {
            // The answer is for the health of the endpoint alone.
            let _ = endpoint.introspect(token.expose()).await;
            drop(permit);
        });
    }

    /// Asks about a token.
    ///
    /// # Errors
    /// There is no answer within the timeout, or it cannot be used.
    pub(super) async fn introspect(&self, token: &[u8]) -> Result<Answer, IntrospectionError> {
        let began = Instant::now();
        let asked = self.ask(token, began + self.settings.timeout).await;
        let outcome = match &asked {
            Ok(Answer::Active(_)) => &labels::ACTIVE,
            Ok(Answer::Inactive) => &labels::INACTIVE,
            Err(error) => error.outcome(),
        };
        self.metrics.record(outcome, began.elapsed());
        match &asked {
            Ok(_) => self.note_success(),
            Err(error) => self.note_failure(error),
        }
        asked
    }

    async fn ask(&self, token: &[u8], deadline: Instant) -> Result<Answer, IntrospectionError> {
        // The semaphore is never closed.
        let permit = timeout_at(deadline, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| IntrospectionError::Busy)?;
        let url = match &self.settings.location {
            Location::Url(url) => url.clone(),
            Location::Issuer(issuer) => self.discovery.url(issuer, &self.client, deadline).await?,
        };
        // Only visible ASCII is read as a token.
        let token = std::str::from_utf8(token).unwrap_or_default();
        let (authorization, form) = self.settings.client.request(token);
        let answered = self.client.post_form(&url, authorization, form, deadline).await;
        let document = answered.map_err(IntrospectionError::Fetch)?;
        Answer::parse(&document.body).map_err(IntrospectionError::Answer)
    }

    fn note_success(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.outage.note_answer();
        let mut health = self.health();
        health.last_success = Some(SystemTime::now());
        health.error = None;
        if std::mem::take(&mut health.is_failure_logged) {
            info!(authenticator = %self.authenticator, "the introspection endpoint answers again");
        }
    }

    fn note_failure(&self, error: &IntrospectionError) {
        if error.is_outage() {
            self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
            self.last_failure.store(Now::read().uptime_ms, Ordering::Relaxed);
            self.outage.note_failure();
        } else {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        let mut health = self.health();
        health.failures += 1;
        if let Some(times) = health.log.note() {
            health.is_failure_logged = true;
            warn!(authenticator = %self.authenticator, reason = %error, times, "a token could not be introspected; requests with tokens that are not cached get 503");
        }
        health.error = Some(error.clone());
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

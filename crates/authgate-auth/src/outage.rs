//! [`Outage`]: since when a store or an introspection endpoint cannot answer, and which authenticators use cached decisions meanwhile.
//!
//! Decisions do not depend on it: each request finds out for itself whether it is answered. It is for the log, for metrics, and for
//! `/status.json`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use authgate_http::log_throttle::LogThrottle;
use tracing::{info, warn};

use crate::now::{Now, milliseconds};

/// The outage of a store has ended when nothing has failed for so long. One that comes and goes is a single outage.
const QUIET: Duration = Duration::from_secs(1);

/// Numbers of outages, over all stores and endpoints: the next one.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// The store of this name.
    Store(Arc<str>),
    /// The introspection endpoint of this authenticator.
    Endpoint(Arc<str>),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(name) => write!(f, "store {name}"),
            Self::Endpoint(authenticator) => write!(f, "the introspection endpoint of {authenticator}"),
        }
    }
}

/// The outages of one store or endpoint.
#[derive(Debug)]
pub(crate) struct Outage {
    asked: Asked,
    /// The number of the present outage. 0: there is none. Written under the lock of `state`.
    number: AtomicU64,
    /// When something has failed last, on the clock of [`Now::uptime_ms`].
    last_failure: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    present: Option<Present>,
    log: LogThrottle,
}

#[derive(Debug)]
struct Present {
    since: SystemTime,
    began: Instant,
    serving: Vec<Serving>,
    /// Whether the log has the begin of it. Then it gets the end too.
    is_logged: bool,
}

/// An authenticator that uses cached decisions in an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Its name.
    pub authenticator: Arc<str>,
    /// When it has used one first.
    pub since: SystemTime,
}

/// A present outage, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageStatus {
    /// When it began.
    pub since: SystemTime,
    /// How long it lasts by now.
    pub lasting: Duration,
    /// The authenticators that use cached decisions, in the order in which they began.
    pub serving: Vec<Serving>,
}

impl Outage {
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            asked,
            number: AtomicU64::new(0),
            last_failure: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// The store or endpoint could not answer. Returns the number of the outage.
    pub(crate) fn note_failure(&self) -> u64 {
        self.note_failure_at(Now::read().uptime_ms)
    }

    fn note_failure_at(&self, uptime_ms: u64) -> u64 {
        self.last_failure.fetch_max(uptime_ms, Ordering::Relaxed);
        match self.number.load(Ordering::Relaxed) {
            0 => self.begin(),
            number => number,
        }
    }

    fn begin(&self) -> u64 {
        let mut state = self.lock();
        if state.present.is_none() {
            state.present = Some(Present {
                since: SystemTime::now(),
                began: Instant::now(),
                serving: Vec::new(),
                is_logged: false,
            });
            self.number
                .store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        self.number.load(Ordering::Relaxed)
    }

    /// It answers. This ends an outage, unless the store has failed just before.
    pub(crate) fn note_answer(&self) {
        if self.number.load(Ordering::Relaxed) != 0 {
            self.note_answer_at(Now::read().uptime_ms);
        }
    }

    fn note_answer_at(&self, uptime_ms: u64) {
        let quiet = uptime_ms.saturating_sub(self.last_failure.load(Ordering::Relaxed));
        let is_quiet = match self.asked {
            Asked::Store(_) => quiet >= milliseconds(QUIET),
            // It is not watched: the next answer may come much later.
            Asked::Endpoint(_) => true,
        };
        if !is_quiet {
            return;
        }
        let mut state = self.lock();
        self.number.store(0, Ordering::Relaxed);
        let Some(present) = state.present.take().filter(|present| present.is_logged) else {
            return;
        };
        let names: Vec<&str> = present.serving.iter().map(|serving| &*serving.authenticator).collect();
        info!(
            authenticators = names.join(","),
            seconds = present.began.elapsed().as_secs(),
            "{} answers again; cached decisions are not used beyond their ttl any more",
            self.asked
        );
    }

    /// An authenticator uses cached decisions in the present outage. Call it once for each outage, its number being the result of
    /// [`note_failure`](Self::note_failure).
    pub(crate) fn note_serving(&self, authenticator: &Arc<str>, stale_for: Duration, reason: &str) {
        let mut state = self.lock();
        let State { present, log } = &mut *state;
        let Some(present) = present else { return };
        if present
            .serving
            .iter()
            .any(|serving| serving.authenticator == *authenticator)
        {
            return;
        }
        if !present.is_logged {
            present.is_logged = log.note().is_some();
        }
        if present.is_logged {
            warn!(
                %authenticator, reason, stale_for = ?stale_for,
                "{} cannot answer: cached decisions are used that were confirmed at most stale_for ago", self.asked
            );
        }
        present.serving.push(Serving {
            authenticator: Arc::clone(authenticator),
            since: SystemTime::now(),
        });
    }

    /// The present outage.
    pub(crate) fn status(&self) -> Option<OutageStatus> {
        let state = self.lock();
        state.present.as_ref().map(|present| OutageStatus {
            since: present.since,
            lasting: present.began.elapsed(),
            serving: present.serving.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_when_nothing_has_failed_for_a_second() {
        let outage = Outage::new(Asked::Store("redis".into()));
        outage.note_answer_at(5_000);
        assert_eq!(outage.status(), None);
        let number = outage.note_failure_at(10_000);
        assert_eq!(outage.note_failure_at(10_500), number);
        outage.note_answer_at(11_499);
        let status = outage.status().expect("it lasts");
        assert!(status.serving.is_empty());
        outage.note_answer_at(11_500);
        assert_eq!(outage.status(), None);
        assert!(outage.note_failure_at(20_000) > number, "another one");
    }

    #[test]
    fn the_authenticators_that_use_cached_decisions_are_listed_once_for_each_outage() {
        let outage = Outage::new(Asked::Endpoint("idp".into()));
        let names = || {
            let status = outage.status().expect("it lasts");
            let names = status.serving.iter().map(|serving| serving.authenticator.to_string());
            names.collect::<Vec<String>>().join(",")
        };
        outage.note_failure_at(10_000);
        for authenticator in ["token", "jwt", "token"] {
            outage.note_serving(&authenticator.into(), Duration::from_secs(300), "store_timeout");
        }
        assert_eq!(names(), "token,jwt");
        outage.note_answer_at(12_000);
        outage.note_serving(&"jwt".into(), Duration::from_secs(300), "store_timeout");
        assert_eq!(outage.status(), None, "it is over");
        outage.note_failure_at(13_000);
        assert_eq!(names(), "");
    }
}

//! [`Canary`]: measures how long a change in Redis takes until this gateway knows of it.
//!
//! Every second, the gateway writes a key of its own, and waits for the report of this change, as it would for a revocation. The lag is the
//! age of the last write that was reported, less the period: 0 while reports come at once, and rising while none comes.
//!
//! A report does not say which write it is about. So there is only one write at a time that was not reported yet.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use redis::{RedisResult, cmd};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::info;

use super::SharedRedis;
use super::connections::Connections;
use super::settings::Role;
use crate::now::{Now, milliseconds};

/// How often the key is written.
const PERIOD: Duration = Duration::from_secs(1);
/// A write that was not reported for so long is repeated: its report may be lost.
const REPEAT: Duration = Duration::from_secs(5);
/// A key that is not written any more is removed by Redis.
const EXPIRY: Duration = Duration::from_secs(60);
/// How long the key is not written after Redis has denied the right.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

/// The writes of one gateway to one Redis, and their reports.
#[derive(Debug, Default)]
pub(in crate::store) struct Canary(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether changes were reported at least once. Where they never are, nothing is measured.
    was_subscribed: bool,
    /// When the first write was made that was not reported yet.
    pending: Option<Instant>,
    /// When the last write was made that was reported. `None`: there was none, or the right is missing.
    reported: Option<Instant>,
}

impl Canary {
    /// The lag. `None`: it is not measured.
    pub(in crate::store) fn lag(&self) -> Option<Duration> {
        self.lag_at(Instant::now())
    }

    fn lag_at(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.lock().reported?);
        Some(age.saturating_sub(PERIOD))
    }

    /// A subscription begins. Earlier writes are not reported to it.
    pub(super) fn subscribed(&self) {
        let mut state = self.lock();
        (state.was_subscribed, state.pending) = (true, None);
    }

    /// The change of the key was reported.
    pub(super) fn came_through(&self) {
        let mut state = self.lock();
        if let Some(written) = state.pending.take() {
            state.reported = Some(written);
        }
    }

    /// Whether the key is to be written now, and if so, notes that it is.
    fn begin_write(&self, now: Instant) -> bool {
        let mut state = self.lock();
        match state.pending {
            // The report of either write is taken for that of the first.
            Some(written) => now.saturating_duration_since(written) >= REPEAT,
            None if state.was_subscribed => {
                state.pending = Some(now);
                true
            }
            None => false,
        }
    }

    /// The key may not be written, so nothing is measured.
    fn denied(&self) {
        let mut state = self.lock();
        (state.pending, state.reported) = (None, None);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The random id of this process, in hexadecimal digits.
pub(super) fn gateway_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let mut bytes = [0; 8];
        // If there are no random bytes, gateways share a key. Each of them then measures the writes of all.
        let _ = rand::fill(&mut bytes);
        bytes.iter().fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
    })
}

/// Writes the key again and again, while changes are reported; never returns.
pub(super) async fn write(shared: &SharedRedis) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = Connections::new(Role::Reader);
    let mut denied: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let is_denied = denied.is_some_and(|at| at.elapsed() < DENIED_PAUSE);
        if is_denied || !shared.canary.begin_write(Instant::now()) {
            continue;
        }
        match timeout(shared.settings.timeout, write_once(shared, &mut connections)).await {
            Ok(Ok(())) => denied = None,
            Ok(Err(problem)) if problem.code() == Some("NOPERM") => {
                shared.canary.denied();
                if denied.replace(Instant::now()).is_none() {
                    info!(
                        store = %shared.name, reason = %shared.error(&problem),
                        "the delay of revocations is not measured: the role may not write the key for that. See \
                         docs/operations/revocation.md"
                    );
                }
            }
            // The watcher of the layout reports an outage, and the lag rises.
            Ok(Err(_)) | Err(_) => connections.close(),
        }
    }
}

async fn write_once(shared: &SharedRedis, connections: &mut Connections) -> RedisResult<()> {
    let key = shared.settings.keys().canary(gateway_id());
    let mut set = cmd("SET");
    // The time is for people who look at the key.
    set.arg(&key)
        .arg(Now::read().unix_seconds())
        .arg("PX")
        .arg(milliseconds(EXPIRY));
    connections.send(shared, &key, &set).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_the_age_of_the_last_reported_write_less_the_period() {
        let (canary, begin) = (Canary::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        assert!(!canary.begin_write(at(0)), "changes are not reported");
        canary.subscribed();
        assert!(canary.begin_write(at(0)));
        assert_eq!(canary.lag_at(at(500)), None, "nothing has come through yet");
        canary.came_through();
        for (ms, lag) in [(10, 0), (1_000, 0), (1_003, 3), (4_000, 3_000)] {
            assert_eq!(canary.lag_at(at(ms)), Some(Duration::from_millis(lag)), "{ms}");
        }
        // A report that comes late is not taken for that of a later write.
        assert!(canary.begin_write(at(1_000)));
        assert!(!canary.begin_write(at(2_000)) && !canary.begin_write(at(5_999)));
        canary.came_through();
        assert_eq!(canary.lag_at(at(6_000)), Some(Duration::from_secs(4)));
        canary.came_through();
        assert_eq!(
            canary.lag_at(at(6_000)),
            Some(Duration::from_secs(4)),
            "nothing was written since"
        );
    }

    #[test]
    fn a_lost_report_does_not_stop_the_measurement() {
        let (canary, begin) = (Canary::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        canary.subscribed();
        assert!(canary.begin_write(at(0)));
        assert!(canary.begin_write(at(5)), "it is written again");
        canary.came_through();
        assert_eq!(
            canary.lag_at(at(6)),
            Some(Duration::from_secs(5)),
            "that of the first write"
        );
        assert!(canary.begin_write(at(6)));
        // The next subscription has no report of it.
        canary.subscribed();
        assert!(canary.begin_write(at(7)));
        canary.came_through();
        assert_eq!(canary.lag_at(at(8)), Some(Duration::ZERO));
        canary.denied();
        assert_eq!(canary.lag_at(at(9)), None);
    }

    #[test]
    fn gateways_have_random_ids() {
        assert_eq!(gateway_id().len(), 16);
        assert_eq!(gateway_id(), gateway_id());
        assert_ne!(gateway_id(), "0000000000000000");
    }
}

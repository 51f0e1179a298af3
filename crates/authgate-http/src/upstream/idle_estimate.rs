//! Learns how long a server keeps idle connections open.
//!
//! A server may close an idle connection at the moment when a request is sent on it. It is then unknown whether the server has read the request,
//! so only a request that may be repeated is sent again. A request that cannot be repeated uses only connections that were idle for
//! at most half as long as others have survived. The factor covers servers that check their timers rarely (gunicorn: each second)
//! and servers that close early because they restart.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// The assumption before anything was observed. Servers count in seconds, and the shortest limits in use are 1 or 2 seconds.
const INITIAL_ESTIMATE: Duration = Duration::from_millis(500);
/// After an observed close, the limit is raised at most once in this time, and at most to its double.
const RAISE_INTERVAL: Duration = Duration::from_secs(60);

/// What was observed of the idle connections of one server.
#[derive(Debug)]
pub(super) struct IdleEstimate {
    /// An idle connection has survived this long, and no close was observed at a shorter time since.
    survived: Cell<Duration>,
    /// The limit is not raised before this time. `None` until the first observed close.
    no_raise_before: Cell<Option<Instant>>,
}

impl IdleEstimate {
    pub(super) fn new() -> Self {
        Self {
            survived: Cell::new(INITIAL_ESTIMATE),
            no_raise_before: Cell::new(None),
        }
    }

    /// How long a connection may have been idle if the request cannot be repeated.
    pub(super) fn safe_idle_time(&self) -> Duration {
        self.survived.get() / 2
    }

    /// A connection was found open after this idle time.
    pub(super) fn record_open(&self, idle: Duration, now: Instant) {
        let before = self.survived.get();
        if idle <= before {
            return;
        }
        match self.no_raise_before.get() {
            None => self.survived.set(idle),
            Some(until) if now < until => {}
            Some(_) => {
                self.survived
                    .set(idle.min(before.saturating_mul(2).max(INITIAL_ESTIMATE)));
                self.no_raise_before.set(Some(now + RAISE_INTERVAL));
            }
        }
    }

    /// The server has closed an idle connection. `idle`: its idle time when it was last found open.
    pub(super) fn record_closed(&self, idle: Duration, now: Instant) {
        self.survived.set(idle.min(self.survived.get()));
        self.no_raise_before.set(Some(now + RAISE_INTERVAL));
    }
}

/// How long a connection is kept if the server has announced that it closes it after `announced` (`Keep-Alive: timeout=`).
/// The margin lets a request that is sent at the last moment arrive before the close.
pub(super) fn limit_from_keep_alive(announced: Duration) -> Duration {
    announced - (announced / 2).min(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_follows_observations() {
        let (estimate, now) = (IdleEstimate::new(), Instant::now());
        assert_eq!(estimate.safe_idle_time(), ms(250), "nothing was seen yet");
        estimate.record_open(ms(300), now);
        assert_eq!(estimate.safe_idle_time(), ms(250));
        estimate.record_open(ms(59_000), now);
        assert_eq!(estimate.safe_idle_time(), ms(29_500));
        estimate.record_closed(ms(1_900), now);
        assert_eq!(estimate.safe_idle_time(), ms(950));
        // A close after a longer idle time changes nothing; one after a shorter idle time does.
        estimate.record_closed(ms(2_800), now);
        assert_eq!(estimate.safe_idle_time(), ms(950));
        estimate.record_closed(ms(1_500), now);
        assert_eq!(estimate.safe_idle_time(), ms(750));
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_rises_slowly_after_a_close() {
        let (estimate, mut now) = (IdleEstimate::new(), Instant::now());
        estimate.record_closed(ms(2_000), now);
        assert_eq!(
            estimate.safe_idle_time(),
            ms(250),
            "the lesser of what was assumed and what was seen"
        );
        estimate.record_open(ms(40_000), now + ms(59_999));
        assert_eq!(estimate.safe_idle_time(), ms(250));
        for expected in [500, 1_000, 2_000] {
            now += RAISE_INTERVAL;
            estimate.record_open(ms(40_000), now);
            estimate.record_open(ms(40_000), now + ms(1));
            assert_eq!(estimate.safe_idle_time(), ms(expected));
        }
        estimate.record_closed(ms(1), now);
        now += RAISE_INTERVAL;
        estimate.record_open(ms(40_000), now);
        assert_eq!(estimate.safe_idle_time(), ms(250), "a restart is forgotten sooner");
    }

    #[test]
    fn the_announced_limit_gets_a_margin() {
        let limits = [0, 1, 2, 5, 75].map(|seconds| limit_from_keep_alive(Duration::from_secs(seconds)));
        assert_eq!(limits, [0, 500, 1_000, 4_000, 74_000].map(ms));
    }
}

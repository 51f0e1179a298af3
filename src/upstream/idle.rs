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
const ASSUMED: Duration = Duration::from_millis(500);
/// After an observed close, the limit is raised at most once in this time, and at most to its double.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What was observed of the idle connections of one server.
#[derive(Debug)]
pub(super) struct IdleLimit {
    /// An idle connection has survived this long, and no close was observed at a shorter time since.
    survived: Cell<Duration>,
    /// The limit is not raised before this time. `None` until the first observed close.
    held: Cell<Option<Instant>>,
}

impl IdleLimit {
    pub(super) fn new() -> Self {
        Self {
            survived: Cell::new(ASSUMED),
            held: Cell::new(None),
        }
    }

    /// How long a connection may have been idle if the request cannot be repeated.
    pub(super) fn safe(&self) -> Duration {
        self.survived.get() / 2
    }

    /// A connection was found open after this idle time.
    pub(super) fn survived(&self, idle: Duration, now: Instant) {
        let before = self.survived.get();
        if idle <= before {
            return;
        }
        match self.held.get() {
            None => self.survived.set(idle),
            Some(until) if now < until => {}
            Some(_) => {
                self.survived.set(idle.min(before.saturating_mul(2).max(ASSUMED)));
                self.held.set(Some(now + FORGET_EVERY));
            }
        }
    }

    /// The server has closed an idle connection. `idle`: its idle time when it was last found open.
    pub(super) fn closed(&self, idle: Duration, now: Instant) {
        self.survived.set(idle.min(self.survived.get()));
        self.held.set(Some(now + FORGET_EVERY));
    }
}

/// How long a connection is kept if the server has announced that it closes it after `announced` (`Keep-Alive: timeout=`).
/// The margin lets a request that is sent at the last moment arrive before the close.
pub(super) fn announced_limit(announced: Duration) -> Duration {
    announced - (announced / 2).min(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_follows_what_was_seen() {
        let (limit, now) = (IdleLimit::new(), Instant::now());
        assert_eq!(limit.safe(), ms(250), "nothing was seen yet");
        limit.survived(ms(300), now);
        assert_eq!(limit.safe(), ms(250));
        limit.survived(ms(59_000), now);
        assert_eq!(limit.safe(), ms(29_500));
        limit.closed(ms(1_900), now);
        assert_eq!(limit.safe(), ms(950));
        // A close after a longer idle time changes nothing; one after a shorter idle time does.
        limit.closed(ms(2_800), now);
        assert_eq!(limit.safe(), ms(950));
        limit.closed(ms(1_500), now);
        assert_eq!(limit.safe(), ms(750));
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_is_forgotten_slowly() {
        let (limit, mut now) = (IdleLimit::new(), Instant::now());
        limit.closed(ms(2_000), now);
        assert_eq!(
            limit.safe(),
            ms(250),
            "the lesser of what was assumed and what was seen"
        );
        limit.survived(ms(40_000), now + ms(59_999));
        assert_eq!(limit.safe(), ms(250));
        for expected in [500, 1_000, 2_000] {
            now += FORGET_EVERY;
            limit.survived(ms(40_000), now);
            limit.survived(ms(40_000), now + ms(1));
            assert_eq!(limit.safe(), ms(expected));
        }
        limit.closed(ms(1), now);
        now += FORGET_EVERY;
        limit.survived(ms(40_000), now);
        assert_eq!(limit.safe(), ms(250), "a restart is forgotten sooner");
    }

    #[test]
    fn what_a_server_announces_is_not_waited_for_to_the_last_moment() {
        let limits = [0, 1, 2, 5, 75].map(|seconds| announced_limit(Duration::from_secs(seconds)));
        assert_eq!(limits, [0, 500, 1_000, 4_000, 74_000].map(ms));
    }
}

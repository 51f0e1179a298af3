//! How long a server leaves idle connections open, as far as that was seen.
//!
//! A server that closes an idle connection may do so at the moment in which a request is sent on it. Whether it has read the request is then
//! unknown, so only a request that may be repeated is sent again. What cannot be repeated goes on connections that were idle for half as long
//! as others have survived: servers look at their timers now and then (gunicorn each second), and close early when they are restarted.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// What is assumed of a server of which nothing was seen. Servers count in seconds, and the shortest limits in use are one or two.
const ASSUMED: Duration = Duration::from_millis(500);
/// After a close was seen, the limit is raised again once in this time, to its double at most.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What was seen of one server's idle connections.
#[derive(Debug)]
pub(super) struct IdleLimit {
    /// An idle connection has survived for so long, and none that was seen since was closed earlier.
    survived: Cell<Duration>,
    /// Until then, it is not raised.
    held: Cell<Option<Instant>>,
}

impl IdleLimit {
    pub(super) fn new() -> Self {
        Self {
            survived: Cell::new(ASSUMED),
            held: Cell::new(None),
        }
    }

    /// How long a connection may have been idle on which a request is sent that cannot be repeated.
    pub(super) fn safe(&self) -> Duration {
        self.survived.get() / 2
    }

    /// A connection is open after it was idle for so long.
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

    /// Its server has closed a connection that was last seen open when it had been idle for so long.
    pub(super) fn closed(&self, idle: Duration, now: Instant) {
        self.survived.set(idle.min(self.survived.get()));
        self.held.set(Some(now + FORGET_EVERY));
    }
}

/// How long a connection may be idle whose server has announced that it closes it after `announced` (`Keep-Alive: timeout=`): so much less
/// that a request that is sent at the last moment arrives before.
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
        // A later close says nothing new, an earlier one does.
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

//! When to log an event that may occur many times a second: at once, and then every few seconds with a count.

use std::time::{Duration, Instant};

const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The throttle of one kind of event at one place.
#[derive(Debug, Default)]
pub struct LogThrottle {
    suppressed: u64,
    last_logged: Option<Instant>,
}

impl LogThrottle {
    /// Notes one event. `Some(count)`: log it now, for this many events since the last line.
    pub fn note(&mut self) -> Option<u64> {
        self.note_at(Instant::now())
    }

    fn note_at(&mut self, now: Instant) -> Option<u64> {
        self.suppressed += 1;
        if self
            .last_logged
            .is_some_and(|last_logged| now < last_logged + LOG_INTERVAL)
        {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_after_the_first_are_logged_at_most_once_per_interval() {
        let (mut log_throttle, begin) = (LogThrottle::default(), Instant::now());
        let logged: Vec<_> = (0..500)
            .filter_map(|tick| log_throttle.note_at(begin + Duration::from_millis(50) * tick))
            .collect();
        assert_eq!(logged, [1, 200, 200]);
    }
}

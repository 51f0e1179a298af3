//! When to log an event that may occur many times a second: at once, and then every few seconds with a count.

use std::time::{Duration, Instant};

const REPEAT_AFTER: Duration = Duration::from_secs(10);

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
            .is_some_and(|last_logged| now < last_logged + REPEAT_AFTER)
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
    fn the_first_event_is_logged_and_then_one_in_a_while() {
        let (mut log_throttle, begin) = (LogThrottle::default(), Instant::now());
        let last_logged: Vec<_> = (0..500)
            .filter_map(|tick| log_throttle.note_at(begin + Duration::from_millis(50) * tick))
            .collect();
        assert_eq!(last_logged, [1, 200, 200]);
    }
}

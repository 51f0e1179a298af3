//! When to tell of what goes wrong many times a second: at once, and then now and then.

use std::time::{Duration, Instant};

const TELL_AGAIN: Duration = Duration::from_secs(10);

/// One kind of trouble, in one place.
#[derive(Debug, Default)]
pub struct Seldom {
    untold: u64,
    told: Option<Instant>,
}

impl Seldom {
    /// It has happened. `Some`: it is time to tell of so many times.
    pub fn note(&mut self) -> Option<u64> {
        self.note_at(Instant::now())
    }

    fn note_at(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + TELL_AGAIN) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_a_while() {
        let (mut seldom, begin) = (Seldom::default(), Instant::now());
        let told: Vec<_> = (0..500)
            .filter_map(|tick| seldom.note_at(begin + Duration::from_millis(50) * tick))
            .collect();
        assert_eq!(told, [1, 200, 200]);
    }
}

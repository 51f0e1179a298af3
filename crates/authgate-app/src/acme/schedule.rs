//! When a certificate is renewed, and how long the gateway waits after a failed attempt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authgate_dataplane::tls::validity::Validity;
use jiff::Timestamp;
use rustls_pki_types::UnixTime;

/// The validity period of a certificate, `not_before <= not_after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    not_before: UnixTime,
    pub(super) not_after: UnixTime,
}

impl From<Validity> for Life {
    fn from(validity: Validity) -> Self {
        Self {
            not_before: validity.not_before.min(validity.not_after),
            not_after: validity.not_after,
        }
    }
}

impl Life {
    fn length(self) -> Duration {
        Duration::from_secs(self.not_after.as_secs() - self.not_before.as_secs())
    }

    /// When a third of the life is left, and up to a sixtieth of the life later. `random` is between 0 and 1: so gateways with certificates
    /// of the same time do not order at the same moment.
    pub(super) fn renewal(self, random: f64) -> SystemTime {
        let end = UNIX_EPOCH + Duration::from_secs(self.not_after.as_secs());
        end - self.length() / 3 + (self.length() / 60).mul_f64(random)
    }

    /// Whether the certificate has expired.
    pub(super) fn is_over(self) -> bool {
        self.not_after < UnixTime::now()
    }

    pub(super) fn not_after_text(self) -> String {
        let seconds = i64::try_from(self.not_after.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or_else(|_| "in the far future".to_owned(), |time| time.to_string())
    }
}

/// What a failed attempt says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The authority did not answer, or this machine is the reason.
    NotRefused,
    /// The authority has refused. It counts such orders.
    Refused,
    /// The authority has refused because there were too many orders.
    RateLimited,
}

/// The pause after a failed attempt that followed `failed` others. It is short enough for many attempts before a certificate of this life
/// expires.
pub(super) fn pause(failed: u32, failure: Failure, life: Option<Life>, random: f64) -> Duration {
    const SHORTEST: Duration = Duration::from_secs(5);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let (first, longest) = match failure {
        Failure::NotRefused => (SHORTEST, Duration::from_secs(5 * 60)),
        Failure::Refused => (Duration::from_secs(60), HOUR),
        Failure::RateLimited => (HOUR, HOUR),
    };
    let longest = match life {
        Some(life) => longest.min(life.length() / 60),
        None => longest,
    };
    let pause = first.saturating_mul(1 << failed.min(10)).min(longest).max(SHORTEST);
    pause.mul_f64(1.0 + random / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn life(seconds: u64) -> Life {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        Life {
            not_before: at(1_000_000),
            not_after: at(1_000_000 + seconds),
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        for length in [90 * DAY, 6 * DAY, DAY, 600, 60] {
            let life = life(length);
            let at = |random| {
                life.renewal(random)
                    .duration_since(UNIX_EPOCH)
                    .expect("later")
                    .as_secs_f64()
            };
            let third = (1_000_000 + length) as f64 - length as f64 / 3.0;
            assert!((at(0.0) - third).abs() < 1.0, "{length}");
            assert!(
                at(1.0) > at(0.0) && at(1.0) <= third + length as f64 / 60.0 + 1.0,
                "{length}"
            );
        }
    }

    #[test]
    fn pauses_grow_and_are_short_for_a_short_life() {
        let seconds = |failed, failure, life| pause(failed, failure, life, 0.0).as_secs();
        let pauses = |failure| [0, 1, 4, 40].map(|failed| seconds(failed, failure, None));
        assert_eq!(pauses(Failure::NotRefused), [5, 10, 80, 300]);
        assert_eq!(pauses(Failure::Refused), [60, 120, 960, 3600]);
        assert_eq!(pauses(Failure::RateLimited), [3600; 4]);
        assert_eq!(seconds(40, Failure::Refused, Some(life(90 * DAY))), 3600);
        assert_eq!(seconds(40, Failure::Refused, Some(life(3600))), 60);
        assert_eq!(seconds(0, Failure::Refused, Some(life(60))), 5);
        assert!(pause(0, Failure::NotRefused, None, 1.0) > pause(0, Failure::NotRefused, None, 0.0));
    }
}

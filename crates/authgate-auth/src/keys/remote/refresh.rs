//! When keys are fetched.

use std::time::Duration;

use super::settings::RemoteKeys;

/// The largest part of a pause by which it is shortened or prolonged, so that gateways do not fetch at the same time.
const JITTER: f64 = 0.1;

/// The time from the beginning of a fetch that has succeeded to the next one. `max_age`: how long the response says that it is fresh.
/// `random` is in 0..1.
pub(super) fn after_success(settings: &RemoteKeys, max_age: Option<Duration>, random: f64) -> Duration {
    let longest = max_age.map_or(settings.refresh, |fresh| fresh.min(settings.refresh));
    longest.mul_f64(1.0 - JITTER * random).max(settings.cooldown)
}

/// The time from the beginning of a fetch that has failed to the next one. It is the fetch after so many failures in a row.
pub(super) fn after_failure(settings: &RemoteKeys, failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = settings.cooldown.saturating_mul(1 << doublings);
    let longest = settings.refresh.max(settings.cooldown);
    pause.min(longest).mul_f64(1.0 + JITTER * random)
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::settings;
    use super::*;

    #[test]
    fn a_fetch_is_as_often_as_the_provider_says_between_cooldown_and_refresh() {
        let seconds = Duration::from_secs;
        let settings = RemoteKeys {
            refresh: seconds(300),
            cooldown: seconds(30),
            ..settings("http://127.0.0.1/")
        };
        for (max_age, earliest, latest) in [
            (None, 270, 300),
            (Some(3600), 270, 300),
            (Some(100), 90, 100),
            (Some(31), 30, 31),
            (Some(0), 30, 30),
        ] {
            let fresh = max_age.map(seconds);
            assert_eq!(after_success(&settings, fresh, 0.0), seconds(latest), "{max_age:?}");
            assert_eq!(after_success(&settings, fresh, 1.0), seconds(earliest), "{max_age:?}");
        }
        for (failures, expected) in [(1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (u32::MAX, 300)] {
            assert_eq!(after_failure(&settings, failures, 0.0), seconds(expected), "{failures}");
            assert_eq!(
                after_failure(&settings, failures, 1.0),
                seconds(expected).mul_f64(1.1),
                "{failures}"
            );
        }
        // A cooldown above `refresh` is the longer one.
        let settings = RemoteKeys {
            refresh: seconds(1),
            ..settings
        };
        assert_eq!(after_success(&settings, None, 1.0), seconds(30));
        assert_eq!(after_failure(&settings, 9, 0.0), seconds(30));
    }
}

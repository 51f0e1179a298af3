//! What was judged lately: credential digest to verdict, bounded, in this process.
//!
//! Each authenticator has a cache of its own, so a digest means one thing in it. Refusals have a budget of their own and can never
//! push out somebody who was accepted. Every hit checks the time: an entry is neither used past its `ttl` nor past the
//! credential's own life.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use super::{Judged, Now};
use crate::credential::Refusal;
use crate::identity::Identity;

/// Bounds of a cache; `entries` 0 switches a half of it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Most accepted credentials that are remembered.
    pub entries: usize,
    /// For how long.
    pub ttl: Duration,
    /// Most refused credentials that are remembered.
    pub negative_entries: usize,
    /// For how long.
    pub negative_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entries: 100_000,
            ttl: Duration::from_secs(60),
            negative_entries: 20_000,
            negative_ttl: Duration::from_secs(5),
        }
    }
}

/// From when until when a credential is good, in milliseconds of Unix time, both ends excluded at the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Good from here on.
    pub from_ms: i64,
    /// Good before this.
    pub until_ms: i64,
}

impl Validity {
    /// Good at any time.
    pub const ALWAYS: Self = Self {
        from_ms: i64::MIN,
        until_ms: i64::MAX,
    };

    fn holds(self, now: Now) -> bool {
        self.from_ms <= now.unix_ms && now.unix_ms < self.until_ms
    }
}

/// The digest under which a credential's verdict is kept; nobody can choose one without inverting SHA-256.
pub type Key = [u8; 32];

/// A cache of verdicts.
#[derive(Debug)]
pub struct VerdictCache {
    settings: Settings,
    accepted: Option<Cache<Key, Accepted>>,
    refused: Option<Cache<Key, Refused>>,
}

#[derive(Debug, Clone)]
struct Accepted {
    identity: Arc<Identity>,
    validity: Validity,
    /// Milliseconds on the clock of [`Now::uptime_ms`].
    until: u64,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    refusal: Refusal,
    until: u64,
}

impl VerdictCache {
    /// An empty cache.
    pub fn new(settings: Settings) -> Self {
        let on = |entries: usize, ttl: Duration| entries > 0 && !ttl.is_zero();
        Self {
            settings,
            accepted: on(settings.entries, settings.ttl).then(|| Cache::new(settings.entries)),
            refused: on(settings.negative_entries, settings.negative_ttl)
                .then(|| Cache::new(settings.negative_entries)),
        }
    }

    /// The verdict that still holds.
    pub fn find(&self, key: &Key, now: Now) -> Option<Result<Arc<Identity>, Refusal>> {
        if let Some(cache) = &self.accepted
            && let Some(hit) = cache.get(key)
        {
            if now.uptime_ms < hit.until && hit.validity.holds(now) {
                return Some(Ok(hit.identity));
            }
            cache.remove(key);
        }
        let cache = self.refused.as_ref()?;
        let hit = cache.get(key)?;
        if now.uptime_ms < hit.until {
            return Some(Err(hit.refusal));
        }
        cache.remove(key);
        None
    }

    /// Remembers a verdict that was reached on what was known at `now`.
    pub fn insert(&self, key: Key, judged: &Judged, now: Now) {
        let end = |ttl: Duration| {
            now.uptime_ms
                .saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
        };
        match judged {
            Judged::Accepted { identity, validity } => {
                if let Some(cache) = &self.accepted {
                    let identity = Arc::clone(identity);
                    cache.insert(
                        key,
                        Accepted {
                            identity,
                            validity: *validity,
                            until: end(self.settings.ttl),
                        },
                    );
                }
            }
            Judged::Refused(refusal) if refusal.may_heal() => {}
            Judged::Refused(refusal) => {
                if let Some(cache) = &self.refused {
                    cache.insert(
                        key,
                        Refused {
                            refusal: *refusal,
                            until: end(self.settings.negative_ttl),
                        },
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Defect;
    use crate::identity::{Facts, UserId};

    const AT: Now = Now {
        unix_ms: 1_000_000,
        uptime_ms: 5_000,
    };

    fn accepted(validity: Validity) -> Judged {
        let facts = Facts {
            authenticator: "token".into(),
            id: UserId::new("1").expect("an id"),
            username: None,
            email: None,
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
            attributes: serde_json::Map::new(),
        };
        Judged::Accepted {
            identity: Arc::new(Identity::new(facts, &[]).expect("plain")),
            validity,
        }
    }

    fn later(ms: i64) -> Now {
        Now {
            unix_ms: AT.unix_ms + ms,
            uptime_ms: AT.uptime_ms.saturating_add_signed(ms),
        }
    }

    #[test]
    fn a_verdict_ends_with_its_ttl() {
        let cache = VerdictCache::new(Settings::default());
        cache.insert([1; 32], &accepted(Validity::ALWAYS), AT);
        assert!(matches!(cache.find(&[1; 32], later(59_999)), Some(Ok(_))));
        assert!(cache.find(&[1; 32], later(60_000)).is_none());
        assert!(cache.find(&[2; 32], AT).is_none());
    }

    #[test]
    fn a_verdict_ends_with_its_credential() {
        let cache = VerdictCache::new(Settings::default());
        let validity = Validity {
            from_ms: AT.unix_ms - 10,
            until_ms: AT.unix_ms + 10,
        };
        for (ms, holds) in [(9, true), (10, false), (0, false)] {
            if ms == 9 {
                cache.insert([1; 32], &accepted(validity), AT);
            }
            assert_eq!(cache.find(&[1; 32], later(ms)).is_some(), holds, "{ms}");
        }
        cache.insert([1; 32], &accepted(validity), AT);
        assert!(
            cache
                .find(
                    &[1; 32],
                    Now {
                        unix_ms: AT.unix_ms - 11,
                        ..AT
                    }
                )
                .is_none(),
            "the clock was set back"
        );
    }

    #[test]
    fn refusals_are_short_and_what_time_heals_is_not_kept() {
        let cache = VerdictCache::new(Settings::default());
        cache.insert([1; 32], &Judged::Refused(Refusal::TokenUnknown), AT);
        cache.insert([2; 32], &Judged::Refused(Refusal::Jwt(Defect::NotBefore.into())), AT);
        assert!(matches!(
            cache.find(&[1; 32], later(4_999)),
            Some(Err(Refusal::TokenUnknown))
        ));
        assert!(cache.find(&[1; 32], later(5_000)).is_none());
        assert!(cache.find(&[2; 32], AT).is_none());
    }

    #[test]
    fn refusals_never_push_out_the_accepted_and_zero_is_off() {
        let cache = VerdictCache::new(Settings {
            entries: 8,
            negative_entries: 8,
            ..Settings::default()
        });
        cache.insert([255; 32], &accepted(Validity::ALWAYS), AT);
        for at in 0..200 {
            cache.insert([at; 32], &Judged::Refused(Refusal::TokenUnknown), AT);
        }
        assert!(cache.find(&[255; 32], AT).is_some_and(|verdict| verdict.is_ok()));
        let off = VerdictCache::new(Settings {
            entries: 0,
            negative_entries: 0,
            ..Settings::default()
        });
        off.insert([1; 32], &accepted(Validity::ALWAYS), AT);
        assert!(off.find(&[1; 32], AT).is_none());
    }
}

//! The decision cache: from credential digest to decision, bounded in entries and bytes, one per authenticator of the process.
//!
//! Each authenticator has its own cache, so a digest alone identifies an entry. Whatever may change under an authenticator is a dependency
//! of its decisions. Refused credentials have a separate limit and never evict accepted ones. Each hit checks the time and the
//! dependencies of the decision. An entry is not used after its `ttl`, after the credential expires, or after a change of a store item that
//! it depends on.
//!
//! With `on_outage = "serve-cached"`, entries stay in the cache after their `ttl`, for `DecisionCache::find_confirmed`. The time that counts
//! there is when the decision was last confirmed: when it was made, or later while its stores reported their changes.

use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::{Identity, UserId};
use aws_lc_rs::digest;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::binding_rules::TokenBinding;
use crate::decision::{AcceptedUser, Decision, RefusedCredential};
use crate::dependencies::{ChangeCounters, Dependencies};
use crate::metrics::CacheMetrics;
use crate::now::Now;
use crate::validity::Validity;

/// Minimum weight of an accepted credential, in bytes. The capacity of a cache is `entries` times this weight.
const MIN_WEIGHT: usize = 1024;

/// Limits of a cache. `entries = 0` switches caching of accepted credentials off, `negative_entries = 0` that of refused ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Maximum number of accepted credentials.
    pub entries: usize,
    /// How long an accepted credential stays in the cache.
    pub ttl: Duration,
    /// Maximum number of refused credentials.
    pub negative_entries: usize,
    /// How long a refused credential stays in the cache.
    pub negative_ttl: Duration,
}

/// What happens to a credential that cannot be evaluated, because what the authenticator asks cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// The request gets 503.
    Deny,
    /// The cached decision is used, if it was confirmed at most so long ago.
    ServeCached {
        /// The longest time since the decision was confirmed.
        stale_for: Duration,
    },
}

/// What confirms a decision after it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfirmedBy {
    /// The stores that it depends on, while they report their changes.
    Stores,
    /// Nothing: an endpoint that it depends on reports no changes.
    Nothing,
}

/// The cache key of a credential: its SHA-256 digest. A client cannot choose a key without inverting SHA-256.
pub(crate) type Key = [u8; 32];

/// Computes the cache key of a credential.
pub(crate) fn key(credential: &[u8]) -> Key {
    let mut key = [0; 32];
    key.copy_from_slice(digest::digest(&digest::SHA256, credential).as_ref());
    key
}

/// A cache of decisions.
#[derive(Debug)]
pub(crate) struct DecisionCache {
    settings: CacheSettings,
    accepted: Option<Cache<Key, Accepted, Weight>>,
    refused: Option<Cache<Key, Refused>>,
    counters: Arc<ChangeCounters>,
    on_outage: OnOutage,
    confirmed_by: ConfirmedBy,
    metrics: CacheMetrics,
}

#[derive(Debug, Clone)]
struct Accepted {
    identity: Arc<Identity>,
    validity: Validity,
    /// Checked for every request that finds the entry.
    binding: Option<Arc<TokenBinding>>,
    /// When the entry expires, on the clock of [`Now::uptime_ms`].
    until: u64,
    weight: u32,
    dependencies: Dependencies,
}

#[derive(Debug, Clone)]
struct Refused {
    credential: RefusedCredential,
    until: u64,
    dependencies: Dependencies,
}

/// The weight of an entry is its size in bytes, but at least [`MIN_WEIGHT`]. So one limit bounds both entries and bytes.
#[derive(Debug, Clone, Copy)]
struct Weight;

impl Weighter<Key, Accepted> for Weight {
    fn weight(&self, _: &Key, accepted: &Accepted) -> u64 {
        u64::from(accepted.weight)
    }
}

fn weight(identity: &Identity) -> u32 {
    let bytes = size_of::<(Key, Accepted)>() + identity.bytes();
    u32::try_from(bytes.max(MIN_WEIGHT)).unwrap_or(u32::MAX)
}

fn bounded(entries: usize) -> Option<Cache<Key, Accepted, Weight>> {
    let bytes = u64::try_from(entries.saturating_mul(MIN_WEIGHT)).unwrap_or(u64::MAX);
    let options = OptionsBuilder::new()
        .estimated_items_capacity(entries)
        .weight_capacity(bytes)
        .build()
        .ok()?;
    Some(Cache::with_options(
        options,
        Weight,
        DefaultHashBuilder::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    ))
}

impl DecisionCache {
    /// Makes an empty cache. `counters` hold the change counters that its entries depend on.
    pub(crate) fn new(
        settings: CacheSettings,
        on_outage: OnOutage,
        confirmed_by: ConfirmedBy,
        counters: Arc<ChangeCounters>,
    ) -> Self {
        let on = |entries: usize, ttl: Duration| entries > 0 && !ttl.is_zero();
        Self {
            settings,
            accepted: on(settings.entries, settings.ttl)
                .then(|| bounded(settings.entries))
                .flatten(),
            refused: on(settings.negative_entries, settings.negative_ttl)
                .then(|| Cache::new(settings.negative_entries)),
            counters,
            on_outage,
            confirmed_by,
            metrics: CacheMetrics::default(),
        }
    }

    /// The metrics of this cache.
    pub(crate) fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// Whether accepted credentials are not cached. Then requests must not share lookups either.
    pub(crate) fn is_off(&self) -> bool {
        self.accepted.is_none()
    }

    /// Whether a decision is still valid.
    pub(crate) fn is_valid(&self, decision: &Decision, dependencies: &Dependencies, now: Now) -> bool {
        self.counters.are_unchanged(dependencies)
            && match decision {
                Decision::Accepted { validity, .. } => validity.contains(now),
                Decision::Refused(refused) => !refused.refusal().is_temporary(),
            }
    }

    /// Finds a decision that is still valid.
    pub(crate) fn find(&self, key: &Key, now: Now) -> Option<Result<AcceptedUser, RefusedCredential>> {
        let found = self.look_up(key, now);
        if self.accepted.is_some() || self.refused.is_some() {
            self.metrics.record_lookup(found.is_some());
        }
        found
    }

    fn look_up(&self, key: &Key, now: Now) -> Option<Result<AcceptedUser, RefusedCredential>> {
        // An accepted credential stays for `last_user` and `find_confirmed`, until the next decision replaces it.
        if let Some(cache) = &self.accepted
            && let Some(hit) = cache.get(key)
            && now.uptime_ms < hit.until
            && hit.validity.contains(now)
            && self.counters.are_unchanged(&hit.dependencies)
        {
            return Some(Ok(AcceptedUser {
                identity: hit.identity,
                binding: hit.binding,
            }));
        }
        let cache = self.refused.as_ref()?;
        let hit = cache.get(key)?;
        if now.uptime_ms < hit.until && self.counters.are_unchanged(&hit.dependencies) {
            return Some(Err(hit.credential));
        }
        if self.on_outage == OnOutage::Deny {
            cache.remove(key);
        }
        None
    }

    /// Finds a decision that may be used in an outage, at a time when [`find`](Self::find) finds none.
    ///
    /// An accepted credential must still be valid. A change of an item that the decision depends on makes it unusable here too.
    pub(crate) fn find_confirmed(&self, key: &Key, now: Now) -> Option<Result<AcceptedUser, RefusedCredential>> {
        let OnOutage::ServeCached { stale_for } = self.on_outage else {
            return None;
        };
        let is_usable = |until: u64, ttl: Duration, dependencies: &Dependencies| {
            let made = until.saturating_sub(milliseconds(ttl));
            let confirmed = self.counters.last_confirmed(dependencies, made);
            confirmed.is_some_and(|by_stores| {
                let confirmed = match self.confirmed_by {
                    ConfirmedBy::Stores => by_stores,
                    ConfirmedBy::Nothing => made,
                };
                now.uptime_ms <= confirmed.saturating_add(milliseconds(stale_for))
            })
        };
        // A later decision removes the earlier one. If two workers have decided at the same time, both may be there.
        if let Some(hit) = self.refused_entry(key)
            && is_usable(hit.until, self.settings.negative_ttl, &hit.dependencies)
        {
            return Some(Err(hit.credential));
        }
        let hit = self.accepted_entry(key)?;
        let is_usable = hit.validity.contains(now) && is_usable(hit.until, self.settings.ttl, &hit.dependencies);
        is_usable.then_some(Ok(AcceptedUser {
            identity: hit.identity,
            binding: hit.binding,
        }))
    }

    /// The user of a credential that was accepted before, if the cache still has the entry, valid or not.
    pub(crate) fn last_user(&self, key: &Key) -> Option<UserId> {
        Some(self.accepted_entry(key)?.identity.user_info().id.clone())
    }

    /// For what is seldom asked: so the compiler inlines the search in [`find`](Self::find).
    #[cold]
    #[inline(never)]
    fn accepted_entry(&self, key: &Key) -> Option<Accepted> {
        self.accepted.as_ref()?.get(key)
    }

    /// As [`accepted_entry`](Self::accepted_entry).
    #[cold]
    #[inline(never)]
    fn refused_entry(&self, key: &Key) -> Option<Refused> {
        self.refused.as_ref()?.get(key)
    }

    /// As [`find`](Self::find), with the dependencies of the decision, and not counted.
    pub(crate) fn recall(&self, key: &Key, now: Now) -> Option<(Decision, Dependencies)> {
        let (decision, dependencies, _) = self.recall_until(key, now)?;
        Some((decision, dependencies))
    }

    /// As [`recall`](Self::recall), with the end of the entry on the clock of [`Now::uptime_ms`].
    pub(crate) fn recall_until(&self, key: &Key, now: Now) -> Option<(Decision, Dependencies, u64)> {
        let is_usable = |until: u64, dependencies: &Dependencies| {
            now.uptime_ms < until && self.counters.are_unchanged(dependencies)
        };
        let accepted = self.accepted_entry(key);
        if let Some(hit) = accepted.filter(|hit| is_usable(hit.until, &hit.dependencies)) {
            let decision = Decision::Accepted {
                identity: hit.identity,
                validity: hit.validity,
                binding: hit.binding,
            };
            let is_valid = hit.validity.contains(now);
            return is_valid.then_some((decision, hit.dependencies, hit.until));
        }
        let hit = self.refused_entry(key)?;
        let is_usable = is_usable(hit.until, &hit.dependencies);
        is_usable.then_some((Decision::Refused(hit.credential), hit.dependencies, hit.until))
    }

    /// Caches a decision that was made with the time `now`, unless one of its dependencies has changed since.
    pub(crate) fn insert(&self, key: Key, decision: &Decision, dependencies: Dependencies, now: Now) {
        if self.on_outage != OnOutage::Deny || matches!(decision, Decision::Refused(_)) {
            // Whether the new decision is cached or not: the one before must not be used any more.
            self.remove(&key);
        }
        if !self.counters.are_unchanged(&dependencies) {
            return;
        }
        let end = |ttl: Duration| now.uptime_ms.saturating_add(milliseconds(ttl));
        match decision {
            Decision::Accepted {
                identity,
                validity,
                binding,
            } => {
                if let Some(cache) = &self.accepted {
                    let (weight, identity) = (weight(identity), Arc::clone(identity));
                    cache.insert(
                        key,
                        Accepted {
                            identity,
                            validity: *validity,
                            binding: binding.clone(),
                            until: end(self.settings.ttl),
                            weight,
                            dependencies,
                        },
                    );
                }
            }
            Decision::Refused(refused) if refused.refusal().is_temporary() => {}
            Decision::Refused(refused) => {
                if let Some(cache) = &self.refused {
                    cache.insert(
                        key,
                        Refused {
                            credential: refused.clone(),
                            until: end(self.settings.negative_ttl),
                            dependencies,
                        },
                    );
                }
            }
        }
    }

    fn remove(&self, key: &Key) {
        if let Some(cache) = &self.accepted {
            cache.remove(key);
        }
        if let Some(cache) = &self.refused {
            cache.remove(key);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::StoreItem;
    use crate::store_changes::StoreChanges;
    use authgate_core::credential::{Defect, Refusal};
    use authgate_core::identity::{TableSet, UserInfo};

    const AT: Now = Now {
        unix_ms: 1_000_000,
        uptime_ms: 5_000,
    };

    fn cache_of(settings: CacheSettings) -> DecisionCache {
        DecisionCache::new(settings, OnOutage::Deny, ConfirmedBy::Stores, Arc::default())
    }

    fn accepted(validity: Validity) -> Decision {
        accepted_with(validity, serde_json::Map::new())
    }

    fn accepted_with(validity: Validity, attributes: serde_json::Map<String, serde_json::Value>) -> Decision {
        let user_info = UserInfo {
            authenticator: "token".into(),
            issuer: None,
            key: None,
            id: UserId::new("1").expect("an id"),
            username: None,
            email: None,
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
            attributes,
        };
        Decision::Accepted {
            identity: Arc::new(Identity::new(user_info, TableSet::unique(), Box::default(), 0)),
            validity,
            binding: None,
        }
    }

    impl DecisionCache {
        fn entries(&self) -> usize {
            self.accepted.as_ref().map_or(0, Cache::len) + self.refused.as_ref().map_or(0, Cache::len)
        }
    }

    const SETTINGS: CacheSettings = CacheSettings {
        entries: 100_000,
        ttl: Duration::from_secs(60),
        negative_entries: 20_000,
        negative_ttl: Duration::from_secs(5),
    };

    fn later(ms: i64) -> Now {
        Now {
            unix_ms: AT.unix_ms + ms,
            uptime_ms: AT.uptime_ms.saturating_add_signed(ms),
        }
    }

    #[test]
    fn a_decision_expires_after_its_ttl() {
        let cache = cache_of(SETTINGS);
        cache.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
        assert!(matches!(cache.find(&[1; 32], later(59_999)), Some(Ok(_))));
        assert!(cache.find(&[1; 32], later(60_000)).is_none());
        assert!(cache.find(&[2; 32], AT).is_none());
    }

    #[test]
    fn a_recalled_decision_is_the_one_that_would_be_found() {
        let cache = cache_of(SETTINGS);
        let validity = Validity {
            from_ms: AT.unix_ms,
            until_ms: AT.unix_ms + 1000,
        };
        let mut dependencies = Dependencies::default();
        cache.counters.mark(&mut dependencies, "redis", StoreItem::AnyUser);
        cache.insert([1; 32], &accepted(validity), dependencies, AT);
        cache.insert([2; 32], &Refusal::TokenUnknown.into(), dependencies, AT);
        let recalled = |key, ms| {
            cache
                .recall(&[key; 32], later(ms))
                .map(|(decision, _)| decision.into_result())
        };
        assert!(matches!(recalled(1, 999), Some(Ok(_))));
        assert!(matches!(recalled(2, 4999), Some(Err(_))));
        assert!(recalled(3, 0).is_none());
        assert!(recalled(1, 1000).is_none() && recalled(1, -1).is_none() && recalled(2, 5000).is_none());
        cache.counters.changed("redis", StoreItem::AnyUser);
        assert!(recalled(1, 0).is_none() && recalled(2, 0).is_none());
    }

    #[test]
    fn a_decision_expires_with_its_credential() {
        let cache = cache_of(SETTINGS);
        let validity = Validity {
            from_ms: AT.unix_ms - 10,
            until_ms: AT.unix_ms + 10,
        };
        cache.insert([1; 32], &accepted(validity), Dependencies::default(), AT);
        for (ms, holds) in [(9, true), (10, false)] {
            assert_eq!(cache.find(&[1; 32], later(ms)).is_some(), holds, "{ms}");
        }
        cache.insert([1; 32], &accepted(validity), Dependencies::default(), AT);
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
    fn refusals_expire_early_and_temporary_ones_are_not_cached() {
        let cache = cache_of(SETTINGS);
        cache.insert(
            [1; 32],
            &Decision::from(Refusal::TokenUnknown),
            Dependencies::default(),
            AT,
        );
        cache.insert(
            [2; 32],
            &Decision::from(Refusal::Jwt(Defect::NotBefore.into())),
            Dependencies::default(),
            AT,
        );
        assert!(matches!(
            cache.find(&[1; 32], later(4_999)),
            Some(Err(refused)) if *refused.refusal() == Refusal::TokenUnknown
        ));
        assert!(cache.find(&[1; 32], later(5_000)).is_none());
        assert!(cache.find(&[2; 32], AT).is_none());
    }

    #[test]
    fn refusals_never_evict_accepted_credentials_and_zero_entries_disable_the_cache() {
        let cache = cache_of(CacheSettings {
            entries: 8,
            negative_entries: 8,
            ..SETTINGS
        });
        cache.insert([255; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
        for at in 0..200 {
            cache.insert(
                [at; 32],
                &Decision::from(Refusal::TokenUnknown),
                Dependencies::default(),
                AT,
            );
        }
        assert!(cache.find(&[255; 32], AT).is_some_and(|verdict| verdict.is_ok()));
        let off = cache_of(CacheSettings {
            entries: 0,
            negative_entries: 0,
            ..SETTINGS
        });
        off.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
        assert!(off.find(&[1; 32], AT).is_none());
    }

    #[test]
    fn a_change_invalidates_a_decision_also_one_under_way() {
        let counters = Arc::new(ChangeCounters::default());
        let cache = DecisionCache::new(SETTINGS, OnOutage::Deny, ConfirmedBy::Stores, Arc::clone(&counters));
        let marked = || {
            let mut dependencies = Dependencies::default();
            counters.mark(&mut dependencies, "redis", StoreItem::User("1"));
            dependencies
        };
        let refused = Decision::from(Refusal::TokenUnknown);
        for decision in [accepted(Validity::ALWAYS), refused] {
            let dependencies = marked();
            cache.insert([1; 32], &decision, dependencies, AT);
            assert!(cache.find(&[1; 32], AT).is_some());
            counters.changed("redis", StoreItem::User("1"));
            assert!(cache.find(&[1; 32], AT).is_none(), "{decision:?}");
            // Its reply was under way when the change came.
            cache.insert([1; 32], &decision, dependencies, AT);
            assert!(cache.find(&[1; 32], AT).is_none(), "{decision:?}");
            cache.insert([1; 32], &decision, marked(), AT);
            assert!(cache.find(&[1; 32], AT).is_some());
            counters.changed("redis", StoreItem::User("1"));
            assert!(cache.find(&[1; 32], AT).is_none());
        }
    }

    #[test]
    fn a_cache_is_bounded_in_bytes() {
        let big = serde_json::Map::from_iter([("bio".to_owned(), "x".repeat(10_000).into())]);
        let entries = 400;
        let cache = cache_of(CacheSettings { entries, ..SETTINGS });
        let fill = |decision: &Decision| {
            for at in 0..2_000_u16 {
                let mut key = [0; 32];
                key[..2].copy_from_slice(&at.to_be_bytes());
                cache.insert(key, decision, Dependencies::default(), AT);
            }
            cache.entries()
        };
        let small = fill(&accepted(Validity::ALWAYS));
        assert!((entries / 2..=entries).contains(&small), "{small}");
        let large = fill(&accepted_with(Validity::ALWAYS, big));
        assert!((1..=entries * MIN_WEIGHT / 10_000).contains(&large), "{large}");
    }

    /// A cache for `stale_for = "100s"`, and the store that its decisions depend on.
    fn for_outages(confirmed_by: ConfirmedBy) -> (DecisionCache, Arc<StoreChanges>) {
        let counters = Arc::default();
        let store = StoreChanges::new(&"redis".into(), &counters);
        let on_outage = OnOutage::ServeCached {
            stale_for: Duration::from_secs(100),
        };
        (DecisionCache::new(SETTINGS, on_outage, confirmed_by, counters), store)
    }

    fn marked(store: &StoreChanges) -> Dependencies {
        let mut dependencies = Dependencies::default();
        store.mark(&mut dependencies, StoreItem::Store);
        store.mark(&mut dependencies, StoreItem::User("1"));
        dependencies
    }

    #[test]
    fn in_an_outage_a_decision_is_used_until_stale_for_after_it_was_confirmed() {
        let (cache, store) = for_outages(ConfirmedBy::Stores);
        let confirmed = |key: u8, ms| {
            cache
                .find_confirmed(&[key; 32], later(ms))
                .map(|decided| decided.is_ok())
        };
        cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
        cache.insert([2; 32], &Refusal::TokenUnknown.into(), marked(&store), AT);
        for ms in [60_000, 99_999, 100_000] {
            assert!(cache.find(&[1; 32], later(ms)).is_none() && cache.find(&[2; 32], later(ms)).is_none());
            assert_eq!((confirmed(1, ms), confirmed(2, ms)), (Some(true), Some(false)), "{ms}");
        }
        assert_eq!((confirmed(1, 100_001), confirmed(2, 100_001)), (None, None));
        assert_eq!(confirmed(3, 0), None);
        // A subscription confirms them, until it is lost.
        store.subscribed();
        cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
        cache.insert([2; 32], &Refusal::TokenUnknown.into(), marked(&store), AT);
        store.confirmed(later(500_000));
        store.subscribed();
        assert!(cache.find(&[1; 32], AT).is_none(), "changes may have been missed");
        assert_eq!(
            (confirmed(1, 600_000), confirmed(2, 600_000)),
            (Some(true), Some(false))
        );
        assert_eq!((confirmed(1, 600_001), confirmed(2, 600_001)), (None, None));
        store.changed(StoreItem::User("1"));
        assert_eq!((confirmed(1, 0), confirmed(2, 0)), (None, None));
    }

    #[test]
    fn in_an_outage_no_credential_is_accepted_beyond_its_own_end() {
        let (cache, store) = for_outages(ConfirmedBy::Stores);
        let validity = Validity {
            from_ms: AT.unix_ms,
            until_ms: AT.unix_ms + 70_000,
        };
        cache.insert([1; 32], &accepted(validity), marked(&store), AT);
        assert!(cache.find_confirmed(&[1; 32], later(69_999)).is_some());
        assert!(cache.find_confirmed(&[1; 32], later(70_000)).is_none());
        assert!(cache.find_confirmed(&[1; 32], later(-1)).is_none());
    }

    #[test]
    fn stores_do_not_confirm_what_an_endpoint_has_said() {
        let (cache, store) = for_outages(ConfirmedBy::Nothing);
        store.subscribed();
        cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
        store.confirmed(later(500_000));
        assert!(cache.find_confirmed(&[1; 32], later(100_000)).is_some());
        assert!(cache.find_confirmed(&[1; 32], later(100_001)).is_none());
        store.changed(StoreItem::Store);
        assert!(cache.find_confirmed(&[1; 32], AT).is_none());
    }

    #[test]
    fn the_last_decision_alone_is_used_in_an_outage() {
        let (cache, store) = for_outages(ConfirmedBy::Stores);
        let confirmed = |ms| cache.find_confirmed(&[1; 32], later(ms)).map(|decided| decided.is_ok());
        cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
        cache.insert([1; 32], &Refusal::TokenUnknown.into(), marked(&store), later(61_000));
        assert_eq!((confirmed(62_000), confirmed(161_001)), (Some(false), None));
        cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), later(70_000));
        assert_eq!((confirmed(131_000), confirmed(170_001)), (Some(true), None));
        // One that is not cached removes the earlier one too.
        let temporary = Decision::from(Refusal::Jwt(Defect::NotBefore.into()));
        cache.insert([1; 32], &temporary, marked(&store), later(71_000));
        assert_eq!(confirmed(72_000), None);
        cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), later(73_000));
        let late = marked(&store);
        store.changed(StoreItem::User("1"));
        cache.insert([1; 32], &Refusal::TokenUnknown.into(), late, later(74_000));
        assert_eq!((confirmed(75_000), cache.entries()), (None, 0));
    }

    #[test]
    fn without_serve_cached_nothing_is_kept_for_outages() {
        let cache = cache_of(SETTINGS);
        cache.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
        assert!(cache.find_confirmed(&[1; 32], AT).is_none());
        assert!(cache.find(&[1; 32], later(60_000)).is_none());
        assert!(cache.find_confirmed(&[1; 32], later(60_000)).is_none());
    }

    #[test]
    fn the_user_of_an_expired_entry_is_known_until_the_credential_is_refused() {
        let cache = cache_of(SETTINGS);
        let known = |key| cache.last_user(&[key; 32]).map(|user| user.as_str().to_owned());
        cache.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
        assert!(cache.find(&[1; 32], later(60_000)).is_none());
        assert_eq!((known(1).as_deref(), known(2)), (Some("1"), None));
        cache.insert(
            [1; 32],
            &Refusal::TokenUnknown.into(),
            Dependencies::default(),
            later(60_000),
        );
        assert_eq!(known(1), None);
    }
}

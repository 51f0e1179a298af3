//! The decision cache: from credential digest to decision, bounded in entries and bytes, one per authenticator of the process.
//!
//! Each authenticator has its own cache, so a digest alone identifies an entry. Whatever may change under an authenticator is a dependency
//! of its decisions. Refused credentials have a separate limit and never evict accepted ones. Each hit checks the time and the
//! dependencies of the decision. An entry is not used after its `ttl`, after the credential expires, or after a change of a store item that
//! it depends on.
//!
//! With `on_outage = "serve-cached"`, entries stay in the cache after their `ttl`: see `on_outage`.

mod on_outage;

use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::{Identity, UserId};
use aws_lc_rs::digest;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

pub(crate) use self::on_outage::ConfirmedBy;
pub use self::on_outage::OnOutage;
use crate::binding_rules::TokenBinding;
use crate::decision::{AcceptedUser, Decision, RefusedCredential};
use crate::dependencies::{ChangeCounters, Dependencies};
use crate::metrics::CacheMetrics;
use crate::now::{Now, milliseconds};
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

#[cfg(test)]
mod tests;

//! What the cache has for an outage: decisions that are used after their `ttl`.
//!
//! The time that counts is when a decision was last confirmed: when it was made, or later while its stores reported their changes.

use std::time::Duration;

use super::{DecisionCache, Key};
use crate::decision::{AcceptedUser, RefusedCredential};
use crate::dependencies::Dependencies;
use crate::now::{Now, milliseconds};

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

impl DecisionCache {
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
}

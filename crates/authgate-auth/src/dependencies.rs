//! The items of stores and sources of keys that a cached decision depends on, and how a change of one of them invalidates the decision.
//!
//! Each item has a counter, which is incremented when the item changes. A lookup records the counters of the items that it will read,
//! before it reads them, and its decision carries these records. A decision is valid while all its counters are unchanged. This also
//! covers a decision whose reply is still under way when the item changes. Invalidation searches for nothing and takes no lock; a cache
//! hit compares a few numbers. Items share counters by a keyed hash: a change may invalidate an unrelated decision, but it never misses
//! one that depends on the item.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use authgate_core::identity::KeyIdentity;

/// Number of counters: 256 KiB of memory.
const SLOTS: usize = 1 << 16;
/// Maximum number of dependencies. A decision from one store depends on that store, a token or JWT, a user, and a username. A decision from
/// a store and its source depends on both stores, on the token under each kind of digest, and on the user in both.
const MAX_DEPENDENCIES: usize = 12;

/// The counters of all items in all stores of the process.
pub struct ChangeCounters {
    slots: Box<[AtomicU32]>,
    hasher: RandomState,
}

/// An item in a store, or of a source of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StoreItem<'t> {
    /// The whole store: its layout, revoked signing keys, and whether changes are reported.
    Store,
    /// A token, by its digest as stored.
    Token(&'t str),
    /// A user record, or the revocation of a user's credentials.
    User(&'t str),
    /// The user that a username belongs to.
    Name(&'t str),
    /// All users, in a store that reports changes by id only.
    AnyUser,
    /// Whether a store reports changes now: it has just begun, or just stopped.
    Reporting,
    /// A JWT's revocation.
    Jti(&'t str),
    /// The set of keys that a source has.
    KeySet,
    /// A key that a source has.
    Key(&'t KeyIdentity),
}

/// The items that one decision depends on, with their counters from before the lookup.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dependencies {
    marks: [(u32, u32); MAX_DEPENDENCIES],
    count: u8,
    /// There are more items than it has room for, or the decision must not be cached: it is never valid.
    overflowed: bool,
}

impl fmt::Debug for ChangeCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeCounters").finish_non_exhaustive()
    }
}

impl Default for ChangeCounters {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Dependencies {
    /// Depends on all items of another lookup too.
    pub(crate) fn extend(&mut self, others: &Self) {
        for mark in &others.marks[..usize::from(others.count).min(MAX_DEPENDENCIES)] {
            self.add(*mark);
        }
        self.overflowed |= others.overflowed;
    }

    /// The decision is valid for this request alone.
    pub(crate) fn forbid_caching(&mut self) {
        self.overflowed = true;
    }

    fn add(&mut self, mark: (u32, u32)) {
        match self.marks.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = mark;
                self.count += 1;
            }
            None => self.overflowed = true,
        }
    }
}

impl ChangeCounters {
    fn slot(&self, store: &str, item: StoreItem<'_>) -> usize {
        // The low bits of a SipHash are as good as any.
        usize::try_from(self.hasher.hash_one((store, item)) % SLOTS as u64).unwrap_or_default()
    }

    /// An item has changed, or may have.
    pub(crate) fn changed(&self, store: &str, item: StoreItem<'_>) {
        self.slots[self.slot(store, item)].fetch_add(1, Ordering::Release);
    }

    /// Records that a decision will depend on this item. Call it before the item is read.
    pub(crate) fn mark(&self, dependencies: &mut Dependencies, store: &str, item: StoreItem<'_>) {
        let slot = self.slot(store, item);
        let mark = (
            u32::try_from(slot).unwrap_or_default(),
            self.slots[slot].load(Ordering::Acquire),
        );
        dependencies.add(mark);
    }

    /// Whether no item that a decision depends on has changed since.
    pub(crate) fn are_unchanged(&self, dependencies: &Dependencies) -> bool {
        let marks = &dependencies.marks[..usize::from(dependencies.count).min(MAX_DEPENDENCIES)];
        !dependencies.overflowed
            && marks.iter().all(|(slot, count)| {
                self.slots
                    .get(*slot as usize)
                    .is_some_and(|now| now.load(Ordering::Acquire) == *count)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_invalidates_what_depends_on_it_and_nothing_else() {
        let counters = ChangeCounters::default();
        let things = [
            StoreItem::Store,
            StoreItem::Token("a"),
            StoreItem::User("a"),
            StoreItem::Name("a"),
            StoreItem::AnyUser,
            StoreItem::Reporting,
            StoreItem::Jti("a"),
        ];
        for changed in things {
            for store in ["redis", "other"] {
                for item in things {
                    // Two items may share a counter. That is rare for these pairs, and no failure.
                    if (store, item) != ("redis", changed)
                        && counters.slot(store, item) == counters.slot("redis", changed)
                    {
                        continue;
                    }
                    let mut dependencies = Dependencies::default();
                    counters.mark(&mut dependencies, store, item);
                    assert!(counters.are_unchanged(&dependencies));
                    counters.changed("redis", changed);
                    assert_eq!(
                        counters.are_unchanged(&dependencies),
                        (store, item) != ("redis", changed),
                        "{store} {item:?} {changed:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_dependencies_are_always_valid_and_too_many_never() {
        let counters = ChangeCounters::default();
        let mut dependencies = Dependencies::default();
        counters.changed("redis", StoreItem::Store);
        assert!(counters.are_unchanged(&dependencies));
        for _ in 0..MAX_DEPENDENCIES {
            counters.mark(&mut dependencies, "redis", StoreItem::Store);
            assert!(counters.are_unchanged(&dependencies));
        }
        counters.mark(&mut dependencies, "redis", StoreItem::Store);
        assert!(!counters.are_unchanged(&dependencies));
    }
}

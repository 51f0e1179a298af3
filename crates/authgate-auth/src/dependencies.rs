//! The items of stores and sources of keys that a cached decision depends on, and how a change of one of them invalidates the decision.
//!
//! Each item has a counter, which is incremented when the item changes. A lookup records the counters of the items that it will read,
//! before it reads them, and its decision carries these records. A decision is valid while all its counters are unchanged. This also
//! covers a decision whose reply is still under way when the item changes. Invalidation searches for nothing; a cache hit takes no lock and
//! compares a few numbers. Items share counters by a keyed hash: a change may invalidate an unrelated decision, but it never misses
//! one that depends on the item.
//!
//! The counters answer questions about one decision. What is open for long, such as a WebSocket, asks no questions: a [`ChangeWatch`]
//! returns the counters that have changed lately, and wakes the task that waits for changes.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use authgate_core::identity::KeyIdentity;
use tokio::sync::Notify;

use crate::subscriptions::Subscriptions;

/// Number of counters for items: 256 KiB of memory.
const SLOTS: usize = 1 << 16;
/// Number of stores with a counter of their own. Stores beyond them share one.
const MAX_STORES: usize = 256;
/// The counter of the stores beyond the limit. The counters of the others are between those of items and this one.
const SHARED_SLOT: usize = SLOTS + MAX_STORES;
/// Maximum number of dependencies. A decision from one store depends on that store, a token or JWT, a user, and a username. A decision from
/// a store and its source depends on both stores, on the token under each kind of digest, and on the user in both.
const MAX_DEPENDENCIES: usize = 12;
/// How many changes are recorded: 16 KiB. A [`ChangeWatch`] that has missed more must look at all counters that it is about.
const RECORDED: usize = 4096;

/// The counters of all items in all stores of the process.
pub struct ChangeCounters {
    /// Those of items, then those of whole stores.
    slots: Box<[AtomicU32]>,
    hasher: RandomState,
    /// The subscriptions of each store, in the order of their counters. A place is empty while it is free.
    stores: Box<[ArcSwapOption<Subscriptions>]>,
    /// Locked while a place is taken.
    taking: Mutex<()>,
    recent: Mutex<RecentChanges>,
    /// The number of all changes so far. It is written under the lock of `recent`.
    count: AtomicU64,
}

/// The latest changes, oldest first where the ring begins.
#[derive(Default)]
struct RecentChanges {
    /// The slot of change number `n` is at `n % RECORDED`.
    ring: Vec<u32>,
    /// The tasks that wait for changes.
    watches: Vec<Arc<Notify>>,
}

/// Follows the changes of all items, for one task.
pub struct ChangeWatch {
    counters: Arc<ChangeCounters>,
    /// The number of changes that were returned.
    seen: u64,
    notify: Arc<Notify>,
}

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// The items with these counters.
    Slots(Vec<u32>),
    /// More than was recorded: any item may have changed.
    Any,
}

/// An item in a store, or of a source of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StoreItem<'t> {
    /// The whole store: its layout, revoked signing keys, and whether changes are reported. It has a counter of its own, which only
    /// [`StoreChanges`](crate::store_changes::StoreChanges) knows.
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
            slots: (0..=SHARED_SLOT).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
            stores: (0..MAX_STORES).map(|_| ArcSwapOption::empty()).collect(),
            taking: Mutex::default(),
            recent: Mutex::default(),
            count: AtomicU64::new(0),
        }
    }
}

impl Dependencies {
    /// The counters of the items.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let marks = &self.marks[..usize::from(self.count).min(MAX_DEPENDENCIES)];
        marks.iter().map(|(slot, _)| *slot)
    }

    /// Whether a decision with these dependencies is valid for its request alone.
    pub(crate) fn forbids_caching(&self) -> bool {
        self.overflowed
    }

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
        debug_assert!(item != StoreItem::Store, "a whole store has a counter of its own");
        // The low bits of a SipHash are as good as any.
        usize::try_from(self.hasher.hash_one((store, item)) % SLOTS as u64).unwrap_or_default()
    }

    /// An item has changed, or may have.
    pub(crate) fn changed(&self, store: &str, item: StoreItem<'_>) {
        self.increment(self.slot(store, item));
    }

    /// Increments a counter, and returns its new value.
    pub(crate) fn increment(&self, slot: usize) -> u32 {
        let value = self.slots[slot].fetch_add(1, Ordering::Release).wrapping_add(1);
        // After the counter: a task that finds the change here finds the decision invalid.
        self.record(u32::try_from(slot).unwrap_or_default());
        value
    }

    fn record(&self, slot: u32) {
        let mut recent = self.lock();
        let number = self.count.load(Ordering::Relaxed);
        match recent.ring.get_mut(place(number)) {
            Some(oldest) => *oldest = slot,
            None => recent.ring.push(slot),
        }
        self.count.store(number + 1, Ordering::Release);
        for watch in &recent.watches {
            watch.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecentChanges> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a decision will depend on this item. Call it before the item is read.
    pub(crate) fn mark(&self, dependencies: &mut Dependencies, store: &str, item: StoreItem<'_>) {
        self.mark_slot(dependencies, self.slot(store, item));
    }

    pub(crate) fn mark_slot(&self, dependencies: &mut Dependencies, slot: usize) {
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

    /// When everything that a decision depends on was last confirmed: by its look-up at `read`, or later by subscriptions. Both are times on
    /// the clock of [`Now::uptime_ms`](crate::now::Now::uptime_ms). `None`: something of it has changed, or is not known.
    pub(crate) fn last_confirmed(&self, dependencies: &Dependencies, read: u64) -> Option<u64> {
        if dependencies.overflowed {
            return None;
        }
        let marks = &dependencies.marks[..usize::from(dependencies.count).min(MAX_DEPENDENCIES)];
        // Of several stores, the oldest time counts. Without one, nothing confirms the decision after its look-up.
        let mut of_stores = None;
        for (slot, count) in marks {
            let slot = *slot as usize;
            if slot < SLOTS {
                if self.slots[slot].load(Ordering::Acquire) != *count {
                    return None;
                }
            } else {
                let subscriptions = self.stores.get(slot - SLOTS)?.load();
                let confirmed = subscriptions.as_ref()?.last_confirmed(*count, read)?;
                of_stores = Some(of_stores.map_or(confirmed, |other: u64| other.min(confirmed)));
            }
        }
        Some(of_stores.unwrap_or(read))
    }

    /// Takes a counter for a whole store.
    pub(crate) fn take_store_slot(&self) -> (usize, Arc<Subscriptions>) {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.stores.iter().position(|place| place.load().is_none());
        let slot = SLOTS + free.unwrap_or(MAX_STORES);
        let subscriptions = Arc::new(Subscriptions::new(self.slots[slot].load(Ordering::Acquire)));
        if let Some(place) = self.stores.get(slot - SLOTS) {
            place.store(Some(Arc::clone(&subscriptions)));
        }
        (slot, subscriptions)
    }

    /// The store of this counter is gone. Decisions that depend on it are not valid any more.
    pub(crate) fn return_store_slot(&self, slot: usize) {
        self.increment(slot);
        if let Some(place) = self.stores.get(slot - SLOTS) {
            place.store(None);
        }
    }
}

/// Where the ring has the change of this number.
fn place(number: u64) -> usize {
    usize::try_from(number % RECORDED as u64).unwrap_or_default()
}

impl ChangeWatch {
    /// Follows the changes from now on.
    pub fn new(counters: &Arc<ChangeCounters>) -> Self {
        let notify = Arc::new(Notify::new());
        let mut recent = counters.lock();
        recent.watches.push(Arc::clone(&notify));
        Self {
            seen: counters.count.load(Ordering::Relaxed),
            counters: Arc::clone(counters),
            notify,
        }
    }

    /// The counters that it follows.
    pub fn counters(&self) -> &Arc<ChangeCounters> {
        &self.counters
    }

    /// What has changed since the last call. `None`: nothing.
    pub fn take(&mut self) -> Option<Changed> {
        if !self.has_changes() {
            return None;
        }
        let recent = self.counters.lock();
        let count = self.counters.count.load(Ordering::Relaxed);
        let first = std::mem::replace(&mut self.seen, count);
        if count - first > RECORDED as u64 {
            return Some(Changed::Any);
        }
        Some(Changed::Slots(
            (first..count).map(|number| recent.ring[place(number)]).collect(),
        ))
    }

    /// Returns when there is a change that [`take`](Self::take) has not returned.
    pub async fn changed(&self) {
        // A notification that comes before `notified` is polled is kept.
        while !self.has_changes() {
            self.notify.notified().await;
        }
    }

    fn has_changes(&self) -> bool {
        self.counters.count.load(Ordering::Acquire) != self.seen
    }
}

impl Drop for ChangeWatch {
    fn drop(&mut self) {
        let mut recent = self.counters.lock();
        recent.watches.retain(|notify| !Arc::ptr_eq(notify, &self.notify));
    }
}

impl fmt::Debug for ChangeWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeWatch")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_invalidates_what_depends_on_it_and_nothing_else() {
        let counters = ChangeCounters::default();
        let things = [
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
        counters.changed("redis", StoreItem::AnyUser);
        assert!(counters.are_unchanged(&dependencies));
        for _ in 0..MAX_DEPENDENCIES {
            counters.mark(&mut dependencies, "redis", StoreItem::AnyUser);
            assert!(counters.are_unchanged(&dependencies));
        }
        counters.mark(&mut dependencies, "redis", StoreItem::AnyUser);
        assert!(!counters.are_unchanged(&dependencies));
    }

    fn slots(counters: &ChangeCounters, tokens: std::ops::Range<usize>) -> Vec<u32> {
        let slot = |number: usize| counters.slot("redis", StoreItem::Token(&number.to_string()));
        tokens.map(|number| u32::try_from(slot(number)).unwrap()).collect()
    }

    fn change(counters: &ChangeCounters, tokens: std::ops::Range<usize>) {
        for number in tokens {
            counters.changed("redis", StoreItem::Token(&number.to_string()));
        }
    }

    #[test]
    fn a_watch_returns_each_change_once_and_reports_that_it_has_missed_some() {
        let counters = Arc::new(ChangeCounters::default());
        change(&counters, 0..3);
        let mut watch = ChangeWatch::new(&counters);
        assert_eq!(watch.take(), None);
        for round in 0..5 {
            let tokens = round * 1000..(round + 1) * 1000;
            change(&counters, tokens.clone());
            assert_eq!(watch.take(), Some(Changed::Slots(slots(&counters, tokens))));
            assert_eq!(watch.take(), None);
        }
        change(&counters, 0..RECORDED);
        assert_eq!(watch.take(), Some(Changed::Slots(slots(&counters, 0..RECORDED))));
        change(&counters, 0..RECORDED + 1);
        assert_eq!(watch.take(), Some(Changed::Any));
        drop(watch);
        assert!(counters.lock().watches.is_empty());
    }

    #[tokio::test]
    async fn a_change_wakes_each_watch_also_before_it_waits() {
        let counters = Arc::new(ChangeCounters::default());
        let mut watches = [ChangeWatch::new(&counters), ChangeWatch::new(&counters)];
        change(&counters, 0..1);
        for watch in &mut watches {
            watch.changed().await;
            assert!(watch.take().is_some());
        }
        for watch in &mut watches {
            let own = Arc::clone(&counters);
            let changing = async move { change(&own, 1..2) };
            tokio::join!(watch.changed(), changing);
        }
    }
}

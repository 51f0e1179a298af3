//! [`StoreChanges`]: what one store reports as changed, and what its subscriptions confirm.

use std::sync::Arc;

use crate::dependencies::{ChangeCounters, Dependencies, StoreItem};
use crate::now::Now;
use crate::subscriptions::Subscriptions;

/// The changes of one store. Each store of each configuration has its own.
#[derive(Debug)]
pub(crate) struct StoreChanges {
    counters: Arc<ChangeCounters>,
    store: Arc<str>,
    /// The counter of the whole store.
    slot: usize,
    subscriptions: Arc<Subscriptions>,
}

impl StoreChanges {
    pub(crate) fn new(store: &Arc<str>, counters: &Arc<ChangeCounters>) -> Arc<Self> {
        let (slot, subscriptions) = counters.take_store_slot();
        Arc::new(Self {
            slot,
            counters: Arc::clone(counters),
            store: Arc::clone(store),
            subscriptions,
        })
    }

    /// Records that a decision will depend on this item. Call it before the item is read.
    pub(crate) fn mark(&self, dependencies: &mut Dependencies, item: StoreItem<'_>) {
        match item {
            StoreItem::Store => self.counters.mark_slot(dependencies, self.slot),
            item => self.counters.mark(dependencies, &self.store, item),
        }
    }

    /// An item has changed, or may have.
    pub(crate) fn changed(&self, item: StoreItem<'_>) {
        match item {
            StoreItem::Store => self.subscriptions.replaced(|| self.counters.increment(self.slot)),
            item => self.counters.changed(&self.store, item),
        }
    }

    /// Changes are reported from now on. Those since the last subscription were missed.
    pub(crate) fn subscribed(&self) {
        self.subscriptions.begin(|| self.counters.increment(self.slot));
    }

    /// All changes until `at` were reported by the present subscription, and are counted.
    pub(crate) fn confirmed(&self, at: Now) {
        self.subscriptions.confirmed(at.uptime_ms);
    }

    /// Whether no item that a decision depends on has changed since.
    pub(crate) fn are_unchanged(&self, dependencies: &Dependencies) -> bool {
        self.counters.are_unchanged(dependencies)
    }
}

impl Drop for StoreChanges {
    fn drop(&mut self) {
        self.counters.return_store_slot(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uptime_ms: u64) -> Now {
        Now { unix_ms: 0, uptime_ms }
    }

    fn store(counters: &Arc<ChangeCounters>) -> Arc<StoreChanges> {
        StoreChanges::new(&"redis".into(), counters)
    }

    fn marked(of: &StoreChanges) -> Dependencies {
        let mut dependencies = Dependencies::default();
        of.mark(&mut dependencies, StoreItem::Store);
        of.mark(&mut dependencies, StoreItem::User("1"));
        dependencies
    }

    #[test]
    fn a_subscription_confirms_what_was_read_under_it_until_it_is_lost() {
        let counters = Arc::<ChangeCounters>::default();
        let store = store(&counters);
        let before = marked(&store);
        store.confirmed(at(50));
        assert_eq!(
            counters.last_confirmed(&before, 10),
            Some(10),
            "there was no subscription"
        );
        store.subscribed();
        assert!(!counters.are_unchanged(&before), "changes may have been missed");
        assert_eq!(counters.last_confirmed(&before, 10), Some(10));
        let first = marked(&store);
        store.confirmed(at(100));
        store.confirmed(at(200));
        assert_eq!(counters.last_confirmed(&first, 90), Some(200));
        assert_eq!(counters.last_confirmed(&first, 300), Some(300), "read after the loss");
        store.subscribed();
        let second = marked(&store);
        store.confirmed(at(900));
        assert!(!counters.are_unchanged(&first) && counters.are_unchanged(&second));
        assert_eq!(
            counters.last_confirmed(&first, 90),
            Some(200),
            "the end of its own subscription"
        );
        assert_eq!(counters.last_confirmed(&second, 90), Some(900));
        store.changed(StoreItem::User("1"));
        assert_eq!(counters.last_confirmed(&second, 90), None, "the user has changed");
    }

    #[test]
    fn nothing_that_was_read_before_a_change_of_the_whole_store_is_of_use() {
        let counters = Arc::<ChangeCounters>::default();
        let store = store(&counters);
        store.subscribed();
        let before = marked(&store);
        store.changed(StoreItem::Store);
        let after = marked(&store);
        store.confirmed(at(100));
        assert_eq!(counters.last_confirmed(&before, 10), None);
        assert_eq!(
            counters.last_confirmed(&after, 10),
            Some(100),
            "the subscription is the same"
        );
        store.subscribed();
        assert_eq!(counters.last_confirmed(&after, 10), Some(100));
        assert_eq!(counters.last_confirmed(&before, 10), None);
    }

    #[test]
    fn what_rests_on_two_stores_is_confirmed_at_the_older_of_the_two_times() {
        let counters = Arc::<ChangeCounters>::default();
        let (front, source) = (store(&counters), store(&counters));
        front.subscribed();
        source.subscribed();
        let mut both = marked(&front);
        both.extend(&marked(&source));
        front.confirmed(at(500));
        assert_eq!(counters.last_confirmed(&both, 10), Some(10));
        source.confirmed(at(300));
        assert_eq!(counters.last_confirmed(&both, 10), Some(300));
        source.changed(StoreItem::Store);
        assert_eq!(counters.last_confirmed(&both, 10), None);
        assert_eq!(
            counters.last_confirmed(&Dependencies::default(), 10),
            Some(10),
            "no store"
        );
        let mut uncached = marked(&front);
        uncached.forbid_caching();
        assert_eq!(counters.last_confirmed(&uncached, 10), None);
    }

    #[test]
    fn a_store_never_confirms_what_was_read_from_one_before_it() {
        let counters = Arc::<ChangeCounters>::default();
        let first = store(&counters);
        first.subscribed();
        let read = marked(&first);
        let slot = first.slot;
        drop(first);
        assert!(!counters.are_unchanged(&read));
        assert_eq!(counters.last_confirmed(&read, 10), None);
        let next = store(&counters);
        assert_eq!(next.slot, slot, "the place is free again");
        next.subscribed();
        next.confirmed(at(900));
        assert!(!counters.are_unchanged(&read));
        assert_eq!(counters.last_confirmed(&read, 10), None);
    }

    #[test]
    fn stores_beyond_the_limit_share_a_counter_and_confirm_nothing() {
        let counters = Arc::<ChangeCounters>::default();
        let stores: Vec<_> = (0..1000).map(|_| store(&counters)).collect();
        let last = stores.last().expect("a store");
        last.subscribed();
        let read = marked(last);
        last.confirmed(at(900));
        assert_eq!(counters.last_confirmed(&read, 10), None);
        assert!(counters.are_unchanged(&read));
        last.changed(StoreItem::Store);
        assert!(!counters.are_unchanged(&read));
    }
}

//! Decides which layout record of a Redis is accepted: the first one seen, and a different one only after the record was missing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tracing::warn;

use crate::dependencies::StoreItem;
use crate::record::Layout;
use crate::store::LayoutProblem;
use crate::store_changes::StoreChanges;

/// Longer than the age of any reply from Redis. A replaced record is not accepted again within this time, because the reply may be older
/// than the replacement.
const LATEST_REPLY: Duration = Duration::from_secs(10);

/// The accepted layout record. Each refused record invalidates all decisions that depend on the store.
#[derive(Debug)]
pub(super) struct AcceptedLayout {
    store: Arc<str>,
    changes: Arc<StoreChanges>,
    /// `None` before the first complete record. Changed only while `misses` is locked.
    epoch: ArcSwapOption<String>,
    misses: Mutex<Misses>,
}

#[derive(Debug, Default)]
struct Misses {
    /// The record was missing or incomplete, and no complete one has been confirmed since.
    pending: bool,
    count: u64,
    /// The previously accepted epoch, and how long it stays refused.
    replaced: Option<(Arc<String>, Instant)>,
}

impl Misses {
    fn is_late(&self, epoch: &str) -> bool {
        let replaced = self.replaced.as_ref();
        replaced.is_some_and(|(old, at)| **old == epoch && at.elapsed() < LATEST_REPLY)
    }
}

/// How many times the record had been missing when a lookup began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MissCount(u64);

impl AcceptedLayout {
    pub(super) fn new(store: Arc<str>, changes: Arc<StoreChanges>) -> Self {
        Self {
            store,
            changes,
            epoch: ArcSwapOption::empty(),
            misses: Mutex::default(),
        }
    }

    /// Checks a record against the accepted one.
    pub(super) fn check(&self, stored: Option<&Layout>) -> Result<(), LayoutProblem> {
        match stored {
            None => Err(self.missed(LayoutProblem::Missing)),
            Some(layout) if layout.version != Layout::VERSION => {
                self.invalidate_decisions();
                Err(LayoutProblem::Version(layout.version))
            }
            Some(layout) if layout.filling => Err(self.missed(LayoutProblem::Filling)),
            Some(layout) => match self.epoch.load().as_deref() {
                Some(epoch) if *epoch == layout.epoch => Ok(()),
                Some(_) | None => self.accept(&layout.epoch),
            },
        }
    }

    /// Accepts the next complete record, also a different one: the operator has asked for it. The next confirmation of the present one ends
    /// this.
    pub(super) fn permit_change(&self) {
        let mut misses = self.lock();
        misses.pending = true;
        misses.count += 1;
    }

    /// Handles a report that all records were deleted (FLUSHALL, FLUSHDB).
    pub(super) fn flushed(&self) {
        self.missed(LayoutProblem::Missing);
    }

    pub(super) fn misses(&self) -> MissCount {
        MissCount(self.lock().count)
    }

    /// A lookup that began at `before` found the accepted record: misses before it are over.
    ///
    /// Only one task calls this, sequentially. A late reply must not clear a newer miss: the next record would then be refused.
    pub(super) fn confirmed(&self, before: MissCount) {
        let mut misses = self.lock();
        if misses.count == before.0 {
            misses.pending = false;
        }
    }

    fn missed(&self, problem: LayoutProblem) -> LayoutProblem {
        let mut misses = self.lock();
        misses.pending = true;
        misses.count += 1;
        self.invalidate_decisions();
        problem
    }

    fn accept(&self, fresh: &str) -> Result<(), LayoutProblem> {
        let mut misses = self.lock();
        let accepted = self.epoch.load_full();
        match accepted.as_deref() {
            Some(epoch) if epoch == fresh => return Ok(()),
            Some(_) if !misses.pending || misses.is_late(fresh) => {
                self.invalidate_decisions();
                return Err(LayoutProblem::Changed);
            }
            Some(_) => warn!(
                store = %self.store,
                "the store was filled anew and is used again. Revocations and revoked tokens that it held before are lost, unless \
                 an `authgate token export` of it was imported"
            ),
            None => {}
        }
        // Increment first: decisions with the old counter were read from the old records.
        self.invalidate_decisions();
        misses.pending = false;
        misses.replaced = accepted.map(|old| (old, Instant::now()));
        self.epoch.store(Some(Arc::new(fresh.to_owned())));
        Ok(())
    }

    /// Ends all decisions that depend on the store.
    pub(super) fn invalidate_decisions(&self) {
        self.changes.changed(StoreItem::Store);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Misses> {
        self.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::Dependencies;

    fn layout(epoch: &str) -> Layout {
        Layout {
            version: Layout::VERSION,
            epoch: epoch.to_owned(),
            filling: false,
            resealing: None,
        }
    }

    fn accepted() -> AcceptedLayout {
        let accepted = AcceptedLayout::new("redis".into(), StoreChanges::new(&"redis".into(), &Arc::default()));
        assert_eq!(accepted.check(Some(&layout("a"))), Ok(()));
        accepted
    }

    fn marked(accepted: &AcceptedLayout) -> Dependencies {
        let mut dependencies = Dependencies::default();
        accepted.changes.mark(&mut dependencies, StoreItem::Store);
        dependencies
    }

    #[test]
    fn a_changed_record_is_refused_until_it_was_missing() {
        let accepted = accepted();
        for _ in 0..2 {
            assert_eq!(accepted.check(Some(&layout("b"))), Err(LayoutProblem::Changed));
        }
        assert_eq!(accepted.check(Some(&layout("a"))), Ok(()));
        assert_eq!(accepted.check(None), Err(LayoutProblem::Missing));
        let filling = Layout {
            filling: true,
            ..layout("b")
        };
        assert_eq!(accepted.check(Some(&filling)), Err(LayoutProblem::Filling));
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()));
        for wrong in ["a", "c"] {
            assert_eq!(accepted.check(Some(&layout(wrong))), Err(LayoutProblem::Changed));
        }
        let newer = Layout {
            version: 2,
            ..layout("b")
        };
        assert_eq!(accepted.check(Some(&newer)), Err(LayoutProblem::Version(2)));
    }

    #[test]
    fn a_changed_record_is_accepted_once_where_the_operator_asks_for_it() {
        let accepted = accepted();
        accepted.permit_change();
        let dependencies = marked(&accepted);
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()));
        assert!(
            !accepted.changes.are_unchanged(&dependencies),
            "no decision of the old store is used"
        );
        assert_eq!(accepted.check(Some(&layout("c"))), Err(LayoutProblem::Changed));
        // Without a change, the permission ends with the next confirmation.
        accepted.permit_change();
        let before = accepted.misses();
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()));
        accepted.confirmed(before);
        assert_eq!(accepted.check(Some(&layout("c"))), Err(LayoutProblem::Changed));
    }

    #[test]
    fn a_record_that_is_being_filled_was_missing() {
        let accepted = accepted();
        let filling = Layout {
            filling: true,
            ..layout("b")
        };
        assert_eq!(accepted.check(Some(&filling)), Err(LayoutProblem::Filling));
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()));
    }

    #[test]
    fn the_same_record_again_ends_a_miss_and_a_late_reply_does_not() {
        let accepted = accepted();
        let before = accepted.misses();
        accepted.flushed();
        assert_eq!(accepted.check(Some(&layout("a"))), Ok(()));
        accepted.confirmed(before);
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()), "the reply was late");
        accepted.flushed();
        accepted.confirmed(accepted.misses());
        assert_eq!(accepted.check(Some(&layout("c"))), Err(LayoutProblem::Changed));
    }

    #[test]
    fn late_replies_do_not_bring_a_replaced_record_back() {
        let accepted = accepted();
        assert_eq!(accepted.check(None), Err(LayoutProblem::Missing));
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()));
        // Two workers read now what was asked when the record was missing, and before that.
        assert_eq!(accepted.check(None), Err(LayoutProblem::Missing));
        assert_eq!(accepted.check(Some(&layout("a"))), Err(LayoutProblem::Changed));
        assert_eq!(accepted.check(Some(&layout("b"))), Ok(()));
        // One that is restored from a backup is accepted after a while.
        accepted.flushed();
        if let Some((_, at)) = &mut accepted.lock().replaced {
            *at -= LATEST_REPLY;
        }
        assert_eq!(accepted.check(Some(&layout("a"))), Ok(()));
    }

    #[test]
    fn decisions_are_invalidated_with_the_layout_record() {
        let accepted = accepted();
        let dependencies = marked(&accepted);
        assert_eq!(accepted.check(Some(&layout("a"))), Ok(()));
        assert!(accepted.changes.are_unchanged(&dependencies));
        for wrong in [None, Some(layout("b"))] {
            let dependencies = marked(&accepted);
            let _ = accepted.check(wrong.as_ref());
            assert!(!accepted.changes.are_unchanged(&dependencies), "{wrong:?}");
        }
    }
}

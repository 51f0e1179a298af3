//! What verdicts rest on: one generation for each thing in a store, counted up when that thing changes.
//!
//! A look-up marks what it will read before it asks, and its verdict carries the marks. Whoever hears of a change counts up, and every
//! verdict that was reached on what was there before is void, also one whose reply is still under way. Nothing has to be searched for,
//! nothing is locked, and a hit compares a few numbers. Things share generations by a hash that outsiders do not know: a change may void
//! a verdict or two that it is not about, and never leaves one that it is about.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many generations there are: 256 KiB of them.
const SLOTS: usize = 1 << 16;
/// A verdict of one store rests on that store, a token or JWT, a user, and a user's name; one of two stores on six things.
const MOST: usize = 6;

/// The generations of everything in all stores of a process.
pub struct Generations {
    slots: Box<[AtomicU32]>,
    hasher: RandomState,
}

/// A thing in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing<'t> {
    /// All of it: its layout, its keys' revocations, and whether anybody would hear of a change.
    Store,
    /// A token, by its digest as stored.
    Token(&'t str),
    /// A user's record, or what was revoked of that user.
    User(&'t str),
    /// Whom a login name belongs to.
    Name(&'t str),
    /// A JWT's revocation.
    Jti(&'t str),
}

/// What one verdict rests on, as it was before the verdict was looked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rests {
    marks: [(u32, u32); MOST],
    count: u8,
    overflown: bool,
}

impl fmt::Debug for Generations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generations").finish_non_exhaustive()
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Generations {
    fn slot(&self, store: &str, thing: Thing<'_>) -> usize {
        // The low bits of a SipHash are as good as any.
        usize::try_from(self.hasher.hash_one((store, thing)) % SLOTS as u64).unwrap_or_default()
    }

    /// A thing has changed, or may have.
    pub fn changed(&self, store: &str, thing: Thing<'_>) {
        self.slots[self.slot(store, thing)].fetch_add(1, Ordering::Release);
    }

    /// Notes that a verdict will rest on this thing; to be called before it is looked at.
    pub fn mark(&self, rests: &mut Rests, store: &str, thing: Thing<'_>) {
        let slot = self.slot(store, thing);
        let mark = (
            u32::try_from(slot).unwrap_or_default(),
            self.slots[slot].load(Ordering::Acquire),
        );
        match rests.marks.get_mut(usize::from(rests.count)) {
            Some(place) => {
                *place = mark;
                rests.count += 1;
            }
            None => rests.overflown = true,
        }
    }

    /// Whether nothing that a verdict rests on has changed since.
    pub fn hold(&self, rests: &Rests) -> bool {
        let marks = &rests.marks[..usize::from(rests.count).min(MOST)];
        !rests.overflown
            && marks.iter().all(|(slot, generation)| {
                self.slots
                    .get(*slot as usize)
                    .is_some_and(|now| now.load(Ordering::Acquire) == *generation)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_voids_what_rests_on_it_and_on_nothing_else() {
        let generations = Generations::default();
        let things = [
            Thing::Store,
            Thing::Token("a"),
            Thing::User("a"),
            Thing::Name("a"),
            Thing::Jti("a"),
        ];
        for changed in things {
            for store in ["redis", "other"] {
                for thing in things {
                    // Two things may share a generation; that of these pairs do is too rare to plan for, and no failure.
                    if (store, thing) != ("redis", changed)
                        && generations.slot(store, thing) == generations.slot("redis", changed)
                    {
                        continue;
                    }
                    let mut rests = Rests::default();
                    generations.mark(&mut rests, store, thing);
                    assert!(generations.hold(&rests));
                    generations.changed("redis", changed);
                    assert_eq!(
                        generations.hold(&rests),
                        (store, thing) != ("redis", changed),
                        "{store} {thing:?} {changed:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_rests_on_nothing_holds_and_on_too_much_does_not() {
        let generations = Generations::default();
        let mut rests = Rests::default();
        generations.changed("redis", Thing::Store);
        assert!(generations.hold(&rests));
        for _ in 0..MOST {
            generations.mark(&mut rests, "redis", Thing::Store);
            assert!(generations.hold(&rests));
        }
        generations.mark(&mut rests, "redis", Thing::Store);
        assert!(!generations.hold(&rests));
    }
}

//! [`Queues`]: which credentials of one authenticator are to be checked, and in which order.

use std::collections::BTreeSet;

/// How many questions to one authenticator may be open.
const CONCURRENT: usize = 16;
/// After so many failures in a row, each retry asks about only so many credentials, until one is answered.
const FAILURES: usize = 16;

/// A credential of this worker. Ids are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(pub(super) u64);

impl CredentialId {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// The credentials of one authenticator.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Those whose decision stands, by the time until which it is confirmed without reports of changes.
    settled: BTreeSet<(u64, CredentialId)>,
    /// To be checked, in this order.
    due: BTreeSet<(u64, CredentialId)>,
    /// They could not be checked, or none can be at the moment.
    waiting: BTreeSet<(u64, CredentialId)>,
    /// The number of open questions.
    pub(super) asked: usize,
    /// How many questions in a row have failed, at most `FAILURES`.
    failures: usize,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.due.is_empty() && self.waiting.is_empty() && self.asked == 0
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn has_settled_until(&self, end: u64) -> bool {
        self.settled.first().is_some_and(|(until, _)| *until <= end)
    }

    /// The first ones that are confirmed until `end` or less.
    pub(super) fn settled_until(&self, end: u64, most: usize) -> Vec<CredentialId> {
        let settled = self.settled.iter().take_while(|(until, _)| *until <= end);
        settled.take(most).map(|(_, id)| *id).collect()
    }

    /// Begins a question, if one is due and may be asked.
    pub(super) fn ask(&mut self) -> Option<CredentialId> {
        if self.asked >= CONCURRENT {
            return None;
        }
        let (_, id) = self.due.pop_first()?;
        self.asked += 1;
        Some(id)
    }

    /// A credential has a decision.
    pub(super) fn settle(&mut self, until: u64, id: CredentialId) {
        self.settled.insert((until, id));
    }

    /// A question was answered: the others can be asked again.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.failures) >= FAILURES {
            self.due.append(&mut self.waiting);
        }
    }

    /// A question has failed.
    pub(super) fn fail(&mut self, number: u64, id: CredentialId) {
        self.waiting.insert((number, id));
        self.failures = FAILURES.min(self.failures + 1);
        if self.failures >= FAILURES {
            self.waiting.append(&mut self.due);
        }
    }

    pub(super) fn repeat(&mut self, number: u64, id: CredentialId) {
        self.due.insert((number, id));
    }

    /// Waiting credentials are due again: all of them, or a few if none could be checked.
    pub(super) fn retry(&mut self) {
        if self.failures < FAILURES {
            self.due.append(&mut self.waiting);
            return;
        }
        for _ in 0..FAILURES {
            self.due.extend(self.waiting.pop_first());
        }
    }

    pub(super) fn unsettle(&mut self, until: u64, id: CredentialId) {
        self.settled.remove(&(until, id));
    }

    pub(super) fn remove(&mut self, number: u64, id: CredentialId) {
        if !self.due.remove(&(number, id)) {
            self.waiting.remove(&(number, id));
        }
    }
}

#[cfg(test)]
impl Queues {
    pub(super) fn due_len(&self) -> usize {
        self.due.len()
    }
}

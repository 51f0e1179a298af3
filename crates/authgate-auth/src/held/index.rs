//! [`HeldCredentials`]: the credentials of all streams of a worker, and which of them must be checked again.
//!
//! Equal credentials are one, however many streams hold them. A credential is found by the change of an item that its decision depends on,
//! and by the time at which it expires. So open streams cost nothing while nothing changes: there is no timer for each, and no search.
//!
//! It asks no authenticator. Its owner takes each [`Question`] from [`next_question`](HeldCredentials::next_question), and answers it by
//! [`settle`](HeldCredentials::settle), [`refuse`](HeldCredentials::refuse), [`fail`](HeldCredentials::fail) or
//! [`repeat`](HeldCredentials::repeat).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::Identity;

use super::queues::{CredentialId, Queues};
use super::{HeldCredential, Standing};
use crate::cache;
use crate::dependencies::ChangeCounters;
use crate::now::Now;

/// The largest number of credentials that one call changes. Between calls, other tasks of the worker run.
const TURN: usize = 256;
/// How long a credential waits that could not be checked.
const RETRY: Duration = Duration::from_millis(250);
/// When an expired credential is looked at again while its authenticator is being asked, in milliseconds.
const AGAIN_MS: i64 = 100;
/// How long an expired credential waits in the queue for the answer whether it was extended, in milliseconds. Then it has expired.
const ANSWER_MS: i64 = 5000;
/// How long the owner sleeps at most while credentials are held: the wall clock may be set, and a store may cease to report changes.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The credentials of all streams of a worker.
#[derive(Default)]
pub struct HeldCredentials {
    credentials: BTreeMap<CredentialId, Box<Credential>>,
    ids: HashMap<(Arc<str>, cache::Key), CredentialId>,
    /// The streams of each credential, by the numbers that the owner has given them. Each credential has at least one.
    holders: BTreeSet<(CredentialId, usize)>,
    /// The counters that the decisions about settled credentials depend on.
    by_slot: BTreeSet<(u32, CredentialId)>,
    /// When credentials expire, or must be checked again in any case, in milliseconds of Unix time.
    by_time: BTreeSet<(i64, CredentialId)>,
    /// By the name of the authenticator. None is empty.
    queues: BTreeMap<Arc<str>, Queues>,
    last_id: u64,
    /// The number of all places in queues so far.
    queued: u64,
    /// When waiting credentials are due again, on the clock of [`Now::uptime_ms`].
    retry_at: u64,
}

struct Credential {
    held: Rc<HeldCredential>,
    authenticator: Arc<str>,
    /// The user by the last decision.
    identity: Arc<Identity>,
    /// The last decision. `None`: there was none since the credential was registered.
    standing: Option<Standing>,
    /// Its key in `by_time`, if it is there.
    time: Option<i64>,
    place: Place,
}

/// Where a credential is. A number is its key in a queue of its authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its decision stands: it is in `settled` and in `by_slot`.
    Settled(u64),
    /// In `due` or in `waiting`.
    Queued(u64),
    /// Its authenticator is being asked.
    Asked,
}

/// A credential to be checked by its authenticator.
#[derive(Debug)]
pub struct Question {
    /// The credential.
    pub id: CredentialId,
    /// The name of its authenticator.
    pub authenticator: Arc<str>,
    /// What to check.
    pub held: Rc<HeldCredential>,
}

/// What a new decision means for the streams of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing.
    SameUser,
    /// What is known of the user may have changed.
    OtherUser,
}

impl fmt::Debug for HeldCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldCredentials")
            .field("credentials", &self.credentials.len())
            .field("holders", &self.holders.len())
            .finish_non_exhaustive()
    }
}

/// Streams come and go.
impl HeldCredentials {
    /// Whether no stream holds a credential.
    pub fn is_empty(&self) -> bool {
        self.credentials.is_empty()
    }

    /// Registers a stream that holds a credential, which the authenticator of this name has accepted. `recall` returns the decision about
    /// it, if it is at hand. Otherwise, the credential is due.
    pub fn hold(
        &mut self,
        authenticator: &Arc<str>,
        held: &Rc<HeldCredential>,
        identity: &Arc<Identity>,
        holder: usize,
        now: Now,
        recall: impl FnOnce() -> Option<Standing>,
    ) -> CredentialId {
        let key = (Arc::clone(authenticator), held.digest);
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                self.last_id += 1;
                let id = CredentialId(self.last_id);
                self.ids.insert(key, id);
                let credential = Credential {
                    held: Rc::clone(held),
                    authenticator: Arc::clone(authenticator),
                    identity: Arc::clone(identity),
                    standing: None,
                    time: None,
                    place: Place::Asked,
                };
                self.credentials.insert(id, Box::new(credential));
                self.queues.entry(Arc::clone(authenticator)).or_default().asked += 1;
                match recall() {
                    Some(standing) => {
                        self.stand(id, standing, now);
                    }
                    None => self.repeat(id),
                }
                id
            }
        };
        self.holders.insert((id, holder));
        id
    }

    /// A stream does not hold the credential any more.
    pub fn release(&mut self, id: CredentialId, holder: usize) {
        self.holders.remove(&(id, holder));
        if self.range_of(id).next().is_none() {
            self.forget(id);
        }
    }

    /// Forgets a credential. Returns the streams that held it.
    pub fn forget(&mut self, id: CredentialId) -> Vec<usize> {
        let holders = self.holders(id);
        for holder in &holders {
            self.holders.remove(&(id, *holder));
        }
        self.leave(id);
        self.set_time(id, None);
        if let Some(credential) = self.credentials.remove(&id) {
            let key = (credential.authenticator, credential.held.digest);
            self.ids.remove(&key);
            if self.queues.get(&key.0).is_some_and(Queues::is_empty) {
                self.queues.remove(&key.0);
            }
        }
        holders
    }

    /// The streams that hold a credential.
    pub fn holders(&self, id: CredentialId) -> Vec<usize> {
        self.range_of(id).collect()
    }

    fn range_of(&self, id: CredentialId) -> impl Iterator<Item = usize> {
        let holders = self.holders.range((id, 0)..=(id, usize::MAX));
        holders.map(|(_, holder)| *holder)
    }
}

/// What makes a credential due.
impl HeldCredentials {
    /// The item with this counter has changed: the credentials that depend on it are due. Returns whether there are more of them.
    pub fn changed(&mut self, slot: u32) -> bool {
        let concerned = self
            .by_slot
            .range((slot, CredentialId::FIRST)..=(slot, CredentialId::LAST));
        let concerned: Vec<CredentialId> = concerned.take(TURN).map(|(_, id)| *id).collect();
        self.repeat_all(&concerned);
        concerned.len() == TURN
    }

    /// Any item may have changed. Looks at the credentials after this one: those whose counters have changed are due. Returns the last one
    /// that it has looked at, if there may be more.
    pub fn any_changed(&mut self, counters: &ChangeCounters, after: Option<CredentialId>) -> Option<CredentialId> {
        let first = after.map_or(CredentialId::FIRST, |CredentialId(id)| CredentialId(id + 1));
        let turn = || self.credentials.range(first..).take(TURN);
        let is_outdated = |credential: &Credential| {
            let standing = credential.standing.as_ref();
            credential.is_settled() && standing.is_some_and(|standing| standing.is_outdated(counters))
        };
        let outdated = turn().filter(|(_, credential)| is_outdated(credential));
        let outdated: Vec<CredentialId> = outdated.map(|(id, _)| *id).collect();
        let last = turn().nth(TURN - 1).map(|(id, _)| *id);
        self.repeat_all(&outdated);
        last
    }

    /// Another authenticator has this name now: its credentials are due. Returns whether there are more of them.
    pub fn recheck(&mut self, authenticator: &Arc<str>) -> bool {
        let queues = self.queues.get(authenticator);
        let settled: Vec<CredentialId> = queues.map_or_else(Vec::new, |queues| queues.settled_until(u64::MAX, TURN));
        self.repeat_all(&settled);
        settled.len() == TURN
    }

    /// Returns credentials that have expired, and makes those due whose time has come. `may_extend`: whether the authenticator of this name
    /// may have extended a credential without a report.
    pub fn expire(&mut self, now: Now, may_extend: &dyn Fn(&Arc<str>) -> bool) -> Vec<CredentialId> {
        let mut expired = Vec::new();
        for _ in 0..TURN {
            let Some((_, id)) = self.by_time.first().copied().filter(|(at, _)| *at <= now.unix_ms) else {
                break;
            };
            self.set_time(id, None);
            let Some(credential) = self.credentials.get(&id) else {
                continue;
            };
            match (credential.has_expired(now), credential.place) {
                // Its authenticator may have extended it: the answer decides.
                (true, Place::Asked) => self.set_time(id, Some(now.unix_ms.saturating_add(AGAIN_MS))),
                (true, Place::Settled(_)) if may_extend(&credential.authenticator) => {
                    self.repeat(id);
                    self.set_time(id, Some(now.unix_ms.saturating_add(ANSWER_MS)));
                }
                (true, Place::Settled(_) | Place::Queued(_)) => expired.push(id),
                (false, Place::Settled(_)) => self.repeat(id),
                (false, Place::Queued(_) | Place::Asked) => {}
            }
        }
        expired
    }

    /// Makes those credentials due that were confirmed too long ago, where changes are not reported, and those that have waited.
    /// `reports_changes`: whether changes are reported to the authenticator of this name.
    pub fn pass_time(&mut self, now: Now, reports_changes: &dyn Fn(&Arc<str>) -> bool) {
        let is_retry = now.uptime_ms >= self.retry_at;
        let mut lapsed = Vec::new();
        for (name, queues) in &mut self.queues {
            if is_retry {
                queues.retry();
            }
            if queues.has_settled_until(now.uptime_ms) && !reports_changes(name) {
                lapsed.extend(queues.settled_until(now.uptime_ms, TURN));
            }
        }
        if is_retry {
            self.retry_at = now.later(RETRY).uptime_ms;
        }
        self.repeat_all(&lapsed);
    }

    /// How long the owner may sleep if nothing changes and no question is open. `None`: no credential is held.
    pub fn sleep(&self, now: Now) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let mut sleep = LONGEST_SLEEP;
        if self.queues.values().any(Queues::has_waiting) {
            sleep = Duration::from_millis(self.retry_at.saturating_sub(now.uptime_ms));
        }
        if let Some((at, _)) = self.by_time.first() {
            let left = at.saturating_sub(now.unix_ms).max(0);
            sleep = sleep.min(Duration::from_millis(left.unsigned_abs()));
        }
        Some(sleep)
    }
}

/// Questions and their answers.
impl HeldCredentials {
    /// The next credential to check, if there is one.
    pub fn next_question(&mut self) -> Option<Question> {
        let id = self.queues.values_mut().find_map(Queues::ask)?;
        let credential = self.credentials.get_mut(&id)?;
        credential.place = Place::Asked;
        Some(Question {
            id,
            authenticator: Arc::clone(&credential.authenticator),
            held: Rc::clone(&credential.held),
        })
    }

    /// The credential is accepted.
    pub fn settle(&mut self, id: CredentialId, standing: Standing, now: Now) -> Settled {
        self.answered(id);
        self.stand(id, standing, now)
    }

    /// The credential is refused. Returns the streams that held it.
    pub fn refuse(&mut self, id: CredentialId) -> Vec<usize> {
        self.answered(id);
        self.forget(id)
    }

    fn answered(&mut self, id: CredentialId) {
        let credential = self.credentials.get(&id);
        if let Some(queues) = credential.and_then(|credential| self.queues.get_mut(&credential.authenticator)) {
            queues.answered();
        }
    }

    fn stand(&mut self, id: CredentialId, standing: Standing, now: Now) -> Settled {
        self.leave(id);
        // Without all of its dependencies, it is found by time alone.
        let again = (!standing.is_complete()).then(|| {
            let in_ms = standing.confirmed_until.saturating_sub(now.uptime_ms);
            now.unix_ms.saturating_add_unsigned(in_ms)
        });
        let time = standing.expires_ms().into_iter().chain(again).min();
        let (until, slots) = (standing.confirmed_until, standing.slots().collect::<Vec<u32>>());
        let Some(credential) = self.credentials.get_mut(&id) else {
            return Settled::SameUser;
        };
        let user = match Arc::ptr_eq(&credential.identity, &standing.identity) {
            true => Settled::SameUser,
            false => Settled::OtherUser,
        };
        credential.identity = Arc::clone(&standing.identity);
        credential.standing = Some(standing);
        credential.place = Place::Settled(until);
        if let Some(queues) = self.queues.get_mut(&credential.authenticator) {
            queues.settle(until, id);
        }
        self.by_slot.extend(slots.into_iter().map(|slot| (slot, id)));
        self.set_time(id, time);
        user
    }

    /// The credential must be checked again at once.
    pub fn repeat(&mut self, id: CredentialId) {
        self.leave(id);
        self.queued += 1;
        if let Some(credential) = self.credentials.get_mut(&id) {
            credential.place = Place::Queued(self.queued);
            if let Some(queues) = self.queues.get_mut(&credential.authenticator) {
                queues.repeat(self.queued, id);
            }
        }
    }

    fn repeat_all(&mut self, ids: &[CredentialId]) {
        for id in ids {
            self.repeat(*id);
        }
    }

    /// The credential could not be checked: it is checked again later. Returns whether it has expired meanwhile.
    pub fn fail(&mut self, id: CredentialId, now: Now) -> bool {
        self.leave(id);
        self.queued += 1;
        let Some(credential) = self.credentials.get_mut(&id) else {
            return false;
        };
        credential.place = Place::Queued(self.queued);
        if let Some(queues) = self.queues.get_mut(&credential.authenticator) {
            queues.fail(self.queued, id);
        }
        credential.has_expired(now)
    }

    /// Takes a credential out of its place. It must be given another one, or be forgotten.
    fn leave(&mut self, id: CredentialId) {
        let Some(credential) = self.credentials.get(&id) else {
            return;
        };
        let Some(queues) = self.queues.get_mut(&credential.authenticator) else {
            return;
        };
        match credential.place {
            Place::Settled(until) => {
                queues.unsettle(until, id);
                for slot in credential.standing.iter().flat_map(Standing::slots) {
                    self.by_slot.remove(&(slot, id));
                }
            }
            Place::Queued(number) => queues.remove(number, id),
            Place::Asked => queues.asked -= 1,
        }
    }

    fn set_time(&mut self, id: CredentialId, time: Option<i64>) {
        let Some(credential) = self.credentials.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut credential.time, time) {
            self.by_time.remove(&(before, id));
        }
        if let Some(at) = time {
            self.by_time.insert((at, id));
        }
    }
}

impl Credential {
    fn is_settled(&self) -> bool {
        matches!(self.place, Place::Settled(_))
    }

    fn has_expired(&self, now: Now) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.has_expired(now))
    }
}

#[cfg(test)]
mod tests;

//! [`ReplayMemory`]: the proofs that clients of this process have used.
//!
//! It belongs to the process and outlives every configuration: a reload must not make a used proof valid again. Its size is bounded. When it
//! is full, the answer is an error and never a yes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::now::Now;

/// Workers seldom wait for each other: a proof is in the shard that its first byte chooses.
const SHARDS: usize = 64;
/// What a hash table of 2^14 slots holds before it grows. All shards together take at most 26 MB.
const MAX_IN_SHARD: usize = 14_336;
/// Fewer entries are never searched for expired ones.
const MIN_SWEPT: usize = 256;
/// A full shard is searched for expired entries at most this often.
const SWEEP_PAUSE_MS: u64 = 1000;

/// Identifies a proof: SHA-256 of the thumbprint of its key and of the hash of its `jti`.
pub(crate) type ProofId = [u8; 32];
/// The first half of a [`ProofId`]. Two proofs that agree in it would need 2^64 attempts.
type Entry = [u8; 16];

/// The most proofs that the memory holds at once.
pub const MAX_PROOFS: usize = SHARDS * MAX_IN_SHARD;

/// Used proofs, each with the time when it cannot be accepted any more.
pub struct ReplayMemory {
    shards: Box<[Mutex<Shard>]>,
}

/// The memory is full: whether the proof was used cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Default)]
struct Shard {
    /// The value is the end of the entry, on the clock of [`Now::uptime_ms`].
    used: HashMap<Entry, u64>,
    /// At this number of entries, the next insertion removes expired ones first. `MIN_SWEPT <= sweep_at <= MAX_IN_SHARD`, or 0 at first.
    sweep_at: usize,
    swept_at_ms: u64,
}

impl Default for ReplayMemory {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl fmt::Debug for ReplayMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayMemory").finish_non_exhaustive()
    }
}

impl ReplayMemory {
    /// Records that a proof is used, for `lifetime_ms`. Returns `false` if it was used before.
    pub(crate) fn record(&self, proof: &ProofId, lifetime_ms: u64, now: Now) -> Result<bool, Full> {
        let shard = &self.shards[usize::from(proof[31]) % SHARDS];
        let (entry, _) = proof.split_first_chunk().expect("16 of 32 bytes");
        let until = now.uptime_ms.saturating_add(lifetime_ms);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.record(*entry, until, now.uptime_ms)
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        let entries = self.shards.iter().map(|shard| shard.lock().expect("a lock").used.len());
        entries.sum()
    }
}

impl Shard {
    fn record(&mut self, entry: Entry, until: u64, now_ms: u64) -> Result<bool, Full> {
        if let Some(end) = self.used.get_mut(&entry) {
            let is_expired = *end <= now_ms;
            if is_expired {
                *end = until;
            }
            return Ok(is_expired);
        }
        if self.used.len() >= self.sweep_at {
            self.sweep(now_ms)?;
        }
        self.used.insert(entry, until);
        Ok(true)
    }

    /// Removes expired entries. The next sweep is after as many insertions as there are entries now, so that each entry is visited about once.
    fn sweep(&mut self, now_ms: u64) -> Result<(), Full> {
        let is_full = self.used.len() >= MAX_IN_SHARD;
        if is_full && now_ms < self.swept_at_ms.saturating_add(SWEEP_PAUSE_MS) {
            return Err(Full);
        }
        self.swept_at_ms = now_ms;
        self.used.retain(|_, end| *end > now_ms);
        self.used.shrink_to(2 * self.used.len());
        self.sweep_at = (2 * self.used.len()).clamp(MIN_SWEPT, MAX_IN_SHARD);
        match self.used.len() >= MAX_IN_SHARD {
            true => Err(Full),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uptime_ms: u64) -> Now {
        Now { unix_ms: 0, uptime_ms }
    }

    fn proof(number: usize) -> ProofId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn a_proof_counts_once_until_it_cannot_be_accepted_any_more() {
        let memory = ReplayMemory::default();
        assert_eq!(memory.record(&proof(1), 1000, at(0)), Ok(true));
        assert_eq!(memory.record(&proof(2), 1000, at(0)), Ok(true), "another proof");
        assert_eq!(memory.record(&proof(1), 1000, at(999)), Ok(false));
        assert_eq!(memory.record(&proof(1), 1000, at(1000)), Ok(true));
        assert_eq!(memory.record(&proof(1), 1000, at(1001)), Ok(false));
    }

    #[test]
    fn a_full_memory_is_an_error_until_entries_expire() {
        let memory = ReplayMemory::default();
        for number in 0..MAX_IN_SHARD {
            assert_eq!(memory.record(&proof(number), 60_000, at(0)), Ok(true), "{number}");
        }
        assert_eq!(memory.record(&proof(MAX_IN_SHARD), 60_000, at(10)), Err(Full));
        assert_eq!(
            memory.record(&proof(7), 60_000, at(10)),
            Ok(false),
            "what it knows stays known"
        );
        assert_eq!(memory.record(&proof(MAX_IN_SHARD), 60_000, at(59_999)), Err(Full));
        assert_eq!(memory.record(&proof(MAX_IN_SHARD), 60_000, at(61_000)), Ok(true));
        assert_eq!(memory.entries(), 1, "expired entries have left");
        // Another shard is not full.
        assert_eq!(memory.record(&[1; 32], 60_000, at(10)), Ok(true));
    }

    #[test]
    fn expired_entries_leave_although_the_memory_is_never_full() {
        let memory = ReplayMemory::default();
        for number in 0..100_000 {
            let now = at(u64::try_from(number).expect("a small number"));
            assert_eq!(memory.record(&proof(number), 100, now), Ok(true));
        }
        assert!(memory.entries() <= 2 * MIN_SWEPT, "{}", memory.entries());
    }
}

//! How much of requests' bodies a client may send ahead, and how much of them is held.
//!
//! h2 holds what has come of a body and was not taken, and opens windows again for what was. A stream's window bounds what is held of one body.
//! Held data takes from the connection's window too, so a few uploads that no server reads would stop all others: the connection's window
//! grows by what is held. That comes out of one amount for all connections; a connection that gets no more of it waits for its own servers.

use crate::concurrency::{ConcurrencyLimit, ConcurrencyPermit};
use crate::transfer::streamed::{Unread, Upload};

/// The window of each stream.
pub(super) const STREAM: u32 = 256 * 1024;
/// The window of a connection, beside what is held.
pub(super) const CONNECTION: u32 = 1024 * 1024;
/// What costs a connection nothing to hold: half of its window is left for other streams.
const FREE: usize = CONNECTION as usize / 2;
/// The connection's window grows in steps of this size.
const STEP: u32 = 256 * 1024;
/// So many steps of all connections: 256 MiB.
pub(in crate::server) const STEPS: usize = 1024;
/// Bodies are looked at after so much data.
const LOOK_AFTER: u64 = 128 * 1024;

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Windows {
    /// Bodies that may not have come to their ends.
    uploads: Vec<Unread>,
    /// As many uploads are looked through for those that have ended.
    sweep_at: usize,
    /// What all connections share.
    steps: ConcurrencyLimit,
    taken: Vec<ConcurrencyPermit>,
    /// Data that had come when bodies were looked at last.
    looked_at: u64,
}

impl Windows {
    /// `steps`: what all connections share.
    pub(super) fn new(steps: ConcurrencyLimit) -> Self {
        Self {
            uploads: Vec::new(),
            sweep_at: 16,
            steps,
            taken: Vec::new(),
            looked_at: 0,
        }
    }

    /// A body begins.
    pub(super) fn add(&mut self, upload: &Upload) {
        if self.uploads.len() >= self.sweep_at {
            self.uploads.retain(|upload| upload.bytes().is_some());
            self.sweep_at = (self.uploads.len() * 2).max(16);
        }
        self.uploads.push(upload.unread());
    }

    /// The connection's new window, where it is to be smaller, before h2 opens windows for what was taken. So a client never has a window of more
    /// than [`CONNECTION`] and a step, whatever was held.
    pub(super) fn before_reading(&mut self) -> Option<u32> {
        if self.taken.is_empty() {
            return None;
        }
        self.look()
    }

    /// The connection's new window, once all requests that came were taken. `received`: all data that has come.
    pub(super) fn after_reading(&mut self, received: u64) -> Option<u32> {
        if self.taken.is_empty() && received - self.looked_at < LOOK_AFTER {
            return None;
        }
        self.looked_at = received;
        self.look()
    }

    fn look(&mut self) -> Option<u32> {
        let held: usize = self.uploads.iter().filter_map(Unread::bytes).sum();
        let wanted = if held > FREE { held.div_ceil(STEP as usize) } else { 0 };
        let before = self.taken.len();
        self.taken.truncate(wanted);
        while self.taken.len() < wanted
            && let Some(step) = self.steps.take()
        {
            self.taken.push(step);
        }
        let steps = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        (self.taken.len() != before).then(|| CONNECTION.saturating_add(steps.saturating_mul(STEP)))
    }
}

//! Flow control of request bodies: how much a client may send ahead, and how much of it is buffered.
//!
//! h2 buffers body data until the handler takes it, and then opens the window again. The window of a stream limits the buffer of one body.
//! Buffered data also uses the window of the connection, so a few uploads that no upstream reads would stop all other streams.
//! Therefore the window of the connection grows by the amount that is buffered. The growth comes from one budget for all connections.
//! If the budget is used up, the connection waits until its own upstreams read.

use crate::concurrency::{ConcurrencyLimit, ConcurrencyPermit};
use crate::transfer::http2_body::{BufferedUpload, Upload};

/// The window of each stream.
pub(super) const STREAM: u32 = 256 * 1024;
/// The window of a connection, without the growth for buffered data.
pub(super) const CONNECTION: u32 = 1024 * 1024;
/// A connection may buffer this much without growth: half of its window remains for other streams.
const FREE: usize = CONNECTION as usize / 2;
/// The step by which the window of a connection grows.
const STEP: u32 = 256 * 1024;
/// The budget of steps for all connections: 256 MiB.
pub(in crate::server) const STEPS: usize = 1024;
/// The amount of data after which the buffers are measured again.
const LOOK_AFTER: u64 = 128 * 1024;

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Windows {
    /// Bodies that may not have ended. Ended ones stay until the next sweep.
    uploads: Vec<BufferedUpload>,
    /// When `uploads` has this length, ended bodies are removed from it.
    sweep_at: usize,
    /// The budget of all connections.
    steps: ConcurrencyLimit,
    taken: Vec<ConcurrencyPermit>,
    /// `received` at the last measurement.
    looked_at: u64,
}

impl Windows {
    /// `steps`: the budget of all connections.
    pub(super) fn new(steps: ConcurrencyLimit) -> Self {
        Self {
            uploads: Vec::new(),
            sweep_at: 16,
            steps,
            taken: Vec::new(),
            looked_at: 0,
        }
    }

    /// Adds a body that begins.
    pub(super) fn add(&mut self, upload: &Upload) {
        if self.uploads.len() >= self.sweep_at {
            self.uploads.retain(|upload| upload.bytes().is_some());
            self.sweep_at = (self.uploads.len() * 2).max(16);
        }
        self.uploads.push(upload.buffered());
    }

    /// The new window of the connection, if it changes. It is called before h2 opens windows for data that was taken. So the client never has a window
    /// of more than [`CONNECTION`] and one step, however much was buffered.
    pub(super) fn before_reading(&mut self) -> Option<u32> {
        if self.taken.is_empty() {
            return None;
        }
        self.look()
    }

    /// The new window of the connection, if it changes. It is called after all requests that came were accepted. `received`: bytes of all DATA frames.
    pub(super) fn after_reading(&mut self, received: u64) -> Option<u32> {
        if self.taken.is_empty() && received - self.looked_at < LOOK_AFTER {
            return None;
        }
        self.looked_at = received;
        self.look()
    }

    fn look(&mut self) -> Option<u32> {
        let held: usize = self.uploads.iter().filter_map(BufferedUpload::bytes).sum();
        let wanted = if held > FREE { held.div_ceil(STEP as usize) } else { 0 };
        let before = self.taken.len();
        self.taken.truncate(wanted);
        while self.taken.len() < wanted
            && let Some(step) = self.steps.try_acquire()
        {
            self.taken.push(step);
        }
        let steps = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        (self.taken.len() != before).then(|| CONNECTION.saturating_add(steps.saturating_mul(STEP)))
    }
}

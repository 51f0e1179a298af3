//! Flow control of request bodies: how much a client may send ahead, and how much of it is buffered.
//!
//! h2 buffers body data until the handler takes it, and then opens the window again. The window of a stream limits the buffer of one body.
//! Buffered data also uses the window of the connection, so a few uploads that no upstream reads would stop all other streams.
//! Therefore the window of the connection grows by the amount that is buffered. The growth comes from one budget for all connections.
//! If the budget is used up, the connection waits until its own upstreams read.

use crate::concurrency::{ConcurrencyLimit, ConcurrencyPermit};
use crate::transfer::http2_body::{BufferedUpload, Upload};

/// The window of each stream.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// The window of a connection, without the growth for buffered data.
pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A connection may buffer this much without growth: half of its window remains for other streams.
const FREE_BUFFER: usize = CONNECTION_WINDOW as usize / 2;
/// The step by which the window of a connection grows.
const WINDOW_STEP: u32 = 256 * 1024;
/// The limit of steps for all connections: 256 MiB.
pub(in crate::server) const MAX_STEPS: usize = 1024;
/// The amount of data after which the buffers are measured again.
const UPDATE_AFTER: u64 = 128 * 1024;

/// The window of one connection.
#[derive(Debug)]
pub(super) struct ConnectionWindow {
    /// Bodies that may not have ended. Ended ones stay until the next sweep.
    uploads: Vec<BufferedUpload>,
    /// When `uploads` has this length, ended bodies are removed from it.
    sweep_at: usize,
    /// The budget of all connections.
    budget: ConcurrencyLimit,
    permits: Vec<ConcurrencyPermit>,
    /// `received` at the last measurement.
    measured_at: u64,
}

impl ConnectionWindow {
    /// `budget`: the steps of all connections.
    pub(super) fn new(budget: ConcurrencyLimit) -> Self {
        Self {
            uploads: Vec::new(),
            sweep_at: 16,
            budget,
            permits: Vec::new(),
            measured_at: 0,
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
    /// of more than [`CONNECTION_WINDOW`] and one step, however much was buffered.
    pub(super) fn before_reading(&mut self) -> Option<u32> {
        if self.permits.is_empty() {
            return None;
        }
        self.update()
    }

    /// The new window of the connection, if it changes. It is called after all requests that came were accepted. `received`: bytes of all DATA frames.
    pub(super) fn after_reading(&mut self, received: u64) -> Option<u32> {
        if self.permits.is_empty() && received - self.measured_at < UPDATE_AFTER {
            return None;
        }
        self.measured_at = received;
        self.update()
    }

    fn update(&mut self) -> Option<u32> {
        let buffered: usize = self.uploads.iter().filter_map(BufferedUpload::bytes).sum();
        let wanted = if buffered > FREE_BUFFER {
            buffered.div_ceil(WINDOW_STEP as usize)
        } else {
            0
        };
        let before = self.permits.len();
        self.permits.truncate(wanted);
        while self.permits.len() < wanted
            && let Some(step) = self.budget.try_acquire()
        {
            self.permits.push(step);
        }
        let steps = u32::try_from(self.permits.len()).unwrap_or(u32::MAX);
        (self.permits.len() != before).then(|| CONNECTION_WINDOW.saturating_add(steps.saturating_mul(WINDOW_STEP)))
    }
}

//! Returns the memory of a start or a reload to the system.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The allocator keeps freed memory for one second, because it may be needed again.
const DELAY: Duration = Duration::from_secs(2);

/// Runs work that needs much memory for a short time. When a thread ends, the allocator takes back what it has freed.
pub fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(work);
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// When the memory may be returned at the earliest. `None`: no thread waits for that.
static RELEASE_AT: Mutex<Option<Instant>> = Mutex::new(None);

/// Lets the allocator return the memory that was freed before. It does so when a thread ends, and in an idle gateway no thread ends.
pub(super) fn release_soon() {
    let release_at = || RELEASE_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if release_at().replace(Instant::now() + DELAY).is_some() {
        return;
    }
    let wait = move || {
        loop {
            let mut at = release_at();
            let left = at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                *at = None;
                return;
            }
            drop(at);
            thread::sleep(left);
        }
    };
    if thread::Builder::new().name("release".to_owned()).spawn(wait).is_err() {
        // The memory is returned after the next reload.
        *release_at() = None;
    }
}

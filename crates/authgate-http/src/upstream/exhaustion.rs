//! Errors of the system that say nothing about a server: this process lacks resources.

use std::io;

/// Whether the system reports that this process, or all processes, use too many descriptors or too much memory.
pub(super) fn is_local_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    )
}

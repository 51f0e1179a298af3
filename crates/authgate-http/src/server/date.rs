//! The `Date` field (RFC 9110, section 6.6.1), formatted once a second.

use std::cell::RefCell;
use std::time::SystemTime;

use http::HeaderValue;

/// Calls `take` with the current date.
pub(super) fn with<R>(take: impl FnOnce(&HeaderValue) -> R) -> R {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    WRITTEN.with_borrow_mut(|(second, value)| {
        if *second != seconds
            && let Ok(written) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*second, *value) = (seconds, written);
        }
        take(value)
    })
}

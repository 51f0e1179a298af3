//! `on_outage` and `stale_for` of an authenticator.

use authgate_auth::cache::{CacheSettings, OnOutage};

use crate::config::keys::authenticators::{self as keys, Outage};
use crate::config::reader::Section;

/// `can_fail`: something that the authenticator asks may be unable to answer. `remedy` says how to change that.
pub(super) fn on_outage(section: &mut Section<'_>, cache: &CacheSettings, can_fail: bool, remedy: &str) -> OnOutage {
    let (item, stale_item) = (section.take(&keys::ON_OUTAGE), section.take(&keys::STALE_FOR));
    let stale_for = keys::STALE_FOR.read_or_default(stale_item.as_ref());
    let written = match &item {
        None => Some(keys::ON_OUTAGE.default()),
        Some(item) => keys::ON_OUTAGE.read(item),
    };
    let on_outage = match written {
        // It is invalid, and reported.
        None => return OnOutage::Deny,
        Some(Outage::Deny) => OnOutage::Deny,
        Some(Outage::ServeCached) => OnOutage::ServeCached { stale_for },
    };
    match (on_outage, item, stale_item) {
        (OnOutage::Deny, _, Some(stale_item)) => stale_item.refuse(
            "`stale_for` has no effect without `on_outage = \"serve-cached\"`",
            "remove it, or write `on_outage = \"serve-cached\"` beside it",
        ),
        (OnOutage::ServeCached { .. }, Some(item), _) => {
            if cache.entries == 0 || cache.ttl.is_zero() {
                item.refuse(
                    "there is nothing to serve in an outage: the cache is off",
                    "write `cache = { entries = 100000, ttl = \"60s\" }`, or `on_outage = \"deny\"`",
                );
            } else if !can_fail {
                item.warn(
                    "`on_outage` has no effect: the authenticator asks nothing that could be unable to answer",
                    format!("remove it, or {remedy}"),
                );
            }
        }
        (OnOutage::Deny | OnOutage::ServeCached { .. }, _, _) => {}
    }
    on_outage
}

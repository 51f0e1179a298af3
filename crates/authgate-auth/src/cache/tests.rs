use super::*;
use crate::dependencies::StoreItem;
use crate::identities::fixtures;
use crate::store_changes::StoreChanges;
use authgate_core::credential::{Defect, Refusal};
use authgate_core::identity::UserInfo;

const AT: Now = Now {
    unix_ms: 1_000_000,
    uptime_ms: 5_000,
};

fn cache_of(settings: CacheSettings) -> DecisionCache {
    DecisionCache::new(settings, OnOutage::Deny, ConfirmedBy::Stores, Arc::default())
}

fn accepted(validity: Validity) -> Decision {
    accepted_with(validity, serde_json::Map::new())
}

fn accepted_with(validity: Validity, attributes: serde_json::Map<String, serde_json::Value>) -> Decision {
    let user_info = UserInfo {
        attributes,
        ..fixtures::user_info("token", "1")
    };
    Decision::Accepted {
        identity: fixtures::identity(user_info),
        validity,
        binding: None,
    }
}

impl DecisionCache {
    fn entries(&self) -> usize {
        self.accepted.as_ref().map_or(0, Cache::len) + self.refused.as_ref().map_or(0, Cache::len)
    }
}

const SETTINGS: CacheSettings = CacheSettings {
    entries: 100_000,
    ttl: Duration::from_secs(60),
    negative_entries: 20_000,
    negative_ttl: Duration::from_secs(5),
};

fn later(ms: i64) -> Now {
    Now {
        unix_ms: AT.unix_ms + ms,
        uptime_ms: AT.uptime_ms.saturating_add_signed(ms),
    }
}

#[test]
fn a_decision_expires_after_its_ttl() {
    let cache = cache_of(SETTINGS);
    cache.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
    assert!(matches!(cache.find(&[1; 32], later(59_999)), Some(Ok(_))));
    assert!(cache.find(&[1; 32], later(60_000)).is_none());
    assert!(cache.find(&[2; 32], AT).is_none());
}

#[test]
fn a_recalled_decision_is_the_one_that_would_be_found() {
    let cache = cache_of(SETTINGS);
    let validity = Validity {
        from_ms: AT.unix_ms,
        until_ms: AT.unix_ms + 1000,
    };
    let mut dependencies = Dependencies::default();
    cache.counters.mark(&mut dependencies, "redis", StoreItem::AnyUser);
    cache.insert([1; 32], &accepted(validity), dependencies, AT);
    cache.insert([2; 32], &Refusal::TokenUnknown.into(), dependencies, AT);
    let recalled = |key, ms| {
        cache
            .recall(&[key; 32], later(ms))
            .map(|(decision, _)| decision.into_result())
    };
    assert!(matches!(recalled(1, 999), Some(Ok(_))));
    assert!(matches!(recalled(2, 4999), Some(Err(_))));
    assert!(recalled(3, 0).is_none());
    assert!(recalled(1, 1000).is_none() && recalled(1, -1).is_none() && recalled(2, 5000).is_none());
    cache.counters.changed("redis", StoreItem::AnyUser);
    assert!(recalled(1, 0).is_none() && recalled(2, 0).is_none());
}

#[test]
fn a_decision_expires_with_its_credential() {
    let cache = cache_of(SETTINGS);
    let validity = Validity {
        from_ms: AT.unix_ms - 10,
        until_ms: AT.unix_ms + 10,
    };
    cache.insert([1; 32], &accepted(validity), Dependencies::default(), AT);
    for (ms, holds) in [(9, true), (10, false)] {
        assert_eq!(cache.find(&[1; 32], later(ms)).is_some(), holds, "{ms}");
    }
    cache.insert([1; 32], &accepted(validity), Dependencies::default(), AT);
    assert!(
        cache
            .find(
                &[1; 32],
                Now {
                    unix_ms: AT.unix_ms - 11,
                    ..AT
                }
            )
            .is_none(),
        "the clock was set back"
    );
}

#[test]
fn refusals_expire_early_and_temporary_ones_are_not_cached() {
    let cache = cache_of(SETTINGS);
    cache.insert(
        [1; 32],
        &Decision::from(Refusal::TokenUnknown),
        Dependencies::default(),
        AT,
    );
    cache.insert(
        [2; 32],
        &Decision::from(Refusal::Jwt(Defect::NotBefore.into())),
        Dependencies::default(),
        AT,
    );
    assert!(matches!(
        cache.find(&[1; 32], later(4_999)),
        Some(Err(refused)) if *refused.refusal() == Refusal::TokenUnknown
    ));
    assert!(cache.find(&[1; 32], later(5_000)).is_none());
    assert!(cache.find(&[2; 32], AT).is_none());
}

#[test]
fn refusals_never_evict_accepted_credentials_and_zero_entries_disable_the_cache() {
    let cache = cache_of(CacheSettings {
        entries: 8,
        negative_entries: 8,
        ..SETTINGS
    });
    cache.insert([255; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
    for at in 0..200 {
        cache.insert(
            [at; 32],
            &Decision::from(Refusal::TokenUnknown),
            Dependencies::default(),
            AT,
        );
    }
    assert!(cache.find(&[255; 32], AT).is_some_and(|verdict| verdict.is_ok()));
    let off = cache_of(CacheSettings {
        entries: 0,
        negative_entries: 0,
        ..SETTINGS
    });
    off.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
    assert!(off.find(&[1; 32], AT).is_none());
}

#[test]
fn a_change_invalidates_a_decision_also_one_under_way() {
    let counters = Arc::new(ChangeCounters::default());
    let cache = DecisionCache::new(SETTINGS, OnOutage::Deny, ConfirmedBy::Stores, Arc::clone(&counters));
    let marked = || {
        let mut dependencies = Dependencies::default();
        counters.mark(&mut dependencies, "redis", StoreItem::User("1"));
        dependencies
    };
    let refused = Decision::from(Refusal::TokenUnknown);
    for decision in [accepted(Validity::ALWAYS), refused] {
        let dependencies = marked();
        cache.insert([1; 32], &decision, dependencies, AT);
        assert!(cache.find(&[1; 32], AT).is_some());
        counters.changed("redis", StoreItem::User("1"));
        assert!(cache.find(&[1; 32], AT).is_none(), "{decision:?}");
        // Its reply was under way when the change came.
        cache.insert([1; 32], &decision, dependencies, AT);
        assert!(cache.find(&[1; 32], AT).is_none(), "{decision:?}");
        cache.insert([1; 32], &decision, marked(), AT);
        assert!(cache.find(&[1; 32], AT).is_some());
        counters.changed("redis", StoreItem::User("1"));
        assert!(cache.find(&[1; 32], AT).is_none());
    }
}

#[test]
fn a_cache_is_bounded_in_bytes() {
    let big = serde_json::Map::from_iter([("bio".to_owned(), "x".repeat(10_000).into())]);
    let entries = 400;
    let cache = cache_of(CacheSettings { entries, ..SETTINGS });
    let fill = |decision: &Decision| {
        for at in 0..2_000_u16 {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&at.to_be_bytes());
            cache.insert(key, decision, Dependencies::default(), AT);
        }
        cache.entries()
    };
    let small = fill(&accepted(Validity::ALWAYS));
    assert!((entries / 2..=entries).contains(&small), "{small}");
    let large = fill(&accepted_with(Validity::ALWAYS, big));
    assert!((1..=entries * MIN_WEIGHT / 10_000).contains(&large), "{large}");
}

/// A cache for `stale_for = "100s"`, and the store that its decisions depend on.
fn for_outages(confirmed_by: ConfirmedBy) -> (DecisionCache, Arc<StoreChanges>) {
    let counters = Arc::default();
    let store = StoreChanges::new(&"redis".into(), &counters);
    let on_outage = OnOutage::ServeCached {
        stale_for: Duration::from_secs(100),
    };
    (DecisionCache::new(SETTINGS, on_outage, confirmed_by, counters), store)
}

fn marked(store: &StoreChanges) -> Dependencies {
    let mut dependencies = Dependencies::default();
    store.mark(&mut dependencies, StoreItem::Store);
    store.mark(&mut dependencies, StoreItem::User("1"));
    dependencies
}

#[test]
fn in_an_outage_a_decision_is_used_until_stale_for_after_it_was_confirmed() {
    let (cache, store) = for_outages(ConfirmedBy::Stores);
    let confirmed = |key: u8, ms| {
        cache
            .find_confirmed(&[key; 32], later(ms))
            .map(|decided| decided.is_ok())
    };
    cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
    cache.insert([2; 32], &Refusal::TokenUnknown.into(), marked(&store), AT);
    for ms in [60_000, 99_999, 100_000] {
        assert!(cache.find(&[1; 32], later(ms)).is_none() && cache.find(&[2; 32], later(ms)).is_none());
        assert_eq!((confirmed(1, ms), confirmed(2, ms)), (Some(true), Some(false)), "{ms}");
    }
    assert_eq!((confirmed(1, 100_001), confirmed(2, 100_001)), (None, None));
    assert_eq!(confirmed(3, 0), None);
    // A subscription confirms them, until it is lost.
    store.subscribed();
    cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
    cache.insert([2; 32], &Refusal::TokenUnknown.into(), marked(&store), AT);
    store.confirmed(later(500_000));
    store.subscribed();
    assert!(cache.find(&[1; 32], AT).is_none(), "changes may have been missed");
    assert_eq!(
        (confirmed(1, 600_000), confirmed(2, 600_000)),
        (Some(true), Some(false))
    );
    assert_eq!((confirmed(1, 600_001), confirmed(2, 600_001)), (None, None));
    store.changed(StoreItem::User("1"));
    assert_eq!((confirmed(1, 0), confirmed(2, 0)), (None, None));
}

#[test]
fn in_an_outage_no_credential_is_accepted_beyond_its_own_end() {
    let (cache, store) = for_outages(ConfirmedBy::Stores);
    let validity = Validity {
        from_ms: AT.unix_ms,
        until_ms: AT.unix_ms + 70_000,
    };
    cache.insert([1; 32], &accepted(validity), marked(&store), AT);
    assert!(cache.find_confirmed(&[1; 32], later(69_999)).is_some());
    assert!(cache.find_confirmed(&[1; 32], later(70_000)).is_none());
    assert!(cache.find_confirmed(&[1; 32], later(-1)).is_none());
}

#[test]
fn stores_do_not_confirm_what_an_endpoint_has_said() {
    let (cache, store) = for_outages(ConfirmedBy::Nothing);
    store.subscribed();
    cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
    store.confirmed(later(500_000));
    assert!(cache.find_confirmed(&[1; 32], later(100_000)).is_some());
    assert!(cache.find_confirmed(&[1; 32], later(100_001)).is_none());
    store.changed(StoreItem::Store);
    assert!(cache.find_confirmed(&[1; 32], AT).is_none());
}

#[test]
fn the_last_decision_alone_is_used_in_an_outage() {
    let (cache, store) = for_outages(ConfirmedBy::Stores);
    let confirmed = |ms| cache.find_confirmed(&[1; 32], later(ms)).map(|decided| decided.is_ok());
    cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), AT);
    cache.insert([1; 32], &Refusal::TokenUnknown.into(), marked(&store), later(61_000));
    assert_eq!((confirmed(62_000), confirmed(161_001)), (Some(false), None));
    cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), later(70_000));
    assert_eq!((confirmed(131_000), confirmed(170_001)), (Some(true), None));
    // One that is not cached removes the earlier one too.
    let temporary = Decision::from(Refusal::Jwt(Defect::NotBefore.into()));
    cache.insert([1; 32], &temporary, marked(&store), later(71_000));
    assert_eq!(confirmed(72_000), None);
    cache.insert([1; 32], &accepted(Validity::ALWAYS), marked(&store), later(73_000));
    let late = marked(&store);
    store.changed(StoreItem::User("1"));
    cache.insert([1; 32], &Refusal::TokenUnknown.into(), late, later(74_000));
    assert_eq!((confirmed(75_000), cache.entries()), (None, 0));
}

#[test]
fn without_serve_cached_nothing_is_kept_for_outages() {
    let cache = cache_of(SETTINGS);
    cache.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
    assert!(cache.find_confirmed(&[1; 32], AT).is_none());
    assert!(cache.find(&[1; 32], later(60_000)).is_none());
    assert!(cache.find_confirmed(&[1; 32], later(60_000)).is_none());
}

#[test]
fn the_user_of_an_expired_entry_is_known_until_the_credential_is_refused() {
    let cache = cache_of(SETTINGS);
    let known = |key| cache.last_user(&[key; 32]).map(|user| user.as_str().to_owned());
    cache.insert([1; 32], &accepted(Validity::ALWAYS), Dependencies::default(), AT);
    assert!(cache.find(&[1; 32], later(60_000)).is_none());
    assert_eq!((known(1).as_deref(), known(2)), (Some("1"), None));
    cache.insert(
        [1; 32],
        &Refusal::TokenUnknown.into(),
        Dependencies::default(),
        later(60_000),
    );
    assert_eq!(known(1), None);
}

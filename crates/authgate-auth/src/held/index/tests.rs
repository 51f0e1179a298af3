use super::*;
use crate::dependencies::{ChangeWatch, Changed, Dependencies, StoreItem};
use crate::identities::fixtures;
use crate::store_changes::StoreChanges;
use crate::validity::Validity;

const AT: Now = Now {
    unix_ms: 1_000_000,
    uptime_ms: 5_000,
};
const TTL_MS: u64 = 60_000;

fn later(ms: u64) -> Now {
    AT.later(Duration::from_millis(ms))
}

/// The credentials of one worker, with decisions that depend on a token, its user and the store.
struct Bench {
    counters: Arc<ChangeCounters>,
    store: Arc<StoreChanges>,
    watch: ChangeWatch,
    held: HeldCredentials,
    identity: Arc<Identity>,
    authenticator: Arc<str>,
}

impl Bench {
    fn new() -> Self {
        let counters = Arc::new(ChangeCounters::default());
        Self {
            watch: ChangeWatch::new(&counters),
            store: StoreChanges::new(&"redis".into(), &counters),
            counters,
            held: HeldCredentials::default(),
            identity: fixtures::identity(fixtures::user_info("token", "1")),
            authenticator: "token".into(),
        }
    }

    fn standing(&self, token: usize, until_ms: i64) -> Standing {
        let (token, user) = (format!("token-{token}"), format!("user-{token}"));
        let mut dependencies = Dependencies::default();
        for item in [StoreItem::Store, StoreItem::Token(&token), StoreItem::User(&user)] {
            self.store.mark(&mut dependencies, item);
        }
        Standing {
            identity: Arc::clone(&self.identity),
            validity: Validity {
                until_ms,
                ..Validity::ALWAYS
            },
            confirmed_until: AT.uptime_ms + TTL_MS,
            dependencies,
        }
    }

    /// Registers a stream with this token.
    fn hold(&mut self, token: usize, holder: usize, standing: Option<Standing>) -> CredentialId {
        let credential = Rc::new(HeldCredential::new(token.to_string().as_bytes()));
        let (name, identity) = (Arc::clone(&self.authenticator), Arc::clone(&self.identity));
        self.held.hold(&name, &credential, &identity, holder, AT, || standing)
    }

    fn with(count: usize) -> Self {
        let mut bench = Self::new();
        for number in 0..count {
            let standing = bench.standing(number, i64::MAX);
            bench.hold(number, number, Some(standing));
        }
        bench
    }

    fn change(&self, item: StoreItem<'_>) {
        self.store.changed(item);
    }

    /// Applies all changes, as a worker does.
    fn apply(&mut self) {
        match self.watch.take() {
            None => {}
            Some(Changed::Slots(slots)) => {
                for slot in slots {
                    while self.held.changed(slot) {}
                }
            }
            Some(Changed::Any) => {
                let mut after = None;
                loop {
                    after = self.held.any_changed(&self.counters, after);
                    if after.is_none() {
                        break;
                    }
                }
            }
        }
    }

    fn asked(&mut self) -> Vec<CredentialId> {
        std::iter::from_fn(|| self.held.next_question().map(|question| question.id)).collect()
    }
}

/// For `expire`: whether the authenticator may have extended a credential.
const MAY_EXTEND: &dyn Fn(&Arc<str>) -> bool = &|_| true;
const NEVER_EXTENDS: &dyn Fn(&Arc<str>) -> bool = &|_| false;
/// For `pass_time`: whether changes are reported.
const REPORTED: &dyn Fn(&Arc<str>) -> bool = &|_| true;
const UNREPORTED: &dyn Fn(&Arc<str>) -> bool = &|_| false;

#[test]
fn of_ten_thousand_credentials_a_change_concerns_only_those_that_depend_on_it() {
    let mut bench = Bench::with(10_000);
    for number in 0..1000 {
        bench.change(StoreItem::Jti(&format!("jti-{number}")));
    }
    bench.apply();
    // Few share a counter with the items that have changed.
    let unrelated = bench.held.queues["token"].due_len();
    assert!(unrelated < 1000, "{unrelated}");
    let mut bench = Bench::with(10_000);
    assert_eq!(bench.held.sleep(AT), Some(LONGEST_SLEEP));
    bench.change(StoreItem::User("user-77"));
    bench.apply();
    let asked = bench.asked();
    assert!(asked.contains(&CredentialId(78)) && asked.len() < 5, "{asked:?}");
    bench.change(StoreItem::Store);
    bench.apply();
    assert_eq!(
        bench.asked().len(),
        16 - asked.len(),
        "a bounded number is asked at once"
    );
}

#[test]
fn too_many_changes_are_found_by_the_counters() {
    let mut bench = Bench::with(1000);
    for number in 0..5000 {
        bench.change(StoreItem::Jti(&format!("jti-{number}")));
    }
    bench.change(StoreItem::Token("token-999"));
    bench.apply();
    let (due, settled) = (bench.held.queues["token"].due_len(), bench.held.by_slot.len());
    assert!(due < 250 && settled > 2000, "{due} {settled}");
    let standing = bench.held.credentials[&CredentialId(1000)].place;
    assert!(matches!(standing, Place::Queued(_)), "{standing:?}");
}

#[test]
fn streams_with_one_credential_are_one_question_and_leave_nothing_behind() {
    let mut bench = Bench::new();
    let id = bench.hold(1, 0, None);
    for holder in 1..10_000 {
        assert_eq!(bench.hold(1, holder, None), id);
    }
    let other = bench.hold(2, 10_000, None);
    assert_eq!(bench.asked(), [id, other]);
    let standing = bench.standing(1, AT.unix_ms + 1000);
    assert_eq!(bench.held.settle(id, standing, AT), Settled::SameUser);
    bench.held.fail(other, AT);
    bench.change(StoreItem::Token("token-1"));
    bench.apply();
    assert_eq!(bench.asked(), [id]);
    let mut changed = bench.standing(1, i64::MAX);
    changed.identity = fixtures::identity(fixtures::user_info("token", "1"));
    assert_eq!(bench.held.settle(id, changed, AT), Settled::OtherUser);
    for holder in 1..10_000 {
        bench.held.release(id, holder);
    }
    assert_eq!(bench.held.holders(id), [0]);
    bench.held.release(id, 0);
    bench.held.release(other, 10_000);
    let HeldCredentials {
        credentials,
        ids,
        holders,
        by_slot,
        by_time,
        queues,
        ..
    } = &bench.held;
    assert!(credentials.is_empty() && ids.is_empty() && holders.is_empty() && queues.is_empty());
    assert!(by_slot.is_empty() && by_time.is_empty());
    assert_eq!(bench.held.sleep(AT), None);
}

#[test]
fn a_credential_that_is_forgotten_while_it_is_asked_about_takes_no_answer() {
    let mut bench = Bench::new();
    let id = bench.hold(1, 0, None);
    assert_eq!(bench.asked(), [id]);
    bench.held.release(id, 0);
    let standing = bench.standing(1, AT.unix_ms + 1000);
    bench.held.settle(id, standing, AT);
    assert!(!bench.held.fail(id, AT));
    bench.held.repeat(id);
    assert!(bench.held.refuse(id).is_empty());
    assert!(bench.held.is_empty() && bench.held.by_time.is_empty() && bench.held.queues.is_empty());
    assert_ne!(bench.hold(1, 0, None), id, "an id is not used again");
}

#[test]
fn credentials_expire_in_order_and_one_that_may_be_extended_is_asked_about() {
    let mut bench = Bench::new();
    let ids: Vec<CredentialId> = [3000, 1000, 2000]
        .into_iter()
        .enumerate()
        .map(|(number, ms)| {
            let standing = bench.standing(number, AT.unix_ms + ms);
            bench.hold(number, number, Some(standing))
        })
        .collect();
    assert_eq!(bench.held.sleep(later(400)), Some(Duration::from_millis(600)));
    assert!(bench.held.expire(later(999), NEVER_EXTENDS).is_empty());
    assert_eq!(bench.held.expire(later(2000), NEVER_EXTENDS), [ids[1], ids[2]]);
    assert_eq!(bench.held.expire(later(3000), MAY_EXTEND), []);
    assert_eq!(bench.asked(), [ids[0]]);
    assert!(
        bench.held.fail(ids[0], later(3000)),
        "it has expired, and was not extended"
    );
}

#[test]
fn a_credential_that_may_be_extended_ends_if_its_turn_does_not_come() {
    let mut bench = Bench::new();
    let standing = bench.standing(1, AT.unix_ms + 1000);
    let id = bench.hold(1, 0, Some(standing));
    assert_eq!(bench.held.expire(later(1000), MAY_EXTEND), []);
    assert_eq!(bench.held.expire(later(5999), MAY_EXTEND), []);
    assert_eq!(bench.held.expire(later(6000), MAY_EXTEND), [id]);
}

#[test]
fn an_expired_credential_that_waits_for_its_store_ends() {
    let mut bench = Bench::new();
    let standing = bench.standing(1, AT.unix_ms + 1000);
    let id = bench.hold(1, 0, Some(standing));
    bench.change(StoreItem::Store);
    bench.apply();
    assert_eq!(bench.asked(), [id]);
    assert_eq!(bench.held.expire(later(1000), MAY_EXTEND), [], "the answer decides");
    bench.held.repeat(id);
    assert_eq!(bench.held.expire(later(1099), MAY_EXTEND), []);
    assert_eq!(bench.held.expire(later(1100), MAY_EXTEND), [id]);
    bench.held.forget(id);
    let standing = bench.standing(2, AT.unix_ms + 1000);
    let id = bench.hold(2, 0, Some(standing));
    bench.change(StoreItem::Store);
    bench.apply();
    assert_eq!(bench.asked(), [id]);
    assert!(!bench.held.fail(id, AT));
    assert_eq!(bench.held.expire(later(1000), MAY_EXTEND), [id]);
}

#[test]
fn without_reports_a_credential_is_confirmed_again_after_the_ttl() {
    let mut bench = Bench::with(2);
    bench.held.pass_time(later(TTL_MS), REPORTED);
    assert_eq!(bench.asked(), []);
    bench.held.pass_time(later(TTL_MS - 1), UNREPORTED);
    assert_eq!(bench.asked(), []);
    bench.held.pass_time(later(TTL_MS), UNREPORTED);
    assert_eq!(bench.asked(), [CredentialId(1), CredentialId(2)]);
}

#[test]
fn an_incomplete_decision_is_confirmed_again_after_the_ttl_in_any_case() {
    let mut bench = Bench::new();
    let mut standing = bench.standing(1, i64::MAX);
    standing.dependencies.forbid_caching();
    assert!(!standing.is_outdated(&bench.counters));
    let id = bench.hold(1, 0, Some(standing));
    assert_eq!(bench.held.expire(later(TTL_MS - 1), NEVER_EXTENDS), []);
    assert_eq!(bench.asked(), []);
    assert_eq!(bench.held.expire(later(TTL_MS), NEVER_EXTENDS), []);
    assert_eq!(bench.asked(), [id]);
}

#[test]
fn during_an_outage_a_few_credentials_are_asked_about_until_one_is_answered() {
    let mut bench = Bench::with(1000);
    bench.change(StoreItem::Store);
    bench.apply();
    let (mut questions, mut now) = (0, AT);
    for _ in 0..20 {
        bench.held.pass_time(now, REPORTED);
        let sleep = bench.held.sleep(now).expect("credentials are held");
        loop {
            let asked = bench.asked();
            questions += asked.len();
            if asked.is_empty() {
                break;
            }
            for id in asked {
                assert!(!bench.held.fail(id, now));
            }
        }
        now = now.later(sleep.max(Duration::from_millis(1)));
    }
    assert!((16..=21 * 16).contains(&questions), "{questions}");
    bench.held.pass_time(now.later(RETRY), REPORTED);
    let id = bench.asked()[0];
    let number = usize::try_from(id.0 - 1).expect("a small number");
    let standing = bench.standing(number, i64::MAX);
    bench.held.settle(id, standing, now);
    assert_eq!(bench.held.queues["token"].due_len(), 1000 - 16);
}

#[test]
fn a_credential_with_a_bad_record_does_not_hold_up_the_others() {
    let mut bench = Bench::with(100);
    bench.change(StoreItem::Store);
    bench.apply();
    let (mut questions, mut bad) = (0, 0);
    while let Some(question) = bench.held.next_question() {
        questions += 1;
        let number = usize::try_from(question.id.0 - 1).expect("a small number");
        if number == 0 {
            bad += 1;
            assert!(!bench.held.fail(question.id, AT));
        } else {
            let standing = bench.standing(number, i64::MAX);
            bench.held.settle(question.id, standing, AT);
        }
    }
    assert_eq!((questions, bad), (100, 1));
    bench.held.pass_time(later(250), REPORTED);
    assert_eq!(bench.asked(), [CredentialId(1)]);
}

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, join_all};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{advance, sleep};

use super::super::documents::Fetched;
use super::super::settings::KeyLocation;
use super::*;
use crate::fetch::{FetchError, FetchTls, FetchUrl};
use crate::keys::{Algorithm, JwkSet, VerificationKey};

const SECOND: Duration = Duration::from_secs(1);
/// How long a fetch of the tests takes.
const FETCH: Duration = Duration::from_millis(100);

/// A source that is fetched from this URL.
pub(in crate::keys::remote) fn settings(url: &str) -> RemoteKeys {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    RemoteKeys {
        location: KeyLocation::Url(FetchUrl::parse(url).expect("a URL")),
        algorithms: vec![Algorithm::EdDSA],
        refresh: 300 * SECOND,
        cooldown: 30 * SECOND,
        max_stale: 3600 * SECOND,
        timeout: 5 * SECOND,
        tls: FetchTls {
            config: Arc::new(config),
            made_from: [0; 32],
        },
    }
}

fn keys(kids: &[&str]) -> Vec<VerificationKey> {
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let keys: Vec<String> = kids
        .iter()
        .map(|kid| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","kid":"{kid}"}}"#))
        .collect();
    let set = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let set = JwkSet::parse_published(set.as_bytes(), &[Algorithm::EdDSA]);
    set.expect("a set").keys
}

/// What the provider of a test publishes. `None`: it is down.
#[derive(Clone, Default)]
struct Published {
    kids: Arc<Mutex<Option<Vec<&'static str>>>>,
    max_age: Arc<Mutex<VecDeque<Duration>>>,
    fetches: Arc<AtomicUsize>,
}

impl Published {
    fn set(&self, kids: &[&'static str]) {
        *self.kids.lock().expect("no panic") = Some(kids.to_vec());
    }

    fn goes_down(&self) {
        *self.kids.lock().expect("no panic") = None;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl Documents for Published {
    fn start(&self) {}

    fn fetch(self: Arc<Self>, deadline: Instant) -> BoxFuture<'static, Fetched> {
        Box::pin(async move {
            assert_eq!(deadline, Instant::now() + 5 * SECOND);
            self.fetches.fetch_add(1, Ordering::SeqCst);
            sleep(FETCH).await;
            let kids = self.kids.lock().expect("no panic").clone();
            let max_age = self.max_age.lock().expect("no panic").pop_front();
            match kids {
                Some(kids) => Ok((
                    KnownKeys {
                        keys: keys(&kids),
                        left_out: Vec::new(),
                    },
                    max_age,
                )),
                None => Err(FetchProblem::Fetch {
                    url: "http://127.0.0.1/keys".into(),
                    error: FetchError::Timeout,
                }),
            }
        })
    }
}

struct Test {
    published: Published,
    counters: Arc<ChangeCounters>,
    source: Arc<SharedKeySource>,
}

impl Test {
    /// A source that has just begun to fetch.
    fn start(kids: Option<&[&'static str]>) -> Self {
        let published = Published::default();
        if let Some(kids) = kids {
            published.set(kids);
        }
        let (settings, counters) = (Arc::new(settings("http://127.0.0.1/keys")), Arc::default());
        let documents = Arc::new(published.clone());
        let source = SharedKeySource::with_documents(&"idp".into(), &settings, &counters, documents);
        source.start();
        Self {
            published,
            counters,
            source,
        }
    }

    fn kids(&self) -> Result<Vec<String>, KeysError> {
        let known = self.source.keys()?;
        Ok(known.keys.iter().map(|key| key.id().to_owned()).collect())
    }

    /// Waits as a request does whose token names an unknown key.
    async fn unknown_key(&self) -> Result<bool, KeysError> {
        let known = self.source.keys()?;
        let newer = self.source.newer_than(&known, Instant::now() + 5 * SECOND).await?;
        Ok(newer.is_some())
    }
}

/// Lets the time pass, and the tasks run.
async fn pass(time: Duration) {
    sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_there_after_the_first_fetch_and_fetched_again_before_refresh_is_over() {
    let test = Test::start(Some(&["a"]));
    assert_eq!(test.kids(), Err(KeysError::NotYet("http://127.0.0.1/keys".into())));
    assert!(!test.source.was_reached());
    pass(SECOND).await;
    assert_eq!(test.kids(), Ok(vec!["a".to_owned()]));
    assert!(test.source.was_reached());
    test.published.set(&["b"]);
    // The second response says nothing, the third that it is fresh for a minute, the fourth for less than the cooldown.
    test.published
        .max_age
        .lock()
        .expect("no panic")
        .extend([3600 * SECOND, 60 * SECOND, SECOND]);
    for (fetch, earliest, latest) in [(2, 270, 300), (3, 270, 300), (4, 54, 60), (5, 30, 30)] {
        let before = Instant::now();
        while test.published.fetches() < fetch {
            pass(FETCH).await;
        }
        let took = before.elapsed();
        assert!(took >= earliest * SECOND - 2 * SECOND, "{fetch}: {took:?}");
        assert!(took <= latest * SECOND + 2 * SECOND, "{fetch}: {took:?}");
    }
    assert_eq!(test.kids(), Ok(vec!["b".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_causes_one_fetch_for_each_cooldown() {
    let test = Test::start(Some(&["a"]));
    pass(SECOND).await;
    // The first fetch was less than the cooldown ago.
    assert_eq!(test.unknown_key().await, Ok(false));
    assert_eq!(test.published.fetches(), 1);
    pass(30 * SECOND).await;
    let all = join_all((0..1000).map(|_| test.unknown_key())).await;
    assert!(all.iter().all(|found| *found == Ok(false)), "no other keys");
    assert_eq!(test.published.fetches(), 2);
    for _ in 0..1000 {
        assert_eq!(test.unknown_key().await, Ok(false));
    }
    assert_eq!(test.published.fetches(), 2);

    // A key that is published at least a cooldown before it signs is always found.
    test.published.set(&["a", "b"]);
    pass(30 * SECOND).await;
    let all = join_all((0..1000).map(|_| test.unknown_key())).await;
    assert!(all.iter().all(|found| *found == Ok(true)), "the new keys");
    assert_eq!(test.published.fetches(), 3);

    // A request that has come during the fetch of another cause waits for it.
    pass(30 * SECOND).await;
    test.published.set(&["c"]);
    let first = test.unknown_key();
    let second = async {
        sleep(FETCH / 2).await;
        test.unknown_key().await
    };
    assert_eq!(tokio::join!(first, second), (Ok(true), Ok(true)));
    assert_eq!(test.published.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_no_refusal_where_the_fetch_has_failed() {
    let test = Test::start(Some(&["a"]));
    pass(31 * SECOND).await;
    test.published.goes_down();
    let failed = Err(KeysError::FetchFailed("http://127.0.0.1/keys".into()));
    assert_eq!(test.unknown_key().await, failed);
    assert_eq!(test.unknown_key().await, failed, "within the cooldown");
    assert_eq!(test.published.fetches(), 2);
    assert_eq!(test.kids(), Ok(vec!["a".to_owned()]), "the known key goes on");
    let known = test.source.keys().expect("keys");
    advance(60 * SECOND).await;
    let soon = Instant::now() + FETCH / 2;
    let timed_out = test.source.newer_than(&known, soon).await.map(|newer| newer.is_some());
    assert_eq!(timed_out, Err(KeysError::Timeout("http://127.0.0.1/keys".into())));
}

#[tokio::test(start_paused = true)]
async fn keys_are_used_until_max_stale_while_the_source_is_down() {
    let test = Test::start(None);
    pass(300 * SECOND).await;
    assert_eq!(test.kids(), Err(KeysError::NotYet("http://127.0.0.1/keys".into())));
    // After 30, 60, 120 s, at most a tenth later.
    assert_eq!(test.published.fetches(), 4);
    test.published.set(&["a"]);
    pass(400 * SECOND).await;
    assert_eq!(test.kids(), Ok(vec!["a".to_owned()]));
    assert!(test.source.status().error.is_none());

    test.published.goes_down();
    let confirmed = test.source.observed().age.expect("it had keys");
    let mut dependencies = Dependencies::default();
    let known = test.source.keys().expect("keys");
    test.source.mark_key(&mut dependencies, known.keys[0].identity());
    pass(3590 * SECOND - confirmed).await;
    assert_eq!(test.kids(), Ok(vec!["a".to_owned()]));
    assert!(test.counters.are_unchanged(&dependencies));
    pass(11 * SECOND).await;
    assert_eq!(test.kids(), Err(KeysError::TooOld("http://127.0.0.1/keys".into())));
    assert!(!test.counters.are_unchanged(&dependencies), "cached decisions end too");
    assert!(test.source.was_reached());
    let status = test.source.status();
    assert!(
        status.error.is_some() && status.failures > 5 && status.keys.is_empty(),
        "{status:?}"
    );

    test.published.set(&["a"]);
    pass(331 * SECOND).await;
    assert_eq!(test.kids(), Ok(vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn decisions_end_with_their_key_and_refusals_with_the_set() {
    let test = Test::start(Some(&["a", "b"]));
    pass(SECOND).await;
    let known = test.source.keys().expect("keys");
    let marks = || {
        let (mut key_a, mut key_b, mut set) = Default::default();
        test.source.mark_key(&mut key_a, known.keys[0].identity());
        test.source.mark_key(&mut key_b, known.keys[1].identity());
        test.source.mark_set(&mut set);
        [key_a, key_b, set]
    };
    let before = marks();
    let unchanged = |marks: [Dependencies; 3]| marks.map(|marks| test.counters.are_unchanged(&marks));
    pass(300 * SECOND).await;
    assert!(test.source.has_still(&known), "equal keys are the same ones");
    assert_eq!(unchanged(before), [true, true, true]);
    test.published.set(&["b", "c"]);
    pass(300 * SECOND).await;
    assert!(!test.source.has_still(&known));
    assert_eq!(unchanged(before), [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_dropped_fetches_no_more() {
    let test = Test::start(Some(&["a"]));
    pass(SECOND).await;
    drop(test.source);
    pass(10_000 * SECOND).await;
    assert_eq!(test.published.fetches(), 1);
}

/// A provider whose documents make the parser panic.
struct Panics;

impl Documents for Panics {
    fn start(&self) {}

    fn fetch(self: Arc<Self>, _: Instant) -> BoxFuture<'static, Fetched> {
        Box::pin(async { panic!("a bug") })
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_fetch_is_a_fetch_that_fails() {
    let (settings, counters) = (Arc::new(settings("http://127.0.0.1/keys")), Arc::default());
    let source = SharedKeySource::with_documents(&"idp".into(), &settings, &counters, Arc::new(Panics));
    source.start();
    sleep(SECOND).await;
    assert_eq!(source.status().failures, 1);
    sleep(100 * SECOND).await;
    assert!(source.status().failures > 1, "the task goes on");
}

#[tokio::test(start_paused = true)]
async fn requests_without_keys_cause_a_fetch_after_each_cooldown() {
    let test = Test::start(None);
    // Long enough for the pauses to grow to `refresh`.
    sleep(3000 * SECOND).await;
    let before = test.published.fetches();
    for _ in 0..60 {
        sleep(SECOND).await;
        assert!(test.source.keys().is_err());
    }
    assert_eq!(test.published.fetches() - before, 2);
    test.published.set(&["a"]);
    sleep(31 * SECOND).await;
    let _ = test.source.keys();
    sleep(SECOND).await;
    assert!(test.source.keys().is_ok());
}

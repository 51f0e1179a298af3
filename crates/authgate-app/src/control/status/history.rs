//! [`Recent`]: the traffic of the last 15 minutes, in a ring of fixed size. The control runtime samples the metrics; requests know nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use authgate_auth::metrics::CacheMetrics;
use authgate_dataplane::telemetry::histogram::HistogramValues;
use authgate_dataplane::telemetry::labels;
use authgate_dataplane::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::document::{History, Refusal};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// 15 minutes.
const SAMPLES: usize = 180;
/// How many samples lie between two marks. There are two marks, so what is counted since the older one is that of the last 30 to 60 s.
const SAMPLES_PER_MARK: u64 = 6;

/// The samples of the last 15 minutes, and what the metrics were a minute ago.
#[derive(Debug)]
pub struct Recent {
    ring: Mutex<Ring>,
    /// The number of the last sample.
    number: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    /// The newest is the last. `samples.len() <= SAMPLES`
    samples: VecDeque<Sample>,
    /// By outcome, for each second. Each list has as many elements as `samples`. Bounded: outcomes are from a fixed list.
    refusals: BTreeMap<&'static str, VecDeque<f32>>,
    /// What was counted until the last sample.
    last: Totals,
    /// The older one is the first. There is always one.
    marks: VecDeque<Arc<Mark>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    requests: f32,
    refused: f32,
    failed: f32,
    p50: Option<f32>,
    p99: Option<f32>,
}

#[derive(Debug, Clone)]
struct Totals {
    at: Instant,
    requests: u64,
    failed: u64,
    refusals: BTreeMap<&'static str, u64>,
    durations: HistogramValues,
}

/// What the metrics were at one time.
#[derive(Debug)]
pub(super) struct Mark {
    at: Instant,
    /// By position in [`Metrics::requests`].
    pub(super) requests: Vec<u64>,
    /// By position in [`Metrics::authentications`].
    pub(super) authentications: Vec<u64>,
    pub(super) durations: HistogramValues,
    /// By authenticator: hits and misses.
    caches: BTreeMap<Arc<str>, (u64, u64)>,
    /// By upstream.
    upstreams: BTreeMap<Arc<str>, HistogramValues>,
}

/// The parts of the configuration in force whose metrics are marked.
pub(in crate::control) struct Marked<'m> {
    pub(in crate::control) caches: Vec<(&'m Arc<str>, &'m CacheMetrics)>,
    pub(in crate::control) upstreams: Vec<&'m Arc<str>>,
}

impl Recent {
    /// Begins now.
    pub(in crate::control) fn new(metrics: &Metrics, marked: &Marked<'_>) -> Self {
        let now = Instant::now();
        Self {
            ring: Mutex::new(Ring {
                samples: VecDeque::with_capacity(SAMPLES),
                refusals: BTreeMap::new(),
                last: Totals::read(metrics, now),
                marks: VecDeque::from([Arc::new(Mark::read(metrics, marked, now))]),
            }),
            number: watch::Sender::new(0),
        }
    }

    /// Notifies of each new sample.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// Takes a sample now.
    pub(in crate::control) fn sample(&self, metrics: &Metrics, marked: &Marked<'_>) {
        self.sample_at(metrics, marked, Instant::now());
    }

    fn sample_at(&self, metrics: &Metrics, marked: &Marked<'_>, now: Instant) {
        let totals = Totals::read(metrics, now);
        let number = *self.number.borrow() + 1;
        let mark = number
            .is_multiple_of(SAMPLES_PER_MARK)
            .then(|| Arc::new(Mark::read(metrics, marked, now)));
        let mut ring = self.lock();
        ring.push(totals);
        if let Some(mark) = mark {
            ring.marks.push_back(mark);
            if ring.marks.len() > 2 {
                ring.marks.pop_front();
            }
        }
        drop(ring);
        self.number.send_replace(number);
    }

    /// What the metrics were 30 to 60 s ago, or at the start.
    pub(super) fn minute_ago(&self) -> Arc<Mark> {
        let ring = self.lock();
        Arc::clone(ring.marks.front().expect("there is always one"))
    }

    pub(super) fn history(&self) -> History {
        let number = *self.number.borrow();
        let ring = self.lock();
        let rates = |of: fn(&Sample) -> f32| ring.samples.iter().map(|sample| rounded(of(sample).into())).collect();
        let times = |of: fn(&Sample) -> Option<f32>| {
            let times = ring
                .samples
                .iter()
                .map(|sample| of(sample).map(|time| rounded(time.into())));
            times.collect()
        };
        History {
            interval_seconds: INTERVAL.as_secs(),
            max_samples: SAMPLES,
            number,
            requests_per_second: rates(|sample| sample.requests),
            refused_per_second: rates(|sample| sample.refused),
            failed_per_second: rates(|sample| sample.failed),
            p50_seconds: times(|sample| sample.p50),
            p99_seconds: times(|sample| sample.p99),
        }
    }

    /// The reasons of refusals, the most frequent in the last 15 minutes first.
    pub(super) fn refusals(&self) -> Vec<Refusal> {
        let ring = self.lock();
        let refusal = |(outcome, rates): (&&'static str, &VecDeque<f32>)| Refusal {
            outcome: (*outcome).to_owned(),
            requests: ring.last.refusals.get(outcome).copied().unwrap_or_default(),
            requests_per_second: rounded(rates.back().copied().unwrap_or_default().into()),
            history: rates.iter().map(|rate| rounded((*rate).into())).collect(),
        };
        let mut refusals: Vec<Refusal> = ring.refusals.iter().map(refusal).collect();
        refusals.sort_by_cached_key(|refusal| {
            let recent = refusal.history.iter().sum::<f64>() * 1e6;
            std::cmp::Reverse((recent as u64, refusal.requests))
        });
        refusals
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `sample` every [`INTERVAL`], until it is dropped.
pub(in crate::control) async fn every_interval(mut sample: impl FnMut()) -> Infallible {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // The first one is at once.
    loop {
        ticks.tick().await;
        sample();
    }
}

impl Ring {
    fn push(&mut self, totals: Totals) {
        let seconds = (totals.at - self.last.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as f32;
        let quantile = |of: f64| {
            totals
                .durations
                .quantile_since(&self.last.durations, of)
                .map(|time| time as f32)
        };
        let mut refused = 0;
        for (outcome, count) in &totals.refusals {
            let before = self.last.refusals.get(outcome).copied().unwrap_or_default();
            refused += count.saturating_sub(before);
            let samples = self.samples.len();
            let rates = self.refusals.entry(outcome);
            let rates = rates.or_insert_with(|| std::iter::repeat_n(0.0, samples).collect());
            push_bounded(rates, rate(*count, before));
        }
        let sample = Sample {
            requests: rate(totals.requests, self.last.requests),
            refused: rate(refused, 0),
            failed: rate(totals.failed, self.last.failed),
            p50: quantile(0.5),
            p99: quantile(0.99),
        };
        push_bounded(&mut self.samples, sample);
        self.last = totals;
    }
}

fn push_bounded<T>(ring: &mut VecDeque<T>, newest: T) {
    if ring.len() == SAMPLES {
        ring.pop_front();
    }
    ring.push_back(newest);
}

impl Totals {
    fn read(metrics: &Metrics, at: Instant) -> Self {
        let (mut requests, mut failed, mut refusals) = (0, 0, BTreeMap::new());
        metrics.requests.for_each(|labels, count| {
            requests += count;
            if labels.status == "5xx" {
                failed += count;
            }
            let is_refused = labels::ENDINGS.iter().all(|ending| ending.text != labels.outcome);
            if is_refused {
                *refusals.entry(labels.outcome).or_default() += count;
            }
        });
        Self {
            at,
            requests,
            failed,
            refusals,
            durations: HistogramValues::read(&metrics.request_duration),
        }
    }
}

impl Mark {
    fn read(metrics: &Metrics, marked: &Marked<'_>, at: Instant) -> Self {
        let (mut requests, mut authentications) = (Vec::new(), Vec::new());
        metrics.requests.for_each(|_, count| requests.push(count));
        metrics.authentications.for_each(|_, count| authentications.push(count));
        let caches = marked.caches.iter();
        let upstreams = marked.upstreams.iter();
        Self {
            at,
            requests,
            authentications,
            durations: HistogramValues::read(&metrics.request_duration),
            caches: caches
                .map(|(name, cache)| (Arc::clone(name), (cache.hits(), cache.misses())))
                .collect(),
            upstreams: upstreams
                .map(|name| (Arc::clone(name), metrics.upstream_times(name)))
                .collect(),
        }
    }

    /// How long ago it was made, in seconds.
    pub(super) fn age(&self) -> f64 {
        self.at.elapsed().as_secs_f64().max(0.001)
    }

    /// The hits and misses of a cache since this mark. A cache that is younger counts from its beginning.
    pub(super) fn cache_since(&self, name: &Arc<str>, cache: &CacheMetrics) -> (u64, u64) {
        let (hits, misses) = self.caches.get(name).copied().unwrap_or_default();
        let (hits_now, misses_now) = (cache.hits(), cache.misses());
        if hits_now < hits || misses_now < misses {
            return (hits_now, misses_now);
        }
        (hits_now - hits, misses_now - misses)
    }

    /// The times of an upstream until this mark.
    pub(super) fn upstream(&self, name: &Arc<str>) -> HistogramValues {
        self.upstreams.get(name).cloned().unwrap_or_default()
    }
}

/// With at most six significant digits, so that the text is short.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powi(5 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use authgate_dataplane::telemetry::metrics::RequestLabels;

    use super::*;

    fn count(metrics: &Metrics, outcome: &'static str, status: &'static str, times: u64) {
        let labels = RequestLabels {
            route: "/api/*".into(),
            outcome,
            status,
        };
        metrics.request_counter(&labels).inc_by(times);
        for _ in 0..times {
            metrics.record_request_duration(Duration::from_millis(2));
        }
    }

    const NOTHING: Marked<'_> = Marked {
        caches: Vec::new(),
        upstreams: Vec::new(),
    };

    #[tokio::test(start_paused = true)]
    async fn a_sample_has_the_rates_since_the_sample_before() {
        let metrics = Metrics::default();
        count(&metrics, "forwarded", "2xx", 1000);
        let recent = Recent::new(&metrics, &NOTHING);
        count(&metrics, "forwarded", "2xx", 80);
        count(&metrics, "token_unknown", "4xx", 10);
        count(&metrics, "upstream_unreachable", "5xx", 10);
        tokio::time::advance(INTERVAL).await;
        recent.sample(&metrics, &NOTHING);
        tokio::time::advance(INTERVAL).await;
        recent.sample(&metrics, &NOTHING);
        let history = recent.history();
        assert_eq!(history.number, 2);
        assert_eq!(history.requests_per_second, [20.0, 0.0]);
        assert_eq!(history.refused_per_second, [4.0, 0.0]);
        assert_eq!(history.failed_per_second, [2.0, 0.0]);
        let median = history.p50_seconds[0].expect("requests have ended");
        assert!((0.001..=0.0025).contains(&median), "{median}");
        assert_eq!((history.p50_seconds[1], history.p99_seconds[1]), (None, None));
        let refusals = recent.refusals();
        assert_eq!(refusals.len(), 2);
        assert_eq!((refusals[0].requests, &refusals[0].history), (10, &vec![2.0, 0.0]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_ring_has_at_most_15_minutes_and_a_new_reason_has_as_many_samples_as_the_others() {
        let metrics = Metrics::default();
        let recent = Recent::new(&metrics, &NOTHING);
        for at in 0..SAMPLES + 20 {
            if at == 100 {
                count(&metrics, "no_route", "4xx", 5);
            }
            tokio::time::advance(INTERVAL).await;
            recent.sample(&metrics, &NOTHING);
        }
        let history = recent.history();
        assert_eq!((history.requests_per_second.len(), history.number), (SAMPLES, 200));
        let refusals = recent.refusals();
        assert_eq!(refusals[0].history.len(), SAMPLES);
        assert_eq!(refusals[0].history[80], 1.0, "the sample with number 101, of 21 to 200");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_minute_is_between_30_and_60_seconds_long() {
        let metrics = Metrics::default();
        let recent = Recent::new(&metrics, &NOTHING);
        for at in 1..100 {
            tokio::time::advance(INTERVAL).await;
            recent.sample(&metrics, &NOTHING);
            let age = recent.minute_ago().age();
            assert!(age <= 60.0 && (age >= 30.0 || at < 6), "{at}: {age}");
        }
    }

    #[test]
    fn numbers_have_six_digits() {
        for (value, expected) in [
            (0.0, 0.0),
            (1.0 / 3.0, 0.333_333),
            (123_456.78, 123_457.0),
            (0.002_5, 0.002_5),
        ] {
            assert_eq!(rounded(value).to_string(), expected.to_string());
        }
    }
}

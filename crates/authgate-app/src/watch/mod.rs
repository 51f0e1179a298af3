//! [`FileWatch`]: reports once when files have changed and have then been still for a moment.
//!
//! It knows files and events, not what the files mean. Events of the system say when to look (`places` has what is watched);
//! a [`Fingerprint`] decides whether a file has changed, after a cheap look at its `stamp`. All files are also checked at intervals, because some filesystems send no events.

mod places;
mod stamp;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use authgate_dataplane::file::Fingerprint;
use authgate_http::log_throttle::LogThrottle;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::{debug, warn};

use self::places::Places;
use self::stamp::Stamp;

/// The watches of one gateway. The rest is only checked at intervals: the system limits the watches of a user, often to 8,192.
const MAX_WATCHES: usize = 4_096;
/// How often the watches are set up again because links or folders were replaced meanwhile. After that, the next check sets them up.
const MAX_ATTEMPTS: usize = 5;

/// When a watch looks at its files.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    /// How long the files must be still before a change is reported.
    pub still: Duration,
    /// How often files are checked without an event.
    pub check: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            still: Duration::from_millis(200),
            check: Duration::from_secs(30),
        }
    }
}

/// Watches files on a thread of its own. Dropping it ends the thread.
pub struct FileWatch(Arc<Shared>);

impl fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatch").finish_non_exhaustive()
    }
}

impl FileWatch {
    /// Starts without files. The thread calls `changed` after each change; the next change is looked for when that has returned.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(intervals: Intervals, changed: impl FnMut() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            intervals,
            files: BTreeMap::new(),
            armed: None,
            failures: Arc::default(),
            changed,
        };
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watcher.run())?;
        Ok(Self(shared))
    }

    /// Watches these files from now on, in place of the present ones. A file is reported if its fingerprint is another one. `None`: if it is
    /// not as it was reported before, or, for a new one, as it is now.
    pub fn follow(&self, files: BTreeMap<PathBuf, Option<Fingerprint>>) {
        self.0.update(|state| state.follow = Some(files));
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.0.update(|state| state.stopped = true);
    }
}

/// What the thread must do. It needs no queue: later events only repeat `event`, and later files replace `follow`.
#[derive(Default)]
struct State {
    /// A watched place has changed.
    event: bool,
    /// The files to watch next.
    follow: Option<BTreeMap<PathBuf, Option<Fingerprint>>>,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified after each update of `state`.
    updated: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, update: impl FnOnce(&mut State)) {
        update(&mut self.lock());
        self.updated.notify_all();
    }

    /// Waits for any update until the deadline, or for ever without one, and takes the state.
    fn wait(&self, deadline: Option<Instant>) -> State {
        let is_idle = |state: &mut State| !state.event && !state.stopped && state.follow.is_none();
        let mut state = match deadline {
            None => self.updated.wait_while(self.lock(), is_idle),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let waited = self.updated.wait_timeout_while(self.lock(), left, is_idle);
                waited
                    .map(|(state, _)| state)
                    .map_err(|error| PoisonError::new(error.into_inner().0))
            }
        }
        .unwrap_or_else(PoisonError::into_inner);
        state.take()
    }

    /// Waits for this long, also if there are events, and takes the state.
    fn pause(&self, time: Duration) -> State {
        let waited = self
            .updated
            .wait_timeout_while(self.lock(), time, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

impl State {
    /// The present state. Only `stopped` stays.
    fn take(&mut self) -> Self {
        let stopped = self.stopped;
        Self {
            stopped,
            ..std::mem::replace(
                self,
                Self {
                    stopped,
                    ..Self::default()
                },
            )
        }
    }
}

/// The thread.
struct Watcher<F> {
    shared: Arc<Shared>,
    intervals: Intervals,
    /// As they were when they were reported or followed.
    files: BTreeMap<PathBuf, Fingerprint>,
    armed: Option<Armed>,
    failures: Arc<Mutex<LogThrottle>>,
    changed: F,
}

/// The watches that are set up.
struct Armed {
    places: Arc<Places>,
    /// Whether every place is watched.
    complete: bool,
    /// Its thread ends when it is dropped.
    _events: Option<RecommendedWatcher>,
}

impl<F: FnMut()> Watcher<F> {
    fn run(mut self) {
        let mut next_check = Instant::now() + self.intervals.check;
        loop {
            let deadline = (!self.files.is_empty()).then_some(next_check);
            let State { event, follow, stopped } = self.shared.wait(deadline);
            if stopped {
                return;
            }
            let mut look = event;
            if let Some(followed) = follow {
                self.follow(followed);
                self.arm();
                look |= self.differs();
            } else if !event {
                self.arm_again_if_needed();
                look = self.differs();
            }
            next_check = Instant::now() + self.intervals.check;
            if look && !self.report_when_still() {
                return;
            }
        }
    }

    fn follow(&mut self, files: BTreeMap<PathBuf, Option<Fingerprint>>) {
        let mut previous = std::mem::take(&mut self.files);
        let known = |(file, fingerprint): (PathBuf, Option<Fingerprint>)| {
            let known = match fingerprint {
                Some(fingerprint) => fingerprint,
                None => previous.remove(&file).unwrap_or_else(|| Fingerprint::of(&file)),
            };
            (file, known)
        };
        self.files = files.into_iter().map(known).collect();
    }

    /// Whether a file is not as it was when it was reported or followed.
    fn differs(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(file, known)| *known != Fingerprint::of(file))
    }

    /// Waits until the files are still, and reports a change if there is one. `false`: the watch has ended.
    fn report_when_still(&mut self) -> bool {
        let mut before = self.stamps();
        loop {
            let State { event, follow, stopped } = self.shared.pause(self.intervals.still);
            if stopped {
                return false;
            }
            let was_still = !event && follow.is_none();
            if let Some(followed) = follow {
                self.follow(followed);
            }
            let now = self.stamps();
            if was_still && now == before {
                break;
            }
            before = now;
        }
        // Watch first: a change after this sends an event, and one before it shows in the fingerprints.
        self.arm();
        let mut is_changed = false;
        for (file, known) in &mut self.files {
            let now = Fingerprint::of(file);
            if *known != now {
                debug!(file = %file.display(), "the file has changed");
                *known = now;
                is_changed = true;
            }
        }
        if is_changed {
            (self.changed)();
        }
        true
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files.keys().map(|file| Stamp::of(file)).collect()
    }

    /// Sets up watches for the present files, links and folders, in place of the previous ones.
    fn arm(&mut self) {
        self.armed = None;
        if self.files.is_empty() {
            return;
        }
        let mut places = Places::of(self.files.keys());
        for _ in 0..MAX_ATTEMPTS {
            let watched = Arc::new(places);
            let (events, complete) = self.watch(&watched);
            self.armed = Some(Armed {
                places: Arc::clone(&watched),
                complete,
                _events: events,
            });
            places = Places::of(self.files.keys());
            if places == *watched {
                return;
            }
        }
    }

    /// Sets up watches again if a link or a folder was replaced without an event, or if some could not be set up.
    fn arm_again_if_needed(&mut self) {
        let is_good = |armed: &Armed| armed.complete && *armed.places == Places::of(self.files.keys());
        if !self.armed.as_ref().is_some_and(is_good) {
            self.arm();
        }
    }

    /// Also returns whether all places are watched.
    fn watch(&self, places: &Arc<Places>) -> (Option<RecommendedWatcher>, bool) {
        let (shared, concerned, failures) = (Arc::clone(&self.shared), Arc::clone(places), Arc::clone(&self.failures));
        let on_event = move |event: notify::Result<notify::Event>| match event {
            Ok(event) => {
                let concerns = || event.paths.iter().any(|path| concerned.concern(path));
                if event.need_rescan() || (may_change(event.kind) && concerns()) {
                    shared.update(|state| state.event = true);
                }
            }
            Err(error) => report_failure(&failures, &error),
        };
        let mut events = match notify::recommended_watcher(on_event) {
            Ok(events) => events,
            Err(error) => {
                report_failure(&self.failures, &error);
                return (None, false);
            }
        };
        let mut complete = places.all().count() <= MAX_WATCHES;
        for place in places.all().take(MAX_WATCHES) {
            if let Err(error) = events.watch(place, RecursiveMode::NonRecursive) {
                complete = false;
                report_failure(&self.failures, &error);
            }
        }
        (Some(events), complete)
    }
}

/// Whether a file may have another content after the event. The gateway itself opens and reads the files.
fn may_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn report_failure(failures: &Mutex<LogThrottle>, error: &notify::Error) {
    let times = failures.lock().unwrap_or_else(PoisonError::into_inner).note();
    if let Some(times) = times {
        warn!(
            reason = %error, times,
            "files cannot be watched for events; they are checked every 30 s instead"
        );
    }
}

#[cfg(test)]
mod tests;

//! The connections of the whole gateway, on the control runtime, and the queue of the look-ups of all workers.
//!
//! Each connection is kept by one loop, which takes look-ups from the queue only while it is connected. So there are never more connections
//! than loops. After a look-up whose deadline has passed, a loop waits until the database has ended the statement: a new connection in
//! its place would let statements pile up in a database that is slow.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use authgate_http::log_throttle::LogThrottle;
use futures_util::future::join_all;
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, info, warn};

use super::connection::{DatabaseError, OPEN_TIMEOUT, listen_options};
use super::notify::listen;
use super::session::{QueryError, Session};
use super::settings::{Database, DjangoSettings};
use super::statements::{Facts, Query};
use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::dependencies::{Dependencies, StoreItem};
use crate::metrics::StoreMetrics;
use crate::store::{ErrorReply, SourceChange, StoreError};
use crate::store_changes::StoreChanges;

/// Look-ups that wait for a connection. Further ones wait for room, within their deadlines.
const QUEUE: usize = 1024;
/// How often an idle connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The database ends statements after `timeout`. A connection without an answer so much later is closed.
const LATE: Duration = Duration::from_secs(2);

/// A look-up of a worker.
struct Job {
    query: Query,
    deadline: Instant,
    reply: oneshot::Sender<Result<Facts, StoreError>>,
    /// It was tried on a connection that turned out to be lost or outdated.
    is_second_attempt: bool,
}

/// Why no connection is open.
#[derive(Debug, Clone)]
enum Outage {
    Unreachable,
    /// The database answered with this error.
    Refused(Arc<str>),
}

/// The connections to one database, which all workers share.
#[derive(Debug)]
pub struct SharedDjango {
    pub(super) name: Arc<str>,
    pub(super) settings: DjangoSettings,
    pub(super) changes: Arc<StoreChanges>,
    pub(super) metrics: StoreMetrics,
    jobs: mpsc::Sender<Job>,
    queue: Mutex<mpsc::Receiver<Job>>,
    connected: AtomicUsize,
    /// Attempts to connect that are under way.
    attempts: AtomicUsize,
    /// Set while no connection is open and the last attempt has failed: look-ups fail at once.
    outage: ArcSwapOption<Outage>,
    reached: AtomicBool,
    refused: std::sync::Mutex<LogThrottle>,
    /// Changes for the stores in front of this one.
    reports: broadcast::Sender<SourceChange>,
    /// Whether changes are reported, if they are to be.
    pub(super) is_reporting: AtomicBool,
}

/// Changes that a store in front has not read yet. Beyond them, it removes all that was written.
const REPORTS: usize = 4096;

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

impl Job {
    fn finish(self, result: Result<Facts, StoreError>) {
        // The request may be gone.
        let _ = self.reply.send(result);
    }
}

impl SharedDjango {
    pub(in crate::store) fn new(
        name: Arc<str>,
        settings: DjangoSettings,
        changes: Arc<StoreChanges>,
        metrics: StoreMetrics,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        Self {
            name,
            settings,
            changes,
            metrics,
            jobs,
            queue: Mutex::new(queue),
            connected: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
            outage: ArcSwapOption::empty(),
            reached: AtomicBool::new(false),
            refused: std::sync::Mutex::default(),
            reports: broadcast::channel(REPORTS).0,
            is_reporting: AtomicBool::new(false),
        }
    }

    pub(in crate::store) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn is_usable(&self) -> bool {
        self.connected.load(Ordering::Relaxed) > 0
    }

    pub(in crate::store) fn is_in_outage(&self) -> bool {
        self.outage.load().is_some()
    }

    /// Receives the changes that are reported from now on.
    pub(in crate::store) fn reports(&self) -> broadcast::Receiver<SourceChange> {
        self.reports.subscribe()
    }

    /// Reports a change to the stores in front.
    pub(super) fn report(&self, change: SourceChange) {
        // There may be none.
        let _ = self.reports.send(change);
    }

    /// Marks whether changes are reported. `false`: they are to be, and are not now, so what is read now may not be kept elsewhere.
    pub(in crate::store) fn mark_reporting(&self, dependencies: &mut Dependencies) -> bool {
        self.changes.mark(dependencies, StoreItem::Reporting);
        !self.settings.listens() || self.is_reporting.load(Ordering::Acquire)
    }

    /// Keeps the connections; never returns.
    pub(in crate::store) async fn watch(self: &Arc<Self>) {
        let connections = self.settings.connections;
        let keep = |count: usize| join_all((0..count).map(|_| self.keep_connection()));
        match &self.settings.endpoint.database {
            Database::Postgres(options) if self.settings.listens() => {
                let options = listen_options(&self.settings, options);
                tokio::join!(keep(connections - 1), listen(self, &options));
            }
            Database::Postgres(_) | Database::MySql(_) | Database::Sqlite(_) => {
                keep(connections).await;
            }
        }
    }

    /// Looks something up. It runs on a worker.
    pub(super) async fn ask(&self, query: Query, deadline: Instant) -> Result<Facts, StoreError> {
        if let Some(outage) = &*self.outage.load() {
            return Err(self.outage_error(outage));
        }
        let (reply, answer) = oneshot::channel();
        let job = Job {
            query,
            deadline,
            reply,
            is_second_attempt: false,
        };
        let answered = async {
            // Neither end is closed while the store is there.
            self.jobs.send(job).await.ok()?;
            answer.await.ok()
        };
        match timeout_at(deadline, answered).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(self.error(&DatabaseError::Lost(String::new()))),
            Err(_) => Err(StoreError::Timeout(Arc::clone(&self.name))),
        }
    }

    fn outage_error(&self, outage: &Outage) -> StoreError {
        let name = Arc::clone(&self.name);
        match outage {
            Outage::Unreachable => StoreError::Unreachable(name),
            Outage::Refused(reason) => StoreError::Refused(name, ErrorReply::other(reason)),
        }
    }

    fn error(&self, error: &DatabaseError) -> StoreError {
        let name = Arc::clone(&self.name);
        match error {
            DatabaseError::Lost(_) => StoreError::Unreachable(name),
            DatabaseError::Slow => StoreError::Timeout(name),
            DatabaseError::Answer(reason) | DatabaseError::Data(reason) => {
                StoreError::Refused(name, ErrorReply::other(reason))
            }
            DatabaseError::NoSuchText => StoreError::Refused(name, ErrorReply::other(&error.to_string())),
        }
    }

    /// Opens one connection again and again, and serves look-ups with it; never returns.
    async fn keep_connection(&self) {
        let mut pause = FIRST_PAUSE;
        let mut unanswered: Option<Job> = None;
        loop {
            let began = Instant::now();
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let opened = timeout(OPEN_TIMEOUT, Session::open(&self.settings)).await;
            self.attempts.fetch_sub(1, Ordering::Relaxed);
            match opened.unwrap_or_else(|_| Err(DatabaseError::Lost("no answer in time".to_owned()))) {
                Ok(session) => {
                    self.note_connected();
                    unanswered = self.serve(session, unanswered.take()).await;
                    self.connected.fetch_sub(1, Ordering::Relaxed);
                    // Open the next one at once, unless connections keep ending early.
                    if unanswered.is_some() || began.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                }
                Err(problem) => {
                    if let Some(job) = unanswered.take() {
                        job.finish(Err(self.error(&problem)));
                    }
                    self.note_failed(&problem);
                }
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Serves look-ups until the connection is lost. Returns a look-up to try again on the next connection.
    async fn serve(&self, mut session: Session, mut first: Option<Job>) -> Option<Job> {
        loop {
            let job = match first.take() {
                Some(job) => Some(job),
                None => tokio::select! {
                    job = async { self.queue.lock().await.recv().await } => job,
                    () = sleep(CHECK_INTERVAL) => None,
                },
            };
            let Some(mut job) = job else {
                match timeout(self.settings.timeout + LATE, session.check()).await {
                    Ok(Ok(()) | Err(DatabaseError::Slow | DatabaseError::Data(_))) => continue,
                    Ok(Err(DatabaseError::Lost(_) | DatabaseError::Answer(_) | DatabaseError::NoSuchText)) | Err(_) => {
                        return None;
                    }
                }
            };
            if job.reply.is_closed() || job.deadline <= Instant::now() {
                continue;
            }
            let answered = {
                let mut answer = pin!(session.answer(&job.query));
                match timeout_at(job.deadline, &mut answer).await {
                    Ok(answered) => answered,
                    Err(_) => {
                        // The worker has given up at the same deadline.
                        match timeout(self.settings.timeout + LATE, answer).await {
                            Ok(Ok(_) | Err(QueryError::Record(_))) => continue,
                            Ok(Err(QueryError::Database(
                                DatabaseError::Slow | DatabaseError::Data(_) | DatabaseError::NoSuchText,
                            ))) => continue,
                            Ok(Err(QueryError::Database(_))) | Err(_) => return None,
                        }
                    }
                }
            };
            match answered {
                Ok(facts) => job.finish(Ok(facts)),
                Err(QueryError::Record(problem)) => {
                    job.finish(Err(StoreError::Record(Arc::clone(&self.name), problem)));
                }
                Err(QueryError::Database(problem)) => {
                    // An error may mean that a migration has changed the schema since it was read.
                    let is_outdated = match &problem {
                        DatabaseError::Lost(_) => true,
                        DatabaseError::Answer(_) => !session.is_new(),
                        DatabaseError::Slow | DatabaseError::Data(_) | DatabaseError::NoSuchText => false,
                    };
                    let is_lost = matches!(problem, DatabaseError::Lost(_));
                    if is_outdated && !job.is_second_attempt {
                        job.is_second_attempt = true;
                        return Some(job);
                    }
                    job.finish(Err(self.error(&problem)));
                    if is_lost {
                        return None;
                    }
                }
            }
        }
    }

    fn note_connected(&self) {
        self.reached.store(true, Ordering::Relaxed);
        let others = self.connected.fetch_add(1, Ordering::Relaxed);
        let was_down = self.outage.swap(None).is_some();
        if others == 0 {
            let (store, endpoint) = (&self.name, &self.settings.endpoint);
            match was_down {
                true => info!(%store, ?endpoint, "the store is usable again"),
                false => info!(%store, ?endpoint, "the store is usable"),
            }
        }
    }

    fn note_failed(&self, problem: &DatabaseError) {
        let (store, endpoint) = (&self.name, &self.settings.endpoint);
        if self.connected.load(Ordering::Relaxed) > 0 {
            let mut refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(times) = refused.note() {
                warn!(%store, ?endpoint, reason = %problem, times, "a further connection to the store failed; the others are used");
            }
            return;
        }
        if self.attempts.load(Ordering::Relaxed) > 0 {
            // Another connection may succeed, for example the last one that the database has left.
            return;
        }
        let outage = match problem {
            DatabaseError::Lost(_) | DatabaseError::Slow => Outage::Unreachable,
            DatabaseError::Answer(_) | DatabaseError::Data(_) | DatabaseError::NoSuchText => {
                Outage::Refused(problem.to_string().into())
            }
        };
        let before = self.outage.swap(Some(Arc::new(outage.clone())));
        let is_known = match (before.as_deref(), &outage) {
            (Some(Outage::Unreachable), Outage::Unreachable) => true,
            (Some(Outage::Refused(before)), Outage::Refused(reason)) => before == reason,
            (_, _) => false,
        };
        if !is_known {
            match outage {
                Outage::Unreachable => {
                    warn!(%store, ?endpoint, reason = %problem, "the store cannot be reached; its routes answer 503");
                }
                Outage::Refused(_) => {
                    error!(%store, ?endpoint, reason = %problem, "the store answers with an error; its routes answer 503");
                }
            }
        }
        // Look-ups that came before the outage was noticed. No other connection takes them.
        if let Ok(mut queue) = self.queue.try_lock() {
            while let Ok(job) = queue.try_recv() {
                job.finish(Err(self.outage_error(&outage)));
            }
        }
    }
}

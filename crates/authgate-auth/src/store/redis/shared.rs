//! The state of one Redis that all workers share, and the tasks that watch it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::{RedisError, cmd};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::MAX_ATTEMPTS;
use super::breaker::Breaker;
use super::canary::{self, Canary};
use super::connections::Connections;
use super::failure::Failure;
use super::layout::AcceptedLayout;
use super::servers::{self, Node, Topology};
use super::settings::{Invalidation, RedisSettings, Role};
use super::tracking;
use super::transport::Connection;
use super::write_through::WriteThrough;
use crate::dependencies::{Dependencies, StoreItem};
use crate::metrics::StoreMetrics;
use crate::now::Now;
use crate::record::{self, Layout};
use crate::store::{LayoutProblem, RevokedItem, StoreError};
use crate::store_changes::StoreChanges;

/// How often the layout record is read without another reason.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Whether a Redis reports the changes of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeReports {
    /// Every change is reported.
    Reported,
    /// The subscription is lost at the moment.
    NotReported,
    /// The server, or the rights of its user, do not allow it.
    Unsupported,
    /// The configuration does not ask for it.
    Off,
}

/// The state of one Redis that all workers share.
#[derive(Debug)]
pub(crate) struct SharedRedis {
    pub(super) name: Arc<str>,
    pub(super) settings: RedisSettings,
    /// The same servers, with the login of the role that writes.
    writer: RedisSettings,
    pub(super) layout: AcceptedLayout,
    /// The layout record may have changed: read it now.
    pub(super) check_now: Notify,
    pub(super) topology: Topology,
    /// When the layout record was last read and accepted; `None` since something may have changed it. For clusters.
    layout_confirmed: Mutex<Option<Instant>>,
    /// The servers that report changes at the moment, and when each has last confirmed that it has reported all.
    tracked: Mutex<HashMap<Node, Now>>,
    /// One for each server that a worker has a link to, and for each role: a wrong password of the writer must not stop look-ups.
    breakers: Mutex<HashMap<(Node, Role), Weak<Breaker>>>,
    reached: AtomicBool,
    /// A server does not know the commands that subscribe to changes, or does not let the gateway send them.
    pub(super) cannot_report_changes: AtomicBool,
    health: AtomicU8,
    pub(super) changes: Arc<StoreChanges>,
    pub(super) metrics: StoreMetrics,
    pub(super) write_through: WriteThrough,
    pub(super) canary: Canary,
}

/// The result of the last check of the store; each change is logged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Health {
    Unchecked,
    Usable,
    Unreachable,
    ErrorReply,
    Missing,
    Filling,
    Changed,
    /// Its layout record has another version, or is invalid.
    Incompatible,
    /// Its layout record does not have the seal of the configuration.
    BadSeal,
}

impl Health {
    fn of(checked: &Result<(), StoreError>) -> Self {
        match checked {
            Ok(()) => Self::Usable,
            Err(StoreError::Layout(_, LayoutProblem::Missing)) => Self::Missing,
            Err(StoreError::Layout(_, LayoutProblem::Filling)) => Self::Filling,
            Err(StoreError::Layout(_, LayoutProblem::Changed)) => Self::Changed,
            Err(StoreError::Layout(_, LayoutProblem::Version(_)) | StoreError::Record(..)) => Self::Incompatible,
            Err(StoreError::Seal(..)) => Self::BadSeal,
            Err(StoreError::Refused(..)) => Self::ErrorReply,
            Err(
                StoreError::Unreachable(_)
                | StoreError::Unreadable(_)
                | StoreError::Timeout(_)
                | StoreError::ReplyCut(_),
            ) => Self::Unreachable,
        }
    }
}

impl SharedRedis {
    pub(in crate::store) fn new(
        name: Arc<str>,
        settings: RedisSettings,
        changes: Arc<StoreChanges>,
        metrics: StoreMetrics,
    ) -> Self {
        let (reached, health) = (AtomicBool::new(false), AtomicU8::new(Health::Unchecked as u8));
        Self {
            layout: AcceptedLayout::new(Arc::clone(&name), Arc::clone(&changes)),
            check_now: Notify::new(),
            topology: Topology::new(&settings.servers),
            layout_confirmed: Mutex::default(),
            tracked: Mutex::default(),
            breakers: Mutex::default(),
            name,
            writer: settings.for_writing(),
            settings,
            reached,
            cannot_report_changes: AtomicBool::new(false),
            health,
            changes,
            metrics,
            write_through: WriteThrough::default(),
            canary: Canary::default(),
        }
    }

    pub(in crate::store) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn is_usable(&self) -> bool {
        self.health.load(Ordering::Relaxed) == Health::Usable as u8
    }

    /// The delay of reported changes, if it is measured.
    pub(in crate::store) fn revocation_lag(&self) -> Option<Duration> {
        self.canary.lag()
    }

    pub(in crate::store) fn is_in_outage(&self) -> bool {
        let health = self.health.load(Ordering::Relaxed);
        [Health::Unreachable as u8, Health::ErrorReply as u8].contains(&health)
    }

    /// How its servers are found.
    pub(in crate::store) fn mode(&self) -> &'static str {
        self.settings.servers.mode()
    }

    /// The addresses of the servers that have the records, as far as they are known.
    pub(in crate::store) fn primary_addresses(&self) -> Vec<String> {
        let primaries = self.topology.known();
        let nodes = primaries.iter().flat_map(|primaries| primaries.nodes());
        let address = |node: &Node| match node {
            Node::Configured => self.servers_text(),
            Node::At(address) => address.to_string(),
        };
        nodes.map(address).collect()
    }

    /// Whether the layout record was accepted within this time, and nothing has been reported about it since.
    pub(super) fn layout_was_confirmed_within(&self, time: Duration) -> bool {
        let confirmed = *self.layout_confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.is_some_and(|at| at.elapsed() <= time)
    }

    pub(super) fn layout_was_confirmed(&self, confirmed: bool) {
        let confirmed = confirmed.then(Instant::now);
        *self.layout_confirmed.lock().unwrap_or_else(PoisonError::into_inner) = confirmed;
    }

    /// After a check: whether look-ups in a cluster may go on without reading the layout record.
    fn note_layout(&self, checked: &Result<(), StoreError>) {
        match checked {
            Ok(()) => self.layout_was_confirmed(true),
            // In an outage, the record is the one that it was, as far as is known.
            Err(problem) if problem.unanswered().is_some() => {}
            Err(_) => self.layout_was_confirmed(false),
        }
    }

    /// A server reports its changes, and has reported all until this time. `None`: it reports nothing any more.
    pub(super) fn set_tracked(&self, node: &Node, until: Option<Now>) {
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => tracked.insert(node.clone(), until),
            None => tracked.remove(node),
        };
        let primaries = self.topology.known();
        let nodes = primaries.as_ref().map_or(&[][..], |primaries| primaries.nodes());
        let all: Option<Vec<Now>> = nodes.iter().map(|node| tracked.get(node).copied()).collect();
        // All changes are reported until the time that each server has confirmed.
        let until = all.and_then(|all| all.into_iter().min_by_key(|until| until.uptime_ms));
        self.metrics.set_tracking(until.is_some());
        if let Some(until) = until {
            self.changes.confirmed(until);
        }
    }

    fn servers_text(&self) -> String {
        let endpoints = self.settings.servers.endpoints().iter();
        endpoints
            .map(|endpoint| format!("{endpoint:?}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether changes are reported now.
    pub(in crate::store) fn change_reports(&self) -> ChangeReports {
        match self.settings.invalidation {
            Invalidation::Off => ChangeReports::Off,
            Invalidation::Tracking if self.metrics.is_tracking() => ChangeReports::Reported,
            Invalidation::Tracking if self.cannot_report_changes.load(Ordering::Relaxed) => ChangeReports::Unsupported,
            Invalidation::Tracking => ChangeReports::NotReported,
        }
    }

    /// How to connect in this role.
    pub(super) fn settings_of(&self, role: Role) -> &RedisSettings {
        match role {
            Role::Reader => &self.settings,
            Role::Writer => &self.writer,
        }
    }

    /// The breaker of a server, for all workers.
    pub(super) fn breaker(&self, node: &Node, role: Role) -> Arc<Breaker> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.retain(|_, breaker| breaker.strong_count() > 0);
        let of = (node.clone(), role);
        if let Some(breaker) = breakers.get(&of).and_then(Weak::upgrade) {
            return breaker;
        }
        let breaker = Arc::default();
        breakers.insert(of, Arc::downgrade(&breaker));
        breaker
    }

    pub(super) fn mark(&self, dependencies: &mut Dependencies, item: StoreItem<'_>) {
        self.changes.mark(dependencies, item);
    }

    /// This process has revoked something: Redis reports it too, a moment later.
    pub(in crate::store) fn revoked(&self, item: RevokedItem<'_>) {
        let hex;
        let item = match item {
            RevokedItem::Token(digest) => {
                hex = self.settings.keys().digest(digest).to_hex();
                StoreItem::Token(&hex)
            }
            RevokedItem::User(id) => StoreItem::User(id),
            RevokedItem::Jti(jti) => StoreItem::Jti(jti),
            RevokedItem::Kid => StoreItem::Store,
        };
        self.changes.changed(item);
    }

    /// The value that is stored under a key, if it has the seal of the store.
    pub(super) fn value<'v>(&self, key: &str, stored: &'v [u8]) -> Result<&'v [u8], StoreError> {
        let keys = self.settings.keys();
        keys.value(key, stored).map_err(|problem| {
            if key == keys.layout() {
                self.layout.invalidate_decisions();
            }
            StoreError::Seal(Arc::clone(&self.name), problem)
        })
    }

    /// Checks a layout record against the accepted one.
    pub(super) fn check_layout(&self, stored: Option<&[u8]>) -> Result<(), StoreError> {
        let stored = stored
            .map(|stored| record::parse::<Layout>("the layout", stored))
            .transpose();
        let stored = stored.map_err(|problem| StoreError::Record(Arc::clone(&self.name), problem))?;
        self.layout
            .check(stored.as_ref())
            .map_err(|problem| StoreError::Layout(Arc::clone(&self.name), problem))
    }

    /// Accepts another layout record, if the store has one now.
    pub(in crate::store) fn permit_other_layout(&self) {
        self.layout.permit_change();
        self.check_now.notify_one();
    }

    /// Converts the error of a failed lookup.
    pub(super) fn error(&self, problem: &RedisError) -> StoreError {
        Failure::of(problem).error(&self.name)
    }

    /// Watches the store: reads its layout record periodically, and subscribes to its changes.
    pub(in crate::store) async fn watch(self: &Arc<Self>) {
        match self.settings.invalidation {
            Invalidation::Tracking => {
                let tracking = tracking::track_all(self);
                tokio::join!(
                    watch_layout(self),
                    servers::watch(self),
                    self.write_changes(),
                    tracking,
                    canary::write(self)
                )
                .0;
            }
            Invalidation::Off => {
                tokio::join!(watch_layout(self), servers::watch(self), self.write_changes()).0;
            }
        }
    }

    fn note(&self, checked: &Result<(), StoreError>) {
        let health = Health::of(checked);
        if health == Health::Usable {
            self.reached.store(true, Ordering::Relaxed);
        }
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if before == health as u8 {
            return;
        }
        let (store, endpoint) = (&self.name, self.servers_text());
        let reason = checked.as_ref().err().map(tracing::field::display);
        match health {
            Health::Unchecked => {}
            Health::Usable => info!(%store, endpoint, "the store is usable"),
            Health::Unreachable if self.mode() == "cluster" => warn!(
                %store, endpoint, reason,
                "the server with the layout record cannot be reached; look-ups go on for `cache.ttl`, then routes of the store answer 503"
            ),
            Health::Unreachable => {
                warn!(%store, endpoint, reason, "the store cannot be reached; its routes answer 503")
            }
            Health::ErrorReply => {
                error!(%store, endpoint, reason, "the store answers with an error; its routes answer 503")
            }
            Health::Missing => error!(
                %store, endpoint,
                "the store's layout record is missing: the store was flushed, evicted, never filled, or is another database; its \
                 routes answer 503. Fill it with `authgate token import`; it is used again without a restart. Revocations and \
                 revoked tokens are in no dump of Django: import the last `authgate token export` first"
            ),
            Health::Filling => warn!(
                %store, endpoint,
                "the store is being filled; its routes answer 503 until the import is complete. If the import was \
                 interrupted, run it again"
            ),
            Health::Changed => error!(
                %store, endpoint,
                "the store's layout record has changed while this gateway was running: it is another database; its routes answer \
                 503. If this is intended, run `authgate reload`"
            ),
            Health::Incompatible => {
                error!(%store, endpoint, reason, "the store's layout record cannot be used; its routes answer 503")
            }
            Health::BadSeal => error!(
                %store, endpoint, reason,
                "the store's layout record does not have the seal of this gateway; its routes answer 503. If `seal` is new, run \
                 `authgate token reseal`. If the store was sealed before, another program has written to it: find out which, and fill \
                 it again"
            ),
        }
    }
}

/// Reads the layout record periodically, for readiness and for the log.
async fn watch_layout(shared: &Arc<SharedRedis>) {
    let mut eviction_checked = false;
    let mut link = SharedLink::new(Arc::clone(shared));
    loop {
        let misses = shared.layout.misses();
        let checked = link.check_layout().await;
        if checked.is_ok() {
            shared.layout.confirmed(misses);
        }
        shared.note_layout(&checked);
        shared.note(&checked);
        if checked.is_ok() && !eviction_checked {
            eviction_checked = true;
            link.warn_of_eviction().await;
        }
        // Read the record after a timeout as well as after a notification.
        let _ = timeout(CHECK_INTERVAL, shared.check_now.notified()).await;
    }
}

/// The connection of the watcher, opened again after each failure. It runs on the control runtime.
struct SharedLink {
    shared: Arc<SharedRedis>,
    connections: Connections,
}

impl SharedLink {
    fn new(shared: Arc<SharedRedis>) -> Self {
        Self {
            shared,
            connections: Connections::new(Role::Reader),
        }
    }

    /// The connection to the server that has the layout record.
    async fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        let shared = &self.shared;
        let key = shared.settings.keys().layout();
        let connection = self.connections.of(shared, &key).await;
        connection.map_err(|problem| shared.error(&problem))
    }

    /// Reads the layout record, on another connection after each one that ends before the answer.
    async fn check_layout(&mut self) -> Result<(), StoreError> {
        let mut attempts = 1;
        loop {
            let checked = self.try_check_layout().await;
            if attempts == MAX_ATTEMPTS || !matches!(checked, Err(StoreError::ReplyCut(_))) {
                return checked;
            }
            attempts += 1;
        }
    }

    async fn try_check_layout(&mut self) -> Result<(), StoreError> {
        let (shared, time_limit) = (Arc::clone(&self.shared), self.shared.settings.timeout);
        let check = async {
            self.connection().await?;
            let key = shared.settings.keys().layout();
            let stored = self.connections.send(&shared, &key, cmd("GET").arg(&key)).await;
            let stored: Option<Vec<u8>> =
                stored
                    .and_then(|stored| Ok(redis::from_redis_value(stored)?))
                    .map_err(|problem| match shared.error(&problem) {
                        StoreError::Unreachable(store) => StoreError::ReplyCut(store),
                        error => error,
                    })?;
            let value = stored.as_deref().map(|stored| shared.value(&key, stored));
            shared.check_layout(value.transpose()?)
        };
        let checked = timeout(time_limit, check)
            .await
            .unwrap_or_else(|_| Err(StoreError::Timeout(Arc::clone(&shared.name))));
        let is_lost = matches!(
            checked,
            Err(StoreError::Unreachable(_) | StoreError::Timeout(_) | StoreError::ReplyCut(_))
        );
        if is_lost {
            self.connections.close();
            self.shared.topology.look_again();
        }
        checked
    }

    /// Redis must not evict records: the user of an evicted token would be refused. If `CONFIG` is forbidden, this cannot be checked.
    async fn warn_of_eviction(&mut self) {
        let Ok(connection) = self.connection().await else {
            return;
        };
        let asked: redis::RedisResult<Vec<String>> = cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query_async(connection)
            .await;
        if let Ok([_, policy]) = asked.as_deref()
            && policy != "noeviction"
        {
            warn!(store = %self.shared.name, policy, "maxmemory-policy must be noeviction: users with evicted records are refused. Set it in redis.conf");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::{BadSeal, Endpoint, Servers};
    use crate::store::{Digests, ErrorReply, ErrorReplyKind};

    fn cluster() -> SharedRedis {
        let settings = RedisSettings {
            servers: Servers::Cluster(vec![Endpoint::parse("redis://localhost:1").expect("a URL")]),
            username: None,
            password: None,
            writer: None,
            tls: None,
            prefix: "authgate:".to_owned(),
            timeout: Duration::from_millis(250),
            invalidation: Invalidation::Off,
            digests: Digests::SHA256,
            seal: None,
        };
        let changes = StoreChanges::new(&"redis".into(), &Arc::default());
        SharedRedis::new("redis".into(), settings, changes, StoreMetrics::new("redis"))
    }

    #[test]
    fn a_layout_record_that_cannot_be_used_is_not_confirmed_any_more_and_one_in_an_outage_is() {
        let store = || Arc::<str>::from("redis");
        let refused = |kind| StoreError::Refused(store(), ErrorReply::new(kind, "an error"));
        for (problem, is_confirmed) in [
            (StoreError::Timeout(store()), true),
            (StoreError::Unreachable(store()), true),
            (refused(ErrorReplyKind::Loading), true),
            (refused(ErrorReplyKind::WrongType), false),
            (StoreError::Layout(store(), LayoutProblem::Missing), false),
            (StoreError::Seal(store(), BadSeal::Unsealed("layout".to_owned())), false),
        ] {
            let shared = cluster();
            shared.note_layout(&Ok(()));
            let problem = Err(problem);
            shared.note_layout(&problem);
            let confirmed = shared.layout_was_confirmed_within(Duration::MAX);
            assert_eq!(confirmed, is_confirmed, "{problem:?}");
        }
    }
}

//! Receives the changes that the triggers of [`sql`](super::sql) report: LISTEN, on a separate connection of the process.
//!
//! Each notification increments the counters of the items that it names, when it is read; nothing is queued. A statement on the same
//! connection, four times a second, checks that the connection works and measures its delay. While there is no connection, cache entries
//! stay valid until their `ttl`. Changes may have been missed, so the next connection first invalidates all entries of the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::connection::{Connection, DatabaseError};
use super::sql::{CHANNEL, missing_triggers};
use super::statements::Query;
use super::{FIRST_PAUSE, LONGEST_PAUSE, SharedDjango};
use crate::dependencies::StoreItem;
use crate::now::Now;
use crate::store::SourceChange;

/// How often the connection is checked.
const PING_EVERY: Duration = Duration::from_millis(250);
/// A connection without an answer for this long is treated as lost.
const SILENCE: Duration = Duration::from_millis(700);
/// How often the triggers are looked for, once they are there.
const TRIGGERS_EVERY: Duration = Duration::from_secs(30);
/// How long a lost connection may take to end, before another one takes its place.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why changes are not reported.
enum ListenError {
    /// No connection was opened.
    NotConnected(String),
    /// A working connection ended.
    Ended(&'static str),
}

/// Listens again and again; never returns.
pub(super) async fn listen(shared: &SharedDjango, options: &PgConnectOptions) {
    let (mut pause, mut warned) = (FIRST_PAUSE, false);
    loop {
        // Look-ups come first, if the database has one connection left.
        while !shared.is_usable() {
            sleep(FIRST_PAUSE).await;
        }
        let began = Instant::now();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(super::connection::OPEN_TIMEOUT)
            .connect_lazy_with(options.clone());
        let lost = follow(shared, &pool).await;
        shared.is_reporting.store(false, Ordering::Release);
        shared.changes.changed(StoreItem::Reporting);
        shared.metrics.set_tracking(false);
        // The number of connections is limited, so this one has to end first.
        let _ = timeout(CLOSE_TIMEOUT, pool.close()).await;
        let store = &shared.name;
        let (reason, is_early) = match lost {
            ListenError::Ended(why) => (why.to_owned(), began.elapsed() <= LONGEST_PAUSE),
            ListenError::NotConnected(problem) => (problem, true),
        };
        if !warned || !is_early {
            warn!(%store, reason, "changes of the store are not reported; cache entries expire only after their ttl");
            warned = true;
        }
        if !is_early {
            // Changes are missed until the next connection.
            (pause, warned) = (FIRST_PAUSE, false);
            continue;
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Connects, and handles notifications until the connection is lost.
async fn follow(shared: &SharedDjango, pool: &PgPool) -> ListenError {
    let refused = |error: sqlx::Error| ListenError::NotConnected(DatabaseError::from(error).to_string());
    let mut listener = match PgListener::connect_with(pool).await {
        Ok(listener) => listener,
        Err(error) => return refused(error),
    };
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    match timeout(super::connection::OPEN_TIMEOUT, listener.listen(CHANNEL)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return refused(error),
        Err(_) => return ListenError::NotConnected("no answer in time".to_owned()),
    }
    // Rows that were read before may have changed since.
    shared.changes.subscribed();
    shared.changes.changed(StoreItem::Reporting);
    shared.is_reporting.store(true, Ordering::Release);
    let mut triggers = Triggers::default();
    let mut previous: Option<Now> = None;
    loop {
        if let Err(lost) = triggers.check(shared, &mut listener).await {
            return lost;
        }
        let until = Instant::now() + PING_EVERY;
        while let Ok(received) = tokio::time::timeout_at(until, listener.try_recv()).await {
            match received {
                Ok(Some(notification)) => shared.changed(notification.payload()).await,
                Ok(None) | Err(_) => return ListenError::Ended("the connection is lost"),
            }
        }
        let (sent, now) = (Instant::now(), Now::read());
        match timeout(SILENCE, listener.execute("SELECT 1")).await {
            Ok(Ok(_)) => shared.metrics.record_lag(sent.elapsed()),
            Ok(Err(_)) => return ListenError::Ended("the connection is lost"),
            Err(_) => return ListenError::Ended("the connection is silent"),
        }
        while let Some(notification) = listener.next_buffered() {
            shared.changed(notification.payload()).await;
        }
        // A notification may come after the answer to a statement that was executed after the change, but not after the next answer.
        if let (Some(previous), Some(true)) = (previous.replace(now), triggers.are_there) {
            shared.changes.confirmed(previous);
        }
    }
}

/// Whether the triggers are there. Without them, listening is of no use.
#[derive(Default)]
struct Triggers {
    checked: Option<Instant>,
    are_there: Option<bool>,
}

impl Triggers {
    async fn check(&mut self, shared: &SharedDjango, listener: &mut PgListener) -> Result<(), ListenError> {
        let every = if self.are_there == Some(true) {
            TRIGGERS_EVERY
        } else {
            LONGEST_PAUSE
        };
        if self.checked.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        self.checked = Some(Instant::now());
        let query = sqlx::query_scalar::<_, String>(AssertSqlSafe(missing_triggers(&shared.settings)));
        let Ok(Ok(missing)) = timeout(shared.settings.timeout, query.fetch_all(listener)).await else {
            return Err(ListenError::Ended("the triggers cannot be looked for"));
        };
        let (store, are_there) = (&shared.name, missing.is_empty());
        if self.are_there != Some(are_there) {
            if self.are_there == Some(false) {
                // Changes before the triggers were made were not reported.
                shared.changes.subscribed();
            }
            shared.metrics.set_tracking(are_there);
            match are_there {
                true => info!(%store, "subscribed to changes of the store"),
                false => warn!(
                    %store, tables = missing.join(", "),
                    "these tables have no triggers, so their changes are not reported; cache entries expire only after their ttl. Run the \
                     output of `authgate django sql --triggers` in the database, or write `invalidation = \"off\"`"
                ),
            }
            self.are_there = Some(are_there);
        }
        Ok(())
    }
}

impl SharedDjango {
    /// Handles a notification.
    async fn changed(&self, payload: &str) {
        self.metrics.record_invalidations(1);
        let changed = |item: StoreItem<'_>| self.changes.changed(item);
        let changed_user = |id: &str| {
            changed(StoreItem::User(id));
            self.report(SourceChange::User(id.into()));
        };
        // Counters first: what is written to a store in front after the report is checked against them.
        match payload.split_once(':') {
            Some(("token", digest)) => {
                changed(StoreItem::Token(digest));
                self.report(SourceChange::Token(digest.into()));
            }
            Some(("user", id)) => {
                changed(StoreItem::AnyUser);
                changed_user(id);
            }
            Some(("group", id)) => {
                let deadline = Instant::now() + self.settings.timeout;
                match self.ask(Query::Members(id.to_owned()), deadline).await {
                    Ok(facts) if facts.members.len() <= super::statements::MAX_MEMBERS => {
                        changed(StoreItem::AnyUser);
                        facts.members.iter().for_each(|id| changed_user(id));
                    }
                    // A large group, or a database that does not answer: anyone may be a member.
                    Ok(_) | Err(_) => {
                        changed(StoreItem::Store);
                        self.report(SourceChange::All);
                    }
                }
            }
            // `all`, or something that a later version reports.
            Some(_) | None => {
                changed(StoreItem::Store);
                self.report(SourceChange::All);
            }
        }
    }

    /// The tables without triggers, for `authgate check --online`.
    pub(super) async fn tables_without_triggers(
        connection: &mut Connection,
        settings: &super::DjangoSettings,
    ) -> Result<Vec<String>, DatabaseError> {
        let rows = connection.rows(&Arc::from(missing_triggers(settings)), &[]).await?;
        Ok(rows.iter().filter_map(|row| Some(row.text(0)?.to_owned())).collect())
    }
}

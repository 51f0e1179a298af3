//! Writes to Redis what a source says, and removes it when the source reports a change. One task on the control runtime does both, one
//! after the other.
//!
//! A record is written only where there is none, so a revoked token is never overwritten. It is not written if the source has reported a
//! change since it was read, and it is removed again if this happens while it is being written. Removals are repeated until they succeed.

use std::sync::Arc;
use std::time::Duration;

use authgate_http::log_throttle::LogThrottle;
use redis::{Pipeline, RedisResult, Value, cmd};
use serde_json::Value as Json;
use tokio::sync::{Mutex, broadcast, mpsc};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::connections::Connections;
use super::keys::Keys;
use super::settings::Role;
use super::transport::Connection;
use super::{FIRST_PAUSE, LONGEST_PAUSE, SharedRedis};
use crate::dependencies::Dependencies;
use crate::record::{TokenRecord, UserRecord};
use crate::store::{SourceChange, TokenDigest};

/// Changes that wait for Redis. Records beyond them are not written, and removals wait.
const QUEUE: usize = 1024;
/// How many keys one step of a search looks at.
const SCAN_COUNT: usize = 1000;

/// What a source says about a token.
#[derive(Debug, Clone)]
pub(in crate::store) struct SourceRecord {
    pub(in crate::store) digest: TokenDigest,
    pub(in crate::store) token: TokenRecord,
    pub(in crate::store) user: Option<UserRecord>,
    /// How long it may be kept.
    pub(in crate::store) ttl: Duration,
    /// The items of the source that it was made from, with their counters from before they were read.
    pub(in crate::store) dependencies: Dependencies,
}

#[derive(Debug)]
enum Change {
    Write(Box<SourceRecord>),
    Remove(SourceChange),
}

/// The queue of changes.
#[derive(Debug)]
pub(super) struct WriteThrough {
    changes: mpsc::Sender<Change>,
    queue: Mutex<mpsc::Receiver<Change>>,
}

impl Default for WriteThrough {
    fn default() -> Self {
        let (changes, queue) = mpsc::channel(QUEUE);
        Self {
            changes,
            queue: Mutex::new(queue),
        }
    }
}

impl SharedRedis {
    /// Writes a record soon, unless too many others wait. The next request for it would then ask the source again.
    pub(in crate::store) fn write_soon(&self, record: SourceRecord) {
        let _ = self.write_through.changes.try_send(Change::Write(Box::new(record)));
    }

    /// Removes what a source reports as changed; never returns.
    pub(in crate::store) async fn follow(&self, mut changes: broadcast::Receiver<SourceChange>) {
        loop {
            let change = match changes.recv().await {
                Ok(change) => change,
                Err(broadcast::error::RecvError::Lagged(_)) => SourceChange::All,
                // The source is dropped with this store.
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            };
            // The receiver lives as long as this store.
            let _ = self.write_through.changes.send(Change::Remove(change)).await;
        }
    }

    /// Makes the changes, in their order; never returns.
    pub(super) async fn write_changes(&self) {
        let mut queue = self.write_through.queue.lock().await;
        let mut connections = Connections::new(Role::Writer);
        let mut failures = LogThrottle::default();
        while let Some(change) = queue.recv().await {
            let mut pause = FIRST_PAUSE;
            while let Err(problem) = self.make(&mut connections, &change).await {
                connections.close();
                if let Some(times) = failures.note() {
                    warn!(
                        store = %self.name, reason = %self.error(&problem), times,
                        "a record of the source could not be written or removed; the role needs +set +del +watch +multi +exec +scan +pttl"
                    );
                }
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
                if let Change::Write(record) = &change {
                    // Whether it was written is not known.
                    let digest = Arc::from(record.digest.to_hex());
                    let user = Arc::from(record.token.user.as_str());
                    for removal in [SourceChange::Token(digest), SourceChange::User(user)] {
                        while self
                            .make(&mut connections, &Change::Remove(removal.clone()))
                            .await
                            .is_err()
                        {
                            connections.close();
                            sleep(pause).await;
                            pause = LONGEST_PAUSE.min(pause * 2);
                        }
                    }
                    break;
                }
            }
        }
    }

    /// There is no deadline for the commands: a command that was sent may be executed at any time later.
    async fn make(&self, connections: &mut Connections, change: &Change) -> RedisResult<()> {
        let keys = self.settings.keys();
        match change {
            Change::Write(record) => self.write(connections, record).await,
            Change::Remove(SourceChange::Token(digest)) => match TokenDigest::from_hex(digest) {
                Some(digest) => self.remove(connections, &keys.token(&digest)).await,
                None => Ok(()),
            },
            Change::Remove(SourceChange::User(id)) => self.remove(connections, &keys.user(id)).await,
            Change::Remove(SourceChange::All) => {
                for prefix in [keys.tokens(), keys.user("")] {
                    self.remove_written(connections, &prefix).await?;
                }
                Ok(())
            }
        }
    }

    async fn remove(&self, connections: &mut Connections, key: &str) -> RedisResult<()> {
        let connection = connections.of(self, key).await?;
        remove(connection, self.settings.keys(), key).await
    }

    /// Removes every record that has an expiry: those that were written here.
    async fn remove_written(&self, connections: &mut Connections, prefix: &str) -> RedisResult<()> {
        let primaries = self.topology.known();
        for node in primaries.iter().flat_map(|primaries| primaries.nodes()) {
            for key in written_keys(connections.to(self, node).await?, prefix).await? {
                self.remove(connections, &key).await?;
            }
        }
        Ok(())
    }

    async fn write(&self, connections: &mut Connections, record: &SourceRecord) -> RedisResult<()> {
        // A store that was flushed, or is being filled, is not written to.
        if !self.is_usable() || !self.changes.are_unchanged(&record.dependencies) {
            return Ok(());
        }
        let keys = self.settings.keys();
        let mut wanted = Vec::with_capacity(2);
        if let Some(user) = &record.user {
            wanted.push((keys.user(user.id.as_str()), serde_json::to_vec(user)));
        }
        wanted.push((keys.token(&record.digest), serde_json::to_vec(&record.token)));
        let milliseconds = record.ttl.as_millis().max(1).to_string();
        let mut written = Vec::with_capacity(2);
        for (key, value) in &wanted {
            let Ok(value) = value else { return Ok(()) };
            let mut set = cmd("SET");
            set.arg(key)
                .arg(&*keys.stored(key, value))
                .arg("NX")
                .arg("PX")
                .arg(&milliseconds);
            written.push(connections.send(self, key, &set).await?);
        }
        if !self.changes.are_unchanged(&record.dependencies) {
            debug!(store = %self.name, "a record of the source changed while it was written, and is removed again");
            for ((key, _), written) in wanted.iter().zip(written) {
                if written != Value::Nil {
                    self.remove(connections, key).await?;
                }
            }
        }
        Ok(())
    }
}

/// Removes a record, unless it is a revoked token or has a bad seal.
async fn remove(connection: &mut Connection, keys: Keys<'_>, key: &str) -> RedisResult<()> {
    loop {
        // Only this task uses the connection, so no other commands are between these.
        let () = cmd("WATCH").arg(key).query_async(connection).await?;
        let stored: Option<Vec<u8>> = cmd("GET").arg(key).query_async(connection).await?;
        let Some(stored) = stored else {
            return cmd("UNWATCH").query_async(connection).await;
        };
        // A record with a bad seal may have been a revoked token.
        let is_kept = keys.value(key, &stored).map_or(true, |stored| {
            serde_json::from_slice::<Json>(stored).is_ok_and(|record| !record["revoked"].is_null())
        });
        if is_kept {
            return cmd("UNWATCH").query_async(connection).await;
        }
        let mut transaction = Pipeline::new();
        transaction.atomic().cmd("DEL").arg(key);
        // Nil: the record has changed since it was read.
        let done: Value = transaction.query_async(connection).await?;
        if done != Value::Nil {
            return Ok(());
        }
    }
}

/// Finds every record that has an expiry: those that were written here.
async fn written_keys(connection: &mut Connection, prefix: &str) -> RedisResult<Vec<String>> {
    let mut written = Vec::new();
    let pattern: String = prefix
        .chars()
        .flat_map(|character| {
            let escape = matches!(character, '*' | '?' | '[' | ']' | '\\').then_some('\\');
            escape.into_iter().chain([character])
        })
        .chain(['*'])
        .collect();
    let mut cursor = 0_u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await?;
        if !keys.is_empty() {
            let mut expiries = Pipeline::with_capacity(keys.len());
            for key in &keys {
                expiries.cmd("PTTL").arg(key);
            }
            let expiries: Vec<i64> = expiries.query_async(connection).await?;
            let expiring = keys.into_iter().zip(expiries).filter(|(_, expiry)| *expiry >= 0);
            written.extend(expiring.map(|(key, _)| key));
        }
        cursor = next;
        if cursor == 0 {
            return Ok(written);
        }
    }
}

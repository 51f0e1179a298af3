//! Subscribes to changes in Redis: `CLIENT TRACKING` in broadcasting mode, on one separate connection to each
//! server, per process.
//!
//! Each push increments the counters of the keys that it names, when it is read; nothing is queued. A ping on the same connection, four
//! times a second, checks that the connection works and measures its delay. While there is no connection, cache entries stay valid until
//! their `ttl`, so that cached users keep working during an outage. Changes may have been missed, so the next connection first invalidates
//! all entries of the store. If Redis is reachable, the next connection is opened at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{ProtocolVersion, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::canary::gateway_id;
use super::servers::Node;
use super::settings::connection_config;
use super::transport::Connection;
use super::{FIRST_PAUSE, LONGEST_PAUSE, SharedRedis};
use crate::dependencies::StoreItem;
use crate::now::Now;
use crate::store::{ErrorReply, ErrorReplyKind, StoreError};

/// How often the connection is checked.
const PING_EVERY: Duration = Duration::from_millis(250);
/// A connection without a reply for this long is treated as lost, so that the loss is noticed within a second of the last reply.
const SILENCE: Duration = Duration::from_millis(700);
/// How often a Redis that cannot report changes is asked again: rights may be granted, and a server may be replaced.
const UNSUPPORTED_PAUSE: Duration = Duration::from_secs(10);

/// Why changes are not reported.
enum TrackingError {
    /// No connection was opened, or Redis has answered with an error.
    NotSubscribed(StoreError),
    /// Redis cannot report changes, or not to this user.
    Unsupported(ErrorReply),
    /// A working connection ended.
    Ended(&'static str),
}

/// Subscribes to the changes of all servers that have records; never returns.
pub(super) async fn track_all(shared: &Arc<SharedRedis>) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut tracked: HashMap<Node, AbortHandle> = HashMap::new();
    loop {
        let known = shared.topology.known();
        let nodes = known.as_ref().map_or(&[][..], |primaries| primaries.nodes());
        tracked.retain(|node, task| {
            let is_kept = nodes.contains(node);
            if !is_kept {
                task.abort();
                shared.set_tracked(node, None);
            }
            is_kept
        });
        for node in nodes
            .iter()
            .filter(|node| !tracked.contains_key(*node))
            .cloned()
            .collect::<Vec<_>>()
        {
            let (shared, of) = (Arc::clone(shared), node.clone());
            tracked.insert(node, tasks.spawn(async move { track(&shared, &of).await }));
        }
        tokio::select! {
            () = shared.topology.changed(known.as_ref()) => {}
            Some(Err(ended)) = tasks.join_next() => {
                if let Ok(panic) = ended.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// Subscribes to the changes of one server, again and again; never returns.
async fn track(shared: &Arc<SharedRedis>, node: &Node) {
    let (mut pause, mut warned) = (FIRST_PAUSE, false);
    loop {
        let began = Instant::now();
        let lost = follow(shared, node).await;
        shared.set_tracked(node, None);
        shared.topology.look_again();
        let store = &shared.name;
        let reason = match lost {
            // Connect again at once, because changes are missed until then.
            TrackingError::Ended(why) if began.elapsed() > LONGEST_PAUSE => {
                debug!(%store, reason = why, "the subscription to changes has ended");
                (pause, warned) = (FIRST_PAUSE, false);
                continue;
            }
            TrackingError::Ended(why) => why.to_owned(),
            TrackingError::NotSubscribed(problem) => problem.to_string(),
            TrackingError::Unsupported(reply) => {
                if !shared.cannot_report_changes.swap(true, Ordering::Relaxed) {
                    warn!(
                        %store, reason = %reply,
                        "this Redis does not report changes: a change takes effect after cache.ttl. Use Redis 6 or later, and grant its user \
                         +hello and +client|tracking; or write `invalidation = \"off\"` in the store's table"
                    );
                }
                sleep(UNSUPPORTED_PAUSE).await;
                continue;
            }
        };
        if !warned {
            warn!(%store, reason, "changes of the store are not reported; cache entries expire only after their ttl");
            warned = true;
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Connects, and handles pushes until the connection is lost.
async fn follow(shared: &Arc<SharedRedis>, node: &Node) -> TrackingError {
    let closed = Arc::new(Notify::new());
    let connecting = timeout(shared.settings.timeout, connect(shared, node, &closed)).await;
    let mut connection = match connecting {
        Ok(Ok(connection)) => connection,
        Ok(Err(problem)) => {
            return match shared.error(&problem) {
                StoreError::Refused(_, reply) if is_unsupported(&reply) => TrackingError::Unsupported(reply),
                error => TrackingError::NotSubscribed(error),
            };
        }
        Err(_) => return TrackingError::NotSubscribed(StoreError::Timeout(Arc::clone(&shared.name))),
    };
    shared.cannot_report_changes.store(false, Ordering::Relaxed);
    // Items that were read before this subscription may have changed since.
    shared.changes.subscribed();
    shared.canary.subscribed();
    // A restarted server may be empty now, or filled again.
    shared.check_now.notify_one();
    shared.set_tracked(node, Some(Now::read()));
    info!(store = %shared.name, "subscribed to changes of the store");
    loop {
        let (sent, now) = (Instant::now(), Now::read());
        match timeout(SILENCE, cmd("PING").query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => {
                shared.metrics.record_lag(sent.elapsed());
                // Redis has sent the pushes of earlier changes before this reply.
                shared.set_tracked(node, Some(now));
            }
            Ok(Err(_)) => return TrackingError::Ended("the connection is lost"),
            Err(_) => return TrackingError::Ended("the connection is silent"),
        }
        tokio::select! {
            () = closed.notified() => return TrackingError::Ended("the connection is closed"),
            () = sleep(PING_EVERY) => {}
        }
    }
}

async fn connect(shared: &Arc<SharedRedis>, node: &Node, closed: &Arc<Notify>) -> Result<Connection, RedisError> {
    let (receiver, closed) = (Arc::clone(shared), Arc::clone(closed));
    let config = connection_config().set_push_sender(move |push: PushInfo| -> Result<(), RedisError> {
        match push.kind {
            PushKind::Invalidate => receiver.invalidate(&push.data),
            PushKind::Disconnection => closed.notify_one(),
            _ => {}
        }
        Ok(())
    });
    let mut connection = shared.settings.open(node, ProtocolVersion::RESP3, &config).await?;
    let mut tracking = cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in shared.settings.keys().tracked_prefixes() {
        tracking.arg("PREFIX").arg(prefix);
    }
    tracking.arg("PREFIX").arg(shared.settings.keys().canary(gateway_id()));
    tracking.query_async::<Value>(&mut connection).await?;
    Ok(connection)
}

/// Whether the server answers so because it does not know HELLO or CLIENT TRACKING, or does not let this user send them.
fn is_unsupported(reply: &ErrorReply) -> bool {
    let text = reply.to_string().to_ascii_lowercase();
    match reply.kind() {
        ErrorReplyKind::NoPermission => true,
        ErrorReplyKind::Other => text.contains("unknown") || text.contains("resp3") || text.starts_with("noproto"),
        _ => false,
    }
}

impl SharedRedis {
    /// Handles a push: a list of changed keys, or nil after FLUSHDB or FLUSHALL.
    fn invalidate(&self, data: &[Value]) {
        let mut count = 0;
        for change in data {
            match change {
                Value::Array(keys) => {
                    for key in keys {
                        let is_canary = match key {
                            Value::BulkString(key) => self.invalidate_key(key),
                            Value::SimpleString(key) => self.invalidate_key(key.as_bytes()),
                            _ => {
                                // An unknown form still means that something changed.
                                self.changes.changed(StoreItem::Store);
                                false
                            }
                        };
                        count += usize::from(!is_canary);
                    }
                }
                Value::Nil => {
                    count += 1;
                    self.layout.flushed();
                    self.layout_was_confirmed(false);
                    self.check_now.notify_one();
                }
                _ => {
                    count += 1;
                    self.changes.changed(StoreItem::Store);
                }
            }
        }
        self.metrics.record_invalidations(count);
    }

    /// Returns whether it is the canary.
    fn invalidate_key(&self, key: &[u8]) -> bool {
        let key = String::from_utf8_lossy(key);
        let name = key.strip_prefix(&self.settings.prefix);
        if name.is_some_and(|name| name.strip_prefix("canary:") == Some(gateway_id())) {
            self.canary.came_through();
            return true;
        }
        if let Some(item) = name.and_then(item) {
            self.changes.changed(item);
            if item == StoreItem::Store {
                self.layout_was_confirmed(false);
                self.check_now.notify_one();
            }
        }
        false
    }
}

/// The store item of a key, by the key's name without the prefix.
fn item(key: &str) -> Option<StoreItem<'_>> {
    if key == "layout" {
        return Some(StoreItem::Store);
    }
    let (kind, rest) = key.split_once(':')?;
    match kind {
        "token" => Some(StoreItem::Token(rest)),
        "user" => Some(StoreItem::User(rest)),
        "user-by-name" => Some(StoreItem::Name(rest)),
        "revoked" => match rest.split_once(':')? {
            ("user", id) => Some(StoreItem::User(id)),
            ("jti", jti) => Some(StoreItem::Jti(jti)),
            // A key has signed any number of tokens, and its revocation is rare: invalidate the whole store.
            ("kid", _) => Some(StoreItem::Store),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keys;
    use super::*;

    #[test]
    fn every_key_that_a_decision_depends_on_is_tracked() {
        let keys = Keys::new("", None);
        let digest = crate::store::TokenDigest::of(b"x");
        let hex = digest.to_hex();
        for (key, expected) in [
            (keys.layout(), Some(StoreItem::Store)),
            (keys.token(&digest), Some(StoreItem::Token(&hex))),
            (keys.user("a:b"), Some(StoreItem::User("a:b"))),
            (keys.user_by_name("ada"), Some(StoreItem::Name("ada"))),
            (keys.revoked_jti("j:1"), Some(StoreItem::Jti("j:1"))),
            (keys.revoked_user("a:b"), Some(StoreItem::User("a:b"))),
            (keys.revoked_kid("k"), Some(StoreItem::Store)),
            (keys.tokens_of("42"), None),
            (keys.canary("0123456789abcdef"), None),
            ("other".to_owned(), None),
        ] {
            assert_eq!(item(&key), expected, "{key}");
            let invalidated = keys.tracked_prefixes().iter().any(|prefix| key.starts_with(prefix));
            assert_eq!(invalidated, expected.is_some(), "{key}");
        }
    }
}

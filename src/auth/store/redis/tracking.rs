//! Hears of changes: `CLIENT TRACKING` in broadcasting mode, on a connection of its own beside the workers, one for each process.
//!
//! Each push counts up the generations of what it names, right where it is read: nothing is queued. A ping on the same connection, four
//! times a second, finds out whether anybody would hear of a change, and how late. From a connection that is lost to the next one, verdicts
//! live for their `ttl`, so that an outage of the store is none of those who are known; changes may have been missed, so the next
//! connection begins with a flush. Where Redis is there, that is at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{ProtocolVersion, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::settings::connection_config;
use super::{FIRST_PAUSE, LONGEST_PAUSE, Shared};
use crate::auth::dependencies::StoreItem;

/// How often somebody asks whether a change would be heard of.
const PING_EVERY: Duration = Duration::from_millis(250);
/// A connection that is silent for this long is down, though nobody has closed it: within a second of its last answer.
const SILENCE: Duration = Duration::from_millis(700);

/// Why nothing is heard.
enum Lost {
    /// There was no connection, or none that is told of changes.
    NotFound(String),
    /// There was one.
    Ended(&'static str),
}

/// Listens for ever.
pub(super) async fn track(shared: &Arc<Shared>) {
    let (mut pause, mut told) = (FIRST_PAUSE, false);
    loop {
        let began = Instant::now();
        let lost = follow(shared).await;
        shared.metrics.tracks(false);
        let store = &shared.name;
        match lost {
            // The next one is tried at once, since until it is there changes are missed; but not over and over.
            Lost::Ended(why) => {
                warn!(%store, reason = why, "changes of the store are not heard of; verdicts live for their ttl");
                told = true;
                if began.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                    continue;
                }
            }
            Lost::NotFound(problem) => {
                if !told {
                    warn!(%store, reason = problem, "changes of the store are not heard of; verdicts live for their ttl");
                    told = true;
                }
            }
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Connects, and listens until the connection is lost.
async fn follow(shared: &Arc<Shared>) -> Lost {
    let closed = Arc::new(Notify::new());
    let connecting = timeout(shared.settings.timeout, connect(shared, &closed)).await;
    let mut connection = match connecting {
        Ok(Ok(connection)) => connection,
        Ok(Err(problem)) => return Lost::NotFound(shared.error(&problem).to_string()),
        Err(_) => return Lost::NotFound("no answer in time".to_owned()),
    };
    // What was read before anybody listened may have changed since.
    shared.counters.changed(&shared.name, StoreItem::Store);
    // A server that was restarted may be empty now, and filled again soon.
    shared.look_now.notify_one();
    shared.metrics.tracks(true);
    info!(store = %shared.name, "changes of the store are heard of");
    loop {
        let sent = Instant::now();
        match timeout(SILENCE, cmd("PING").query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => shared.metrics.lags(sent.elapsed()),
            Ok(Err(_)) => return Lost::Ended("the connection is lost"),
            Err(_) => return Lost::Ended("the connection is silent"),
        }
        tokio::select! {
            () = closed.notified() => return Lost::Ended("the connection is closed"),
            () = sleep(PING_EVERY) => {}
        }
    }
}

async fn connect(shared: &Arc<Shared>, closed: &Arc<Notify>) -> Result<MultiplexedConnection, RedisError> {
    let (heard, closed) = (Arc::clone(shared), Arc::clone(closed));
    let config = connection_config().set_push_sender(move |push: PushInfo| -> Result<(), RedisError> {
        match push.kind {
            PushKind::Invalidate => heard.invalidate(&push.data),
            PushKind::Disconnection => closed.notify_one(),
            _ => {}
        }
        Ok(())
    });
    let client = shared.settings.client_speaking(ProtocolVersion::RESP3)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut tracking = cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in shared.settings.keys().that_verdicts_rest_on() {
        tracking.arg("PREFIX").arg(prefix);
    }
    tracking.query_async::<Value>(&mut connection).await?;
    Ok(connection)
}

impl Shared {
    /// What Redis says has changed: keys, or with a nil everything, by FLUSHDB or FLUSHALL.
    fn invalidate(&self, data: &[Value]) {
        let mut count = 0;
        for told in data {
            match told {
                Value::Array(keys) => {
                    count += keys.len();
                    for key in keys {
                        match key {
                            Value::BulkString(key) => self.invalidate_key(key),
                            Value::SimpleString(key) => self.invalidate_key(key.as_bytes()),
                            // Whatever it means, it means a change.
                            _ => self.counters.changed(&self.name, StoreItem::Store),
                        }
                    }
                }
                Value::Nil => {
                    count += 1;
                    self.layout.flushed();
                    self.look_now.notify_one();
                }
                _ => {
                    count += 1;
                    self.counters.changed(&self.name, StoreItem::Store);
                }
            }
        }
        self.metrics.invalidated(count);
    }

    fn invalidate_key(&self, key: &[u8]) {
        let key = String::from_utf8_lossy(key);
        if let Some(item) = key.strip_prefix(&self.settings.prefix).and_then(item) {
            self.counters.changed(&self.name, item);
            if item == StoreItem::Store {
                self.look_now.notify_one();
            }
        }
    }
}

/// What rests on a key, by its name without the prefix.
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
            // A key has signed any number of tokens, and this is rare.
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
    fn every_key_that_a_verdict_rests_on_is_known_by_its_name_and_told_of() {
        let keys = Keys::new("");
        let digest = crate::auth::store::TokenDigest::of(b"x");
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
            ("other".to_owned(), None),
        ] {
            assert_eq!(item(&key), expected, "{key}");
            let told = keys
                .that_verdicts_rest_on()
                .iter()
                .any(|prefix| key.starts_with(prefix));
            assert_eq!(told, expected.is_some(), "{key}");
        }
    }
}

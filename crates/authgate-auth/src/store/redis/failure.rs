//! [`Failure`]: why a server gives no answer, from the errors of the Redis library.

use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use crate::store::{ErrorReply, ErrorReplyKind, StoreError};

/// Why a server gives no usable connection.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There is no connection.
    Unreachable,
    /// It does not answer in time.
    Timeout,
    /// It answers with an error, such as WRONGPASS or LOADING.
    Refused(ErrorReply),
}

impl Failure {
    pub(super) fn of(problem: &RedisError) -> Self {
        match answer(problem) {
            Some(reply) => Self::Refused(reply),
            None if problem.is_timeout() => Self::Timeout,
            None => Self::Unreachable,
        }
    }

    pub(super) fn error(self, store: &Arc<str>) -> StoreError {
        let store = Arc::clone(store);
        match self {
            Self::Unreachable => StoreError::Unreachable(store),
            Self::Timeout => StoreError::Timeout(store),
            Self::Refused(reply) => StoreError::Refused(store, reply),
        }
    }
}

/// The error reply of the server, such as WRONGPASS, NOAUTH, NOPERM or LOADING, or of TLS; `None` if the server was not reached.
pub fn answer(problem: &RedisError) -> Option<ErrorReply> {
    // With several commands in one write: the first error.
    let of_server = problem.clone().into_server_errors();
    if let Some((_, error)) = of_server.as_deref().and_then(<[_]>::first) {
        return Some(ErrorReply::of_redis(error.code(), error.details()));
    }
    match problem.kind() {
        ErrorKind::InvalidClientConfig => {
            let text = format!("TLS: {}", problem.detail().unwrap_or("not possible"));
            Some(ErrorReply::new(ErrorReplyKind::Tls, &text))
        }
        _ if problem.is_io_error() || problem.is_connection_dropped() || problem.is_unrecoverable_error() => None,
        _ => Some(ErrorReply::other(&problem.to_string())),
    }
}

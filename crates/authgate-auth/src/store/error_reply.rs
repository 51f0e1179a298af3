//! [`ErrorReply`]: an error that a store answered with, and the label that logs and metrics give it.

use std::fmt;
use std::sync::Arc;

use authgate_core::label_value::LabelValue;

use crate::labels;

/// What a store answered in place of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    kind: ErrorReplyKind,
    text: Arc<str>,
}

/// Kinds of error replies. Each has a label of its own, because operators do something else about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorReplyKind {
    /// Redis reads its records from disk, or from its primary.
    Loading,
    /// A replica has lost its primary, and may not answer.
    MasterDown,
    /// No primary has the slot of the key.
    ClusterDown,
    /// A write was sent to a replica.
    ReadOnly,
    /// Redis asks for a password, and none is configured.
    NoAuth,
    /// Redis does not accept the user and password.
    WrongPassword,
    /// The user of Redis lacks a right.
    NoPermission,
    /// Redis has reached `maxmemory`, and may not evict.
    OutOfMemory,
    /// A key holds a value of another type.
    WrongType,
    /// One side does not accept the certificate of the other.
    Tls,
    /// The reply has a form that the command never has.
    UnexpectedReply,
    /// Any other error.
    Other,
}

impl ErrorReplyKind {
    /// The kind of an error of Redis, by its first word.
    fn of_code(code: &str) -> Self {
        match code {
            "LOADING" => Self::Loading,
            "MASTERDOWN" => Self::MasterDown,
            "CLUSTERDOWN" => Self::ClusterDown,
            "READONLY" => Self::ReadOnly,
            "NOAUTH" => Self::NoAuth,
            "WRONGPASS" => Self::WrongPassword,
            "NOPERM" => Self::NoPermission,
            "OOM" => Self::OutOfMemory,
            "WRONGTYPE" => Self::WrongType,
            _ => Self::Other,
        }
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Loading => &labels::STORE_LOADING,
            Self::MasterDown => &labels::STORE_MASTER_DOWN,
            Self::ClusterDown => &labels::STORE_CLUSTER_DOWN,
            Self::ReadOnly => &labels::STORE_READ_ONLY,
            Self::NoAuth => &labels::STORE_NO_AUTH,
            Self::WrongPassword => &labels::STORE_WRONG_PASSWORD,
            Self::NoPermission => &labels::STORE_NO_PERMISSION,
            Self::OutOfMemory => &labels::STORE_OUT_OF_MEMORY,
            Self::WrongType => &labels::STORE_WRONG_TYPE,
            Self::Tls => &labels::STORE_TLS,
            Self::UnexpectedReply => &labels::STORE_UNEXPECTED_REPLY,
            Self::Other => &labels::STORE_REFUSED,
        }
    }
}

impl ErrorReply {
    pub(super) fn new(kind: ErrorReplyKind, text: &str) -> Self {
        Self {
            kind,
            text: without_arguments(text).into(),
        }
    }

    /// A reply of no special kind.
    pub(super) fn other(text: &str) -> Self {
        Self::new(ErrorReplyKind::Other, text)
    }

    /// An error reply of Redis: its first word, and the others.
    pub(super) fn of_redis(code: &str, details: Option<&str>) -> Self {
        let kind = ErrorReplyKind::of_code(code);
        match details {
            Some(details) => Self::new(kind, &format!("{code} {details}")),
            None => Self::new(kind, code),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorReplyKind {
        self.kind
    }
}

/// The text of an error without the arguments of the command. A server that does not know a command repeats them, and those of HELLO and
/// AUTH have the password.
pub(super) fn without_arguments(text: &str) -> &str {
    text.split(", with args beginning").next().unwrap_or_default()
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_a_server_repeats_is_left_out() {
        for details in [
            "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'canary' ",
            "unknown command `AUTH`, with args beginning with: `canary`, ",
        ] {
            let reply = ErrorReply::of_redis("ERR", Some(details));
            assert!(reply.to_string().starts_with("ERR unknown command"), "{reply}");
            assert!(!format!("{reply} {reply:?}").contains("canary"), "{reply}");
        }
    }
}

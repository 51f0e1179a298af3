//! [`StoreError`]: why a store could not answer.

use std::sync::Arc;

use authgate_core::label_value::LabelValue;

use super::error_reply::{ErrorReply, ErrorReplyKind};
use super::redis::BadSeal;
use crate::labels;
use crate::record::BadRecord;

/// A store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It has no connection.
    #[error("store {0} cannot be reached")]
    Unreachable(Arc<str>),
    /// Its file is missing or invalid; the reason is in the log.
    #[error("the file of store {0} is missing or cannot be used")]
    Unreadable(Arc<str>),
    /// It did not answer in time.
    #[error("store {0} did not answer in time")]
    Timeout(Arc<str>),
    /// Its connection ended before a whole reply, on each attempt.
    #[error("the connection to store {0} ended before its reply")]
    ReplyCut(Arc<str>),
    /// Its layout record forbids using it.
    #[error("store {0}: {1}")]
    Layout(Arc<str>, LayoutProblem),
    /// It answered with an error.
    #[error("store {0} refused: {1}")]
    Refused(Arc<str>, ErrorReply),
    /// It holds an invalid record.
    #[error("store {0}: {1}")]
    Record(Arc<str>, BadRecord),
    /// It holds a record that was not sealed with its key.
    #[error("store {0}: {1}")]
    Seal(Arc<str>, BadSeal),
}

/// Why a store must not be used, by its layout record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutProblem {
    /// There is no record.
    #[error("the layout record is missing: the store was flushed, evicted, never filled, or is another database")]
    Missing,
    /// An import into the empty store is not complete.
    #[error("an import is filling the store and is not complete")]
    Filling,
    /// The record differs from the accepted one, and was never seen missing.
    #[error("the layout record changed while the gateway was running: this is another database")]
    Changed,
    /// Another version of the layout.
    #[error("the layout record has version {0}, this program reads {known}", known = crate::record::Layout::VERSION)]
    Version(u32),
}

impl StoreError {
    /// The store, if this is an outage: it could not answer at all. A layout record or a record that must not be used, such as one with a bad seal, is no outage. Neither
    /// is a file that cannot be used: it says what is revoked, and has changed.
    pub(crate) fn unanswered(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unreachable(store) | Self::Timeout(store) | Self::ReplyCut(store) => Some(store),
            // A key with a value of another type is a bad record.
            Self::Refused(_, reply)
                if matches!(
                    reply.kind(),
                    ErrorReplyKind::WrongType | ErrorReplyKind::UnexpectedReply
                ) =>
            {
                None
            }
            Self::Refused(store, _) => Some(store),
            Self::Unreadable(_) | Self::Layout(..) | Self::Record(..) | Self::Seal(..) => None,
        }
    }

    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::Unreachable(_) | Self::Unreadable(_) => &labels::STORE_UNREACHABLE,
            Self::Timeout(_) => &labels::STORE_TIMEOUT,
            Self::Layout(..) => &labels::STORE_LAYOUT,
            Self::ReplyCut(_) => &labels::STORE_REPLY_CUT,
            Self::Refused(_, reply) => reply.kind().label_value(),
            Self::Record(..) => &labels::STORE_BAD_RECORD,
            Self::Seal(..) => &labels::STORE_BAD_SEAL,
        }
    }
}

//! [`Redirect`]: the server that a server of a cluster names in place of an answer.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::node::Node;
use super::slots;

/// How often a command follows a redirect to another server of a cluster.
pub const MAX_REDIRECTS: usize = 5;

/// Where a server of a cluster sends a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// The slot has another server now.
    Moved(Node),
    /// The slot is being moved, and this key is there already: for this command alone.
    Ask(Node),
}

impl Redirect {
    /// Reads an error reply of `asked`.
    pub(in crate::store::redis) fn of(kind: ServerErrorKind, details: Option<&str>, asked: &Node) -> Option<Self> {
        let node = || slots::redirect(details, asked.address());
        match kind {
            ServerErrorKind::Moved => node().map(Self::Moved),
            ServerErrorKind::Ask => node().map(Self::Ask),
            _ => None,
        }
    }

    /// Reads an error.
    pub fn of_error(problem: &RedisError, asked: &Node) -> Option<Self> {
        match problem.kind() {
            ErrorKind::Server(kind) => Self::of(kind, problem.detail(), asked),
            _ => None,
        }
    }

    /// The server that it names.
    pub fn node(&self) -> &Node {
        let (Self::Moved(node) | Self::Ask(node)) = self;
        node
    }
}

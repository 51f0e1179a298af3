//! Look-ups in a cluster: each key is asked of the server that has its slot.
//!
//! The commands of one look-up that go to the same server are one write; the servers are asked side by side. MOVED and ASK are followed
//! within the deadline. A server that fails makes only those look-ups fail that need it.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use tokio::time::Instant;

use super::links::Links;
use super::servers::{MAX_REDIRECTS, Node, Primaries, Redirect};
use super::{Answer, RedisStore};
use crate::store::StoreError;

/// A command that has no answer yet.
struct Pending {
    /// Its position among the commands.
    index: usize,
    key: String,
    command: Cmd,
    redirect: Option<Redirect>,
}

/// The commands for one server.
struct Batch {
    node: Node,
    /// The server takes them only after ASKING.
    is_asking: bool,
    commands: Vec<Pending>,
}

impl Batch {
    fn pipeline(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * self.commands.len());
        pipeline.ignore_errors();
        for pending in &self.commands {
            if self.is_asking {
                pipeline.add_command(cmd("ASKING")).ignore();
            }
            pipeline.add_command(pending.command.clone());
        }
        pipeline
    }
}

impl RedisStore {
    pub(super) async fn send_in_cluster(
        &self,
        links: &Links,
        commands: Vec<(String, Cmd)>,
        deadline: Instant,
    ) -> Result<Answer, StoreError> {
        let primaries = &self.shared.topology.primaries(&self.shared.name, deadline).await?;
        let mut answer = Answer {
            values: vec![Value::Nil; commands.len()],
            was_repeated: false,
        };
        let commands = commands.into_iter().enumerate();
        let mut pending: Vec<Pending> = commands
            .map(|(index, (key, command))| Pending {
                index,
                key,
                command,
                redirect: None,
            })
            .collect();
        for _ in 0..=MAX_REDIRECTS {
            let batches = self.batches(primaries, std::mem::take(&mut pending))?;
            let sent = batches.into_iter().map(|batch| async {
                let link = links.to(&batch.node, primaries);
                (self.query(&link, &batch.pipeline(), deadline).await, batch)
            });
            for (answered, batch) in join_all(sent).await {
                let answered = answered.inspect_err(|_| self.shared.topology.look_again())?;
                answer.was_repeated |= answered.was_repeated;
                for (mut command, value) in batch.commands.into_iter().zip(answered.values) {
                    let Value::ServerError(error) = value else {
                        answer.values[command.index] = value;
                        continue;
                    };
                    self.shared.topology.look_again();
                    let redirect = error
                        .kind()
                        .and_then(|kind| Redirect::of(kind, error.details(), &batch.node));
                    let Some(redirect) = redirect else {
                        return Err(self.shared.error(&RedisError::from(error)));
                    };
                    command.redirect = Some(redirect);
                    pending.push(command);
                }
            }
            if pending.is_empty() {
                return Ok(answer);
            }
        }
        Err(StoreError::Unreachable(Arc::clone(&self.shared.name)))
    }

    /// Puts the commands for the same server together.
    fn batches(&self, primaries: &Primaries, commands: Vec<Pending>) -> Result<Vec<Batch>, StoreError> {
        let mut batches: Vec<Batch> = Vec::with_capacity(commands.len());
        for pending in commands {
            let node = match &pending.redirect {
                Some(redirect) => Some(redirect.node()),
                None => primaries.of(pending.key.as_bytes()),
            };
            let Some(node) = node else {
                // No server has this slot.
                return Err(StoreError::Unreachable(Arc::clone(&self.shared.name)));
            };
            let is_asking = matches!(pending.redirect, Some(Redirect::Ask(_)));
            let same = |batch: &&mut Batch| batch.node == *node && batch.is_asking == is_asking;
            match batches.iter_mut().find(same) {
                Some(batch) => batch.commands.push(pending),
                None => batches.push(Batch {
                    node: node.clone(),
                    is_asking,
                    commands: vec![pending],
                }),
            }
        }
        Ok(batches)
    }
}

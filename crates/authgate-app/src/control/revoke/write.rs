//! Writes revocations to stores, as `authgate revoke` does. It blocks.

use std::sync::Arc;

use authgate_auth::record::TokenRecord;
use authgate_auth::store::{RevokedItem, SharedStore, TokenDigest};

use crate::provisioning::{ProvisioningError, Replication, Revocation, Revoked, WritableStore};

/// What is written to one store.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) store: Arc<SharedStore>,
    pub(super) write: Write,
}

#[derive(Debug, PartialEq)]
pub(super) enum Write {
    Revocation(Revocation),
    /// An opaque token.
    Token {
        /// The digests under which the store may have it.
        digests: Vec<TokenDigest>,
        /// The record of the source behind the store. It is written as a revoked one if the store has none. An error says why the source
        /// has not answered.
        of_source: Result<Option<(TokenDigest, TokenRecord)>, String>,
    },
}

/// Why an order was not carried out, as a sentence without keys and without its full stop.
#[derive(Debug)]
pub(super) struct NotWritten(pub(super) String);

impl From<ProvisioningError> for NotWritten {
    fn from(error: ProvisioningError) -> Self {
        Self(error.without_keys())
    }
}

/// What came of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Something is revoked. `false`: no store has the token.
    pub(super) is_known: bool,
    /// The weakest of all stores.
    pub(super) replication: Replication,
}

impl Written {
    pub(super) const NOTHING: Self = Self {
        is_known: false,
        replication: Replication::NoReplica,
    };
}

/// Carries out all orders, also after one has failed.
///
/// # Errors
/// A store has failed, or the source behind a store that does not have the token.
pub(super) fn all(orders: &[Order], now: i64) -> Result<Written, NotWritten> {
    let mut written = Written::NOTHING;
    let mut failed = None;
    for order in orders {
        match order.carry_out(now) {
            Ok(None) => {}
            Ok(Some(replication)) => {
                written.is_known = true;
                written.replication = weaker(written.replication, replication);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(written), Err)
}

impl Order {
    /// `None`: the store does not have the token.
    fn carry_out(&self, now: i64) -> Result<Option<Replication>, NotWritten> {
        let mut store = WritableStore::open(self.store.settings())?;
        // A store that was flushed gets no layout record here: gateways would use it.
        store.require_layout()?;
        match &self.write {
            Write::Revocation(revocation) => {
                store.revoke(revocation, now)?;
                self.store.revoked(match revocation {
                    Revocation::User { id, .. } => RevokedItem::User(id.as_str()),
                    Revocation::Jti { jti, .. } => RevokedItem::Jti(jti),
                    Revocation::Kid { .. } => RevokedItem::Kid,
                });
            }
            Write::Token { digests, of_source } => {
                // `WAIT` asks the server of the last command. In a cluster, each digest of a key may be on another server.
                let mut replication = None;
                // A key usually has a record under one of its digests; all of them are revoked.
                for digest in digests {
                    if self.revoke_token(&mut store, digest, now)? {
                        let of_record = store.wait_for_replica();
                        replication = Some(replication.map_or(of_record, |other| weaker(other, of_record)));
                    }
                }
                match (replication, of_source) {
                    (None, Ok(Some((digest, record)))) => {
                        let revoked = TokenRecord {
                            revoked: Some(now),
                            ..record.clone()
                        };
                        // The gateway may have written the record meanwhile, as one that is valid.
                        if !store.put_token(digest, &revoked)? {
                            self.revoke_token(&mut store, digest, now)?;
                        }
                        self.store.revoked(RevokedItem::Token(digest));
                        replication = Some(store.wait_for_replica());
                    }
                    (None, Err(problem)) => return Err(NotWritten(problem.clone())),
                    // The record of the store takes precedence over the source.
                    (Some(_), _) | (None, Ok(None)) => {}
                }
                return Ok(replication);
            }
        }
        Ok(Some(store.wait_for_replica()))
    }

    fn revoke_token(
        &self,
        store: &mut WritableStore,
        digest: &TokenDigest,
        now: i64,
    ) -> Result<bool, ProvisioningError> {
        match store.revoke_token(digest, now)? {
            Revoked::Unknown => Ok(false),
            Revoked::Before(_) | Revoked::Now => {
                self.store.revoked(RevokedItem::Token(digest));
                Ok(true)
            }
        }
    }
}

fn weaker(one: Replication, other: Replication) -> Replication {
    let strength = |replication| match replication {
        Replication::NotConfirmed => 0,
        Replication::Unknown => 1,
        Replication::Confirmed => 2,
        Replication::NoReplica => 3,
    };
    std::cmp::min_by_key(one, other, |replication| strength(*replication))
}

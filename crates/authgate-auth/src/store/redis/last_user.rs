//! Looks up a token whose user is known from the time before, with one request instead of two.
//!
//! The answer is used only if it has all records, and the token still belongs to that user. In all other cases the records are looked up
//! one after the other, so that one rule decides about missing records and records of another type.

use redis::{Pipeline, Value};

use super::RedisStore;
use crate::dependencies::StoreItem;
use crate::record::{self, TokenRecord};
use crate::store::{ErrorReplyKind, Lookup, StoreError, TokenDigest, TokenFacts};

impl RedisStore {
    /// `None`: look the records up one after the other.
    pub(super) async fn token_of_last_user(
        &self,
        digests: &[Option<TokenDigest>],
        lookup: &mut Lookup,
    ) -> Result<Option<TokenFacts>, StoreError> {
        // With several kinds of digests, most of the keys would be missing.
        let mut names = digests.iter().flatten();
        let (Some(user), Some(digest), None) = (lookup.last_user.take(), names.next(), names.next()) else {
            return Ok(None);
        };
        if self.is_mget_refused.get() || self.is_cluster() {
            return Ok(None);
        }
        let before = lookup.dependencies;
        self.shared
            .mark(&mut lookup.dependencies, StoreItem::User(user.as_str()));
        let keys = self.shared.settings.keys();
        let (token_key, user_key, layout_key) = (keys.token(digest), keys.user(user.as_str()), keys.layout());
        let revoked_key = keys.revoked_user(user.as_str());
        let mut pipeline = Pipeline::with_capacity(2);
        // `MGET` is cheaper than a GET for each key, but takes a record of another type for a missing one. A missing revocation is the usual
        // case, so that needs a GET.
        let records = pipeline.cmd("MGET").arg(&token_key);
        records.arg(&user_key).arg(&layout_key);
        pipeline.cmd("GET").arg(&revoked_key);
        let answered = match self.send_to_only(&self.links, &pipeline, lookup.deadline).await {
            Ok(answer) => answer.values,
            Err(StoreError::Refused(_, reply)) => {
                self.is_mget_refused.set(reply.kind() == ErrorReplyKind::NoPermission);
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let found = match answered.as_slice() {
            [Value::Array(records), revoked] => match (records.as_slice(), revoked) {
                (
                    [
                        Value::BulkString(token),
                        Value::BulkString(user),
                        Value::BulkString(layout),
                    ],
                    Value::Nil | Value::BulkString(_),
                ) => Some((token, user, layout, revoked)),
                _ => None,
            },
            _ => None,
        };
        if let Some((token, record, layout, revoked)) = found {
            let value = |key, stored| self.shared.value(key, stored);
            self.shared.check_layout(Some(value(&layout_key, layout)?))?;
            let token = self.parsed(record::parse::<TokenRecord>(
                format_args!("token {}", digest.to_hex()),
                value(&token_key, token)?,
            ))?;
            if token.user == user {
                return Ok(Some(TokenFacts {
                    user: Some(self.user(user.as_str(), value(&user_key, record)?)?),
                    user_revoked: match revoked {
                        Value::BulkString(seconds) => {
                            Some(self.parsed(record::parse_seconds(value(&revoked_key, seconds)?))?)
                        }
                        _ => None,
                    },
                    token,
                    digest: None,
                }));
            }
        }
        lookup.dependencies = before;
        Ok(None)
    }
}

//! [`DumpToken`]: a token of an import, before the whole input is known.

use authgate_auth::record::TokenRecord;
use authgate_auth::store::TokenDigest;
use authgate_core::identity::{Text, UserId};
use serde::{Deserialize, Serialize};

use crate::provisioning::{TokenMember, TokenUpdate};

/// A token whose user may come later in the dump.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DumpToken {
    pub(super) digest: String,
    pub(super) owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keeps: Vec<TokenMember>,
}

/// The user of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Owner {
    Id(String),
    Name(String),
}

impl Owner {
    pub(super) fn id(&self) -> Option<UserId> {
        match self {
            Self::Id(id) => UserId::new(id).ok(),
            Self::Name(_) => None,
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

impl DumpToken {
    pub(super) fn new(digest: &TokenDigest, owner: Owner) -> Self {
        Self {
            digest: digest.to_name(),
            owner,
            created: None,
            expires: None,
            scopes: Vec::new(),
            name: None,
            revoked: None,
            keeps: Vec::new(),
        }
    }

    /// The record to write for this user.
    pub(super) fn for_user(self, user: UserId) -> Option<(TokenDigest, TokenUpdate)> {
        let record = TokenRecord {
            user,
            created: self.created,
            expires: self.expires,
            scopes: self
                .scopes
                .iter()
                .map(|scope| Text::new(scope).ok())
                .collect::<Option<_>>()?,
            name: self.name,
            revoked: self.revoked,
        };
        let update = TokenUpdate {
            record,
            keeps: self.keeps,
        };
        Some((TokenDigest::from_name(&self.digest)?, update))
    }
}

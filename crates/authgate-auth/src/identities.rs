//! How authenticators make identities: the rules of the configuration, which all authenticators share.

use std::sync::Arc;

use authgate_core::identity::{Identity, InvalidIdentityValue, UserInfo};
use authgate_core::outbound::identity::IdentityTables;

/// What identities contain. The configuration determines it from its `[identity]` tables and the requirements of its routes.
#[derive(Debug, Default)]
pub struct IdentityRules {
    /// The tables for which identities have header values.
    pub tables: IdentityTables,
    /// The claims of a token that identities keep.
    pub claims: KeptClaims,
}

impl IdentityRules {
    /// Whether both make the same identities. The ids of their tables differ: see [`IdentityTables::counterpart`].
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.claims == other.claims && self.tables.is_equivalent(&other.tables)
    }
}

/// The claims that identities keep, because a route or an `[identity]` table needs them. Other claims are not read, so an invalid value
/// there refuses no token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptClaims {
    /// These claims, unchanged.
    pub claims: Vec<String>,
    /// `email`.
    pub email: bool,
    /// `groups`.
    pub groups: bool,
    /// `scope`, or `scp`.
    pub scopes: bool,
}

/// Makes the identities of one authenticator.
#[derive(Debug, Clone)]
pub(super) struct IdentityFactory {
    authenticator: Arc<str>,
    rules: Arc<IdentityRules>,
}

impl IdentityFactory {
    pub(super) fn new(authenticator: Arc<str>, rules: Arc<IdentityRules>) -> Self {
        Self { authenticator, rules }
    }

    pub(super) fn uses(&self, rules: &Arc<IdentityRules>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
    }

    /// The name of the authenticator, for [`UserInfo`].
    pub(super) fn authenticator(&self) -> Arc<str> {
        Arc::clone(&self.authenticator)
    }

    pub(super) fn kept_claims(&self) -> &KeptClaims {
        &self.rules.claims
    }

    /// Makes an identity, with its header values for each table.
    ///
    /// # Errors
    /// A value that a header cannot carry.
    pub(super) fn identity(&self, user_info: UserInfo) -> Result<Arc<Identity>, InvalidIdentityValue> {
        self.rules.tables.identity(user_info).map(Arc::new)
    }
}

/// Identities for tests.
#[cfg(test)]
pub(crate) mod fixtures {
    use authgate_core::identity::{TableSet, UserId};

    use super::*;

    /// A user of whom only the id is known.
    pub(crate) fn user_info(authenticator: &str, id: &str) -> UserInfo {
        UserInfo {
            authenticator: authenticator.into(),
            issuer: None,
            key: None,
            id: UserId::new(id).expect("an id"),
            username: None,
            email: None,
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
            attributes: serde_json::Map::new(),
        }
    }

    /// An identity without header values.
    pub(crate) fn identity(user_info: UserInfo) -> Arc<Identity> {
        Arc::new(Identity::new(user_info, TableSet::unique(), Box::default(), 0))
    }
}

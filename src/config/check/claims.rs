//! Which claims an identity keeps: only those that an identity header or a route uses.

use std::collections::BTreeSet;

use authgate_auth::KeptClaims;
use authgate_core::outbound::identity::{IdentityTable, IdentityTables, ValueSource};
use authgate_core::policy::{Policy, Requirements};

use crate::config::Route;

/// The claims that identities keep.
pub(super) fn kept_claims(tables: &IdentityTables, routes: &[Route]) -> KeptClaims {
    let required: Vec<&Requirements> = routes
        .iter()
        .filter_map(|route| match &route.policy {
            Policy::Authenticated { require, .. } => Some(require),
            Policy::Public => None,
        })
        .collect();
    let claims = required.iter().flat_map(|require| &require.claims);
    let names: BTreeSet<&str> = tables
        .iter()
        .flat_map(IdentityTable::claims)
        .chain(claims.map(|(path, _)| path.first()))
        .collect();
    let is_sent = |wanted: &ValueSource| tables.iter().any(|table: &IdentityTable| table.has_source(wanted));
    KeptClaims {
        claims: names.iter().map(ToString::to_string).collect(),
        email: is_sent(&ValueSource::Email),
        groups: is_sent(&ValueSource::Groups) || required.iter().any(|require| !require.groups.is_empty()),
        scopes: is_sent(&ValueSource::Scopes) || required.iter().any(|require| !require.scopes.is_empty()),
    }
}

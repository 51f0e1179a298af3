//! Which claims identities have to keep: those that an identity header or a route asks for, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Authenticator, Route};
use crate::outbound::identity::IdentityTable;
use crate::policy::Policy;

/// Tells every JWT authenticator what to keep.
pub(super) fn keep(authenticators: &mut BTreeMap<Arc<str>, Authenticator>, table: &IdentityTable, routes: &[Route]) {
    let required = routes.iter().flat_map(|route| match &route.policy {
        Policy::Authenticated { require, .. } => require.claims.as_slice(),
        Policy::Public => &[],
    });
    let names: BTreeSet<&str> = table.claims().chain(required.map(|(name, _)| name.as_str())).collect();
    for authenticator in authenticators.values_mut() {
        match authenticator {
            Authenticator::Jwt(jwt) => jwt.kept_claims = names.iter().map(ToString::to_string).collect(),
            Authenticator::Token(_) => {}
        }
    }
}

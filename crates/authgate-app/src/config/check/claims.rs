//! Which claims an identity keeps: only those that an identity header or a route uses.

use std::collections::BTreeSet;

use authgate_auth::KeptClaims;
use authgate_auth::identity_signer::IdentitySigner;
use authgate_core::outbound::identity::{IdentityTable, ValueSource};
use authgate_core::policy::{Policy, Requirements};

use super::identity::Identities;
use crate::config::Route;

/// The claims that identities keep.
pub(super) fn kept_claims(identities: &Identities, routes: &[Route]) -> KeptClaims {
    let required: Vec<&Requirements> = routes
        .iter()
        .filter_map(|route| match &route.rules.policy {
            Policy::Authenticated { require, .. } => Some(require),
            Policy::Public => None,
        })
        .collect();
    let claims = required.iter().flat_map(|require| &require.claims);
    let sent: Vec<&ValueSource> = sent(identities).collect();
    let sent_claims = sent.iter().filter_map(|source| match source {
        ValueSource::Claim(path) => Some(path.first()),
        _ => None,
    });
    let names: BTreeSet<&str> = sent_claims.chain(claims.map(|(path, _)| path.first())).collect();
    let is_sent = |wanted: &ValueSource| sent.contains(&wanted);
    KeptClaims {
        claims: names.iter().map(ToString::to_string).collect(),
        email: is_sent(&ValueSource::Email),
        groups: is_sent(&ValueSource::Groups) || required.iter().any(|require| !require.groups.is_empty()),
        scopes: is_sent(&ValueSource::Scopes) || required.iter().any(|require| !require.scopes.is_empty()),
    }
}

/// What upstreams are sent: in headers, and in signed identities.
fn sent(identities: &Identities) -> impl Iterator<Item = &ValueSource> {
    let headers = identities.tables.iter().flat_map(IdentityTable::headers);
    let headers = headers.map(|(_, source)| source);
    headers.chain(identities.signers().flat_map(IdentitySigner::facts))
}

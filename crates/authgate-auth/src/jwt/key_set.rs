//! [`KeySet`]: keys, and how a token selects one.

use std::sync::Arc;

use authgate_core::identity::KeyIdentity;

use super::keys::VerificationKey;
use super::keys::remote::RemoteKeys;

/// Keys, and how a token selects one.
#[derive(Debug, PartialEq, Eq)]
pub enum KeySet {
    /// Keys from key files: if both sides have a `kid`, it must match; otherwise every key of the token's algorithm is tried.
    Static(Vec<VerificationKey>),
    /// Keys of a JWK Set: `kid` selects the key and is required.
    Jwks(Vec<VerificationKey>),
    /// Keys that an identity provider publishes: `kid` selects the key and is required.
    Remote(Arc<RemoteKeys>),
}

/// How a token selects a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeySelection {
    /// If both sides have a `kid`, it must match; otherwise every key of the token's algorithm is tried.
    ByKidIfBoth,
    /// `kid` is required.
    ByKid,
}

impl KeySet {
    /// The keys of the configuration. It has none of those that are published.
    pub fn keys(&self) -> &[VerificationKey] {
        match self {
            Self::Static(keys) | Self::Jwks(keys) => keys,
            Self::Remote(_) => &[],
        }
    }

    /// How a token selects one.
    pub(super) fn selection(&self) -> KeySelection {
        match self {
            Self::Static(_) => KeySelection::ByKidIfBoth,
            Self::Jwks(_) | Self::Remote(_) => KeySelection::ByKid,
        }
    }

    /// How published keys are fetched.
    pub fn remote(&self) -> Option<&Arc<RemoteKeys>> {
        match self {
            Self::Remote(remote) => Some(remote),
            Self::Static(_) | Self::Jwks(_) => None,
        }
    }

    /// Whether this key is still accepted. It was one of `previous`.
    pub(super) fn still_has(&self, key: Option<&KeyIdentity>, previous: &Self) -> bool {
        match (self, previous) {
            (Self::Remote(own), Self::Remote(previous)) => {
                let is_listed = |name| own.algorithms.iter().any(|algorithm| algorithm.name() == name);
                own.location == previous.location && key.is_some_and(|key| is_listed(key.algorithm))
            }
            // What is published there is not known here.
            (Self::Remote(_), _) => false,
            (Self::Static(_) | Self::Jwks(_), _) => self.keys().iter().any(|own| Some(&**own.identity()) == key),
        }
    }
}

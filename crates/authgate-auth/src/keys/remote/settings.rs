//! How keys are fetched.

use std::time::Duration;

use crate::fetch::{FetchTls, FetchUrl};
use crate::keys::Algorithm;

/// How keys are fetched.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteKeys {
    /// Where they are.
    pub location: KeyLocation,
    /// What they may be used with. None is HMAC.
    pub algorithms: Vec<Algorithm>,
    /// The longest time between two fetches.
    pub refresh: Duration,
    /// The shortest time between the beginnings of two fetches.
    pub cooldown: Duration,
    /// How long keys are used after the fetch that has shown them last.
    pub max_stale: Duration,
    /// The deadline for one fetch, with all its documents.
    pub timeout: Duration,
    /// TLS to the provider.
    pub tls: FetchTls,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// At this URL.
    Url(FetchUrl),
    /// Where the metadata of this issuer says.
    Issuer(FetchUrl),
}

impl KeyLocation {
    /// The URL in the configuration.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Url(url) | Self::Issuer(url) => url.as_str(),
        }
    }
}

//! [`Documents`]: the documents of an identity provider in which keys are.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::error::FetchProblem;
use super::settings::{KeyLocation, RemoteKeys};
use super::state::KnownKeys;
use crate::fetch::discovery::Metadata;
use crate::fetch::{Document, FetchUrl, HttpClient, Proxies};
use crate::keys::JwkSet;

/// Keys, and how long the response says that it is fresh.
pub(super) type Fetched = Result<(KnownKeys, Option<Duration>), FetchProblem>;

/// Where a source of keys gets them.
pub(super) trait Documents: Send + Sync {
    /// Makes requests on the current runtime from now on.
    fn start(&self);

    /// Fetches the keys once, until the deadline.
    fn fetch(self: Arc<Self>, deadline: Instant) -> BoxFuture<'static, Fetched>;
}

/// The servers of an identity provider.
pub(super) struct Provider {
    settings: Arc<RemoteKeys>,
    client: Arc<HttpClient>,
}

impl Provider {
    pub(super) fn new(settings: &Arc<RemoteKeys>) -> Self {
        Self {
            // Fetches are rare: no connection is kept.
            client: HttpClient::new(&settings.tls, 0, Proxies::of_environment()),
            settings: Arc::clone(settings),
        }
    }

    async fn set(&self, deadline: Instant) -> Fetched {
        let url = match &self.settings.location {
            KeyLocation::Url(url) => url.clone(),
            KeyLocation::Issuer(issuer) => self.discover(issuer, deadline).await?,
        };
        let document = self.get(&url, deadline).await?;
        let problem = |problem| FetchProblem::Set {
            url: url.as_str().into(),
            problem,
        };
        let set = JwkSet::parse_published(&document.body, &self.settings.algorithms);
        let set = set.map_err(|error| problem(error.to_string()))?;
        if set.keys.is_empty() {
            return Err(problem(set.explain_empty()));
        }
        let left_out = set.skipped();
        let keys = set.keys;
        Ok((KnownKeys { keys, left_out }, document.max_age))
    }

    /// Finds the URL of the keys.
    async fn discover(&self, issuer: &FetchUrl, deadline: Instant) -> Result<FetchUrl, FetchProblem> {
        let metadata = Metadata::fetch(&self.client, issuer, deadline).await;
        let metadata = metadata.map_err(FetchProblem::Discovery)?;
        let url = metadata.jwks_uri;
        url.ok_or_else(|| FetchProblem::NoSet(issuer.as_str().into()))
    }

    async fn get(&self, url: &FetchUrl, deadline: Instant) -> Result<Document, FetchProblem> {
        let fetched = self.client.get(url, deadline).await;
        fetched.map_err(|error| FetchProblem::Fetch {
            url: url.as_str().into(),
            error,
        })
    }
}

impl Documents for Provider {
    fn start(&self) {
        self.client.start();
    }

    fn fetch(self: Arc<Self>, deadline: Instant) -> BoxFuture<'static, Fetched> {
        Box::pin(async move { self.set(deadline).await })
    }
}
